//! Topics that come, grow and go while the power fails, calls fail and readers read: whole or not
//! at all, nothing of a deleted one comes back, and no offset is given twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::ErrorKind,
    path::Path,
    sync::Arc,
};

use event_log::{EmbeddedLog, fs::FileSystem};
use model::{Bounds, EventLog, LogError, Offset, Timestamp, TopicChange, TopicName, TopicPartition, config::LogConfig};

use crate::{
    sim::{Call, Random, Sim},
    support::{MAX_RECORD_BYTES, check_all, create, create_t, fill, open, open_on, partition, range, records, small},
    volume::{Volume, say_figures},
};

const DIR: &str = "/data/log";

fn topic(name: &str) -> TopicName {
    name.parse().unwrap()
}

async fn change(log: &dyn EventLog, name: &str, change: TopicChange) -> Result<(), LogError> {
    log.change_topic(&topic(name), change).await
}

async fn grow(log: &dyn EventLog, name: &str, n_partitions: u32) -> Result<(), LogError> {
    change(log, name, TopicChange::Grow { n_partitions }).await
}

async fn delete(log: &dyn EventLog, name: &str) -> Result<(), LogError> {
    change(log, name, TopicChange::Delete).await
}

fn at(offset: u64) -> Bounds {
    Bounds { start: Offset(offset), end: Offset(offset) }
}

/// What was acknowledged, and what was under way in the end.
#[derive(Clone, Debug, Default)]
struct Known {
    topics: BTreeMap<TopicName, u32>,
    doubt: Option<(TopicName, TopicChange)>,
    /// Of each partition that ever was: where its present life begins, and where its offsets end.
    lives: BTreeMap<TopicPartition, (u64, u64)>,
}

impl Known {
    async fn change(&mut self, log: &dyn EventLog, name: &str, change: TopicChange) -> Result<(), LogError> {
        self.doubt = Some((topic(name), change));
        log.change_topic(&topic(name), change).await?;
        self.settle();
        Ok(())
    }

    /// What was in doubt has happened.
    fn settle(&mut self) {
        let Some((topic, change)) = self.doubt.take() else { return };
        match change {
            TopicChange::Delete | TopicChange::DeleteUnlessGrown { .. } => {
                self.topics.remove(&topic);
                for (_, life) in self.lives.iter_mut().filter(|(id, _)| id.topic == topic) {
                    life.0 = life.1;
                }
            }
            TopicChange::Create { n_partitions } | TopicChange::Grow { n_partitions } => {
                self.topics.insert(topic, n_partitions);
            }
        }
    }

    async fn append(&mut self, log: &dyn EventLog, id: &str, n_records: u64) -> Result<(), LogError> {
        let life = self.lives.entry(partition(id)).or_default();
        let appended = log.append(&partition(id), records(life.1..life.1 + n_records)).await?;
        assert_eq!(appended, range(&partition(id), life.1, life.1 + n_records));
        life.1 += n_records;
        Ok(())
    }
}

/// Everything that may become of a topic, with records in between.
async fn run(sim: &Arc<Sim>, known: &mut Known) -> Result<(), LogError> {
    let open = || open_on(Arc::clone(sim) as _, Path::new(DIR)).map_err(|e| LogError::unavailable(e.to_string()));
    let create = |n_partitions| TopicChange::Create { n_partitions };
    let grow = |n_partitions| TopicChange::Grow { n_partitions };
    let log = open()?;
    known.change(&log, "t", create(2)).await?;
    for _ in 0..3 {
        known.append(&log, "t-0", 100).await?;
    }
    known.append(&log, "t-1", 30).await?;
    known.change(&log, "u", create(1)).await?;
    known.append(&log, "u-0", 10).await?;
    known.change(&log, "t", grow(4)).await?;
    known.append(&log, "t-3", 20).await?;
    known.append(&log, "t-0", 90).await?;
    known.change(&log, "t", TopicChange::Delete).await?;
    known.change(&log, "t", create(1)).await?;
    known.append(&log, "t-0", 40).await?;
    known.change(&log, "t", grow(3)).await?;
    known.append(&log, "t-1", 5).await?;
    known.change(&log, "u", TopicChange::Delete).await?;
    log.close().await?;

    let log = open()?;
    known.change(&log, "t", TopicChange::Delete).await?;
    known.change(&log, "u", create(2)).await?;
    known.change(&log, "t", create(4)).await?;
    known.append(&log, "t-3", 5).await?;
    known.append(&log, "u-0", 5).await
}

