//! The log in a folder of this machine: topics, partitions, and their life from `open` to
//! `close`. It relies on nothing but the file system, and is the only writer of its folder.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use async_trait::async_trait;
use futures::future;
use model::{
    Bounds, EventLog, LogDescription, LogError, Offset, OffsetRange, Record, StoredRecord, Timestamp, TopicName,
    TopicPartition, config::LogConfig,
};
use tokio::{
    sync::{oneshot, watch},
    task::spawn_blocking,
};

use crate::{
    files::Files,
    format::{self, EncodedBatch},
    fs::{self, Access, Disk, FileSystem},
    mailbox::{Mailbox, Message},
    meta::{FORMAT_VERSION, Meta},
    partition::Partition,
    recovery,
    segment::MAX_SEGMENT_BYTES,
    writer::{Append, Retained},
};

/// An append becomes batches of about this size: a reader reads and checks whole batches, and
/// a broker takes up to 1 MB in one.
const BATCH_BYTES: usize = 64 << 10;
const LOCK_FILE_NAME: &str = "lock";

/// Why a log folder was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "another process writes to {}: stop it, or choose another data folder with --data", dir.display()
    )]
    Locked { dir: PathBuf },
    #[error(
        "{} was written by a newer version (log format {found}, this version reads up to {FORMAT_VERSION}); \
         nothing was changed: start the newer version, or choose another data folder with --data", dir.display()
    )]
    NewerFormat { dir: PathBuf, found: u32 },
    #[error("{} is damaged ({problem}): restore it from a backup; without it the log's topics are unknown", path.display())]
    DamagedMeta { path: PathBuf, problem: String },
    #[error("{} holds partitions but no meta.json: restore it from a backup, or choose another data folder with --data", dir.display())]
    MissingMeta { dir: PathBuf },
    #[error("{} is missing: restore it from a backup; its records were in no other place", dir.display())]
    MissingPartition { dir: PathBuf },
    #[error("there is no log in {}", dir.display())]
    NoLog { dir: PathBuf },
    #[error("{setting} is {actual}; it must be {allowed}")]
    InvalidSetting { setting: &'static str, actual: u64, allowed: String },
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
}

/// The embedded log. Appends are on stable storage when they return; see `EventLog`.
pub struct EmbeddedLog {
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    config: Arc<LogConfig>,
    max_record_bytes: usize,
    files: Arc<Files>,
    moved: watch::Sender<u64>,
    topics: RwLock<BTreeMap<TopicName, Vec<Open>>>,
    /// `None` once closed. Held while a topic is made, so that they are made one by one.
    meta: Mutex<Option<Meta>>,
}

#[derive(Clone)]
struct Open {
    partition: Arc<Partition>,
    mailbox: Arc<Mailbox>,
}

impl EmbeddedLog {
    /// Opens the log in `dir`, or begins one there. Blocks for as long as it takes to read what
    /// lies above the durable marks. Records larger than `max_record_bytes` will be refused.
    pub fn open(dir: &Path, config: &LogConfig, max_record_bytes: usize) -> Result<Self, OpenError> {
        Self::open_on(Arc::new(Disk), dir, config, max_record_bytes)
    }

