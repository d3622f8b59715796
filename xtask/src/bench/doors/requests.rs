//! The same records as each door wants them: whole HTTP/1.1 requests as bytes.
//!
//! Relies on nothing of the bench: the tests of `server` take this file, too, and post what it
//! writes, so that a door that changes cannot be measured by what it refuses.

use base64::{Engine, prelude::BASE64_STANDARD};

/// Where all doors bring their records: `POST /pin/` knows no other topic.
pub(crate) const TOPIC: &str = "Pinterest_data";
/// What a Kinesis client signs its requests with; nobody here verifies it.
const SIGNED: &str = "x-amz-date: 20261121T120000Z\r\nauthorization: AWS4-HMAC-SHA256 \
    Credential=AKIDEXAMPLE/20261121/us-east-1/kinesis/aws4_request, SignedHeaders=host;x-amz-date;x-amz-target, \
    Signature=0000000000000000000000000000000000000000000000000000000000000000\r\n";
const JSON: &str = "application/json";
const AMZ_JSON: &str = "application/x-amz-json-1.1";

/// Each is one way to bring records in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    Rest2,
    /// Version 3, entries with names.
    Batch3,
    /// Version 3, objects one after the other.
    Stream3,
    KinesisJson,
    KinesisCbor,
    Gateway,
    Pin,
}

/// What requests name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    /// `host:port`.
    pub(crate) host: &'a str,
    /// As version 3 calls the log.
    pub(crate) cluster: &'a str,
}

impl Door {
    pub(crate) const ALL: [Self; 7] =
        [Self::Rest2, Self::Batch3, Self::Stream3, Self::KinesisJson, Self::KinesisCbor, Self::Gateway, Self::Pin];

