//! As much of an HTTP client as a baseline needs: requests without a body over kept-alive
//! connections, one thread each.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::spread::quantile_ms;

/// What came of many equal requests.
pub(super) struct Load {
    pub(super) requests_per_second: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
}

/// Sends `n_requests` in all over so many connections, each waiting for its answers.
pub(super) fn get(address: &str, path: &str, n_connections: usize, n_requests: usize) -> Result<Load> {
    let n_each = n_requests.div_ceil(n_connections);
    let begin = Instant::now();
    let mut latencies = thread::scope(|scope| -> Result<Vec<Duration>> {
        let threads: Vec<_> = (0..n_connections).map(|_| scope.spawn(|| get_in_a_row(address, path, n_each))).collect();
        let mut all = Vec::with_capacity(n_each * n_connections);
        for thread in threads {
            match thread.join() {
                Ok(latencies) => all.extend(latencies?),
                Err(_) => bail!("a connection's thread panicked"),
            }
        }
        Ok(all)
    })?;
    let seconds = begin.elapsed().as_secs_f64();
    let requests_per_second = latencies.len() as f64 / seconds;
    let [p50_ms, p99_ms] = [0.5, 0.99].map(|q| quantile_ms(&mut latencies, q));
    Ok(Load { requests_per_second, p50_ms, p99_ms })
}

fn get_in_a_row(address: &str, path: &str, n_requests: usize) -> Result<Vec<Duration>> {
    let stream = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    let mut latencies = Vec::with_capacity(n_requests);
    for _ in 0..n_requests {
        let begin = Instant::now();
        writer.write_all(request.as_bytes())?;
        read_answer(&mut reader)?;
        latencies.push(begin.elapsed());
    }
    Ok(latencies)
}

/// Reads one answer to its end; anything but 200 with a known length is an error.
fn read_answer(reader: &mut impl BufRead) -> Result<()> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    ensure!(line.starts_with("HTTP/1.1 200"), "unexpected answer: {line:?}");
    let mut n_bytes = None;
    loop {
        line.clear();
        ensure!(reader.read_line(&mut line)? > 0, "the connection was closed within an answer");
        let Some((name, value)) = line.split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            n_bytes = Some(value.trim().parse::<u64>()?);
        }
    }
    let n_bytes = n_bytes.context("the answer has no Content-Length")?;
    let n_read = std::io::copy(&mut reader.take(n_bytes), &mut std::io::sink())?;
    ensure!(n_read == n_bytes, "the connection was closed within an answer");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    #[test]
    fn requests_are_answered_one_after_the_other_on_each_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound").to_string();
        let server = thread::spawn(move || {
            let (stream, _) = listener.accept().expect("the client connects");
            let mut writer = stream.try_clone().expect("a socket can be cloned");
            let mut n_requests = 0;
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                if line.is_empty() {
                    n_requests += 1;
                    writer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").expect("the client reads");
                }
            }
            n_requests
        });
        let load = get(&address, "/healthz", 1, 3).expect("the server answers");
        assert_eq!(server.join().expect("the server ends with its connection"), 3);
        assert!(load.requests_per_second > 0.0 && load.p50_ms <= load.p99_ms);
    }

    #[test]
    fn a_refusal_or_a_cut_is_an_error() {
        for answer in [
            "HTTP/1.1 503 Busy\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok",
            "",
        ] {
            assert!(read_answer(&mut answer.as_bytes()).is_err(), "{answer:?}");
        }
    }
}
