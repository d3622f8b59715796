//! A server on a free port over a log that a test can fill, stop and break, and a client that
//! sends bytes and reads answers, nothing smarter.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use model::{
    Bounds, Ended, EventLog, LogDescription, LogError, LogId, Offset, OffsetRange, Record, Stop, StoredRecord,
    TopicChange, TopicName, TopicPartition,
    config::{Config, DriverConfig},
};
use server::{Services, auth::Auth, listener, metrics::Metrics, orchestrator::Driver, router};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Semaphore, watch},
    task::JoinHandle,
    time::timeout,
};

/// No test waits this long unless it fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// Keeps records in memory. Appends can be held at a gate and made to fail.
pub(crate) struct TestLog {
    topics: Mutex<BTreeMap<TopicName, Vec<Vec<Record>>>>,
    failures: Mutex<BTreeMap<u32, VecDeque<LogError>>>,
    has_gate: AtomicBool,
    arrived: Semaphore,
    gate: Semaphore,
    moved: watch::Sender<u64>,
}

impl TestLog {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            topics: Mutex::default(),
            failures: Mutex::default(),
            has_gate: AtomicBool::new(false),
            arrived: Semaphore::new(0),
            gate: Semaphore::new(0),
            moved: watch::Sender::default(),
        })
    }

    pub(crate) fn with_topic(&self, name: &str, n_partitions: usize) {
        self.topics.lock().unwrap().insert(name.parse().unwrap(), vec![Vec::new(); n_partitions]);
    }

    /// The next append to partitions of this number fails.
    pub(crate) fn fail_next(&self, partition: u32, error: LogError) {
        self.failures.lock().unwrap().entry(partition).or_default().push_back(error);
    }

    /// Appends wait from now on until `open_gate`.
    pub(crate) fn close_gate(&self) {
        self.has_gate.store(true, Ordering::SeqCst);
    }

    /// Lets every append through.
    pub(crate) fn open_gate(&self) {
        self.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    /// Lets one append through.
    pub(crate) fn let_one_through(&self) {
        self.gate.add_permits(1);
    }

    /// Appends that came to the gate, and that no test waited for.
    pub(crate) fn n_arrived(&self) -> usize {
        self.arrived.available_permits()
    }

    /// Returns when one more append stands at the gate.
    pub(crate) async fn append_at_gate(&self) {
        timeout(PATIENCE, self.arrived.acquire()).await.expect("an append comes").unwrap().forget();
    }

    pub(crate) fn topic_names(&self) -> Vec<String> {
        self.topics.lock().unwrap().keys().map(ToString::to_string).collect()
    }

    pub(crate) fn records(&self, topic: &str, partition: usize) -> Vec<Record> {
        self.topics.lock().unwrap()[topic][partition].clone()
    }

    /// The values of a partition as text.
    pub(crate) fn values(&self, topic: &str, partition: usize) -> Vec<String> {
        let text = |record: Record| String::from_utf8(record.value.unwrap().to_vec()).unwrap();
        self.records(topic, partition).into_iter().map(text).collect()
    }
}

#[async_trait]
impl EventLog for TestLog {
    async fn describe(&self) -> Result<LogDescription, LogError> {
        let topics = self.topics.lock().unwrap();
        let topics = topics.iter().map(|(name, partitions)| (name.clone(), partitions.len() as u32)).collect();
        Ok(LogDescription { id: LogId::NONE, topics, ended: Ended::default() })
    }

    async fn change_topic(&self, topic: &TopicName, change: TopicChange) -> Result<(), LogError> {
        let mut topics = self.topics.lock().unwrap();
        match change {
            TopicChange::Create { .. } if topics.contains_key(topic) => {
                return Err(LogError::TopicExists(topic.clone()));
            }
            TopicChange::Create { n_partitions } | TopicChange::Grow { n_partitions } => {
                topics.entry(topic.clone()).or_default().resize(n_partitions as usize, Vec::new());
            }
            TopicChange::Delete | TopicChange::DeleteUnlessGrown { .. } => drop(topics.remove(topic)),
        }
        Ok(())
    }

