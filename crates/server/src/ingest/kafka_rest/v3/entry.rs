//! One record of version 3: what a client sends, and the receipt for it.

use std::{borrow::Cow, fmt::Write};

use bytes::Bytes;
use chrono::{DateTime, Datelike, SecondsFormat};
use model::{Offset, Record, Timestamp, TopicName, config::IngestConfig};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

use crate::{
    error::KafkaError,
    ingest::{
        append::Addressed,
        json::{Compactor, Object, Text, Whole, shortened},
        kafka_rest::{
            consumers::parse,
            records::{base64, headers, timestamp_of},
        },
    },
};

/// About as long as one receipt.
pub(super) const RECEIPT_BYTES: usize = 256;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEntry<'a> {
    #[serde(borrow, default)]
    id: Option<Text<'a>>,
    partition_id: Option<Whole>,
    #[serde(borrow, default)]
    headers: Option<&'a RawValue>,
    #[serde(borrow, default)]
    key: Option<Object<RawData<'a>>>,
    #[serde(borrow, default)]
    value: Option<Object<RawData<'a>>>,
    #[serde(borrow, default)]
    timestamp: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawData<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Option<Text<'a>>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(default, rename = "subject")]
    _subject: Option<IgnoredAny>,
    #[serde(default, rename = "subject_name_strategy")]
    _subject_name_strategy: Option<IgnoredAny>,
    #[serde(default, rename = "schema_id")]
    _schema_id: Option<IgnoredAny>,
    #[serde(default, rename = "schema_version")]
    _schema_version: Option<IgnoredAny>,
    #[serde(default, rename = "schema")]
    _schema: Option<IgnoredAny>,
}

/// A record, and what its receipt says of it.
pub(super) struct Entry<'o> {
    /// What a batch calls it.
    pub(super) id: Option<Cow<'o, str>>,
    pub(super) addressed: Addressed,
    key: Option<(Kind, usize)>,
    value: Option<(Kind, usize)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Binary,
    Json,
    String,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Binary, Self::Json, Self::String];

    fn name(self) -> &'static str {
        match self {
            Self::Binary => "BINARY",
            Self::Json => "JSON",
            Self::String => "STRING",
        }
    }

    fn of(name: &str) -> Result<Self, KafkaError> {
        if let Some(kind) = Self::ALL.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(name)) {
            return Ok(kind);
        }
        Err(match ["AVRO", "JSONSCHEMA", "PROTOBUF"].into_iter().find(|schema| schema.eq_ignore_ascii_case(name)) {
            Some(schema) => needs_schema(&format!("so it does not take the type {schema}")),
            None => KafkaError::bad_request(format!("type {} is none of BINARY, JSON, STRING", shortened(name))),
        })
    }
}

/// Where no type is named, a schema would say it.
fn needs_schema(what: &str) -> KafkaError {
    let message = format!(
        "Invalid schema: this server has no schema registry, {what}; the types BINARY, JSON and STRING need none"
    );
    KafkaError::unprocessable(42205, message)
}

/// `object` is one JSON object as it was sent.
pub(super) fn read<'o>(
    object: &'o Bytes,
    is_of_batch: bool,
    config: &IngestConfig,
    now: Timestamp,
) -> Result<Entry<'o>, KafkaError> {
    let raw: RawEntry<'_> = parse(object)?;
    if raw.id.is_some() && !is_of_batch {
        return Err(KafkaError::unrecognized_field("id"));
    }
    let mut compactor = Compactor::new(object, config.max_json_depth);
    let (key, key_bytes) = data("key", raw.key, &mut compactor)?;
    let (value, value_bytes) = data("value", raw.value, &mut compactor)?;
    let timestamp = raw.timestamp.map_or(Ok(now), |json| {
        timestamp_of(json.get()).filter(|time| can_be_told(*time)).ok_or_else(|| {
            let json = shortened(json.get()).into_owned();
            KafkaError::bad_request(format!("timestamp is not an RFC 3339 time (was {json})"))
        })
    })?;
    let headers = raw.headers.map_or(Ok(Vec::new()), |raw| headers("headers", raw))?;
    let record = Record { key: key_bytes, value: value_bytes, headers, timestamp };
    let (size_bytes, limit_bytes) = (record.size_bytes(), config.max_record_bytes);
    if size_bytes > limit_bytes {
        let message = format!("the record has {size_bytes} bytes, {limit_bytes} are allowed (ingest.max_record_bytes)");
        return Err(KafkaError::too_large(message));
    }
    let partition = raw.partition_id.map(|Whole(p)| {
        if p < 0 {
            let message = format!("partition_id must be greater than or equal to 0 (was {p})");
            return Err(KafkaError::unprocessable(422, message));
        }
        u32::try_from(p).map_err(|_| KafkaError::partition_not_found())
    });
    let addressed = Addressed { partition: partition.transpose()?, record };
    Ok(Entry { id: raw.id.map(|Text(id)| id), addressed, key, value })
}