async fn check(sim: &Arc<Sim>, known: &Known, what: &str) {
    let mut known = known.clone();
    let log = open_on(Arc::clone(sim) as _, Path::new(DIR)).unwrap_or_else(|e| panic!("{what}: {e}"));
    let found = log.describe().await.unwrap();
    if found.topics != known.topics {
        known.settle();
    }
    assert_eq!(found.topics, known.topics, "{what}: a change is there as a whole or not at all");
    let folders = sim.list(Path::new(DIR)).unwrap().into_iter().filter_map(|entry| entry.name.parse().ok());
    let folders: BTreeSet<TopicPartition> = folders.collect();
    assert_eq!(folders, found.partitions().collect(), "{what}: what is left over is removed");
    for id in found.partitions() {
        let bounds = check_all(&log, &id).await;
        let (begin, end) = known.lives.get(&id).copied().unwrap_or_default();
        assert_eq!(bounds.start.0, begin, "{what}: {id} holds what was acknowledged, and nothing of earlier lives");
        assert!(bounds.end.0 >= end, "{what}: {id} ends at {}: {known:?}", bounds.end);
        let life = known.lives.entry(id).or_default();
        life.1 = life.1.max(bounds.end.0);
    }
    // All of them once more: their offsets go on.
    for name in ["t", "u"] {
        if known.topics.contains_key(name) {
            known.change(&log, name, TopicChange::Delete).await.unwrap();
        }
        known.change(&log, name, TopicChange::Create { n_partitions: 3 }).await.unwrap();
        known.change(&log, name, TopicChange::Grow { n_partitions: 5 }).await.unwrap();
        for id in (0..5).map(|p| TopicPartition::new(topic(name), p)) {
            let end = known.lives.get(&id).map_or(0, |life| life.1);
            assert_eq!(log.bounds(&id).await.unwrap(), at(end), "{what}: {id} goes on where it ended");
            known.append(&log, &id.to_string(), 7).await.unwrap();
            check_all(&log, &id).await;
        }
    }
}

#[tokio::test]
async fn a_power_cut_at_any_moment_leaves_topics_whole_or_gone() {
    let sim = Sim::new();
    run(&sim, &mut Known::default()).await.unwrap();
    let n_changes = sim.n_changes();
    let volume = Volume::asked_or(1);
    let (mut n_cuts, mut n_again) = (0, 0);
    for power_fails_at in 1..=n_changes {
        let sim = Sim::new();
        sim.power_fails_at(power_fails_at);
        let mut known = Known::default();
        if run(&sim, &mut known).await.is_ok() {
            break;
        }
        n_cuts += 1;
        let what = format!("power cut at change {power_fails_at} of about {n_changes}");
        check(&sim.after_kill(), &known, &format!("{what}, as a kill")).await;
        for seed in 0..volume.count {
            let seed = volume.seed ^ power_fails_at ^ seed << 32;
            check(&sim.after_power_cut(seed), &known, &what).await;
            // And again while the log opens.
            let again = sim.after_power_cut(seed);
            again.power_fails_at(1 + Random(seed).below(12));
            if open_on(Arc::clone(&again) as _, Path::new(DIR)).is_err() {
                n_again += 1;
            }
            check(&again.after_power_cut(seed), &known, &format!("{what}, and again at the start")).await;
        }
    }
    assert!(n_cuts > 150, "{n_cuts} cuts");
    say_figures(&format!(
        "the power cut at each of {n_cuts} changes while topics came and went, and {n_again} times once more at the \
         start; each was whole or gone; seed {}",
        volume.seed
    ));
}

