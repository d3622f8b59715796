//! As much of an HTTP client as a bench needs, and no more, since it runs on the machine that it
//! measures: one kept-alive connection that sends requests and reads answers of known length or in
//! chunks.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// No answer takes this long, unless the server hangs.
const PATIENCE: Duration = Duration::from_secs(120);
/// Most bytes of one answer.
const MAX_BODY_BYTES: usize = 64 << 20;

pub(super) struct Connection {
    address: String,
    writer: TcpStream,
    reader: BufReader<TcpStream>,
    line: String,
    body: Vec<u8>,
}

impl Connection {
    pub(super) fn open(address: &str) -> Result<Self> {
        let writer = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
        writer.set_nodelay(true)?;
        writer.set_read_timeout(Some(PATIENCE))?;
        let reader = BufReader::new(writer.try_clone()?);
        Ok(Self { address: address.to_owned(), writer, reader, line: String::new(), body: Vec::new() })
    }

    /// Sends a whole request and reads the answer: its status and its body.
    pub(super) fn exchange(&mut self, request: &[u8]) -> Result<(u16, &[u8])> {
        self.writer.write_all(request)?;
        let status = read_answer(&mut self.reader, &mut self.line, &mut self.body)?;
        Ok((status, &self.body))
    }

    /// The JSON that stands at a path.
    pub(super) fn get(&mut self, path: &str) -> Result<Value> {
        serde_json::from_str(&self.text(path)?).with_context(|| format!("GET {path} answers no JSON"))
    }

    /// The text that stands at a path.
    pub(super) fn text(&mut self, path: &str) -> Result<String> {
        let (status, body) = self.exchange(&head("GET", path, &self.address, ""))?;
        let text = String::from_utf8_lossy(body);
        ensure!(status == 200, "GET {path} answers {status}: {text}");
        Ok(text.into_owned())
    }

    /// Asks for something to be done.
    pub(super) fn post(&mut self, path: &str) -> Result<()> {
        let (status, body) = self.exchange(&head("POST", path, &self.address, "content-length: 0\r\n"))?;
        ensure!((200..300).contains(&status), "POST {path} answers {status}: {}", String::from_utf8_lossy(body));
        Ok(())
    }
}

fn head(method: &str, path: &str, host: &str, fields: &str) -> Vec<u8> {
    format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n{fields}\r\n").into()
}

/// A whole POST of a body.
pub(super) fn post_of(path: &str, host: &str, media_type: &str, body: &[u8]) -> Vec<u8> {
    let fields = format!("content-type: {media_type}\r\ncontent-length: {}\r\n", body.len());
    [&head("POST", path, host, &fields), body].concat()
}

/// The same POST to another path.
pub(super) fn with_path(post: &[u8], path: &str) -> Vec<u8> {
    let behind = post.windows(2).position(|pair| pair == b"\r\n").unwrap_or(post.len());
    [format!("POST {path} HTTP/1.1").as_bytes(), &post[behind..]].concat()
}

/// Reads one answer to its end, which its head must tell.
fn read_answer(reader: &mut impl BufRead, line: &mut String, body: &mut Vec<u8>) -> Result<u16> {
    line.clear();
    reader.read_line(line)?;
    let status = line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    let status = status.with_context(|| format!("unexpected answer: {line:?}"))?;
    let (mut n_bytes, mut is_chunked) = (None, false);
    loop {
        line.clear();
        ensure!(reader.read_line(line)? > 0, "the connection was closed within an answer");
        let Some((name, value)) = line.split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            n_bytes = Some(value.trim().parse::<usize>()?);
        }
        is_chunked |= name.eq_ignore_ascii_case("transfer-encoding") && value.trim().eq_ignore_ascii_case("chunked");
    }
    if is_chunked {
        read_chunks(reader, line, body)?;
        return Ok(status);
    }
    let n_bytes = n_bytes.context("the answer has no Content-Length")?;
    ensure!(n_bytes <= MAX_BODY_BYTES, "the answer has {n_bytes} bytes");
    body.resize(n_bytes, 0);
    reader.read_exact(body).context("the connection was closed within an answer")?;
    Ok(status)
}

