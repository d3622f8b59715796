//! Producers in a closed loop: post, wait for the answer, post again. Few threads with many connections
//! each, so that the server need not compete with a crowd of threads for the machine. Who is refused
//! waits a tenth of the time that it is asked to, and tries again.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// Answers ask for a second; clients that keep to it make no overload.
const IMPATIENCE: Duration = Duration::from_millis(100);

/// No answer takes this long unless the claim is false.
const PATIENCE: Duration = Duration::from_secs(60);

/// As many as drive a server on two cores to its limit.
const N_THREADS: usize = 4;

const RECORD_BYTES: usize = 500;

/// One produce request, and how many records are in it.
pub(super) struct Post {
    pub(super) bytes: Vec<u8>,
    pub(super) n_records: u64,
}

impl Post {
    pub(super) fn new(topic: &str, n_records: usize) -> Self {
        let record = format!(r#"{{"value":{{"text":"{}"}}}}"#, "x".repeat(RECORD_BYTES));
        let body = format!(r#"{{"records":[{}]}}"#, vec![record; n_records].join(","));
        let head = format!(
            "POST /topics/{topic} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/vnd.kafka.json.v2+json\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        Self { bytes: (head + &body).into_bytes(), n_records: n_records as u64 }
    }
}

/// What became of many posts.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) n_acknowledged: u64,
    pub(super) n_refused: u64,
    /// The connection ended without an answer.
    pub(super) n_unknown: u64,
    /// Of what held on beside.
    pub(super) beside: Beside,
    /// Of those acknowledged in the measured time.
    latencies: Vec<Duration>,
    /// How long that was.
    seconds: f64,
}

/// What those did who only wanted room.
#[derive(Default)]
pub(super) struct Beside {
    /// How often one was cut off.
    pub(super) n_cut_off: usize,
    pub(super) lasted: Duration,
    /// For how long of that their own thread was on a processor.
    pub(super) busy: Duration,
}

impl Beside {
    fn merge(&mut self, other: &Self) {
        self.n_cut_off += other.n_cut_off;
        self.lasted += other.lasted;
        self.busy += other.busy;
    }

    /// The part of the processors that they left to others.
    pub(super) fn leave(&self, n_processors: usize) -> f64 {
        if self.lasted.is_zero() {
            return 1.0;
        }
        1.0 - self.busy.as_secs_f64() / self.lasted.as_secs_f64() / n_processors as f64
    }
}

impl Tally {
    pub(super) fn merge(&mut self, other: Self) {
        self.n_acknowledged += other.n_acknowledged;
        self.n_refused += other.n_refused;
        self.n_unknown += other.n_unknown;
        self.beside.merge(&other.beside);
        self.latencies.extend(other.latencies);
        self.seconds += other.seconds;
    }

    pub(super) fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.seconds
    }

    pub(super) fn p99_ms(&self) -> f64 {
        let Some(last) = self.latencies.len().checked_sub(1) else { return f64::INFINITY };
        let mut latencies = self.latencies.clone();
        let (_, latency, _) = latencies.select_nth_unstable(last * 99 / 100);
        latency.as_secs_f64() * 1e3
    }
}

/// Posts over so many connections for so long; every post that was begun is answered before this
/// returns. What happens in the first fifth counts for the log but not for the figures.
pub(super) fn run(address: &str, post: &Post, n_connections: usize, lasting: Duration) -> Result<Tally> {
    let (measuring, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    let mut total = Tally::default();
    thread::scope(|scope| -> Result<()> {
        let n_threads = N_THREADS.min(n_connections);
        let some = |i: usize| {
            let n = (n_connections + i) / n_threads;
            let (measuring, stop) = (&measuring, &stop);
            scope.spawn(move || Producers::connect(address, post, n)?.run(measuring, stop))
        };
        let threads: Vec<_> = (0..n_threads).map(some).collect();
        thread::sleep(lasting / 5);
        measuring.store(true, Relaxed);
        let begin = Instant::now();
        thread::sleep(lasting * 4 / 5);
        stop.store(true, Relaxed);
        total.seconds = begin.elapsed().as_secs_f64();
        for thread in threads {
            let Ok(tally) = thread.join() else { bail!("a producer's thread panicked") };
            total.merge(tally?);
        }
        Ok(())
    })?;
    Ok(total)
}

/// The producers of one thread. It goes from one to the next and waits for each one's answer, while
/// those of the others come.
struct Producers<'a> {
    address: &'a str,
    post: &'a Post,
    producers: Vec<Producer>,
    tally: Tally,
}

struct Producer {
    /// None after the server closed it.
    connection: Option<Connection>,
    state: State,
}

enum State {
    /// Posts again not before then.
    Resting(Instant),
    Posted(Instant),
}

impl<'a> Producers<'a> {
    fn connect(address: &'a str, post: &'a Post, n: usize) -> Result<Self> {
        let one = || -> io::Result<Producer> {
            Ok(Producer { connection: Some(Connection::open(address)?), state: State::Resting(Instant::now()) })
        };
        let producers = (0..n).map(|_| one()).collect::<Result<_, _>>()?;
        Ok(Self { address, post, producers, tally: Tally::default() })
    }

