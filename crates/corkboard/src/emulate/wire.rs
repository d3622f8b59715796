//! What goes over the wire: the requests of the scripts that Corkboard's users come from, and
//! what their servers' answers mean.

use std::borrow::Cow;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::ValueEnum;
use http::{HeaderValue, Method, StatusCode, Uri};
use serde::Deserialize;

use crate::emulate::{encoding::Encoding, mt19937::Random, tables::Table};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// POST /topics/<user-id>.<table> with the Kafka REST envelope.
    #[default]
    KafkaJson,
    /// PUT /streams/streaming-<user-id>-<table>/record, as API Gateway maps it to Kinesis.
    KinesisGateway,
    /// POST /pin/ with the bare pin; there is no geo and no user.
    Fastapi,
}

/// What stands around a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// {…}
    #[default]
    Object,
    /// [{…}]
    Array,
    /// {"value": {…}}
    Value,
    /// A string with the base64 of the row's JSON text; only for Kinesis.
    Base64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PartitionKey {
    /// `partition-1` for every record, so that all go to one shard.
    #[default]
    Fixed,
    /// `partition-pin`, `partition-geo`, `partition-user`.
    Table,
    /// The row's number.
    Row,
    /// A random UUID.
    Uuid,
}

#[derive(Clone, Debug)]
pub struct Wire {
    pub format: Format,
    pub encoding: Encoding,
    /// Around a row of the Kafka envelope.
    pub wrap: Shape,
    /// Around a row of the Kinesis body.
    pub data_shape: Shape,
    pub partition_key: PartitionKey,
    pub user_id: String,
}

/// A row as it stands in a body, ready to be joined with others.
#[derive(Clone, Debug)]
pub struct Rendered {
    pub row: usize,
    pub text: Bytes,
}

/// The part of a request that is the same for every row of a table.
#[derive(Clone, Debug)]
pub struct Target {
    pub method: Method,
    /// Path only; the base URL's path, if any, stands before it.
    pub uri: Uri,
    pub content_type: HeaderValue,
}

/// One record that the server did not take although it answered 2xx.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its place in the request.
    pub at: usize,
    pub may_retry: bool,
    pub kind: String,
    pub message: String,
}

impl Wire {
    /// Checks what the types cannot say; `batch` is the number of records per request.
    pub fn check(&self, batch: usize, tables: &[Table]) -> anyhow::Result<()> {
        if self.wrap == Shape::Base64 {
            bail!(
                "--wrap base64 does not exist: Kafka REST takes JSON; use --format kinesis-gateway --data-shape base64"
            );
        }
        if self.format == Format::Fastapi && batch != 1 {
            bail!("--format fastapi takes one record per request: leave out --batch");
        }
        if self.format == Format::Fastapi && tables != [Table::Pin] {
            bail!("--format fastapi knows only pins: add --tables pin");
        }
        let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if self.user_id.is_empty() || self.user_id.len() > 100 || !self.user_id.bytes().all(is_name) {
            bail!(
                "--user-id {:?} cannot be part of a topic's name: use letters, digits, `.`, `_` and `-`",
                self.user_id
            );
        }
        Ok(())
    }

    /// Where the rows of a table go, below `base_path` (empty or `/stage`).
    pub fn target(&self, base_path: &str, table: Table, batch: usize) -> anyhow::Result<Target> {
        let (user_id, table) = (&self.user_id, table.name());
        let (method, path, content_type) = match self.format {
            Format::KafkaJson => {
                (Method::POST, format!("/topics/{user_id}.{table}"), "application/vnd.kafka.json.v2+json")
            }
            Format::KinesisGateway => {
                let action = if batch == 1 { "record" } else { "records" };
                (Method::PUT, format!("/streams/streaming-{user_id}-{table}/{action}"), "application/json")
            }
            Format::Fastapi => (Method::POST, "/pin/".to_owned(), "application/json"),
        };
        let path = format!("{base_path}{path}");
        let uri = path.parse().with_context(|| format!("{path} is no path of a URL"))?;
        Ok(Target { method, uri, content_type: HeaderValue::from_static(content_type) })
    }

    /// The row's part of a body, made once.
    pub fn render(&self, row: usize, json: &str) -> Rendered {
        let text = match self.format {
            Format::KafkaJson => {
                format!("{{\"value\"{}{}}}", self.encoding.colon(), self.shaped(self.wrap, json))
            }
            Format::KinesisGateway => self.shaped(self.data_shape, json).into_owned(),
            Format::Fastapi => json.to_owned(),
        };
        Rendered { row, text: text.into() }
    }

