//! One HTTP request over a connection of its own, and all of its answer.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Context, Result};

/// No answer takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) retry_after: Option<String>,
    pub(super) body: String,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, Retry-After {:?}, {:.500}", self.status, self.retry_after, self.body)
    }
}

pub(super) fn ask(address: &str, path: &str) -> Result<Answer> {
    send(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"))
}

pub(super) fn post(address: &str, path: &str, body: &str) -> Result<Answer> {
    let head = format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    let length = body.len();
    send(address, &format!("{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"))
}

fn send(address: &str, request: &str) -> Result<Answer> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request.as_bytes()).context("send a request")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).context("read an answer")?;
    read(&String::from_utf8_lossy(&answer))
}

fn read(answer: &str) -> Result<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("a cut answer: {answer:?}"))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.with_context(|| format!("an answer without a status: {head:?}"))?;
    let retry_after = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("retry-after").then(|| value.trim().to_owned())
    });
    Ok(Answer { status, retry_after, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn an_answer_is_its_status_its_time_to_come_back_and_its_body() {
        let refused = read("HTTP/1.1 503 Busy\r\nretry-after: 1\r\n\r\nfull").expect("it is whole");
        assert_eq!((refused.status, refused.retry_after.as_deref(), refused.body.as_str()), (503, Some("1"), "full"));
        assert_eq!(read("HTTP/1.1 200 OK\r\n\r\n").expect("it is whole").retry_after, None);
        for cut in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1\r\n\r\n"] {
            assert!(read(cut).is_err(), "{cut:?}");
        }
    }
}