/// One call fails at each moment of each change: the topic is as before or as asked, what is
/// acknowledged afterwards stays, and a second try succeeds.
#[tokio::test]
async fn a_change_that_meets_a_fault_is_done_or_not_done() {
    let create = |n_partitions| TopicChange::Create { n_partitions };
    let changes = [
        ("new", create(3)),
        ("t", TopicChange::Grow { n_partitions: 3 }),
        ("t", TopicChange::Delete),
        ("old", create(2)),
    ];
    for (name, asked) in changes {
        for call in [Call::Write, Call::SyncData, Call::SyncDir, Call::Other] {
            for nth in 1.. {
                let what = format!("{asked:?} of {name}, {call:?} {nth}");
                let sim = Sim::new();
                let log = open_on(Arc::clone(&sim) as _, Path::new(DIR)).unwrap();
                let mut known = Known::default();
                known.change(&log, "t", create(2)).await.unwrap();
                known.append(&log, "t-0", 100).await.unwrap();
                known.append(&log, "t-0", 100).await.unwrap();
                known.change(&log, "old", create(1)).await.unwrap();
                known.append(&log, "old-0", 30).await.unwrap();
                known.change(&log, "old", TopicChange::Delete).await.unwrap();

                sim.fail(call, nth, ErrorKind::Other);
                let changed = known.change(&log, name, asked).await;
                let is_met = !sim.fault_is_pending();
                sim.fail(call, u64::MAX, ErrorKind::Other);
                if let Err(e) = &changed {
                    assert!(matches!(e, LogError::Unavailable { .. }), "{what}: {e}");
                    assert!(
                        asked != TopicChange::Delete
                            || matches!(e, LogError::Unavailable { outcome_unknown: false, .. }),
                        "{what}: what cannot be deleted stays: {e}"
                    );
                }
                assert_eq!(log.describe().await.unwrap().topics, known.topics, "{what}: as before, or as asked");
                if !known.topics.contains_key("t") {
                    // Its folders may not be gone yet.
                    known.change(&log, "t", create(2)).await.unwrap();
                }
                known.append(&log, "t-0", 20).await.unwrap();
                for seed in 0..3 {
                    check(&sim.after_power_cut(seed), &known, &what).await;
                }
                if changed.is_err() {
                    known.change(&log, name, asked).await.unwrap();
                }
                check(&sim.after_kill(), &known, &format!("{what}, after a second try")).await;
                if !is_met {
                    break;
                }
            }
        }
    }
}