    /// The same on another file system.
    pub fn open_on(
        fs: Arc<dyn FileSystem>,
        dir: &Path,
        config: &LogConfig,
        max_record_bytes: usize,
    ) -> Result<Self, OpenError> {
        check(config, max_record_bytes)?;
        let io_error = |what: String| move |source| OpenError::Io { what, source };
        Meta::read(&*fs, dir)?; // a newer version's folder is left as it is
        fs::create_dir_all(&*fs, dir).map_err(io_error(format!("cannot make {}", dir.display())))?;
        let lock = fs.lock(&dir.join(LOCK_FILE_NAME)).map_err(io_error(format!("cannot lock {}", dir.display())))?;
        let Some(lock) = lock else { return Err(OpenError::Locked { dir: dir.to_owned() }) };

        let files = Files::new(Arc::clone(&fs), Access::Write, config.max_open_segments);
        files.hold(lock);

        let meta = begin(&*fs, dir)?;
        let inner = Inner {
            dir: dir.to_owned(),
            config: Arc::new(config.clone()),
            max_record_bytes,
            files: Arc::new(files),
            moved: watch::Sender::new(0),
            topics: RwLock::default(),
            meta: Mutex::new(None),
        };
        for (topic, n_partitions) in &meta.topics {
            inner.open_topic(topic, *n_partitions).map_err(|e| e.during_open())?;
        }
        *inner.lock_meta() = Some(meta);
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Waits for the appends under way, makes everything durable and gives the folder up; only
    /// `fetch` and `bounds` are served afterwards. Without a close the next start counts as one
    /// after a crash.
    pub async fn close(&self) -> Result<(), LogError> {
        let closing = self.inner.all_partitions().into_iter().map(|open| async move {
            let (reply, closed) = oneshot::channel();
            open.mailbox.post(Message::Close { reply })?;
            closed.await.map_err(|_| writer_lost())?
        });
        let outcomes = future::join_all(closing).await;
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            let Some(meta) = inner.lock_meta().take() else { return Err(closed()) };
            let all_closed = outcomes.into_iter().collect::<Result<(), LogError>>();
            let written = all_closed.and_then(|()| {
                let meta = Meta { closed: true, ..meta };
                let written = meta.write(&*inner.files.fs, &inner.dir);
                written.map_err(|e| LogError::unavailable(format!("cannot write meta.json: {e}")))
            });
            inner.files.release();
            written
        })
        .await
    }

    /// Deletes whole segments that are older than `retention_ms` at `now` or that a partition
    /// holds beyond `retention_bytes`, and that lie below the partition's floor: the offset up
    /// to which every layer has taken it. A partition without a floor keeps everything.
    pub async fn retain(
        &self,
        floors: &BTreeMap<TopicPartition, Offset>,
        now: Timestamp,
    ) -> Result<Retained, LogError> {
        let mut total = Retained::default();
        for (id, floor) in floors {
            let (reply, retained) = oneshot::channel();
            self.inner.partition(id)?.mailbox.post(Message::Retain { floor: *floor, now, reply })?;
            let retained = retained.await.map_err(|_| writer_lost())??;
            total.n_deleted_segments += retained.n_deleted_segments;
            total.deleted_bytes += retained.deleted_bytes;
        }
        Ok(total)
    }

    /// The folder of this log.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }
}

/// What the files' own layout allows.
fn check(config: &LogConfig, max_record_bytes: usize) -> Result<(), OpenError> {
    let max_record_bytes = max_record_bytes as u64;
    let invalid = |setting, actual, allowed: String| Err(OpenError::InvalidSetting { setting, actual, allowed });
    if config.segment_bytes > MAX_SEGMENT_BYTES {
        return invalid("log.segment_bytes", config.segment_bytes, format!("at most {MAX_SEGMENT_BYTES}"));
    }
    if config.segment_bytes < 2 * max_record_bytes {
        let allowed = format!("at least two records of {max_record_bytes} bytes");
        return invalid("log.segment_bytes", config.segment_bytes, allowed);
    }
    if config.max_queue_bytes as u64 <= max_record_bytes {
        let allowed = format!("more than a record of {max_record_bytes} bytes");
        return invalid("log.max_queue_bytes", config.max_queue_bytes as u64, allowed);
    }
    Ok(())
}

