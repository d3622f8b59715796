//! The log in a folder of this machine: topics, partitions, and their life from `open` to
//! `close`. It relies on nothing but the file system, and is the only writer of its folder.
//! How topics come and go is in `embedded/changing.rs`.

mod changing;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use async_trait::async_trait;
use futures::future;
use model::{
    Bounds, Ended, EventLog, LogDescription, LogError, LogId, Offset, OffsetRange, Record, StoredRecord, Timestamp,
    TopicChange, TopicName, TopicPartition, config::LogConfig,
};
use tokio::{
    sync::{Mutex, oneshot, watch},
    task::spawn_blocking,
};

use crate::{
    files::Files,
    folders,
    format::{self, EncodedBatch},
    fs::{self, Access, Disk, FileSystem},
    mailbox::{Mailbox, Message},
    meta::{FORMAT_VERSION, Meta},
    partition::Partition,
    recovery,
    segment::MAX_SEGMENT_BYTES,
    turns::Turns,
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
    turns: Arc<Turns>,
    moved: watch::Sender<u64>,
    shown: RwLock<Shown>,
    /// `None` once closed. Held while a topic changes, so that they change one by one.
    meta: Arc<Mutex<Option<Meta>>>,
}

/// What callers see of the topics.
#[derive(Default)]
struct Shown {
    /// `None` once closed.
    log: Option<LogId>,
    topics: BTreeMap<TopicName, Vec<Open>>,
    /// As `meta.json` has it.
    ended: Ended,
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

        let files = Files::new(Arc::clone(&fs), Access::Write, config.max_open_files);
        files.hold(lock);

        let meta = begin(&*fs, dir)?;
        let inner = Inner {
            dir: dir.to_owned(),
            config: Arc::new(config.clone()),
            max_record_bytes,
            files: Arc::new(files),
            turns: Arc::default(),
            moved: watch::Sender::new(0),
            shown: RwLock::default(),
            meta: Arc::default(),
        };
        folders::sweep(&*fs, dir, &meta).map_err(io_error(format!("cannot list {}", dir.display())))?;
        let mut topics = BTreeMap::new();
        for (topic, n_partitions) in &meta.topics {
            let ids = (0..*n_partitions).map(|p| TopicPartition::new(topic.clone(), p));
            let opened = ids.map(|id| inner.open_partition(id.clone(), meta.begin(&id)));
            let opened = opened.collect::<Result<Vec<Open>, _>>().map_err(NotOpened::during_open)?;
            topics.insert(topic.clone(), opened);
        }
        let shown = RwLock::new(Shown { log: Some(meta.log_id()), topics, ended: meta.ended.clone() });
        Ok(Self { inner: Arc::new(Inner { shown, meta: Arc::new(Mutex::new(Some(meta))), ..inner }) })
    }

    /// Waits for the appends under way, makes everything durable and gives the folder up; only
    /// `fetch` and `bounds` are served afterwards. Without a close the next start counts as one
    /// after a crash.
    pub async fn close(&self) -> Result<(), LogError> {
        let Some(meta) = self.inner.meta.lock().await.take() else { return Err(closed()) };
        self.inner.change_shown().log = None;
        let closing = self.inner.all_partitions().into_iter().map(|open| async move {
            let (reply, closed) = oneshot::channel();
            open.mailbox.post(Message::Close { reply })?;
            closed.await.map_err(|_| writer_lost())?
        });
        let outcomes = future::join_all(closing).await;
        let inner = Arc::clone(&self.inner);
        blocking(move || {
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
    /// to which every layer has taken it. A partition without a floor keeps everything, and so does
    /// an internal topic.
    pub async fn retain(
        &self,
        floors: &BTreeMap<TopicPartition, Offset>,
        now: Timestamp,
    ) -> Result<Retained, LogError> {
        let mut total = Retained::default();
        for (id, floor) in floors.iter().filter(|(id, _)| !id.topic.is_internal()) {
            let retained = match self.retain_one(id, *floor, now).await {
                // Deleted since the floors were asked for.
                Err(LogError::UnknownTopic(_) | LogError::UnknownPartition(_)) => continue,
                retained => retained?,
            };
            total.n_deleted_segments += retained.n_deleted_segments;
            total.deleted_bytes += retained.deleted_bytes;
        }
        Ok(total)
    }

    async fn retain_one(&self, id: &TopicPartition, floor: Offset, now: Timestamp) -> Result<Retained, LogError> {
        let (reply, retained) = oneshot::channel();
        self.inner.partition(id)?.mailbox.post(Message::Retain { floor, now, reply })?;
        retained.await.map_err(|_| writer_lost())?
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
    meta.format_version = FORMAT_VERSION;
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
    fn open_partition(&self, id: TopicPartition, begin: Offset) -> Result<Open, NotOpened> {
        let dir = self.dir.join(id.to_string());
        let (partition, writer) = recovery::open(id, &dir, begin, &self.files, &self.config, self.moved.clone())
            .map_err(|source| NotOpened { dir, source })?;
        let mailbox =
            Mailbox::new(writer, self.config.max_queue_bytes, self.config.max_group_bytes, Arc::clone(&self.turns));
        Ok(Open { partition, mailbox: Arc::new(mailbox) })
    }

    fn shown(&self) -> RwLockReadGuard<'_, Shown> {
        self.shown.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change_shown(&self) -> RwLockWriteGuard<'_, Shown> {
        self.shown.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn partition(&self, id: &TopicPartition) -> Result<Open, LogError> {
        let shown = self.shown();
        let partitions = shown.topics.get(&id.topic).ok_or_else(|| LogError::UnknownTopic(id.topic.clone()))?;
        let open = partitions.get(id.partition as usize);
        open.cloned().ok_or_else(|| LogError::UnknownPartition(id.clone()))
    }

    fn all_partitions(&self) -> Vec<Open> {
        self.shown().topics.values().flatten().cloned().collect()
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
        let shown = self.inner.shown();
        let id = shown.log.ok_or_else(closed)?;
        let topics = shown.topics.iter().map(|(topic, partitions)| (topic.clone(), partitions.len() as u32));
        Ok(LogDescription { id, topics: topics.collect(), ended: shown.ended.clone() })
    }

    async fn change_topic(&self, topic: &TopicName, change: TopicChange) -> Result<(), LogError> {
        let mut meta = Arc::clone(&self.inner.meta).lock_owned().await;
        let (inner, topic) = (Arc::clone(&self.inner), topic.clone());
        blocking(move || inner.change_topic(meta.as_mut().ok_or_else(closed)?, &topic, change)).await
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
        let _under_way = self.inner.turns.under_way();
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