/// When not even what was before can be written again, nobody may count on either.
#[tokio::test]
async fn while_a_deletion_is_in_doubt_nothing_is_appended() {
    let sim = Sim::new();
    let log = open_on(Arc::clone(&sim) as _, Path::new(DIR)).unwrap();
    let t = create_t(&log).await;
    fill(&log, &t, 10, 30).await;
    // meta.json beside the old one takes four changes; the fifth is its rename, and then its sync.
    sim.power_fails_at(sim.n_changes() + 6);
    let deleted = delete(&log, "t").await;
    assert!(matches!(deleted, Err(LogError::Unavailable { outcome_unknown: true, .. })), "{deleted:?}");
    let refused = log.append(&t, records(30..31)).await;
    assert!(
        matches!(&refused, Err(e @ LogError::Unavailable { .. }) if e.to_string().contains("deletion")),
        "{refused:?}"
    );
    assert!(matches!(delete(&log, "t").await, Err(LogError::Unavailable { .. })), "and it can be tried again");

    // The rename was made, and may or may not be on stable storage.
    let mut found = BTreeSet::new();
    for seed in 0..20 {
        let log = open_on(sim.after_power_cut(seed), Path::new(DIR)).unwrap();
        let is_there = log.describe().await.unwrap().topics.contains_key("t");
        found.insert(is_there);
        if !is_there {
            create_t(&log).await;
        }
        assert_eq!(check_all(&log, &t).await, Bounds { start: Offset(if is_there { 0 } else { 30 }), end: Offset(30) });
    }
    assert_eq!(found.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_in_flight_at_the_deletion_is_stored_before_it_or_refused() {
    let sim = Sim::new();
    let log = Arc::new(open_on(Arc::clone(&sim) as _, Path::new(DIR)).unwrap());
    let t = create_t(&*log).await;
    fill(&*log, &t, 10, 50).await;
    let held = sim.hold_syncs();
    let append = |numbers| {
        let (log, t) = (Arc::clone(&log), t.clone());
        tokio::spawn(async move { log.append(&t, records(numbers)).await })
    };
    let slow = append(50..60);
    tokio::task::block_in_place(|| held.wait_for_one());
    let deletion = {
        let log = Arc::clone(&log);
        tokio::spawn(async move { delete(&*log, "t").await })
    };
    let late: Vec<_> = (0..20).map(|_| append(60..61)).collect();
    tokio::task::yield_now().await;
    assert!(!deletion.is_finished(), "a deletion waits for what is being written");
    assert_eq!(check_all(&*log, &t).await.end, Offset(50), "and readers read until then");
    drop(held);
    assert_eq!(slow.await.unwrap().unwrap(), range(&t, 50, 60));
    deletion.await.unwrap().unwrap();
    let mut end = 60;
    for append in late {
        match append.await.unwrap() {
            Ok(_) => end += 1,
            Err(LogError::UnknownTopic(_)) => {}
            Err(e) => panic!("{e}"),
        }
    }
    create_t(&*log).await;
    assert_eq!(log.bounds(&t).await.unwrap(), at(end), "what was acknowledged before has used its offsets");
}

/// Names of files below `dir` that this process has open.
fn open_files(dir: &Path) -> Vec<String> {
    let links = fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    links.map(|path| path.display().to_string()).filter(|path| path.starts_with(dir.to_str().unwrap())).collect()
}

#[tokio::test]
async fn a_deleted_topic_leaves_no_file_and_none_open() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let t = create_t(&log).await;
    create(&log, "kept", 1).await.unwrap();
    fill(&log, &t, 20, 500).await;
    fill(&log, &partition("kept-0"), 20, 20).await;
    check_all(&log, &t).await;
    let of_t = |path: &String| path.contains("/t-0");
    assert!(open_files(dir.path()).iter().any(of_t));
    delete(&log, "t").await.unwrap();
    assert_eq!(open_files(dir.path()).into_iter().filter(of_t).collect::<Vec<_>>(), [""; 0]);
    assert!(!dir.path().join("t-0").exists());
    assert_eq!(check_all(&log, &partition("kept-0")).await.end, Offset(20));
}

#[tokio::test]
async fn what_was_deleted_is_remembered_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    for (life, close) in [true, false, true, false].into_iter().enumerate() {
        let log = open(dir.path());
        let end = life as u64 * 30;
        create(&log, "t", 2).await.unwrap();
        assert_eq!(log.bounds(&partition("t-0")).await.unwrap(), at(end));
        drop(log);
        // Nothing was appended in this life yet: only meta.json knows where it begins.
        let log = open(dir.path());
        assert_eq!(log.bounds(&partition("t-0")).await.unwrap(), at(end));
        fill(&log, &partition("t-0"), 10, end + 30).await;
        assert_eq!(check_all(&log, &partition("t-0")).await, Bounds { start: Offset(end), end: Offset(end + 30) });
        delete(&log, "t").await.unwrap();
        if close {
            log.close().await.unwrap();
        }
    }
    let log = open(dir.path());
    create(&log, "t", 1).await.unwrap();
    fill(&log, &partition("t-0"), 10, 130).await;
    log.close().await.unwrap();
    // Without its mark it is read whole, and begins where this life began.
    fs::remove_file(dir.path().join("t-0/mark")).unwrap();
    let bounds = Bounds { start: Offset(120), end: Offset(130) };
    assert_eq!(check_all(&open(dir.path()), &partition("t-0")).await, bounds);
}

