//! From the first start to the next: topics and records survive, the folder has one owner, old
//! records go, an older version keeps its hands off a newer one's files.

use std::{
    collections::BTreeMap,
    fs, io,
    path::Path,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, Ordering},
    },
};

use event_log::{
    EmbeddedLog, OpenError, Retained,
    fs::{Access, Disk, Entry, File, FileSystem, Lock},
};
use model::{Bounds, EventLog, LogError, Offset, Timestamp, config::LogConfig};

use crate::support::{MAX_RECORD_BYTES, check_all, create, create_t, fill, open, partition, range, records, small};

#[tokio::test]
async fn topics_and_records_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let t = create_t(&log).await;
    create(&log, "empty-2.x", 3).await.unwrap();
    fill(&log, &t, 7, 500).await;
    let before = log.describe().await.unwrap();
    log.close().await.unwrap();

    let log = open(dir.path());
    assert_eq!(log.describe().await.unwrap(), before);
    assert_eq!(check_all(&log, &t).await, Bounds { start: Offset(0), end: Offset(500) });
    assert_eq!(log.bounds(&partition("empty-2.x-2")).await.unwrap(), Bounds::default());
    fill(&log, &t, 7, 600).await;
    check_all(&log, &t).await;
}

#[tokio::test]
async fn the_epoch_grows_with_every_start_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let mut epochs = Vec::new();
    for close in [true, true, false, false, true, true] {
        let log = open(dir.path());
        epochs.push(log.describe().await.unwrap().id.epoch);
        if close {
            log.close().await.unwrap();
        }
    }
    assert_eq!(epochs, [0, 0, 0, 1, 2, 2]);
}

#[tokio::test]
async fn a_folder_has_one_owner_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let refused = EmbeddedLog::open(dir.path(), &small(), MAX_RECORD_BYTES).err().unwrap();
    let sentence = refused.to_string();
    assert!(matches!(refused, OpenError::Locked { .. }));
    assert!(sentence.contains(dir.path().to_str().unwrap()) && sentence.contains("--data"), "{sentence}");
    log.close().await.unwrap();
    open(dir.path());
}

#[tokio::test]
async fn a_closed_log_refuses_but_still_reads() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let t = create_t(&log).await;
    fill(&log, &t, 10, 30).await;
    log.close().await.unwrap();
    assert!(matches!(log.append(&t, records(30..31)).await, Err(LogError::Unavailable { outcome_unknown: false, .. })));
    assert!(create(&log, "u", 1).await.is_err());
    assert!(log.trim(&t, Offset(3)).await.is_err());
    assert!(log.close().await.is_err());
    assert_eq!(check_all(&log, &t).await.end, Offset(30));
}

#[test]
fn a_newer_versions_folder_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let meta = dir.path().join("meta.json");
    let text = r#"{ "format_version": 3, "unheard": "of" }"#;
    fs::write(&meta, text).unwrap();
    let refused = EmbeddedLog::open(dir.path(), &small(), MAX_RECORD_BYTES).err().unwrap();
    assert!(matches!(refused, OpenError::NewerFormat { found: 3, .. }));
    assert!(refused.to_string().contains("start the newer version"), "{refused}");
    assert!(event_log::open_read_only(dir.path()).is_err());
    assert_eq!(fs::read_to_string(&meta).unwrap(), text);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn what_is_missing_is_named_and_never_made_up() {
    let dir = tempfile::tempdir().unwrap();
    create_t(&open(dir.path())).await;
    let meta = fs::read(dir.path().join("meta.json")).unwrap();
    let open = || EmbeddedLog::open(dir.path(), &small(), MAX_RECORD_BYTES).err();

    fs::write(dir.path().join("meta.json"), &meta[..meta.len() / 2]).unwrap();
    assert!(matches!(open(), Some(OpenError::DamagedMeta { .. })));
    fs::remove_file(dir.path().join("meta.json")).unwrap();
    assert!(matches!(open(), Some(OpenError::MissingMeta { .. })));
    fs::write(dir.path().join("meta.json"), &meta).unwrap();
    fs::remove_dir(dir.path().join("t-0")).unwrap();
    assert!(matches!(open(), Some(OpenError::MissingPartition { .. })));
}

