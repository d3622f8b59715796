//! Another process's look at a log folder: no lock, nothing written, while the owner may be
//! appending, rolling and deleting.
//!
//! It goes by the durable mark, which the owner writes after each group commit. After a power
//! cut the mark may be older than the records, which then show once the owner has started.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use model::{
    Bounds, EventLog, LogDescription, LogError, Offset, OffsetRange, Record, StoredRecord, TopicChange, TopicName,
    TopicPartition,
};
use tokio::sync::watch;

use crate::{
    embedded::{OpenError, blocking},
    files::Files,
    fs::{Access, Disk, FileSystem},
    mark,
    meta::Meta,
    partition::Partition,
    quarantine::Quarantine,
    recovery,
};

/// A reader opens files anew for each look, so it needs to keep few.
const MAX_OPEN_SEGMENTS: usize = 16;
/// How densely a writer indexes is not known here; it only decides how much a read reads.
const INDEX_INTERVAL_BYTES: u64 = 64 << 10;

pub struct ReadOnlyLog {
    inner: Arc<Inner>,
    moved: watch::Sender<u64>,
}

struct Inner {
    dir: PathBuf,
    fs: Arc<dyn FileSystem>,
    /// The log end offset at the last look at each partition.
    seen: Mutex<BTreeMap<TopicPartition, Offset>>,
}

/// Opens the log in `dir` for reading beside its owner. `moved` changes when a look at a
/// partition finds its end moved: who waits for records looks again now and then.
pub fn open_read_only(dir: &Path) -> Result<ReadOnlyLog, OpenError> {
    let fs: Arc<dyn FileSystem> = Arc::new(Disk);
    if Meta::read(&*fs, dir)?.is_none() {
        return Err(OpenError::NoLog { dir: dir.to_owned() });
    }
    let inner = Arc::new(Inner { dir: dir.to_owned(), fs, seen: Mutex::default() });
    Ok(ReadOnlyLog { inner, moved: watch::Sender::new(0) })
}

impl Inner {
    fn meta(&self) -> Result<Meta, LogError> {
        let meta = Meta::read(&*self.fs, &self.dir).map_err(|e| LogError::unavailable(e.to_string()))?;
        meta.ok_or_else(|| LogError::unavailable(format!("the log in {} went away", self.dir.display())))
    }

    /// The partition as its folder shows it now.
    fn look(&self, id: &TopicPartition) -> Result<Partition, LogError> {
        let begin = self.begin(id)?;
        let loaded = load(&self.fs, &self.dir, id, begin);
        // The owner may have deleted it under our eyes.
        if self.begin(id)? != begin {
            return Err(LogError::UnknownTopic(id.topic.clone()));
        }
        loaded.map_err(|e| LogError::unavailable(format!("cannot read partition {id}: {e}")))
    }

    /// Where the offsets of a partition begin that exists.
    fn begin(&self, id: &TopicPartition) -> Result<Offset, LogError> {
        let meta = self.meta()?;
        match meta.topics.get(&id.topic) {
            None => Err(LogError::UnknownTopic(id.topic.clone())),
            Some(_) if !meta.holds(id) => Err(LogError::UnknownPartition(id.clone())),
            Some(_) => Ok(meta.begin(id)),
        }
    }
}

/// What stands in the folder of a partition whose offsets begin with `begin`, up to its durable mark.
pub(crate) fn load(
    fs: &Arc<dyn FileSystem>,
    log_dir: &Path,
    id: &TopicPartition,
    begin: Offset,
) -> io::Result<Partition> {
    let dir = log_dir.join(id.to_string());
    let files = Arc::new(Files::new(Arc::clone(fs), Access::Read, MAX_OPEN_SEGMENTS));
    let quarantine = Quarantine::new(&dir, None, Vec::new());
    let partition = Partition::new(id.clone(), dir.clone(), Arc::clone(&files), INDEX_INTERVAL_BYTES, quarantine);
    // The mark first: segments that the list then shows beyond it are left out of the bounds.
    let found = mark::read(&**fs, &dir)?;
    let segments = recovery::list_segments(&files, &dir, INDEX_INTERVAL_BYTES)?;
    let mark = match (found, segments.last()) {
        (Some((_, mark)), _) => mark,
        (None, None) => mark::Mark::at(begin),
        (None, Some(last)) => {
            let from = recovery::mark_without_file(&partition, &segments, begin);
            recovery::scan(&partition, last, &from, last.readable_bytes())?
        }
    };
    for segment in segments {
        // Above the mark the owner may be writing, or have allocated ahead.
        if segment.base == mark.segment {
            segment.publish(mark.position.min(segment.readable_bytes()));
        }
        if segment.base <= mark.segment {
            partition.add_segment(segment);
        }
    }
    partition.publish_start(mark.start);
    partition.publish_end(mark.end);
    Ok(partition)
}

impl ReadOnlyLog {
    async fn with<T: Send + 'static>(
        &self,
        id: &TopicPartition,
        act: impl FnOnce(&Partition) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let (inner, id) = (Arc::clone(&self.inner), id.clone());
        let (result, has_moved) = blocking(move || {
            let partition = inner.look(&id)?;
            let end = partition.end();
            let result = act(&partition);
            let before = inner.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(id, end);
            Ok((result, before.unwrap_or_default() < end))
        })
        .await?;
        if has_moved {
            self.moved.send_modify(|n| *n += 1);
        }
        result
    }
}

fn read_only<T>() -> Result<T, LogError> {
    Err(LogError::unavailable("this log was opened read-only"))
}

#[async_trait]
impl EventLog for ReadOnlyLog {
    async fn describe(&self) -> Result<LogDescription, LogError> {
        let inner = Arc::clone(&self.inner);
        let meta = blocking(move || inner.meta()).await?;
        Ok(LogDescription { id: meta.log_id(), topics: meta.topics, ended: meta.ended })
    }

    async fn change_topic(&self, _topic: &TopicName, _change: TopicChange) -> Result<(), LogError> {
        read_only()
    }

    async fn append(&self, _partition: &TopicPartition, _records: Vec<Record>) -> Result<OffsetRange, LogError> {
        read_only()
    }

    async fn fetch(
        &self,
        partition: &TopicPartition,
        from: Offset,
        max_bytes: usize,
    ) -> Result<Vec<StoredRecord>, LogError> {
        let (inner, id) = (Arc::clone(&self.inner), partition.clone());
        let fetched = self.with(partition, move |p| Ok((p.fetch(from, max_bytes), p.bounds()))).await?;
        match fetched {
            // The owner may have trimmed between our look at the mark and at the segments.
            (Err(e @ LogError::Corrupt { .. }), before) => {
                let now = blocking(move || inner.look(&id).map(|p| p.bounds())).await?;
                if now.start > before.start && from < now.start {
                    return Err(LogError::OutOfRange { partition: partition.clone(), asked: from, bounds: now });
                }
                Err(e)
            }
            (fetched, _) => fetched,
        }
    }

    async fn bounds(&self, partition: &TopicPartition) -> Result<Bounds, LogError> {
        self.with(partition, |p| Ok(p.bounds())).await
    }

    async fn trim(&self, _partition: &TopicPartition, _before: Offset) -> Result<(), LogError> {
        read_only()
    }

    fn moved(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }
}
