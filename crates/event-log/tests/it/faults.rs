//! Calls that fail: after a failed sync or write nothing false is acknowledged, and the
//! partition goes on by itself once its segment was opened anew.

use std::{io::ErrorKind, path::Path, sync::Arc};

use event_log::EmbeddedLog;
use futures::FutureExt;
use model::{EventLog, LogError, Offset, Record, config::LogConfig};

use crate::{
    sim::{Call, Sim},
    support::{
        MAX_RECORD_BYTES, check_all, check_content, create, create_t, fill, open_on, partition, range,
        read_over_damage, record, records, small,
    },
};

const DIR: &str = "/data/log";

#[tokio::test]
async fn a_failed_write_or_sync_is_never_acknowledged_and_heals() {
    for (call, error) in [
        (Call::SyncData, ErrorKind::Other),
        (Call::Write, ErrorKind::Other),
        (Call::Write, ErrorKind::StorageFull),
        (Call::SyncDir, ErrorKind::Other),
        (Call::Other, ErrorKind::StorageFull),
    ] {
        for nth in 1.. {
            let sim = Sim::new();
            let log = open_on(Arc::clone(&sim) as _, Path::new(DIR)).unwrap();
            let t = create_t(&log).await;
            sim.fail(call, nth, error);
            let (mut end, mut n_failed) = (0, 0);
            for n in [1, 50, 100, 3, 70, 120, 10, 90] {
                match log.append(&t, records(end..end + n)).await {
                    Ok(range) => end = range.end.0,
                    Err(LogError::Unavailable { .. }) => {
                        assert_eq!(log.bounds(&t).await.unwrap().end, Offset(end), "a refused append is not visible");
                        n_failed += 1;
                    }
                    Err(e) => panic!("{call:?} {nth}: {e}"),
                }
                assert!(n_failed <= 1, "{call:?} {nth}: one fault fails one append at most");
            }
            assert_eq!(check_all(&log, &t).await.end, Offset(end));
            let all_met = sim.fault_is_pending();
            sim.fail(Call::Other, u64::MAX, ErrorKind::Other);
            // Pages that a failed sync left looking clean are not counted on.
            for seed in 0..3 {
                let after = open_on(sim.after_power_cut(seed), Path::new(DIR)).unwrap();
                assert!(check_all(&after, &t).await.end.0 >= end, "{call:?} {nth}, seed {seed}");
                fill(&after, &t, 30, end + 100).await;
                check_all(&after, &t).await;
            }
            if all_met {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_failed_sync_leaves_the_outcome_unknown() {
    let sim = Sim::new();
    let log = open_on(Arc::clone(&sim) as _, Path::new(DIR)).unwrap();
    let t = create_t(&log).await;
    fill(&log, &t, 10, 50).await;
    sim.fail(Call::SyncData, 1, ErrorKind::Other);
    let failed = log.append(&t, records(50..60)).await;
    assert!(matches!(failed, Err(LogError::Unavailable { outcome_unknown: true, .. })), "{failed:?}");

    // While the device stays bad, appends are refused before anything is written.
    sim.fail(Call::SyncData, 1, ErrorKind::Other);
    let refused = log.append(&t, records(50..60)).await;
    assert!(matches!(refused, Err(LogError::Unavailable { outcome_unknown: false, .. })), "{refused:?}");
    assert_eq!(check_all(&log, &t).await.end, Offset(50));
    fill(&log, &t, 10, 100).await;
    assert_eq!(check_all(&log, &t).await.end, Offset(100));
}

/// A device that fails one sync may have lost more than that: what is wrong on it is named before
/// anything else is acknowledged, although memory still shows it whole.
#[tokio::test]
async fn after_a_failed_sync_the_segment_is_read_again_from_the_device() {
    let sim = Sim::new();
    let log = open_on(Arc::clone(&sim) as _, Path::new(DIR)).unwrap();
    let t = create_t(&log).await;
    fill(&log, &t, 10, 50).await;
    let value = record(25).value.unwrap();
    sim.spoil_on_device(&Path::new(DIR).join("t-0/00000000000000000000.log"), &value);
    assert_eq!(check_all(&log, &t).await.end, Offset(50));

    sim.fail(Call::SyncData, 1, ErrorKind::Other);
    log.append(&t, records(50..60)).await.expect_err("its sync failed");
    assert_eq!(log.append(&t, records(50..60)).await.unwrap(), range(&t, 50, 60));
    let reading = read_over_damage(&log, &t).await;
    check_content(&reading);
    assert_eq!(reading.corrupt, [(20, 30)]);
}

/// After a failed sync the pages look clean: neither a new process nor its own sync may take
/// them for durable.
#[tokio::test]
async fn what_a_failed_sync_left_in_memory_is_not_shown_after_a_restart() {
    for seed in 0..4 {
        let sim = Sim::new();
        let log = open_on(Arc::clone(&sim) as _, Path::new(DIR)).unwrap();
        let t = create_t(&log).await;
        fill(&log, &t, 10, 50).await;
        sim.fail(Call::SyncData, 1, ErrorKind::Other);
        log.append(&t, records(50..60)).await.expect_err("its sync failed");
        drop(log);
        let log = open_on(Arc::clone(&sim) as _, Path::new(DIR)).unwrap();
        let shown = check_all(&log, &t).await.end;
        let after = open_on(sim.after_power_cut(seed), Path::new(DIR)).unwrap();
        assert_eq!(check_all(&after, &t).await.end, shown, "what was shown once stays");
    }
}

#[tokio::test]
async fn a_full_disk_refuses_and_goes_on_when_there_is_room() {
    let sim = Sim::new();
    let log = open_on(Arc::clone(&sim) as _, Path::new(DIR)).unwrap();
    let t = create_t(&log).await;
    let mut end = 0;
    for cycle in 1..=20 {
        sim.set_capacity(Some(sim.used_bytes() + 700 * cycle));
        let refused = loop {
            match log.append(&t, records(end..end + 7)).await {
                Ok(range) => end = range.end.0,
                Err(e) => break e,
            }
        };
        assert!(matches!(refused, LogError::Unavailable { outcome_unknown: false, .. }), "{refused:?}");
        assert_eq!(check_all(&log, &t).await.end, Offset(end), "reading goes on when the disk is full");
        let after = open_on(sim.after_power_cut(cycle as u64), Path::new(DIR)).unwrap();
        assert_eq!(check_all(&after, &t).await.end, Offset(end), "nothing torn is there after a start");
        sim.set_capacity(None);
        end = log.append(&t, records(end..end + 7)).await.expect("there is room again").end.0;
    }
}

/// A device that takes its time makes those wait whose records it has, and nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_sync_delays_the_acknowledgement_and_nothing_else() {
    let sim = Sim::new();
    let config = LogConfig { max_queue_bytes: 16 << 10, ..small() };
    let log = EmbeddedLog::open_on(Arc::clone(&sim) as _, Path::new(DIR), &config, MAX_RECORD_BYTES).unwrap();
    let (log, t) = (Arc::new(log), partition("t-0"));
    create_t(&*log).await;
    fill(&*log, &t, 10, 50).await;

    let held = sim.hold_syncs();
    let append = |numbers| {
        let (log, t) = (Arc::clone(&log), t.clone());
        tokio::spawn(async move { log.append(&t, records(numbers)).await })
    };
    let slow = append(50..60);
    tokio::task::block_in_place(|| held.wait_for_one());
    assert!(!slow.is_finished(), "what is not synced is not acknowledged");
    assert_eq!(check_all(&*log, &t).await.end, Offset(50), "nor shown, and reading goes on");
    let almost_all = || vec![Record::of_value(vec![b'x'; 4000]); 4];
    let refused = log.append(&t, almost_all()).now_or_never();
    assert!(
        matches!(refused, Some(Err(LogError::Unavailable { outcome_unknown: false, .. }))),
        "what is being written takes room until it is stored: {refused:?}"
    );

    drop(held);
    assert_eq!(slow.await.unwrap().unwrap(), range(&t, 50, 60));
    assert_eq!(check_all(&*log, &t).await.end, Offset(60));
    assert_eq!(log.append(&t, almost_all()).await.unwrap(), range(&t, 60, 64), "there is room again");
}

#[tokio::test]
async fn a_topic_is_created_whole_or_not_at_all() {
    for call in [Call::Write, Call::SyncData, Call::SyncDir, Call::Other] {
        for nth in 1..6 {
            let sim = Sim::new();
            let log = open_on(Arc::clone(&sim) as _, Path::new(DIR)).unwrap();
            sim.fail(call, nth, ErrorKind::Other);
            let created = create(&log, "t", 3).await;
            // Of the names that were not synced any may be lost.
            for seed in 0..60 {
                let after = open_on(sim.after_power_cut(seed), Path::new(DIR)).unwrap();
                let found = after.describe().await.unwrap().topics.get("t").copied();
                assert!(found.is_none_or(|n| n == 3), "{call:?} {nth}: {found:?}");
                assert!(created.is_err() || found.is_some(), "{call:?} {nth}: an acknowledged topic is there");
                if found.is_none() {
                    create_t(&after).await;
                }
                fill(&after, &partition("t-0"), 5, 20).await;
            }
        }
    }
}