/// A `meta.json` out of a backup does not know of what was made since.
#[tokio::test]
async fn only_what_is_known_to_be_deleted_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let log = open(dir.path());
    create_t(&log).await;
    fill(&log, &partition("t-0"), 10, 30).await;
    fs::create_dir(path("copy")).unwrap();
    for file in fs::read_dir(path("t-0")).unwrap().map(Result::unwrap) {
        fs::copy(file.path(), path("copy").join(file.file_name())).unwrap();
    }
    delete(&log, "t").await.unwrap();
    let backup = fs::read(path("meta.json")).unwrap();
    create(&log, "since", 1).await.unwrap();
    create_t(&log).await;
    for id in ["t-0", "since-0"] {
        fill(&log, &partition(id), 10, 50).await;
    }
    drop(log);

    fs::write(path("meta.json"), &backup).unwrap();
    let log = open(dir.path());
    assert!(log.describe().await.unwrap().topics.is_empty());
    for (name, id) in [("t", "t-0"), ("since", "since-0")] {
        let refused = create(&log, name, 1).await;
        assert!(matches!(&refused, Err(e) if e.to_string().contains("is not empty")), "{refused:?}");
        assert!(path(id).join("mark").exists(), "{id} stays for who finds the newer meta.json");
        fs::remove_dir_all(path(id)).unwrap();
    }
    drop(log);

    // What an interrupted deletion or creation leaves goes.
    fs::rename(path("copy"), path("t-0")).unwrap();
    fs::create_dir(path("begun-7")).unwrap();
    let log = open(dir.path());
    assert!(!path("t-0").exists() && !path("begun-7").exists());
    create_t(&log).await;
    assert_eq!(log.bounds(&partition("t-0")).await.unwrap(), at(30));
}

#[tokio::test]
async fn retention_passes_internal_topics_by() {
    let dir = tempfile::tempdir().unwrap();
    let config = LogConfig { retention_bytes: 20_000, ..small() };
    let log = EmbeddedLog::open(dir.path(), &config, MAX_RECORD_BYTES).unwrap();
    let (usual, internal) = (partition("t-0"), partition("__t-0"));
    let mut floors = BTreeMap::from([(partition("gone-0"), Offset(1))]);
    for id in [&usual, &internal] {
        create(&log, id.topic.as_str(), 1).await.unwrap();
        fill(&log, id, 20, 2000).await;
        floors.insert(id.clone(), Offset(2000));
    }
    let retained = log.retain(&floors, Timestamp::now()).await.expect("what was deleted meanwhile is passed by");
    assert!(retained.n_deleted_segments > 0);
    assert!(check_all(&log, &usual).await.start > Offset(0));
    assert_eq!(check_all(&log, &internal).await.start, Offset(0));
    log.trim(&internal, Offset(1500)).await.unwrap();
    assert_eq!(check_all(&log, &internal).await.start, Offset(1500), "who owns it trims it");
}

#[tokio::test]
async fn deleting_many_partitions_needs_few_threads() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    create(&log, "wide", 700).await.unwrap();
    grow(&log, "wide", 800).await.unwrap();
    for p in (0..800).step_by(13) {
        log.append(&partition(&format!("wide-{p}")), records(0..1)).await.unwrap();
    }
    delete(&log, "wide").await.unwrap();
    assert!(log.describe().await.unwrap().topics.is_empty());
}
