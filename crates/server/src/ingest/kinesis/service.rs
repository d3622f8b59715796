//! The streams and their topics: finds a stream, makes one of a topic that another door made, and
//! changes both together.
//!
//! A topic is created before its stream and deleted before it, so that a crash in between leaves
//! what `find_now` puts right: a topic without a stream gets one, a stream without a topic goes.
//! Puts hold their stream's lock to read, changes of its shards to write: so when a shard is closed,
//! every record that was put into it has its offset below the shard's end. (Another process on the
//! same log learns of the change within `FRESH_MS`.)

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
};

use model::{
    Bounds, EventLog, LogDescription, LogError, Timestamp, TopicChange, TopicName, TopicPartition,
    config::{Config, KinesisLimits},
    position::INTERNAL_PREFIX,
};
use tokio::sync::{OnceCell, OwnedRwLockReadGuard, RwLock};
use tokio_util::task::TaskTracker;
use tracing::info;
use uuid::Uuid;

use super::{
    error::KinesisError,
    iterator::Seal,
    limits::Rates,
    names::Caller,
    stream::{DEFAULT_MAX_RECORD_KIB, Mode, Step, Stream, Tags},
    streams::{Change, Command, New, Refusal, Streams},
    subscribe::Subscriptions,
};
use crate::{
    Services,
    ingest::topics::{Topic, Topics},
    replicated::Replicated,
};

/// Records are put and read by what was known so long ago at most.
const FRESH_MS: i64 = 1000;
/// A plan for shards that others change at the same time is made anew so often.
const MAX_PLANS: usize = 5;
/// The names of streams are shorter than those of topics.
const MAX_NAME_LEN: usize = 128;

pub(in crate::ingest) struct Kinesis {
    log: Arc<dyn EventLog>,
    topics: Arc<Topics>,
    pub(super) config: Arc<Config>,
    unattended: TaskTracker,
    streams: Replicated<Streams>,
    /// Of streams that are there; those that are deleted here go.
    handles: Mutex<HashMap<String, Arc<Handle>>>,
    /// Held while topics and streams are made or deleted here.
    creating: tokio::sync::Mutex<()>,
    caught_up_ms: AtomicI64,
    seal: OnceCell<Seal>,
}

/// What this process keeps beside a stream.
pub(super) struct Handle {
    pub(super) topic: TopicName,
    changing: Arc<RwLock<()>>,
    pub(super) rates: Rates,
    pub(super) subscriptions: Subscriptions,
}

/// A stream that no shard is closed of for as long as this lives.
pub(super) struct Held {
    pub(super) stream: Arc<Stream>,
    pub(super) topic: Topic,
    pub(super) handle: Arc<Handle>,
    open: Arc<OwnedRwLockReadGuard<()>>,
}

impl Held {
    /// Keeps the stream as it is for whoever goes on without the request.
    pub(super) fn kept_open(&self) -> impl Send + 'static {
        self.open.clone()
    }
}

impl Kinesis {
    pub(in crate::ingest) fn new(services: &Services, topics: Arc<Topics>) -> Self {
        let Services { log, config, unattended, .. } = services.clone();
        Self {
            streams: Replicated::new(log.clone()),
            log,
            topics,
            config,
            unattended,
            handles: Mutex::default(),
            creating: tokio::sync::Mutex::default(),
            caught_up_ms: AtomicI64::new(i64::MIN),
            seal: OnceCell::new(),
        }
    }

    /// Whether shards are held to the throughput that the service allows.
    pub(super) fn has_limits(&self) -> bool {
        self.config.kinesis.limits == KinesisLimits::Aws
    }

    pub(super) fn log(&self) -> &dyn EventLog {
        &*self.log
    }

    /// The stream as it is now, if the caller may ask for it.
    pub(super) async fn stream(&self, caller: &Caller, name: &str) -> Result<Arc<Stream>, KinesisError> {
        caller.check(name)?;
        self.find_now(name).await?.ok_or_else(|| no_stream(caller, name))
    }

    /// The stream as it was a moment ago, for those who ask often.
    pub(super) async fn stream_soon(&self, caller: &Caller, name: &str) -> Result<Arc<Stream>, KinesisError> {
        caller.check(name)?;
        match self.known(name).await? {
            Some(stream) => Ok(stream),
            None => self.stream(caller, name).await,
        }
    }

