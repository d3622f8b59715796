//! Rows on their way in: as landing objects of another program, and over HTTP to a server that
//! may die meanwhile.

use std::{fs, net::SocketAddr, path::Path, sync::mpsc::Receiver};

use crate::http::Client;

pub(crate) const STREAMS: [&str; 3] = ["pin", "geo", "user"];

/// The user id of these tests' topics: `0a3.pin`, `0a3.geo`, `0a3.user`.
pub(crate) const USER_ID: &str = "0a3";

/// JSON texts by stream, in the order of `STREAMS`.
pub(crate) type Rows = [Vec<String>; 3];

/// Writes rows as the S3 sink of Kafka Connect lands them, so many records to an object.
pub(crate) fn land(folder: &Path, rows: &Rows, n_per_object: usize) {
    for (stream, lines) in STREAMS.iter().zip(rows) {
        let topic = format!("{USER_ID}.{stream}");
        let target = folder.join("topics").join(&topic).join("partition=0");
        fs::create_dir_all(&target).unwrap();
        for (n, lines) in lines.chunks(n_per_object).enumerate() {
            let name = format!("{topic}+0+{:010}.json", n * n_per_object);
            fs::write(target.join(name), lines.join("\n") + "\n").unwrap();
        }
    }
}

/// The requests that post these rows: topic and values, the streams in turn.
pub(crate) fn requests(rows: &Rows, n_per_request: usize) -> Vec<(String, Vec<&str>)> {
    let longest = rows.iter().map(Vec::len).max().unwrap_or_default();
    let mut requests = Vec::new();
    for start in (0..longest).step_by(n_per_request) {
        for (stream, lines) in STREAMS.iter().zip(rows) {
            let values: Vec<&str> = lines.iter().skip(start).take(n_per_request).map(String::as_str).collect();
            if !values.is_empty() {
                requests.push((format!("{USER_ID}.{stream}"), values));
            }
        }
    }
    requests
}

/// A producer that repeats each request until it is acknowledged; servers come and go, and
/// each new one's address arrives on a channel.
pub(crate) struct Producer {
    addresses: Receiver<SocketAddr>,
    client: Option<Client>,
}

impl Producer {
    pub(crate) fn new(addresses: Receiver<SocketAddr>) -> Self {
        Self { addresses, client: None }
    }

    /// The offsets of the records, and whether an earlier try's outcome is unknown. None when
    /// there will be no further server.
    pub(crate) fn produce(&mut self, topic: &str, values: &[&str]) -> Option<Produced> {
        let mut is_repeated = false;
        let mut n_failed = 0;
        loop {
            let client = match &mut self.client {
                Some(client) => client,
                None => self.client.insert(Client::new(self.addresses.recv().ok()?)),
            };
            match client.produce(topic, values) {
                Ok(positions) => return Some(Produced { positions, is_repeated }),
                // A server closes what was idle for long; only who fails anew has lost it.
                Err(_) => {
                    is_repeated = true;
                    n_failed += 1;
                    if n_failed % 2 == 0 {
                        self.client = None;
                    }
                }
            }
        }
    }
}

pub(crate) struct Produced {
    /// Partition and offset of each record.
    pub(crate) positions: Vec<(u64, u64)>,
    pub(crate) is_repeated: bool,
}