/// Reads the identity or draws one, and writes that the log is in use.
fn begin(fs: &dyn FileSystem, dir: &Path) -> Result<Meta, OpenError> {
    let io_error = |source| OpenError::Io { what: format!("cannot begin the log in {}", dir.display()), source };
    let folders = fs.list(dir).map_err(io_error)?;
    let holds_partitions = || folders.iter().any(|e| e.name.parse::<TopicPartition>().is_ok());
    let mut meta = match Meta::read(fs, dir)? {
        Some(meta) => meta,
        None if holds_partitions() => return Err(OpenError::MissingMeta { dir: dir.to_owned() }),
        None => Meta::new_log(),
    };
    if !meta.closed {
        meta.epoch += 1;
        tracing::warn!(epoch = meta.epoch, "the log in {} was not closed in order; it is checked", dir.display());
    }
    meta.closed = false;
    meta.write(fs, dir).map_err(io_error)?;
    Ok(meta)
}

/// A partition's folder that did not open.
struct NotOpened {
    dir: PathBuf,
    source: io::Error,
}

impl NotOpened {
    fn during_open(self) -> OpenError {
        if self.source.kind() == io::ErrorKind::NotFound {
            return OpenError::MissingPartition { dir: self.dir };
        }
        OpenError::Io { what: format!("cannot open {}", self.dir.display()), source: self.source }
    }
}

impl Inner {
    fn open_topic(&self, topic: &TopicName, n_partitions: u32) -> Result<(), NotOpened> {
        let mut partitions = Vec::new();
        for p in 0..n_partitions {
            let id = TopicPartition::new(topic.clone(), p);
            let dir = self.dir.join(id.to_string());
            let (partition, writer) = recovery::open(id, &dir, &self.files, &self.config, self.moved.clone())
                .map_err(|source| NotOpened { dir, source })?;
            let mailbox = Mailbox::new(writer, self.config.max_queue_bytes, self.config.max_group_bytes);
            partitions.push(Open { partition, mailbox: Arc::new(mailbox) });
        }
        self.topics.write().unwrap_or_else(PoisonError::into_inner).insert(topic.clone(), partitions);
        Ok(())
    }

    /// The folders first, the name last: a topic is there as a whole or not at all.
    fn create_topic(&self, topic: &TopicName, n_partitions: u32) -> Result<(), LogError> {
        let mut guard = self.lock_meta();
        let Some(held) = &mut *guard else { return Err(closed()) };
        if held.topics.contains_key(topic) {
            return Err(LogError::TopicExists(topic.clone()));
        }
        let mut meta = held.clone();
        meta.topics.insert(topic.clone(), n_partitions);
        let fs = &*self.files.fs;
        let mut folders = (0..n_partitions).map(|p| self.dir.join(TopicPartition::new(topic.clone(), p).to_string()));
        let created = folders
            .try_for_each(|dir| {
                fs.create_dir(&dir)?;
                // No other topic's folder has this name: what is in it belongs to nobody, or to
                // a topic that `meta.json` forgot.
                match fs.list(&dir)?.is_empty() {
                    true => Ok(()),
                    false => Err(io::Error::other(format!("{} is not empty", dir.display()))),
                }
            })
            .and_then(|()| fs.sync_dir(&self.dir))
            .and_then(|()| meta.write(fs, &self.dir));
        let failed = |e: io::Error| LogError::Unavailable {
            reason: format!("cannot create topic {topic}: {e}"),
            outcome_unknown: true,
        };
        created.map_err(failed)?;
        *held = meta;
        self.open_topic(topic, n_partitions).map_err(|e| failed(e.source))
    }

    fn lock_meta(&self) -> MutexGuard<'_, Option<Meta>> {
        self.meta.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn partition(&self, id: &TopicPartition) -> Result<Open, LogError> {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        let partitions = topics.get(&id.topic).ok_or_else(|| LogError::UnknownTopic(id.topic.clone()))?;
        let open = partitions.get(id.partition as usize);
        open.cloned().ok_or_else(|| LogError::UnknownPartition(id.clone()))
    }

    fn all_partitions(&self) -> Vec<Open> {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        topics.values().flatten().cloned().collect()
    }