/// Folders written before topics could be deleted, or before `meta.json` had a checksum, are read as
/// they are, and become what this version writes.
#[tokio::test]
async fn folders_of_earlier_versions_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let t = create_t(&log).await;
    fill(&log, &t, 10, 30).await;
    log.close().await.unwrap();
    let path = dir.path().join("meta.json");
    let mut meta: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert!(meta.as_object_mut().unwrap().remove("checksum").is_some());
    meta["format_version"] = 1.into();
    fs::write(&path, meta.to_string()).unwrap();
    let log = open(dir.path());
    assert_eq!(check_all(&log, &t).await.end, Offset(30));
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("checksum") && text.contains("\"format_version\": 2"), "{text}");
}

#[test]
fn settings_that_the_format_cannot_hold_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (config, max_record_bytes) in [
        (LogConfig { segment_bytes: 1 << 31, ..small() }, 100),
        (LogConfig { segment_bytes: 1000, ..small() }, 501),
        (LogConfig { max_queue_bytes: 100, ..small() }, 100),
    ] {
        let refused = EmbeddedLog::open(dir.path(), &config, max_record_bytes).err();
        assert!(matches!(refused, Some(OpenError::InvalidSetting { .. })), "{config:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_beyond_the_queue_are_refused_before_they_are_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let config = LogConfig { max_queue_bytes: 16 << 10, ..small() };
    let log = Arc::new(EmbeddedLog::open(dir.path(), &config, MAX_RECORD_BYTES).unwrap());
    let t = create_t(&*log).await;
    let appends: Vec<_> = (0..200)
        .map(|_| {
            let (log, t) = (Arc::clone(&log), t.clone());
            tokio::spawn(async move { log.append(&t, vec![model::Record::of_value(vec![b'x'; 4000])]).await })
        })
        .collect();
    let mut n_accepted = 0;
    for append in appends {
        match append.await.unwrap() {
            Ok(_) => n_accepted += 1,
            Err(LogError::Unavailable { outcome_unknown: false, .. }) => {}
            Err(e) => panic!("{e}"),
        }
    }
    assert_eq!(log.bounds(&t).await.unwrap().end, Offset(n_accepted));
    let too_much = log.append(&t, records(0..400)).await;
    assert!(matches!(too_much, Err(LogError::LimitExceeded { .. })), "{too_much:?}");
    log.append(&t, records(0..1)).await.expect("the queue is empty again");
}

fn n_segments(dir: &Path) -> usize {
    let names = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name());
    names.filter(|n| n.to_str().unwrap().ends_with(".log")).count()
}

#[tokio::test]
async fn retention_deletes_old_or_surplus_segments_below_the_floor() {
    const DAY_MS: i64 = 86_400_000;
    let now = Timestamp::now();
    let later = Timestamp(now.0 + 8 * DAY_MS);
    let earlier = Timestamp(now.0 - 8 * DAY_MS);
    let week = LogConfig { retention_ms: 7 * DAY_MS as u64, ..small() };
    let surplus = LogConfig { retention_bytes: 30_000, ..small() };
    for (what, config, floor, now, n_left) in [
        ("no limit", small(), 2000, later, None),
        ("not old enough", week.clone(), 2000, now, None),
        ("a clock that went back", week.clone(), 2000, earlier, None),
        ("old", week.clone(), 2000, later, Some(1)),
        ("old, but nobody took it", week, 0, later, None),
        ("too much", surplus.clone(), 2000, now, Some(2)),
        ("too much, but nobody took it", surplus, 0, now, None),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let log = EmbeddedLog::open(dir.path(), &config, MAX_RECORD_BYTES).unwrap();
        let t = create_t(&log).await;
        fill(&log, &t, 20, 2000).await;
        let before = n_segments(&dir.path().join("t-0"));
        let retained = log.retain(&BTreeMap::from([(t.clone(), Offset(floor))]), now).await.unwrap();
        let after = n_segments(&dir.path().join("t-0"));
        assert_eq!(after, n_left.unwrap_or(before), "{what}");
        assert_eq!(retained.n_deleted_segments as usize, before - after, "{what}");
        let bounds = check_all(&log, &t).await;
        assert_eq!((bounds.start > Offset(0), bounds.end), (after < before, Offset(2000)), "{what}");
        assert_eq!(log.retain(&BTreeMap::new(), later).await.unwrap(), Retained::default(), "no floor, no deletion");
        drop(log);
        assert_eq!(check_all(&open(dir.path()), &t).await, bounds, "{what}, after a restart");
    }
}

