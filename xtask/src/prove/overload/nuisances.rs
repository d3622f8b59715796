//! Clients that want nothing but room: connections that idle, bodies that come byte by byte, answers
//! that nobody takes. They hold on until dropped, and come back when they are cut off: after a second,
//! and after twice as long each time, as clients do.

use std::{
    fs,
    io::{self, ErrorKind, Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::load::Beside;

/// Between two rounds over all connections.
const ROUND: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
pub(super) enum Nuisance {
    /// Connects, and says nothing.
    Idle,
    /// Announces a large body and sends one byte a second.
    SlowWriter,
    /// Asks for long answers and takes one byte a second.
    SlowReader,
}

impl Nuisance {
    fn greeting(self) -> Vec<u8> {
        match self {
            Self::Idle => Vec::new(),
            Self::SlowWriter => b"POST /topics/overload HTTP/1.1\r\nHost: localhost\r\n\
                Content-Type: application/json\r\nContent-Length: 60000\r\n\r\n"
                .to_vec(),
            // More answers than fit between the two, and none of them costs much to make.
            Self::SlowReader => b"GET /assets/style.css HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(400),
        }
    }

    /// Whether the connection is still there.
    fn annoy(self, stream: &mut TcpStream) -> bool {
        let moved = match self {
            Self::Idle => stream.peek(&mut [0]),
            Self::SlowWriter => stream.write(b" "),
            Self::SlowReader => stream.read(&mut [0]),
        };
        match moved {
            Ok(n_bytes) => n_bytes > 0,
            Err(e) => e.kind() == ErrorKind::WouldBlock,
        }
    }

    fn connect(self, address: &str) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nonblocking(true)?;
        // What does not fit between the two is more than enough.
        match stream.write(&self.greeting()) {
            Err(e) if e.kind() != ErrorKind::WouldBlock => Err(e),
            _ => Ok(stream),
        }
    }
}

struct Member {
    /// None after it was cut off.
    stream: Option<TcpStream>,
    comes_back: Instant,
    next_pause: Duration,
}

impl Member {
    fn join(nuisance: Nuisance, address: &str) -> io::Result<Self> {
        Ok(Self { stream: Some(nuisance.connect(address)?), comes_back: Instant::now(), next_pause: ROUND })
    }

    /// Whether it was cut off.
    fn hold_on(&mut self, nuisance: Nuisance, address: &str) -> bool {
        let Some(stream) = &mut self.stream else {
            if self.comes_back <= Instant::now() {
                // Refused or not: it looks again in the next round.
                self.stream = nuisance.connect(address).ok();
            }
            return false;
        };
        if nuisance.annoy(stream) {
            return false;
        }
        self.stream = None;
        self.comes_back = Instant::now() + self.next_pause;
        self.next_pause *= 2;
        true
    }
}

/// Many of one kind.
pub(super) struct Crowd {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Beside>>>,
}

impl Crowd {
    /// Returns when all have connected.
    pub(super) fn gather(nuisance: Nuisance, address: &str, n: usize) -> Result<Self> {
        let mut members = (0..n).map(|_| Member::join(nuisance, address)).collect::<io::Result<Vec<_>>>()?;
        let stop = Arc::new(AtomicBool::new(false));
        let (address, stopped) = (address.to_owned(), stop.clone());
        let thread = thread::spawn(move || {
            let begin = Instant::now();
            let mut beside = Beside::default();
            while !stopped.load(Relaxed) {
                for member in &mut members {
                    if stopped.load(Relaxed) {
                        break;
                    }
                    beside.n_cut_off += usize::from(member.hold_on(nuisance, &address));
                }
                thread::park_timeout(ROUND);
            }
            beside.lasted = begin.elapsed();
            beside.busy = processor_time()?;
            Ok(beside)
        });
        Ok(Self { stop, thread: Some(thread) })
    }

    pub(super) fn disperse(mut self) -> Result<Beside> {
        self.stop.store(true, Relaxed);
        let thread = self.thread.take().expect("it is dispersed once");
        thread.thread().unpark();
        let Ok(beside) = thread.join() else { bail!("the thread of a crowd panicked") };
        beside
    }
}

/// For how long this thread was on a processor.
fn processor_time() -> Result<Duration> {
    let file = "/proc/thread-self/schedstat";
    let text = fs::read_to_string(file).with_context(|| format!("read {file}"))?;
    let nanoseconds = text.split(' ').next().unwrap_or_default();
    Ok(Duration::from_nanos(nanoseconds.parse().with_context(|| format!("{file} begins with the time"))?))
}