    fn shaped<'a>(&self, shape: Shape, json: &'a str) -> Cow<'a, str> {
        match shape {
            Shape::Object => Cow::Borrowed(json),
            Shape::Array => Cow::Owned(format!("[{json}]")),
            Shape::Value => Cow::Owned(format!("{{\"value\"{}{json}}}", self.encoding.colon())),
            Shape::Base64 => Cow::Owned(format!("\"{}\"", base64(json.as_bytes()))),
        }
    }

    /// One body with these rows of one table; `batch` says which of two forms Kinesis gets.
    pub fn body<'a>(
        &self,
        table: Table,
        batch: usize,
        rows: impl Iterator<Item = &'a Rendered> + Clone,
        random: &mut Random,
    ) -> Bytes {
        let n_bytes: usize = rows.clone().map(|r| r.text.len() + 64).sum();
        let mut body = Vec::with_capacity(n_bytes + 128);
        let (comma, colon) = (self.encoding.comma(), self.encoding.colon());
        match self.format {
            Format::KafkaJson => {
                extend(&mut body, &["{\"records\"", colon, "["]);
                for (i, row) in rows.enumerate() {
                    extend(&mut body, &[if i > 0 { comma } else { "" }]);
                    body.extend_from_slice(&row.text);
                }
                extend(&mut body, &["]}"]);
            }
            Format::KinesisGateway if batch == 1 => {
                for row in rows {
                    let stream = format!("streaming-{}-{}", self.user_id, table.name());
                    extend(&mut body, &["{\"StreamName\"", colon, "\"", &stream, "\"", comma, "\"Data\"", colon]);
                    body.extend_from_slice(&row.text);
                    let key = self.key(table, row.row, random);
                    extend(&mut body, &[comma, "\"PartitionKey\"", colon, "\"", &key, "\"}"]);
                }
            }
            Format::KinesisGateway => {
                extend(&mut body, &["{\"records\"", colon, "["]);
                for (i, row) in rows.enumerate() {
                    extend(&mut body, &[if i > 0 { comma } else { "" }, "{\"data\"", colon]);
                    body.extend_from_slice(&row.text);
                    let key = self.key(table, row.row, random);
                    extend(&mut body, &[comma, "\"partition-key\"", colon, "\"", &key, "\"}"]);
                }
                extend(&mut body, &["]}"]);
            }
            Format::Fastapi => rows.for_each(|row| body.extend_from_slice(&row.text)),
        }
        body.into()
    }

    fn key(&self, table: Table, row: usize, random: &mut Random) -> Cow<'static, str> {
        match self.partition_key {
            PartitionKey::Fixed => Cow::Borrowed("partition-1"),
            PartitionKey::Table => Cow::Owned(format!("partition-{}", table.name())),
            PartitionKey::Row => Cow::Owned(row.to_string()),
            PartitionKey::Uuid => Cow::Owned(random.uuid4().to_string()),
        }
    }

    /// Records of a 2xx answer that were not taken. An answer that does not look like the
    /// format's is taken for what its status says, as the scripts do.
    pub fn refused(&self, n_records: usize, answer: &[u8]) -> Vec<Refused> {
        match self.format {
            Format::KafkaJson => refused_by_kafka_rest(n_records, answer),
            Format::KinesisGateway => refused_by_kinesis(answer),
            Format::Fastapi => Vec::new(),
        }
    }
}

/// RFC 4648 §4, with padding. Its only use in this crate; the doors that decode use a library.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let sextet = group >> (18 - 6 * i) & 63;
            out.push(if i <= chunk.len() { char::from(ALPHABET[sextet as usize]) } else { '=' });
        }
    }
    out
}

fn extend(body: &mut Vec<u8>, parts: &[&str]) {
    parts.iter().for_each(|part| body.extend_from_slice(part.as_bytes()));
}

