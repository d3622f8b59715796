//! The power fails at every single change that a run makes to the file system, and again while
//! the log recovers from that. What was acknowledged is there; nothing else is but what was
//! appended; nothing is called corrupt.

use std::{path::Path, sync::Arc};

use event_log::EmbeddedLog;
use futures::future::join_all;
use model::{EventLog, LogError, Offset, Timestamp};

use crate::{
    sim::{Random, Sim},
    support::{check_all, create, create_t, default_config, fill, open_on, partition, records},
    volume::{Volume, say_figures},
};

const DIR: &str = "/data/log";

/// What was acknowledged before the power went.
#[derive(Clone, Debug, Default)]
struct Acknowledged {
    topics: Vec<&'static str>,
    ends: [u64; 2],
    starts: [u64; 2],
}

/// Two openings with everything in between that writes: topics, appends by group and over
/// segment borders, trims, retention, an orderly close.
async fn run(sim: &Arc<Sim>) -> (Acknowledged, Result<(), LogError>) {
    let mut acknowledged = Acknowledged::default();
    let outcome = run_into(sim, &mut acknowledged).await;
    (acknowledged, outcome)
}

async fn run_into(sim: &Arc<Sim>, acknowledged: &mut Acknowledged) -> Result<(), LogError> {
    let open = || open_on(Arc::clone(sim) as _, Path::new(DIR)).map_err(|e| LogError::unavailable(e.to_string()));
    let log = open()?;
    create(&log, "t", 2).await?;
    acknowledged.topics.push("t");
    append_some(&log, acknowledged, 6).await?;
    create(&log, "u", 1).await?;
    acknowledged.topics.push("u");
    log.trim(&partition("t-0"), Offset(acknowledged.ends[0] / 2)).await?;
    acknowledged.starts[0] = acknowledged.ends[0] / 2;
    append_some(&log, acknowledged, 4).await?;
    log.close().await?;

    let log = open()?;
    append_some(&log, acknowledged, 3).await?;
    let floors = [(partition("t-1"), Offset(acknowledged.ends[1]))].into();
    log.retain(&floors, Timestamp(0)).await?;
    append_some(&log, acknowledged, 2).await
}

/// Groups of three appends each, to both partitions.
async fn append_some(log: &EmbeddedLog, acknowledged: &mut Acknowledged, n_groups: u64) -> Result<(), LogError> {
    for group in 0..n_groups {
        for (p, t) in [(0, partition("t-0")), (1, partition("t-1"))] {
            let end = acknowledged.ends[p];
            let n = 5 + 13 * group;
            let ranges = [end..end + n, end + n..end + n + 1, end + n + 1..end + 2 * n];
            // Polled in this order, so that they stand in this order.
            let appends = ranges.into_iter().map(|r| log.append(&t, records(r)));
            for range in join_all(appends).await {
                acknowledged.ends[p] = range?.end.0;
            }
        }
    }
    Ok(())
}

async fn check(sim: &Arc<Sim>, acknowledged: &Acknowledged, what: &str) {
    let log = open_on(Arc::clone(sim) as _, Path::new(DIR)).unwrap_or_else(|e| panic!("{what}: {e}"));
    let description = log.describe().await.unwrap();
    for topic in &acknowledged.topics {
        assert!(description.topics.contains_key(*topic), "{what}: topic {topic} is lost");
    }
    for id in description.partitions() {
        let bounds = check_all(&log, &id).await;
        if id.topic.as_str() == "t" {
            let p = id.partition as usize;
            assert!(bounds.end.0 >= acknowledged.ends[p], "{what}: {id} ends at {}: {acknowledged:?}", bounds.end);
            assert!(bounds.start.0 >= acknowledged.starts[p], "{what}: a trim of {id} is undone");
            assert!(bounds.start <= bounds.end);
        }
        let range = log.append(&id, records(bounds.end.0..bounds.end.0 + 40)).await.unwrap();
        assert_eq!(range.start, bounds.end);
        check_all(&log, &id).await;
    }
}