#[tokio::test]
async fn a_trim_survives_a_crash_and_deletes_whole_segments() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let t = create_t(&log).await;
    fill(&log, &t, 20, 2000).await;
    let before = n_segments(&dir.path().join("t-0"));
    // Within a segment, which stays.
    log.trim(&t, Offset(1507)).await.unwrap();
    assert!(n_segments(&dir.path().join("t-0")) < before);
    drop(log);
    let log = open(dir.path());
    assert_eq!(check_all(&log, &t).await, Bounds { start: Offset(1507), end: Offset(2000) });
    log.trim(&t, Offset(2000)).await.unwrap();
    drop(log);
    let log = open(dir.path());
    assert_eq!(log.bounds(&t).await.unwrap(), Bounds { start: Offset(2000), end: Offset(2000) });
    assert_eq!(log.append(&t, records(2000..2010)).await.unwrap(), range(&t, 2000, 2010));
}

/// Files of a folder that are deleted and still open: their room is not given back.
fn held_open(dir: &Path) -> Vec<String> {
    let links = fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
    let names = links.filter_map(|link| Some(link.strip_prefix(dir).ok()?.to_str()?.to_owned()));
    names.filter(|name| name.ends_with(" (deleted)")).collect()
}

#[tokio::test]
async fn a_trim_gives_back_the_room_of_segments_and_indexes() {
    let dir = tempfile::tempdir().unwrap();
    let config = LogConfig { max_open_files: 100, ..small() };
    let log = EmbeddedLog::open(dir.path(), &config, MAX_RECORD_BYTES).unwrap();
    let t = create_t(&log).await;
    fill(&log, &t, 10, 2000).await;
    check_all(&log, &t).await;
    log.trim(&t, Offset(1500)).await.unwrap();
    assert_eq!(held_open(dir.path()), [""; 0]);
    assert!(check_all(&log, &t).await.start >= Offset(1500));
}

/// The machine's disk; who opens the first segment once `holds` is held there.
struct Slow {
    holds: AtomicBool,
    opened: Barrier,
    trimmed: Barrier,
}

impl FileSystem for Slow {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        let file = Disk.open(path, access)?;
        if path.ends_with("t-0/00000000000000000000.log") && self.holds.swap(false, Ordering::SeqCst) {
            self.opened.wait();
            self.trimmed.wait();
        }
        Ok(file)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        Disk.create_dir(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        Disk.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Disk.rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        Disk.unlink(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        Disk.remove_dir(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        Disk.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        Disk.lock(path)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_opened_a_segment_while_it_was_trimmed_does_not_keep_it() {
    let dir = tempfile::tempdir().unwrap();
    let slow = Arc::new(Slow { holds: AtomicBool::new(false), opened: Barrier::new(2), trimmed: Barrier::new(2) });
    let config = LogConfig { max_open_files: 1, ..small() };
    let log = EmbeddedLog::open_on(Arc::clone(&slow) as _, dir.path(), &config, MAX_RECORD_BYTES).unwrap();
    let log = Arc::new(log);
    let t = create_t(&*log).await;
    fill(&*log, &t, 10, 2000).await;
    slow.holds.store(true, Ordering::SeqCst);
    let reader = tokio::spawn({
        let (log, t) = (Arc::clone(&log), t.clone());
        async move { log.fetch(&t, Offset(3), 100).await }
    });
    tokio::task::block_in_place(|| slow.opened.wait());
    log.trim(&t, Offset(1500)).await.unwrap();
    slow.trimmed.wait();
    let read = reader.await.unwrap().unwrap();
    assert_eq!(read[0].offset, Offset(3));
    assert_eq!(held_open(dir.path()), [""; 0]);
}