    /// The stream, kept from being resharded here.
    pub(super) async fn hold(&self, caller: &Caller, name: &str) -> Result<Held, KinesisError> {
        loop {
            // There are handles for streams that are there, alone.
            self.stream_soon(caller, name).await?;
            let handle = self.handle(name)?;
            let open = handle.changing.clone().read_owned().await;
            let stream = self.stream_soon(caller, name).await?;
            // The stream may have been deleted and made again meanwhile, with another lock.
            if Arc::ptr_eq(&handle, &self.handle(name)?) {
                let topic = Topic::new(handle.topic.clone(), stream.n_shards());
                return Ok(Held { stream, topic, handle, open: Arc::new(open) });
            }
        }
    }

    /// For a stream that is there.
    pub(super) fn handle(&self, name: &str) -> Result<Arc<Handle>, KinesisError> {
        let mut handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = handles.get(name) {
            return Ok(handle.clone());
        }
        let topic = topic_name(name)?;
        let handle = Arc::new(Handle {
            topic,
            changing: Arc::default(),
            rates: Rates::default(),
            subscriptions: Subscriptions::default(),
        });
        handles.insert(name.to_owned(), handle.clone());
        Ok(handle)
    }

    fn forget(&self, name: &str) {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    async fn known(&self, name: &str) -> Result<Option<Arc<Stream>>, KinesisError> {
        let now = Timestamp::now().0;
        let age = now.saturating_sub(self.caught_up_ms.load(Relaxed));
        if (0..FRESH_MS).contains(&age) {
            return Ok(self.streams.peek(|streams| streams.get(name).cloned()));
        }
        self.read(|streams| streams.get(name).cloned()).await
    }

    /// Looks at the streams as they are now.
    pub(super) async fn read<R>(&self, look: impl FnOnce(&Streams) -> R + Send) -> Result<R, KinesisError> {
        let now = Timestamp::now().0;
        let seen = self.streams.read(look).await.map_err(|e| KinesisError::of_log(&e))?;
        self.caught_up_ms.store(now, Relaxed);
        Ok(seen)
    }

    async fn submit(&self, command: Command) -> Result<Result<Option<Arc<Stream>>, Refusal>, KinesisError> {
        self.streams.submit(command).await.map_err(|e| {
            // It may hold all the same: whoever comes next looks again.
            self.caught_up_ms.store(i64::MIN, Relaxed);
            KinesisError::of_log(&e)
        })
    }

    pub(super) async fn describe(&self) -> Result<LogDescription, KinesisError> {
        self.log.describe().await.map_err(|e| KinesisError::of_log(&e))
    }

    async fn find_now(&self, name: &str) -> Result<Option<Arc<Stream>>, KinesisError> {
        let known = self.read(|streams| streams.get(name).cloned()).await?;
        let has_topic = |description: &LogDescription| description.topics.get(name).copied().filter(|_| is_open(name));
        match (known, has_topic(&self.describe().await?)) {
            (Some(stream), Some(n)) if n >= stream.n_shards() => return Ok(Some(stream)),
            (None, None) => return Ok(None),
            _ => {}
        }
        // The two contradict each other, unless something was just on its way: look once more.
        let _creating = self.creating.lock().await;
        let known = self.read(|streams| streams.get(name).cloned()).await?;
        match (known, has_topic(&self.describe().await?)) {
            (Some(stream), Some(n)) if n >= stream.n_shards() => Ok(Some(stream)),
            (None, None) => Ok(None),
            (known, Some(n)) => self.adopt(name, n, known.map(|stream| stream.id)).await,
            (Some(gone), None) => {
                self.drop_stream(name.to_owned(), gone.id).await?;
                Ok(None)
            }
        }
    }

    /// Drops the streams whose topics other doors deleted, so that they do not add up.
    async fn sweep(&self) -> Result<(), KinesisError> {
        let description = self.describe().await?;
        let gone = |streams: &Streams| {
            let gone = streams.all().filter(|(name, _)| !description.topics.contains_key(*name));
            gone.map(|(name, stream)| (name.to_owned(), stream.id)).collect::<Vec<_>>()
        };
        for (name, id) in self.read(gone).await? {
            self.drop_stream(name, id).await?;
        }
        Ok(())
    }

    async fn drop_stream(&self, name: String, id: Uuid) -> Result<(), KinesisError> {
        self.forget(&name);
        self.submit(Command::Change { name, id, change: Change::Delete }).await?.ok();
        Ok(())
    }

    /// A stream of a topic that another door made.
    async fn adopt(&self, name: &str, n: u32, replaces: Option<Uuid>) -> Result<Option<Arc<Stream>>, KinesisError> {
        let stream = New {
            id: Uuid::new_v4(),
            mode: Mode::Provisioned,
            // Whatever is there belongs to the shards.
            first_offsets: vec![0; n as usize],
            max_record_kib: DEFAULT_MAX_RECORD_KIB,
            tags: Tags::new(),
        };
        match self.submit(Command::Create { name: name.to_owned(), stream, replaces }).await? {
            Ok(stream) => Ok(stream),
            // Another process was first.
            Err(_) => self.read(|streams| streams.get(name).cloned()).await,
        }
    }

    /// A new topic and its stream; None where one of them is there.
    pub(super) async fn create(
        &self,
        name: &str,
        n_shards: u32,
        mode: Mode,
        max_record_kib: u32,
        tags: Tags,
    ) -> Result<Option<Arc<Stream>>, KinesisError> {
        let limit = self.config.ingest.max_partitions_per_topic;
        if n_shards > limit {
            return Err(too_many_shards(name, n_shards, limit));
        }
        let topic = topic_name(name)?;
        let _creating = self.creating.lock().await;
        self.sweep().await?;
        let has_topic = async || Ok::<_, KinesisError>(self.describe().await?.topics.contains_key(&topic));
        if has_topic().await? {
            return Ok(None);
        }
        match self.topics.create_new(&topic, n_shards, true).await {
            Ok(()) => {}
            // Another door was faster.
            Err(_) if has_topic().await? => return Ok(None),
            Err(e) => return Err(e.into()),
        }
        let mut first_offsets = Vec::with_capacity(n_shards as usize);
        for shard in 0..n_shards {
            first_offsets.push(self.bounds(&topic, shard).await?.start.0);
        }
        let stream = New { id: Uuid::new_v4(), mode, first_offsets, max_record_kib, tags };
        let created = self.submit(Command::Create { name: name.to_owned(), stream, replaces: None }).await?;
        info!(stream = name, n_shards, "created stream {name} with {n_shards} shards");
        Ok(created.ok().flatten())
    }

    /// Deletes the topic and its stream, once the layers have taken all of it and no put is under way.
    pub(super) async fn delete(self: &Arc<Self>, name: &str, id: Uuid) -> Result<(), KinesisError> {
        let handle = self.handle(name)?;
        let (this, name) = (self.clone(), name.to_owned());
        // Not to be left half done when the client goes away.
        let deleting = self.unattended.spawn(async move {
            let ending = this.topics.end(&handle.topic);
            loop {
                let delete = ending.settle().await?;
                // In this order everywhere.
                let _changing = handle.changing.write().await;
                let _creating = this.creating.lock().await;
                // Another may have deleted it meanwhile, and its name may have been given anew.
                let found = this.read(|streams| streams.get(&name).map(|stream| stream.id)).await?;
                if found.is_some_and(|found| found != id) {
                    return Ok(());
                }
                match this.topics.change(&handle.topic, delete).await {
                    Ok(()) | Err(LogError::UnknownTopic(_)) => {}
                    Err(LogError::TopicGrew(_)) => continue,
                    Err(e) => return Err(KinesisError::of_log(&e)),
                }
                this.drop_stream(name.clone(), id).await?;
                info!(stream = name, "deleted stream {name}");
                return Ok(());
            }
        });
        deleting.await.unwrap_or_else(|_| Err(KinesisError::internal()))
    }

    /// Changes something else about a stream.
    pub(super) async fn change(
        &self,
        name: &str,
        id: Uuid,
        change: Change,
    ) -> Result<Result<Arc<Stream>, Refusal>, KinesisError> {
        let changed = self.submit(Command::Change { name: name.to_owned(), id, change }).await?;
        Ok(changed.and_then(|stream| stream.ok_or(Refusal::NoStream)))
    }

    /// Closes shards and makes new ones, as `plan` says for the stream as it is.
    pub(super) async fn reshard(
        self: &Arc<Self>,
        caller: &Caller,
        name: &str,
        plan: impl Fn(&Stream) -> Result<Vec<Step>, KinesisError> + Send + 'static,
    ) -> Result<Arc<Stream>, KinesisError> {
        self.stream(caller, name).await?;
        let handle = self.handle(name)?;
        let (this, name, caller) = (self.clone(), name.to_owned(), caller.clone());
        // A client that goes away must not let puts in between the change and the news of it.
        let changing = self.unattended.spawn(async move {
            let _changing = handle.changing.write().await;
            for _ in 0..MAX_PLANS {
                let stream = this.stream(&caller, &name).await?;
                let steps = plan(&stream)?;
                if steps.is_empty() {
                    return Ok(stream);
                }
                if let Some(changed) = this.take_steps(&caller, &name, &handle.topic, &stream, steps).await? {
                    return Ok(changed);
                }
            }
            Err(KinesisError::in_use(format!("Stream {name} is being changed by others; try again")))
        });
        changing.await.unwrap_or_else(|_| Err(KinesisError::internal()))
    }

    /// None where others were faster.
    async fn take_steps(
        &self,
        caller: &Caller,
        name: &str,
        topic: &TopicName,
        stream: &Stream,
        steps: Vec<Step>,
    ) -> Result<Option<Arc<Stream>>, KinesisError> {
        let n_shards = stream.n_shards();
        let mut planned = stream.clone();
        planned.reshard(&steps, &BTreeMap::new(), 0).map_err(|_| KinesisError::internal())?;
        let limit = self.config.ingest.max_partitions_per_topic;
        if planned.n_shards() > limit {
            return Err(too_many_shards(name, planned.n_shards(), limit));
        }
        // A change that was cut short may have made some already.
        let n_partitions = planned.n_shards();
        let there = self.describe().await?.topics.get(topic).copied().unwrap_or_default();
        if there < n_partitions {
            let grown = self.topics.change(topic, TopicChange::Grow { n_partitions }).await;
            grown.map_err(|e| KinesisError::of_log(&e))?;
        }
        let closing = steps.iter().flat_map(|step| match step {
            Step::Split { shard, .. } => [*shard, *shard],
            Step::Merge { first, second } => [*first, *second],
        });
        let mut ends = BTreeMap::new();
        for partition in closing.filter(|number| *number < n_shards).collect::<BTreeSet<u32>>() {
            ends.insert(partition, self.bounds(topic, partition).await?.end.0);
        }
        for partition in n_shards..planned.n_shards() {
            ends.insert(partition, self.bounds(topic, partition).await?.start.0);
        }
        match self.change(name, stream.id, Change::Reshard { n_shards, steps, ends }).await? {
            Ok(changed) => Ok(Some(changed)),
            Err(Refusal::Outdated) => Ok(None),
            Err(_) => Err(no_stream(caller, name)),
        }
    }

    async fn bounds(&self, topic: &TopicName, partition: u32) -> Result<Bounds, KinesisError> {
        let partition = TopicPartition::new(topic.clone(), partition);
        self.log.bounds(&partition).await.map_err(|e| KinesisError::of_log(&e))
    }

    /// What iterators are sealed with: the same for all processes on this log, and after a restart.
    pub(super) async fn seal(&self) -> Result<&Seal, KinesisError> {
        self.seal
            .get_or_try_init(|| async {
                let log_id = self.describe().await?.id.id;
                let mut secret = self.read(|streams| streams.secret().map(str::to_owned)).await?;
                if secret.is_none() {
                    let drawn = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
                    self.submit(Command::Secret(drawn)).await?.ok();
                    secret = self.read(|streams| streams.secret().map(str::to_owned)).await?;
                }
                let secret = secret.ok_or_else(KinesisError::internal)?;
                Ok(Seal::new(secret.as_bytes(), log_id.as_bytes()))
            })
            .await
    }
}

/// Whether a topic of this name is a stream, too.
pub(super) fn is_open(name: &str) -> bool {
    !name.starts_with(INTERNAL_PREFIX) && name.len() <= MAX_NAME_LEN
}

fn topic_name(name: &str) -> Result<TopicName, KinesisError> {
    let topic = name.parse::<TopicName>().ok().filter(|_| is_open(name));
    topic.ok_or_else(|| KinesisError::invalid_argument(format!("no stream may be called {name}")))
}

pub(super) fn no_stream(caller: &Caller, name: &str) -> KinesisError {
    KinesisError::not_found(format!("Stream {name} under account {} not found.", caller.account))
}

fn too_many_shards(name: &str, wanted: u32, limit: u32) -> KinesisError {
    KinesisError::limit_exceeded(format!(
        "Stream {name} would have {wanted} shards, those closed included; {limit} are allowed \
         (ingest.max_partitions_per_topic)"
    ))
}