fn refused_by_kafka_rest(n_records: usize, answer: &[u8]) -> Vec<Refused> {
    #[derive(Deserialize)]
    struct Answer {
        offsets: Vec<Receipt>,
    }
    #[derive(Deserialize)]
    struct Receipt {
        error_code: Option<i64>,
        error: Option<String>,
    }
    /// The proxy's code for "Kafka said: try again".
    const RETRIABLE: i64 = 50_003;
    // Nearly every answer holds nothing but successes: then there is nothing to parse.
    let clean = str::from_utf8(answer).is_ok_and(|a| a.matches("\"error_code\":null").count() == n_records);
    if clean {
        return Vec::new();
    }
    let Ok(answer) = serde_json::from_slice::<Answer>(answer) else { return Vec::new() };
    let receipts = answer.offsets.into_iter().enumerate().take(n_records);
    let refused = receipts.filter_map(|(at, receipt)| {
        let code = receipt.error_code?;
        let message = receipt.error.unwrap_or_default();
        Some(Refused { at, may_retry: code == RETRIABLE, kind: format!("error code {code}"), message })
    });
    refused.collect()
}

fn refused_by_kinesis(answer: &[u8]) -> Vec<Refused> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(rename = "Records")]
        records: Vec<Receipt>,
    }
    #[derive(Deserialize)]
    struct Receipt {
        #[serde(rename = "ErrorCode")]
        code: Option<String>,
        #[serde(rename = "ErrorMessage")]
        message: Option<String>,
    }
    let clean = str::from_utf8(answer).is_ok_and(|a| !a.contains("\"ErrorCode\""));
    if clean {
        return Vec::new();
    }
    let Ok(answer) = serde_json::from_slice::<Answer>(answer) else { return Vec::new() };
    let refused = answer.records.into_iter().enumerate().filter_map(|(at, receipt)| {
        let code = receipt.code?;
        let may_retry = matches!(code.as_str(), "ProvisionedThroughputExceededException" | "InternalFailure");
        Some(Refused { at, may_retry, kind: code, message: receipt.message.unwrap_or_default() })
    });
    refused.collect()
}

/// Whether the same request may succeed later.
pub fn may_retry(status: StatusCode) -> bool {
    matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS) || status.is_server_error()
}