    async fn append(&self, partition: &TopicPartition, records: Vec<Record>) -> Result<OffsetRange, LogError> {
        assert!(partition.topic.as_str() != "panics", "this topic panics");
        if self.has_gate.load(Ordering::SeqCst) {
            self.arrived.add_permits(1);
            self.gate.acquire().await.unwrap().forget();
        }
        if let Some(error) = self.failures.lock().unwrap().get_mut(&partition.partition).and_then(VecDeque::pop_front) {
            return Err(error);
        }
        let mut topics = self.topics.lock().unwrap();
        let of_topic = topics.get_mut(&partition.topic);
        let of_topic = of_topic.ok_or_else(|| LogError::UnknownTopic(partition.topic.clone()))?;
        let stored = of_topic.get_mut(partition.partition as usize);
        let stored = stored.ok_or_else(|| LogError::UnknownPartition(partition.clone()))?;
        let start = Offset(stored.len() as u64);
        let end = start.plus(records.len());
        stored.extend(records);
        self.moved.send_modify(|n| *n += 1);
        Ok(OffsetRange { partition: partition.clone(), start, end })
    }

    async fn fetch(&self, partition: &TopicPartition, from: Offset, _: usize) -> Result<Vec<StoredRecord>, LogError> {
        let topics = self.topics.lock().unwrap();
        let stored = topics[&partition.topic][partition.partition as usize].iter();
        let record = |(i, record): (usize, &Record)| StoredRecord { offset: Offset(i as u64), record: record.clone() };
        Ok(stored.enumerate().skip(from.0 as usize).map(record).collect())
    }

    async fn bounds(&self, partition: &TopicPartition) -> Result<Bounds, LogError> {
        let topics = self.topics.lock().unwrap();
        let of_topic = topics.get(&partition.topic);
        let of_topic = of_topic.ok_or_else(|| LogError::UnknownTopic(partition.topic.clone()))?;
        let n_records = of_topic[partition.partition as usize].len();
        Ok(Bounds { start: Offset::ZERO, end: Offset(n_records as u64) })
    }

    async fn trim(&self, _: &TopicPartition, _: Offset) -> Result<(), LogError> {
        Ok(())
    }

    fn moved(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }
}

pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) log: Arc<TestLog>,
    pub(crate) stop: Stop,
    serving: JoinHandle<anyhow::Result<()>>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let (log, stop) = (TestLog::new(), Stop::new());
        let mut config = Config::defaults();
        change(&mut config);
        let router = router::router(services(log.clone(), config.clone()), stop.clone());
        config.server.listen = "127.0.0.1:0".parse().unwrap();
        let port = listener::bind(&config).await.unwrap();
        let addr = port.local_addr().unwrap();
        let serving = {
            let stop = stop.clone();
            tokio::spawn(async move { listener::serve(port, router, &config.server, stop).await })
        };
        Self { addr, log, stop, serving }
    }

    pub(crate) async fn connect(&self) -> Client {
        Client { stream: TcpStream::connect(self.addr).await.unwrap(), received: Vec::new() }
    }

    /// One request on a connection of its own.
    pub(crate) async fn ask(&self, request: impl AsRef<[u8]>) -> Reply {
        let mut client = self.connect().await;
        client.send(request).await;
        client.reply().await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.ask(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await
    }

    pub(crate) async fn post(&self, path: &str, media_type: &str, body: impl AsRef<[u8]>) -> Reply {
        self.ask(post(path, media_type, body)).await
    }

    /// Posts with the usual media type of producers.
    pub(crate) async fn produce(&self, topic: &str, body: impl AsRef<[u8]>) -> Reply {
        self.post(&format!("/topics/{topic}"), JSON, body).await
    }

    /// Returns when the server has come to its end after `stop`.
    pub(crate) async fn stopped(self) {
        timeout(PATIENCE, self.serving).await.expect("the server ends").unwrap().unwrap();
    }
}

pub(crate) const JSON: &str = "application/vnd.kafka.json.v2+json";
pub(crate) const BINARY: &str = "application/vnd.kafka.binary.v2+json";