#[tokio::test]
async fn a_power_cut_at_any_moment_loses_nothing_acknowledged() {
    let sim = Sim::new();
    let (acknowledged, outcome) = run(&sim).await;
    outcome.unwrap();
    let n_changes = sim.n_changes();
    let volume = Volume::asked_or(1);
    let (mut n_cuts, mut n_again) = (0, 0);
    assert!(acknowledged.ends[0] > 500 && n_changes > 200, "{n_changes} changes, {acknowledged:?}");
    // How appends fall into groups differs from run to run, and with it the number of changes.
    for at in 1.. {
        let sim = Sim::new();
        sim.power_fails_at(at);
        let (acknowledged, _) = run(&sim).await;
        if sim.n_changes() < at {
            break;
        }
        let what = format!("power cut at change {at} of about {n_changes}");
        check(&sim.after_power_cut(at), &acknowledged, &what).await;

        // The process dies, the next one shows what it found and goes on; then the power goes.
        let killed = sim.after_kill();
        if let Ok(log) = open_on(Arc::clone(&killed) as _, Path::new(DIR)) {
            let mut shown = acknowledged.clone();
            for id in log.describe().await.unwrap().partitions().filter(|id| id.topic.as_str() == "t") {
                let end = check_all(&log, &id).await.end.0;
                let n = at % 3;
                shown.ends[id.partition as usize] = log.append(&id, records(end..end + n)).await.unwrap().end.0;
            }
            check(&killed.after_power_cut(at), &shown, &format!("{what}, shown after a kill")).await;
        }

        // Once more, at a moment of the recovery or shortly after it; in the long form at each.
        for n in 1..=volume.count {
            let again = sim.after_power_cut(at + n_changes);
            let second = if volume.count == 1 { 1 + Random(at ^ volume.seed).below(20) } else { n };
            again.power_fails_at(second);
            if let Ok(log) = open_on(Arc::clone(&again) as _, Path::new(DIR)) {
                let _ = log.trim(&partition("t-0"), Offset(acknowledged.starts[0])).await;
            }
            if again.n_changes() < second {
                break;
            }
            n_again += 1;
            check(&again.after_power_cut(at), &acknowledged, &format!("{what}, and again at {second}")).await;
        }
        n_cuts += 1;
    }
    say_figures(&format!(
        "the power cut at each of {n_cuts} changes to the file system, and {n_again} times once more in the recovery; \
         what was acknowledged was there; seed {}",
        volume.seed
    ));
}

/// Of a group that was never synced any part may be missing after a power cut: that is a torn
/// tail and no corruption, also where whole batches stand behind the gap.
#[tokio::test]
async fn a_group_cut_short_in_the_middle_is_not_called_corrupt() {
    const BATCHES: usize = 5;
    let sim = Sim::new();
    let open = |sim: &Arc<Sim>| EmbeddedLog::open_on(Arc::clone(sim) as _, Path::new(DIR), &default_config(), 1 << 20);
    let log = open(&sim).unwrap();
    let t = create_t(&log).await;
    fill(&log, &t, 10, 50).await;
    // One append of several batches is one group.
    let n = (BATCHES * (64 << 10) / records(50..1050).iter().map(|r| r.size_bytes()).sum::<usize>() * 1000) as u64;
    // It is enlarged, written, and the power fails before it is synced.
    sim.power_fails_at(sim.n_changes() + 3);
    log.append(&t, records(50..50 + n)).await.expect_err("the power is off");
    let mut ends = std::collections::BTreeSet::new();
    for seed in 0..100 {
        let log = open(&sim.after_power_cut(seed)).unwrap();
        ends.insert(check_all(&log, &t).await.end.0);
    }
    assert!(ends.len() > 3 && ends.first() == Some(&50) && ends.last() == Some(&(50 + n)), "{ends:?}");
}

/// No segment was begun since the mark's file was made, whose name would be synced with that one's.
#[tokio::test]
async fn a_trim_in_the_first_segment_survives_a_power_cut() {
    let sim = Sim::new();
    let log = open_on(Arc::clone(&sim) as _, Path::new(DIR)).unwrap();
    let t = create_t(&log).await;
    fill(&log, &t, 10, 30).await;
    log.trim(&t, Offset(15)).await.unwrap();
    for seed in 0..20 {
        let log = open_on(sim.after_power_cut(seed), Path::new(DIR)).unwrap();
        let bounds = check_all(&log, &t).await;
        assert_eq!((bounds.start, bounds.end), (Offset(15), Offset(30)), "seed {seed}");
    }
}

/// On a disk that is nearly full nothing is allocated ahead, so that no cut tells recovery that
/// something was under way: what it finds whole may still be in memory only.
#[tokio::test]
async fn a_tail_that_fills_its_file_is_synced_before_it_is_shown() {
    let sim = Sim::new();
    let log = open_on(Arc::clone(&sim) as _, Path::new(DIR)).unwrap();
    let t = create_t(&log).await;
    sim.set_capacity(Some(sim.used_bytes() + 12_000));
    fill(&log, &t, 10, 20).await;
    // The file is enlarged, written, and the process dies before it is synced.
    sim.power_fails_at(sim.n_changes() + 3);
    log.append(&t, records(20..30)).await.expect_err("it was never synced");
    let sim = sim.after_kill();
    let log = open_on(Arc::clone(&sim) as _, Path::new(DIR)).unwrap();
    assert_eq!(check_all(&log, &t).await.end, Offset(30), "it came through whole");
    for seed in 0..20 {
        let log = open_on(sim.after_power_cut(seed), Path::new(DIR)).unwrap();
        assert_eq!(check_all(&log, &t).await.end, Offset(30), "what was shown stays; seed {seed}");
    }
}
