//! A client that waits for each answer, and says nothing that a test did not ask it to say.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

/// No test waits this long unless it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Between two looks at something that is about to happen.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

pub(crate) const KAFKA_JSON: &str = "application/vnd.kafka.json.v2+json";
pub(crate) const KAFKA_BINARY: &str = "application/vnd.kafka.binary.v2+json";

/// One kept-alive connection.
pub(crate) struct Client {
    address: SocketAddr,
    connection: Option<BufReader<TcpStream>>,
}

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, connection: None }
    }

    pub(crate) fn send(&mut self, method: &str, path: &str, media_type: &str, body: &[u8]) -> io::Result<Response> {
        self.exchange(&format!("{method} {path}"), &format!("Content-Type: {media_type}"), body)
    }

    /// Sends a request and reads the answer; a failed connection is not used again.
    fn exchange(&mut self, request: &str, header: &str, body: &[u8]) -> io::Result<Response> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let stream = TcpStream::connect(self.address)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                BufReader::new(stream)
            }
        };
        let head = format!(
            "{request} HTTP/1.1\r\nHost: {}\r\n{header}\r\nContent-Length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        connection.get_mut().write_all(&[head.as_bytes(), body].concat())?;
        let (response, stays_open) = read_response(&mut connection)?;
        self.connection = stays_open.then_some(connection);
        Ok(response)
    }

    pub(crate) fn get(&mut self, path: &str) -> Response {
        self.send("GET", path, "text/plain", b"").unwrap_or_else(|e| panic!("GET {path}: {e}"))
    }

    /// What a browser gets.
    pub(crate) fn page(&mut self, path: &str) -> String {
        let response = self.exchange(&format!("GET {path}"), "Accept: text/html,*/*;q=0.8", b"").unwrap();
        assert_eq!(response.status, 200, "{}", response.text());
        response.text()
    }

    /// The JSON of an answer that must be 200.
    pub(crate) fn json(&mut self, path: &str) -> Value {
        let response = self.get(path);
        assert_eq!(response.status, 200, "GET {path}: {}", response.text());
        response.json()
    }

    /// Posts records whose values are these JSON texts; their offsets once they are
    /// acknowledged, all of them.
    pub(crate) fn produce(&mut self, topic: &str, values: &[&str]) -> io::Result<Vec<(u64, u64)>> {
        let records: Vec<String> = values.iter().map(|v| format!("{{\"value\":{v}}}")).collect();
        let body = format!("{{\"records\":[{}]}}", records.join(","));
        let response = self.send("POST", &format!("/topics/{topic}"), KAFKA_JSON, body.as_bytes())?;
        // A server that is stopping refuses; every other refusal is a mistake.
        if response.status == 503 {
            return Err(io::Error::other(response.text()));
        }
        assert_eq!(response.status, 200, "{topic}: {}", response.text());
        let answer = response.json();
        let receipts = answer["offsets"].as_array().unwrap();
        assert_eq!(receipts.len(), values.len(), "{answer}");
        let position = |r: &Value| Some((r["partition"].as_u64()?, r["offset"].as_u64()?));
        let positions: Option<Vec<_>> = receipts.iter().map(position).collect();
        positions.ok_or_else(|| io::Error::other(answer.to_string()))
    }

    /// Asks for a run of a task and gives its report, once a run that began after this call
    /// has ended.
    pub(crate) fn run_task(&mut self, name: &str) -> Value {
        let before = self.task(name);
        let n_under_way = u64::from(before["state"] == "running");
        let n_wanted = before["n_runs"].as_u64().unwrap() + n_under_way + 1;
        let asked = self.send("POST", &format!("/api/tasks/{name}/run"), "text/plain", b"").unwrap();
        assert_eq!(asked.status, 202, "{}", asked.text());
        let what = format!("a run of {name}");
        let run = eventually(&what, || {
            let status = self.task(name);
            (status["n_runs"].as_u64().unwrap() >= n_wanted).then(|| status["last_run"].clone())
        });
        assert!(run["report"].is_object(), "{name}: {run}");
        run["report"].clone()
    }

    pub(crate) fn task(&mut self, name: &str) -> Value {
        let tasks = self.json("/api/tasks");
        let status = tasks["tasks"].as_array().unwrap().iter().find(|t| t["name"] == name);
        status.unwrap_or_else(|| panic!("no task {name}: {tasks}")).clone()
    }
}

/// What `look` finds, which it must within the tests' patience.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(LOOK_INTERVAL);
    }
}

fn read_response(connection: &mut BufReader<TcpStream>) -> io::Result<(Response, bool)> {
    let status_line = read_line(connection)?;
    let status = status_line.split(' ').nth(1).and_then(|s| s.parse().ok());
    let status = status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, status_line))?;
    let (mut size_bytes, mut stays_open) = (None, true);
    loop {
        let line = read_line(connection)?.to_ascii_lowercase();
        match line.split_once(':').map(|(name, value)| (name, value.trim())) {
            None => break,
            Some(("content-length", value)) => size_bytes = value.parse().ok(),
            Some(("connection", "close")) => stays_open = false,
            Some(_) => {}
        }
    }
    // An answer of 204 never has a body.
    let size_bytes = size_bytes
        .or((status == 204).then_some(0))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no content-length"))?;
    let mut body = vec![0; size_bytes];
    connection.read_exact(&mut body)?;
    Ok((Response { status, body }, stays_open))
}

/// A line without its end; an empty one is an answer that broke off, or the end of a head.
fn read_line(connection: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    if connection.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
