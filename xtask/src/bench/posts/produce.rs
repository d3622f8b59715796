//! Posts as produce requests of the Kafka REST door, the streams in turn.

use super::{Posts, STREAMS, topic};
use crate::bench::http;

const MEDIA_TYPE: &str = "application/vnd.kafka.json.v2+json";

/// Posts from a number on, so many to a request.
pub(in crate::bench) struct Producer<'a> {
    pub(in crate::bench) posts: &'a Posts,
    /// `host:port`, which every request names.
    pub(in crate::bench) address: &'a str,
    pub(in crate::bench) user_id: &'a str,
    pub(in crate::bench) first: u64,
    pub(in crate::bench) n_per_request: u64,
}

impl Producer<'_> {
    /// Writes the request of this number, and returns how many records it has: three requests
    /// in a row hold the same posts' rows.
    pub(in crate::bench) fn write(&self, number: u64, request: &mut Vec<u8>) -> u64 {
        let n_streams = STREAMS.len() as u64;
        let stream = (number % n_streams) as usize;
        let first = self.first + number / n_streams * self.n_per_request;
        let mut n_records = 0;
        let mut body = b"{\"records\":[".to_vec();
        for n in (first..first + self.n_per_request).flat_map(|n| Posts::due(stream, n)) {
            body.extend_from_slice(if n_records == 0 { b"{\"value\":" } else { b",{\"value\":" });
            self.posts.write(stream, n, &mut body);
            body.push(b'}');
            n_records += 1;
        }
        body.extend_from_slice(b"]}");
        *request = self.request_of(stream, &body);
        n_records
    }

    /// A request with these records alone.
    pub(in crate::bench) fn request_of(&self, stream: usize, body: &[u8]) -> Vec<u8> {
        http::post_of(&format!("/topics/{}", topic(self.user_id, stream)), self.address, MEDIA_TYPE, body)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::bench::posts::tests::posts;

    #[test]
    fn requests_hold_the_posts_in_order_stream_by_stream() {
        let posts = posts();
        let producer = Producer { posts: &posts, address: "h:1", user_id: "u", first: 1000, n_per_request: 100 };
        for (number, topic, first) in [(0, "u.pin", 1000), (1, "u.geo", 1000), (2, "u.user", 1000), (3, "u.pin", 1100)]
        {
            let mut request = Vec::new();
            let n_records = producer.write(number, &mut request);
            let text = String::from_utf8(request).expect("it is text");
            let (head, body) = text.split_once("\r\n\r\n").expect("a head ends");
            assert!(head.starts_with(&format!("POST /topics/{topic} HTTP/1.1\r\n")), "{head}");
            let body: Value = serde_json::from_str(body).expect("it is JSON");
            let records = body["records"].as_array().expect("it has records");
            assert_eq!(records.len() as u64, n_records);
            let name = if topic == "u.pin" { "index" } else { "ind" };
            let mut numbers: Vec<u64> = records.iter().filter_map(|r| r["value"][name].as_u64()).collect();
            numbers.retain(|n| *n >= first);
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers, (first..first + 100).collect::<Vec<_>>());
        }
    }
}
