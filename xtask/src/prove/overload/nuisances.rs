//! Clients that want nothing but room: connections that idle, bodies that come byte by byte, answers
//! that nobody takes. They hold on until dropped, and come back when they are cut off.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Result;

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

    fn connect(self, address: &str) -> std::io::Result<TcpStream> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nonblocking(true)?;
        // What does not fit between the two is more than enough.
        match stream.write(&self.greeting()) {
            Err(e) if e.kind() != ErrorKind::WouldBlock => Err(e),
            _ => Ok(stream),
        }
    }
}

/// Many of one kind.
pub(super) struct Crowd {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<usize>>,
}

impl Crowd {
    /// Returns when all have connected.
    pub(super) fn gather(nuisance: Nuisance, address: &str, n: usize) -> Result<Self> {
        let mut streams = (0..n).map(|_| nuisance.connect(address)).collect::<Result<Vec<_>, _>>()?;
        let stop = Arc::new(AtomicBool::new(false));
        let (address, stopped) = (address.to_owned(), stop.clone());
        let thread = thread::spawn(move || {
            let mut n_cut_off = 0;
            while !stopped.load(Relaxed) {
                for stream in &mut streams {
                    if stopped.load(Relaxed) {
                        break;
                    }
                    if !nuisance.annoy(stream) {
                        n_cut_off += 1;
                        // Refused or not: the next round tries again.
                        if let Ok(again) = nuisance.connect(&address) {
                            *stream = again;
                        }
                    }
                }
                thread::park_timeout(ROUND);
            }
            n_cut_off
        });
        Ok(Self { stop, thread: Some(thread) })
    }

    /// How often one of them was cut off.
    pub(super) fn disperse(mut self) -> usize {
        self.stop.store(true, Relaxed);
        let thread = self.thread.take().expect("it is dispersed once");
        thread.thread().unpark();
        thread.join().unwrap_or_default()
    }
}