    fn encode(&self, records: &[Record]) -> Result<(Vec<EncodedBatch>, usize), LogError> {
        check_sizes(records, self.max_record_bytes)?;
        let batches = format::encode(records, BATCH_BYTES);
        let size_bytes = batches.iter().map(|b| b.bytes().len()).sum();
        let limit = self.config.segment_bytes.min(self.config.max_queue_bytes as u64);
        if size_bytes as u64 > limit {
            return Err(LogError::LimitExceeded {
                what: "size of one append in bytes",
                actual: size_bytes as u64,
                limit,
            });
        }
        Ok((batches, size_bytes))
    }
}

pub(crate) fn check_sizes(records: &[Record], limit_bytes: usize) -> Result<(), LogError> {
    match records.iter().map(Record::size_bytes).find(|size| *size > limit_bytes) {
        Some(actual_bytes) => Err(LogError::TooLarge { actual_bytes, limit_bytes }),
        None => Ok(()),
    }
}

pub(crate) fn check_n_partitions(n_partitions: u32) -> Result<(), LogError> {
    if n_partitions > 0 {
        return Ok(());
    }
    Err(LogError::LimitExceeded { what: "number of partitions", actual: 0, limit: 1 })
}

/// Runs what blocks away from the async runtime.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    spawn_blocking(work).await.unwrap_or_else(|e| Err(LogError::unavailable(format!("the work was lost: {e}"))))
}

fn closed() -> LogError {
    LogError::unavailable("the log is closed")
}

fn writer_lost() -> LogError {
    LogError::Unavailable { reason: "the partition's writer was lost".to_owned(), outcome_unknown: true }
}

#[async_trait]
impl EventLog for EmbeddedLog {
    async fn describe(&self) -> Result<LogDescription, LogError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || match &*inner.lock_meta() {
            Some(meta) => Ok(LogDescription { id: meta.log_id(), topics: meta.topics.clone() }),
            None => Err(closed()),
        })
        .await
    }

    async fn create_topic(&self, topic: &TopicName, n_partitions: u32) -> Result<(), LogError> {
        check_n_partitions(n_partitions)?;
        let (inner, topic) = (Arc::clone(&self.inner), topic.clone());
        blocking(move || inner.create_topic(&topic, n_partitions)).await
    }

    async fn append(&self, partition: &TopicPartition, records: Vec<Record>) -> Result<OffsetRange, LogError> {
        let open = self.inner.partition(partition)?;
        let (batches, size_bytes) = self.inner.encode(&records)?;
        let n_records = records.len();
        drop(records);
        if n_records == 0 {
            let end = open.partition.end();
            return Ok(OffsetRange { partition: partition.clone(), start: end, end });
        }
        let (reply, appended) = oneshot::channel();
        open.mailbox.post(Message::Append(Append { batches, n_records, size_bytes, reply }))?;
        appended.await.map_err(|_| writer_lost())?
    }

    async fn fetch(
        &self,
        partition: &TopicPartition,
        from: Offset,
        max_bytes: usize,
    ) -> Result<Vec<StoredRecord>, LogError> {
        let partition = self.inner.partition(partition)?.partition;
        if from == partition.end() {
            return Ok(Vec::new());
        }
        blocking(move || partition.fetch(from, max_bytes)).await
    }

    async fn bounds(&self, partition: &TopicPartition) -> Result<Bounds, LogError> {
        Ok(self.inner.partition(partition)?.partition.bounds())
    }

    async fn trim(&self, partition: &TopicPartition, before: Offset) -> Result<(), LogError> {
        let (reply, trimmed) = oneshot::channel();
        self.inner.partition(partition)?.mailbox.post(Message::Trim { before, reply })?;
        trimmed.await.map_err(|_| writer_lost())?.map(drop)
    }

    fn moved(&self) -> watch::Receiver<u64> {
        self.inner.moved.subscribe()
    }
}