/// What the server says about an error, in one short line: the `message` of a JSON body, or the
/// body's beginning.
pub fn message_of(answer: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(alias = "detail", alias = "error")]
        message: serde_json::Value,
    }
    const MAX_CHARS: usize = 300;
    let text = match serde_json::from_slice::<Answer>(answer).map(|a| a.message) {
        Ok(serde_json::Value::String(text)) => text,
        Ok(other) => other.to_string(),
        Err(_) => String::from_utf8_lossy(answer).into_owned(),
    };
    let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match one_line.char_indices().nth(MAX_CHARS) {
        Some((at, _)) => format!("{}…", &one_line[..at]),
        None => one_line,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::emulate::encoding::Escape;

    fn wire(format: Format) -> Wire {
        Wire {
            format,
            encoding: Encoding::default(),
            wrap: Shape::Object,
            data_shape: Shape::Object,
            partition_key: PartitionKey::Fixed,
            user_id: "0a3".to_owned(),
        }
    }

    fn body(wire: &Wire, rows: &[&str]) -> String {
        let rows: Vec<Rendered> = rows.iter().enumerate().map(|(i, json)| wire.render(i, json)).collect();
        let body = wire.body(Table::Geo, rows.len(), rows.iter(), &mut Random::new(1));
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[test]
    fn kafka_bodies_are_the_scripts_envelopes() {
        let row = r#"{"ind":1}"#;
        let kafka = wire(Format::KafkaJson);
        assert_eq!(body(&kafka, &[row]), r#"{"records":[{"value":{"ind":1}}]}"#);
        assert_eq!(body(&kafka, &[row, row]), r#"{"records":[{"value":{"ind":1}},{"value":{"ind":1}}]}"#);
        let array = Wire { wrap: Shape::Array, ..kafka.clone() };
        assert_eq!(body(&array, &[row]), r#"{"records":[{"value":[{"ind":1}]}]}"#);
        let value = Wire { wrap: Shape::Value, ..kafka.clone() };
        assert_eq!(body(&value, &[row]), r#"{"records":[{"value":{"value":{"ind":1}}}]}"#);
        let python = Wire { encoding: Encoding { escape: Escape::Ascii, ..Encoding::default() }, ..kafka };
        assert_eq!(body(&python, &[row, row]), r#"{"records": [{"value": {"ind":1}}, {"value": {"ind":1}}]}"#);
    }

    #[test]
    fn kinesis_bodies_have_every_shape_that_was_seen() {
        let row = r#"{"ind":1}"#;
        let of_shape = |data_shape| body(&Wire { data_shape, ..wire(Format::KinesisGateway) }, &[row]);
        for (shape, data) in [
            (Shape::Object, r#"{"ind":1}"#),
            (Shape::Array, r#"[{"ind":1}]"#),
            (Shape::Value, r#"{"value":{"ind":1}}"#),
            (Shape::Base64, r#""eyJpbmQiOjF9""#),
        ] {
            let expected =
                format!(r#"{{"StreamName":"streaming-0a3-geo","Data":{data},"PartitionKey":"partition-1"}}"#);
            assert_eq!(of_shape(shape), expected);
        }
        let rows = Wire { partition_key: PartitionKey::Row, ..wire(Format::KinesisGateway) };
        assert_eq!(
            body(&rows, &[row, row]),
            r#"{"records":[{"data":{"ind":1},"partition-key":"0"},{"data":{"ind":1},"partition-key":"1"}]}"#
        );
    }

    #[test]
    fn targets_are_the_scripts_urls() {
        for (format, batch, expected) in [
            (Format::KafkaJson, 1, "POST /test/topics/0a3.user application/vnd.kafka.json.v2+json"),
            (Format::KinesisGateway, 1, "PUT /test/streams/streaming-0a3-user/record application/json"),
            (Format::KinesisGateway, 9, "PUT /test/streams/streaming-0a3-user/records application/json"),
            (Format::Fastapi, 1, "POST /test/pin/ application/json"),
        ] {
            let target = wire(format).target("/test", Table::User, batch).unwrap();
            let content_type = target.content_type.to_str().unwrap();
            assert_eq!(format!("{} {} {content_type}", target.method, target.uri), expected);
        }
    }

    #[test]
    fn combinations_that_no_server_takes_are_refused() {
        let all = Table::ALL.as_slice();
        assert!(wire(Format::KafkaJson).check(500, all).is_ok());
        assert!(wire(Format::Fastapi).check(1, &[Table::Pin]).is_ok());
        for (wire, batch, tables) in [
            (Wire { wrap: Shape::Base64, ..wire(Format::KafkaJson) }, 1, all),
            (wire(Format::Fastapi), 2, &[Table::Pin]),
            (wire(Format::Fastapi), 1, all),
            (Wire { user_id: String::new(), ..wire(Format::KafkaJson) }, 1, all),
            (Wire { user_id: "a/b".to_owned(), ..wire(Format::KafkaJson) }, 1, all),
        ] {
            assert!(wire.check(batch, tables).is_err(), "{wire:?}");
        }
    }

    #[test]
    fn single_records_refused_in_a_success_are_found() {
        let kafka = wire(Format::KafkaJson);
        let answer = r#"{"offsets":[{"partition":0,"offset":1,"error_code":null,"error":null},
            {"partition":null,"offset":null,"error_code":50003,"error":"again"},
            {"partition":null,"offset":null,"error_code":50002,"error":"no"}]}"#;
        let refused = kafka.refused(3, answer.as_bytes());
        assert_eq!(refused.iter().map(|r| (r.at, r.may_retry)).collect::<Vec<_>>(), [(1, true), (2, false)]);
        assert_eq!(refused[1].kind, "error code 50002");
        let clean = r#"{"offsets":[{"partition":0,"offset":1,"error_code":null,"error":null}]}"#;
        assert!(kafka.refused(1, clean.as_bytes()).is_empty());
        assert!(kafka.refused(1, clean.replace(':', ": ").as_bytes()).is_empty());
        assert!(kafka.refused(1, b"ok").is_empty());
        let answer = r#"{"FailedRecordCount":1,"Records":[{"SequenceNumber":"1","ShardId":"s"},
            {"ErrorCode":"InternalFailure","ErrorMessage":"x"}]}"#;
        let refused = wire(Format::KinesisGateway).refused(2, answer.as_bytes());
        assert_eq!((refused.len(), refused[0].at, refused[0].may_retry), (1, 1, true));
    }

    #[test]
    fn base64_gives_the_vectors_of_its_rfc() {
        for (text, expected) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
            ("\u{fb}\u{3ff}~?", "w7vPv34/"),
        ] {
            assert_eq!(base64(text.as_bytes()), expected);
        }
    }

    #[test]
    fn a_server_speaks_through_its_message() {
        for (answer, expected) in [
            (r#"{"error_code":422,"message":"Unrecognized field: ind"}"#, "Unrecognized field: ind"),
            (r#"{"detail":[{"loc":["body"]}]}"#, r#"[{"loc":["body"]}]"#),
            ("<html>\n  gone </html>", "<html> gone </html>"),
            ("", ""),
        ] {
            assert_eq!(message_of(answer.as_bytes()), expected);
        }
    }
}