/// Chunks up to the empty one, and no fields behind it.
fn read_chunks(reader: &mut impl BufRead, line: &mut String, body: &mut Vec<u8>) -> Result<()> {
    body.clear();
    loop {
        line.clear();
        reader.read_line(line)?;
        let n_bytes = usize::from_str_radix(line.trim_end(), 16).with_context(|| format!("no chunk: {line:?}"))?;
        let start = body.len();
        ensure!(n_bytes <= MAX_BODY_BYTES - start, "the answer has more than {MAX_BODY_BYTES} bytes");
        body.resize(start + n_bytes, 0);
        reader.read_exact(&mut body[start..]).context("the connection was closed within a chunk")?;
        line.clear();
        reader.read_line(line)?;
        ensure!(line == "\r\n", "a chunk goes on with {line:?}");
        if n_bytes == 0 {
            return Ok(());
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    /// A server of one connection that answers every request with the next of these, and says
    /// in the end what was asked. Bodies are not read: requests must have none, or one line.
    pub(in crate::bench) fn answering(answers: Vec<String>) -> (String, thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound").to_string();
        let server = thread::spawn(move || {
            let (stream, _) = listener.accept().expect("the client connects");
            let mut writer = stream.try_clone().expect("a socket can be cloned");
            let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
            let mut asked = Vec::new();
            for body in answers {
                let head: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
                asked.push(head[0].clone());
                write!(writer, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).expect("it reads");
            }
            asked
        });
        (address, server)
    }

    #[test]
    fn requests_are_answered_one_after_the_other() {
        let (address, server) = answering(vec!["{\"n\":1}".to_owned(), String::new(), "[2]".to_owned()]);
        let mut connection = Connection::open(&address).expect("it listens");
        assert_eq!(connection.get("/a").expect("it answers")["n"], 1);
        connection.post("/b").expect("it answers");
        assert_eq!(connection.get("/c").expect("it answers")[0], 2);
        let asked = server.join().expect("the server ends with its answers");
        assert_eq!(asked, ["GET /a HTTP/1.1", "POST /b HTTP/1.1", "GET /c HTTP/1.1"]);
    }

    #[test]
    fn answers_are_read_to_their_end() {
        let mut answers =
            &b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nfullHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"[..];
        let (mut line, mut body) = (String::new(), Vec::new());
        assert_eq!(read_answer(&mut answers, &mut line, &mut body).expect("it is whole"), 503);
        assert_eq!(body, b"full");
        assert_eq!(read_answer(&mut answers, &mut line, &mut body).expect("it is whole"), 200);
        assert!(body.is_empty() && answers.is_empty());
    }

    #[test]
    fn chunks_are_read_to_the_empty_one() {
        let mut answers = &b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nA\r\n0123456789\r\n\
            0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx"[..];
        let (mut line, mut body) = (String::new(), Vec::new());
        for expected in [&b"abc0123456789"[..], b"x"] {
            assert_eq!(read_answer(&mut answers, &mut line, &mut body).expect("it is whole"), 200);
            assert_eq!(body, expected);
        }
        assert!(answers.is_empty());
    }

    #[test]
    fn a_cut_is_an_error() {
        let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        for rest in ["", "3\r\nab", "3\r\nabc\r\n", "3\r\nabcd", "x\r\n", "fffffffffffffff\r\n", "0\r\n"] {
            let answer = format!("{chunked}{rest}");
            let read = read_answer(&mut answer.as_bytes(), &mut String::new(), &mut Vec::new());
            assert!(read.is_err(), "{rest:?}");
        }
        for answer in ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok", "HTTP/1.1 2", ""] {
            assert!(read_answer(&mut answer.as_bytes(), &mut String::new(), &mut Vec::new()).is_err(), "{answer:?}");
        }
    }

    #[test]
    fn a_post_says_how_long_it_is() {
        let request = post_of("/topics/t", "h:1", "application/json", b"{}");
        let expected =
            "POST /topics/t HTTP/1.1\r\nhost: h:1\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(String::from_utf8_lossy(&request), expected);
    }
}
