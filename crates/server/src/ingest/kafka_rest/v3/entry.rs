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
        json::{Compactor, Object, Whole, shortened},
        kafka_rest::{
            consumers::parse,
            records::{base64, headers, timestamp_of},
        },
    },
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEntry<'a> {
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
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
    kind: Option<Cow<'a, str>>,
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
pub(super) struct Entry {
    pub(super) id: Option<String>,
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
    fn name(self) -> &'static str {
        match self {
            Self::Binary => "BINARY",
            Self::Json => "JSON",
            Self::String => "STRING",
        }
    }

    fn of(name: &str) -> Result<Self, KafkaError> {
        match name.to_ascii_uppercase().as_str() {
            "BINARY" => Ok(Self::Binary),
            "JSON" => Ok(Self::Json),
            "STRING" => Ok(Self::String),
            schema @ ("AVRO" | "JSONSCHEMA" | "PROTOBUF") => {
                Err(needs_schema(&format!("so it does not take the type {schema}")))
            }
            _ => {
                let name = shortened(name);
                Err(KafkaError::bad_request(format!("type {name} is none of BINARY, JSON, STRING")))
            }
        }
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
pub(super) fn read(
    object: &Bytes,
    is_of_batch: bool,
    config: &IngestConfig,
    now: Timestamp,
) -> Result<Entry, KafkaError> {
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
    Ok(Entry { id: raw.id.map(Cow::into_owned), addressed, key, value })
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
        Some(name) => Kind::of(name)?,
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
        (Kind::String, Some(json)) => {
            let text: Result<String, _> = serde_json::from_str(json.get());
            let text = text.map_err(|_| {
                KafkaError::bad_request(format!("Bad Request: data={} is not a string.", shortened(json.get())))
            })?;
            Some(Bytes::from(text))
        }
    };
    Ok((Some((kind, bytes.as_ref().map_or(0, Bytes::len))), bytes))
}

/// What a receipt needs of an entry whose record is on its way.
pub(super) struct Receipt {
    id: Option<String>,
    timestamp: Timestamp,
    key: Told,
    value: Told,
}

impl Entry {
    pub(super) fn split(self) -> (Addressed, Receipt) {
        let Self { id, addressed, key, value } = self;
        let timestamp = addressed.record.timestamp;
        (addressed, Receipt { id, timestamp, key, value })
    }
}

impl Receipt {
    /// The record came without a time of its own, and for the first time at `at`.
    pub(super) fn came_first_at(&mut self, now: Timestamp, at: Timestamp) {
        if self.timestamp == now {
            self.timestamp = at;
        }
    }

    /// Appends the receipt of a stored record.
    pub(super) fn write(&self, out: &mut String, cluster: &str, topic: &TopicName, partition: u32, offset: Offset) {
        out.push('{');
        match &self.id {
            Some(id) => put(out, format_args!(r#""id":{}"#, serde_json::Value::from(id.as_str()))),
            None => out.push_str(r#""error_code":200"#),
        }
        let time = DateTime::from_timestamp_millis(self.timestamp.0).unwrap_or_default();
        let time = time.to_rfc3339_opts(SecondsFormat::AutoSi, true);
        put(
            out,
            format_args!(
                r#","cluster_id":"{cluster}","topic_name":"{topic}","partition_id":{partition},"offset":{offset},"timestamp":"{time}""#
            ),
        );
        for (name, told) in [("key", self.key), ("value", self.value)] {
            if let Some((kind, size)) = told {
                put(out, format_args!(r#","{name}":{{"type":"{}","size":{size}}}"#, kind.name()));
            }
        }
        out.push('}');
    }

    /// Appends what became of a record that was not stored.
    pub(super) fn write_failure(&self, out: &mut String, error: &KafkaError) {
        write_failure(out, self.id.as_deref(), error);
    }
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
        put(out, format_args!(r#""id":{},"#, serde_json::Value::from(id)));
    }
    put(out, format_args!(r#""error_code":{status},"message":{}}}"#, serde_json::Value::from(message)));
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a string cannot fail");
}