pub(crate) fn services(log: Arc<impl EventLog + 'static>, config: Config) -> Services {
    let metrics = Arc::new(Metrics::new());
    Services {
        tasks: handle(&config.driver, &*log, metrics.clone()),
        log,
        layers: None,
        query: None,
        ingest: true,
        auth: Arc::new(Auth::open(&config.auth).unwrap()),
        streams: Arc::new([]),
        metrics,
        unattended: Default::default(),
        config: Arc::new(config),
    }
}

fn handle(config: &DriverConfig, log: &impl EventLog, metrics: Arc<Metrics>) -> server::orchestrator::Handle {
    Driver::new(config, log.moved(), metrics).handle()
}

pub(crate) fn post(path: &str, media_type: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

pub(crate) struct Client {
    stream: TcpStream,
    /// What came after the last answer.
    received: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Client {
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        timeout(PATIENCE, self.stream.write_all(bytes.as_ref())).await.expect("the server reads").unwrap();
    }

    /// Sends the same again and again.
    pub(crate) async fn send_until_cut_off(&mut self, bytes: impl AsRef<[u8]>) {
        let sending = async { while self.stream.write_all(bytes.as_ref()).await.is_ok() {} };
        timeout(PATIENCE, sending).await.expect("the server cuts the connection off");
    }

    /// Takes a few bytes at a time, and waits for more to have come than fits between the two.
    pub(crate) async fn nibble_until_cut_off(&mut self) {
        let nibbling = async {
            let mut buffer = [0; 16];
            while self.stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, nibbling).await.expect("the server cuts the connection off");
    }

    /// The next answer to a request other than HEAD.
    pub(crate) async fn reply(&mut self) -> Reply {
        let mut reply = self.head().await;
        let length = reply.headers.get("content-length").map_or(0, |n| n.parse().unwrap());
        while self.received.len() < length {
            assert!(self.receive().await > 0, "the connection was closed within a body");
        }
        reply.body = String::from_utf8(self.received.drain(..length).collect()).unwrap();
        reply
    }

    /// The next answer without its body.
    pub(crate) async fn head(&mut self) -> Reply {
        let head = String::from_utf8(self.head_bytes().await).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let header = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
        Reply { status, headers: lines.filter_map(header).collect(), body: String::new() }
    }

    /// The same as it came: not everything that may stand in a header is text.
    pub(crate) async fn head_bytes(&mut self) -> Vec<u8> {
        let end = loop {
            if let Some(end) = self.received.windows(4).position(|w| w == b"\r\n\r\n") {
                break end;
            }
            assert!(self.receive().await > 0, "the connection was closed before an answer");
        };
        self.received.drain(..end + 4).collect()
    }

    /// Returns when this has come; what came up to it is taken.
    pub(crate) async fn until(&mut self, text: &str) {
        loop {
            if let Some(at) = self.received.windows(text.len()).position(|w| w == text.as_bytes()) {
                self.received.drain(..at + text.len());
                return;
            }
            assert!(self.receive().await > 0, "the connection was closed before {text:?}");
        }
    }

    /// Whatever comes until the server closes the connection.
    pub(crate) async fn rest(&mut self) -> String {
        String::from_utf8(self.rest_bytes().await).unwrap()
    }

    pub(crate) async fn rest_bytes(&mut self) -> Vec<u8> {
        while self.receive().await > 0 {}
        std::mem::take(&mut self.received)
    }

    /// Nothing has arrived, up to now.
    pub(crate) fn has_nothing(&self) -> bool {
        let mut buffer = [0; 1];
        self.received.is_empty()
            && self.stream.try_read(&mut buffer).is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock)
    }

    /// A reset counts as an end: what was sent is never read by anyone.
    async fn receive(&mut self) -> usize {
        let mut buffer = [0; 4096];
        let n =
            timeout(PATIENCE, self.stream.read(&mut buffer)).await.expect("the server answers or closes").unwrap_or(0);
        self.received.extend_from_slice(&buffer[..n]);
        n
    }
}