/// Whether the receipt has words for it: RFC 3339 has four digits for the year.
fn can_be_told(time: Timestamp) -> bool {
    DateTime::from_timestamp_millis(time.0).is_some_and(|time| (0..=9999).contains(&time.year()))
}

type Told = Option<(Kind, usize)>;

fn data(
    field: &str,
    raw: Option<Object<RawData<'_>>>,
    compactor: &mut Compactor<'_>,
) -> Result<(Told, Option<Bytes>), KafkaError> {
    let Some(Object(raw)) = raw else { return Ok((None, None)) };
    let kind = match &raw.kind {
        Some(Text(name)) => Kind::of(name)?,
        None if raw.data.is_none() => return Ok((None, None)),
        None => return Err(needs_schema(&format!("so {field}.type has to be given"))),
    };
    let bytes = match (kind, raw.data) {
        (_, None) => None,
        (Kind::Binary, Some(json)) => Some(base64(json)?),
        (Kind::Json, Some(json)) => {
            let compact = compactor.compact(json.get());
            Some(compact.map_err(|too_deep| KafkaError::bad_request(format!("{field}.data {too_deep}")))?)
        }
        (Kind::String, Some(json)) => Some(compactor.text(json.get()).ok_or_else(|| {
            KafkaError::bad_request(format!("Bad Request: data={} is not a string.", shortened(json.get())))
        })?),
    };
    Ok((Some((kind, bytes.as_ref().map_or(0, Bytes::len))), bytes))
}

/// What a receipt needs of an entry whose record is on its way.
pub(super) struct Receipt {
    timestamp: Timestamp,
    key: Told,
    value: Told,
}

impl Entry<'_> {
    pub(super) fn split(self) -> (Addressed, Receipt) {
        let timestamp = self.addressed.record.timestamp;
        (self.addressed, Receipt { timestamp, key: self.key, value: self.value })
    }
}

impl Receipt {
    /// The record came without a time of its own, and for the first time at `at`.
    pub(super) fn came_first_at(&mut self, now: Timestamp, at: Timestamp) {
        if self.timestamp == now {
            self.timestamp = at;
        }
    }
}

/// The receipts of one topic's records, as they are written one after the other: what they share is put
/// into words once.
pub(super) struct Receipts {
    cluster_and_topic: String,
    /// Most records have the time of their request.
    last_time: Option<(Timestamp, String)>,
}

impl Receipts {
    pub(super) fn new(cluster: &str, topic: &TopicName) -> Self {
        let cluster_and_topic = format!(r#""cluster_id":"{cluster}","topic_name":"{topic}""#);
        Self { cluster_and_topic, last_time: None }
    }

    /// Appends the receipt of a stored record; `id` is what a batch calls it.
    pub(super) fn write(
        &mut self,
        out: &mut String,
        id: Option<&str>,
        receipt: &Receipt,
        (partition, offset): (u32, Offset),
    ) {
        out.push('{');
        match id {
            Some(id) => write_id(out, id),
            None => out.push_str(r#""error_code":200,"#),
        }
        // Piece by piece: formatting would take as long as all else of a receipt.
        let mut digits = itoa::Buffer::new();
        out.push_str(&self.cluster_and_topic);
        out.push_str(r#","partition_id":"#);
        out.push_str(digits.format(partition));
        out.push_str(r#","offset":"#);
        out.push_str(digits.format(offset.0));
        out.push_str(self.time(receipt.timestamp));
        for (begin, told) in [(r#","key":{"type":""#, receipt.key), (r#","value":{"type":""#, receipt.value)] {
            if let Some((kind, size)) = told {
                out.push_str(begin);
                out.push_str(kind.name());
                out.push_str(r#"","size":"#);
                out.push_str(digits.format(size));
                out.push('}');
            }
        }
        out.push('}');
    }

    fn time(&mut self, time: Timestamp) -> &str {
        self.last_time.take_if(|(last, _)| *last != time);
        let (_, text) = self.last_time.get_or_insert_with(|| (time, format!(r#","timestamp":"{}""#, text_of(time))));
        text
    }
}

fn text_of(time: Timestamp) -> String {
    DateTime::from_timestamp_millis(time.0).unwrap_or_default().to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// Within an answer the code is the status, and what is finer stands in the text.
pub(super) fn write_failure(out: &mut String, id: Option<&str>, error: &KafkaError) {
    let status = error.status.as_u16();
    let message = match error.code {
        code if code == u32::from(status) => error.message.to_string(),
        code => format!("Error: {code} : {}", error.message),
    };
    out.push('{');
    if let Some(id) = id {
        write_id(out, id);
    }
    let message = serde_json::Value::from(message);
    write!(out, r#""error_code":{status},"message":{message}}}"#).expect("writing to a string cannot fail");
}

fn write_id(out: &mut String, id: &str) {
    out.push_str(r#""id":"#);
    if id.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        out.push('"');
        out.push_str(id);
        out.push('"');
    } else {
        out.push_str(&serde_json::Value::from(id).to_string());
    }
    out.push(',');
}