    fn run(mut self, measuring: &AtomicBool, stop: &AtomicBool) -> Result<Tally> {
        let mut producers = std::mem::take(&mut self.producers);
        while !stop.load(Relaxed) {
            let mut n_moved = 0;
            for producer in &mut producers {
                match producer.state {
                    State::Resting(until) if until > Instant::now() => continue,
                    State::Resting(_) => {}
                    State::Posted(at) => self.settle(producer, at, measuring.load(Relaxed))?,
                }
                if matches!(producer.state, State::Resting(until) if until <= Instant::now()) {
                    self.post(producer)?;
                }
                n_moved += 1;
            }
            if n_moved == 0 {
                thread::sleep(IMPATIENCE / 100);
            }
        }
        for producer in &mut producers {
            if let State::Posted(at) = producer.state {
                self.settle(producer, at, false)?;
            }
        }
        Ok(self.tally)
    }

    fn post(&mut self, producer: &mut Producer) -> Result<()> {
        let connection = match &mut producer.connection {
            Some(connection) => connection,
            closed => closed.insert(Connection::open(self.address)?),
        };
        producer.state = State::Posted(Instant::now());
        if connection.send(&self.post.bytes).is_err() {
            self.lose(producer);
        }
        Ok(())
    }

    fn settle(&mut self, producer: &mut Producer, posted: Instant, is_measured: bool) -> Result<()> {
        let connection = producer.connection.as_mut().expect("a post that waits has its connection");
        let Ok(answer) = connection.receive() else {
            self.lose(producer);
            return Ok(());
        };
        let mut rest = Duration::ZERO;
        match answer.status {
            200 => {
                self.tally.n_acknowledged += 1;
                if is_measured {
                    self.tally.latencies.push(posted.elapsed());
                }
            }
            429 | 503 if answer.has_retry_after => {
                self.tally.n_refused += 1;
                rest = IMPATIENCE;
            }
            other => bail!("an answer of {other}, Retry-After: {}", answer.has_retry_after),
        }
        if answer.closes {
            producer.connection = None;
        }
        producer.state = State::Resting(Instant::now() + rest);
        Ok(())
    }

    fn lose(&mut self, producer: &mut Producer) {
        self.tally.n_unknown += 1;
        *producer = Producer { connection: None, state: State::Resting(Instant::now() + IMPATIENCE) };
    }
}

pub(super) struct Connection {
    writer: TcpStream,
    reader: BufReader<TcpStream>,
}

pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) has_retry_after: bool,
    pub(super) closes: bool,
    pub(super) body: Vec<u8>,
}

impl Connection {
    pub(super) fn open(address: &str) -> io::Result<Self> {
        let writer = TcpStream::connect(address)?;
        writer.set_nodelay(true)?;
        writer.set_read_timeout(Some(PATIENCE))?;
        writer.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { reader: BufReader::with_capacity(1024, writer.try_clone()?), writer })
    }

    pub(super) fn ask(&mut self, request: &[u8]) -> io::Result<Answer> {
        self.send(request)?;
        self.receive()
    }

    fn send(&mut self, request: &[u8]) -> io::Result<()> {
        self.writer.write_all(request)
    }

    fn receive(&mut self) -> io::Result<Answer> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut answer = Answer { status, has_retry_after: false, closes: false, body: Vec::new() };
        let mut n_bytes = 0;
        loop {
            line.clear();
            self.reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            match name {
                "content-length" => n_bytes = value.parse().map_err(io::Error::other)?,
                "retry-after" => answer.has_retry_after = true,
                "connection" => answer.closes = value == "close",
                _ => {}
            }
        }
        answer.body.resize(n_bytes, 0);
        self.reader.read_exact(&mut answer.body)?;
        Ok(answer)
    }
}