    /// One record or several, as people who have so many would send them.
    pub(crate) fn name(self, n_records: u64) -> &'static str {
        match (self, n_records) {
            (Self::Rest2, _) => "Kafka REST v2",
            (Self::Batch3, _) => "Kafka REST v3 records:batch",
            (Self::Stream3, _) => "Kafka REST v3 records",
            (Self::KinesisJson, 1) => "Kinesis PutRecord",
            (Self::KinesisJson, _) => "Kinesis PutRecords",
            (Self::KinesisCbor, 1) => "Kinesis PutRecord, CBOR",
            (Self::KinesisCbor, _) => "Kinesis PutRecords, CBOR",
            (Self::Gateway, 1) => "gateway record",
            (Self::Gateway, _) => "gateway records",
            (Self::Pin, _) => "POST /pin/",
        }
    }

    /// How many records a request has in turn.
    pub(crate) const fn batches(self) -> &'static [u64] {
        match self {
            // What the others are compared with.
            Self::Rest2 => &[1, 10, 100, 500],
            // More are refused (`ingest.max_batch_entries`).
            Self::Batch3 => &[1, 10],
            Self::Stream3 | Self::Gateway => &[1, 100],
            Self::KinesisJson | Self::KinesisCbor => &[1, 500],
            Self::Pin => &[1],
        }
    }

    /// A request with these records, each a JSON object, of which the first has this number; the
    /// door's `batches` say how many.
    pub(crate) fn request(self, to: Target, first: u64, records: &[Vec<u8>]) -> Vec<u8> {
        let v3 = format!("/v3/clusters/{}/topics/{TOPIC}/records", to.cluster);
        match self {
            Self::Rest2 => {
                let body = listed(r#"{"records":["#, first, records, |n, record, body| {
                    body.extend_from_slice(format!(r#"{{"key":"{}","value":"#, key(n)).as_bytes());
                    body.extend_from_slice(record);
                    body.push(b'}');
                });
                whole("POST", &format!("/topics/{TOPIC}"), to, "application/vnd.kafka.json.v2+json", "", &body)
            }
            Self::Batch3 => {
                let body = listed(r#"{"entries":["#, first, records, |n, record, body| {
                    body.extend_from_slice(format!(r#"{{"id":"{n}","#).as_bytes());
                    entry3(n, record, body);
                });
                whole("POST", &format!("{v3}:batch"), to, JSON, "", &body)
            }
            Self::Stream3 => {
                let mut body = Vec::new();
                for (n, record) in (first..).zip(records) {
                    body.push(b'{');
                    entry3(n, record, &mut body);
                    body.push(b'\n');
                }
                whole("POST", &v3, to, JSON, "", &body)
            }
            Self::KinesisJson => {
                let body = match records {
                    [record] => format!(r#"{{"StreamName":"{TOPIC}",{}}}"#, members(first, record)).into_bytes(),
                    records => {
                        let start = format!(r#"{{"StreamName":"{TOPIC}","Records":["#);
                        listed(&start, first, records, |n, record, body| {
                            body.extend_from_slice(format!("{{{}}}", members(n, record)).as_bytes());
                        })
                    }
                };
                kinesis(put(records), to, AMZ_JSON, &body)
            }
            Self::KinesisCbor => kinesis(put(records), to, "application/x-amz-cbor-1.1", &cbor(first, records)),
            Self::Gateway => {
                let path = format!("/test/streams/{TOPIC}/record");
                match records {
                    [record] => {
                        let mut body = format!(r#"{{"StreamName":"{TOPIC}","Data":"#).into_bytes();
                        body.extend_from_slice(record);
                        body.extend_from_slice(format!(r#","PartitionKey":"{}"}}"#, key(first)).as_bytes());
                        whole("PUT", &path, to, JSON, "", &body)
                    }
                    records => {
                        let body = listed(r#"{"records":["#, first, records, |n, record, body| {
                            body.extend_from_slice(br#"{"data":"#);
                            body.extend_from_slice(record);
                            body.extend_from_slice(format!(r#","partition-key":"{}"}}"#, key(n)).as_bytes());
                        });
                        whole("PUT", &format!("{path}s"), to, JSON, "", &body)
                    }
                }
            }
            Self::Pin => whole("POST", "/pin/", to, JSON, "", &records.concat()),
        }
    }
}

/// An action of Kinesis by JSON.
pub(crate) fn action(name: &str, to: Target, body: &str) -> Vec<u8> {
    kinesis(name, to, AMZ_JSON, body.as_bytes())
}

fn kinesis(action: &str, to: Target, media_type: &str, body: &[u8]) -> Vec<u8> {
    let fields = format!("x-amz-target: Kinesis_20131202.{action}\r\n{SIGNED}");
    whole("POST", "/", to, media_type, &fields, body)
}

const fn put(records: &[Vec<u8>]) -> &'static str {
    if records.len() == 1 { "PutRecord" } else { "PutRecords" }
}

fn whole(method: &str, path: &str, to: Target, media_type: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: {media_type}\r\n{fields}content-length: {}\r\n\r\n",
        to.host,
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// What stands between `start` and the end of a list in an object.
fn listed(start: &str, first: u64, records: &[Vec<u8>], write: impl Fn(u64, &[u8], &mut Vec<u8>)) -> Vec<u8> {
    let mut body = start.as_bytes().to_vec();
    for (n, record) in (first..).zip(records) {
        if n > first {
            body.push(b',');
        }
        write(n, record, &mut body);
    }
    body.extend_from_slice(b"]}");
    body
}

/// The rest of an entry of version 3.
fn entry3(n: u64, record: &[u8], body: &mut Vec<u8>) {
    let key = format!(r#""key":{{"type":"JSON","data":"{}"}},"value":{{"type":"JSON","data":"#, key(n));
    body.extend_from_slice(key.as_bytes());
    body.extend_from_slice(record);
    body.extend_from_slice(b"}}");
}

/// A record's members by JSON.
fn members(n: u64, record: &[u8]) -> String {
    format!(r#""PartitionKey":"{}","Data":"{}""#, key(n), BASE64_STANDARD.encode(record))
}

fn key(n: u64) -> String {
    format!("k{n}")
}

fn cbor(first: u64, records: &[Vec<u8>]) -> Vec<u8> {
    const BYTES: u8 = 2;
    const TEXT: u8 = 3;
    const LIST: u8 = 4;
    const MAP: u8 = 5;
    /// The type and the length, in as few bytes as it goes.
    fn begin(body: &mut Vec<u8>, kind: u8, length: usize) {
        let kind = kind << 5;
        match (u8::try_from(length), u16::try_from(length), u32::try_from(length)) {
            (Ok(n), ..) if n < 24 => body.push(kind | n),
            (Ok(n), ..) => body.extend([kind | 24, n]),
            (_, Ok(n), _) => body.extend([&[kind | 25][..], &n.to_be_bytes()].concat()),
            (.., n) => body.extend([&[kind | 26][..], &n.expect("a body has less than 4 GiB").to_be_bytes()].concat()),
        }
    }
    fn text(body: &mut Vec<u8>, text: &str) {
        begin(body, TEXT, text.len());
        body.extend_from_slice(text.as_bytes());
    }
    fn members(body: &mut Vec<u8>, n: u64, record: &[u8]) {
        text(body, "PartitionKey");
        text(body, &key(n));
        text(body, "Data");
        begin(body, BYTES, record.len());
        body.extend_from_slice(record);
    }
    let mut body = Vec::new();
    begin(&mut body, MAP, if records.len() == 1 { 3 } else { 2 });
    text(&mut body, "StreamName");
    text(&mut body, TOPIC);
    if let [record] = records {
        members(&mut body, first, record);
        return body;
    }
    text(&mut body, "Records");
    begin(&mut body, LIST, records.len());
    for (n, record) in (first..).zip(records) {
        begin(&mut body, MAP, 2);
        members(&mut body, n, record);
    }
    body
}
