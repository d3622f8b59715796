//! From a produce request's body to the records in it.
//!
//! The envelope is parsed, keys and values are only found: what is stored is cut out of the
//! body (`ingest::json`). Unknown fields are errors, as with Confluent's proxy; so a body
//! without envelope is recognised for what it is.

use std::fmt;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use chrono::DateTime;
use model::{Header, Record, Timestamp, config::IngestConfig};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::media::Format;
use crate::{
    error::KafkaError,
    ingest::{
        append::Addressed,
        idempotency,
        json::{Compactor, Object, Text, Whole, shortened},
    },
};

/// The records of `body`, at least one.
pub(super) fn read(body: &Bytes, format: Format, config: &IngestConfig) -> Result<Vec<Addressed>, KafkaError> {
    if body.is_empty() {
        let message = "Payload error. Request body is empty. Data is required.";
        return Err(KafkaError::unprocessable(42206, message));
    }
    let text = std::str::from_utf8(body).map_err(|e| {
        KafkaError::bad_request(format!("the request body is not UTF-8: byte {} is wrong", e.valid_up_to() + 1))
    })?;
    let envelope = Envelope::parse(text, config)?;
    if let Format::Schema(name) = format {
        return Err(envelope.what_the_schema_format_lacks(name));
    }
    let reader = Reader { config, format, now: Timestamp::now() };
    let mut compactor = Compactor::new(body, config.max_json_depth);
    envelope.records.iter().enumerate().map(|(i, raw)| reader.record(i, raw, &mut compactor)).collect()
}

#[derive(Default)]
struct Envelope<'a> {
    records: Vec<RawRecord<'a>>,
    has_key_schema: bool,
    has_value_schema: bool,
}

#[derive(Default)]
struct RawRecord<'a> {
    key: Option<&'a RawValue>,
    value: Option<&'a RawValue>,
    partition: Option<i64>,
    headers: Option<&'a RawValue>,
    timestamp: Option<&'a RawValue>,
}

impl<'a> Envelope<'a> {
    fn parse(text: &'a str, config: &IngestConfig) -> Result<Self, KafkaError> {
        let mut parsing = Parsing { config, problem: None, place: Place::Envelope };
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let envelope = EnvelopeSeed(&mut parsing).deserialize(&mut deserializer);
        match envelope.and_then(|envelope| deserializer.end().map(|()| envelope)) {
            Ok(envelope) if envelope.records.is_empty() => Err(records_must_not_be_empty("[]")),
            Ok(envelope) => Ok(envelope),
            Err(e) => Err(parsing.explain(&e)),
        }
    }

    fn what_the_schema_format_lacks(&self, format: &str) -> KafkaError {
        let (mut keys, mut values) = (self.records.iter().map(|r| r.key), self.records.iter().map(|r| r.value));
        if !self.has_key_schema && keys.any(|key| key.is_some()) {
            return KafkaError::unprocessable(42201, "Request includes keys but does not include key schema");
        }
        if !self.has_value_schema && values.any(|value| value.is_some()) {
            return KafkaError::unprocessable(42202, "Request includes values but does not include value schema");
        }
        let message = format!(
            "Invalid schema: this server has no schema registry, so it does not take the {format} format; \
             send application/vnd.kafka.json.v2+json or application/vnd.kafka.binary.v2+json"
        );
        KafkaError::unprocessable(42205, message)
    }
}

fn records_must_not_be_empty(was: &str) -> KafkaError {
    KafkaError::unprocessable(422, format!("records must not be empty (was {was})"))
}

/// Handed down through the visitors, to bring up what serde's errors cannot: a status.
struct Parsing<'c> {
    config: &'c IngestConfig,
    problem: Option<KafkaError>,
    /// What is being read, for errors of type.
    place: Place,
}

#[derive(Clone, Copy)]
enum Place {
    Envelope,
    Records,
    Record(usize),
    Partition(usize),
}

impl Parsing<'_> {
    /// The problem that a visitor brought up, or serde's own words with the field they are about.
    fn explain(self, error: &serde_json::Error) -> KafkaError {
        let text = match self.place {
            Place::Records if error.is_data() => format!("records: {error}"),
            Place::Record(i) if error.is_data() => format!("records[{i}]: {error}"),
            Place::Partition(i) if error.is_data() => format!("records[{i}].partition: {error}"),
            _ => error.to_string(),
        };
        self.problem.unwrap_or_else(|| KafkaError::bad_request(text))
    }

    fn fail<E: serde::de::Error>(&mut self, problem: KafkaError) -> E {
        self.problem = Some(problem);
        E::custom("see Parsing::problem")
    }

    fn unrecognized<E: serde::de::Error>(&mut self, field: &str) -> E {
        self.fail(KafkaError::unrecognized_field(&shortened(field)))
    }
}

struct EnvelopeSeed<'p, 'c>(&'p mut Parsing<'c>);

impl<'de> DeserializeSeed<'de> for EnvelopeSeed<'_, '_> {
    type Value = Envelope<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Envelope<'de>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for EnvelopeSeed<'_, '_> {
    type Value = Envelope<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with the field `records`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Envelope<'de>, A::Error> {
        let mut records = None;
        let (mut has_key_schema, mut has_value_schema) = (false, false);
        while let Some(Text(name)) = map.next_key()? {
            match &*name {
                "records" if records.is_some() => return Err(A::Error::duplicate_field("records")),
                "records" => {
                    self.0.place = Place::Records;
                    records = Some(map.next_value_seed(RecordsSeed(self.0))?);
                    self.0.place = Place::Envelope;
                }
                "key_schema" | "key_schema_id" => has_key_schema |= map.next_value::<Option<IgnoredAny>>()?.is_some(),
                "value_schema" | "value_schema_id" => {
                    has_value_schema |= map.next_value::<Option<IgnoredAny>>()?.is_some();
                }
                _ => return Err(self.0.unrecognized(&name)),
            }
        }
        match records {
            Some(records) => Ok(Envelope { records, has_key_schema, has_value_schema }),
            None => Err(self.0.fail(records_must_not_be_empty("null"))),
        }
    }
}

struct RecordsSeed<'p, 'c>(&'p mut Parsing<'c>);

impl<'de> DeserializeSeed<'de> for RecordsSeed<'_, '_> {
    type Value = Vec<RawRecord<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for RecordsSeed<'_, '_> {
    type Value = Vec<RawRecord<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of records")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
        Err(self.0.fail(records_must_not_be_empty("null")))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let limit = self.0.config.max_records_per_request;
        let mut records = Vec::new();
        while let Some(record) = seq.next_element_seed(RecordSeed { parsing: self.0, i: records.len() })? {
            if records.len() == limit {
                let message = format!("the request has more than {limit} records (ingest.max_records_per_request)");
                return Err(self.0.fail(KafkaError::too_large(message)));
            }
            records.push(record);
        }
        Ok(records)
    }
}

struct RecordSeed<'p, 'c> {
    parsing: &'p mut Parsing<'c>,
    i: usize,
}

impl<'de> DeserializeSeed<'de> for RecordSeed<'_, '_> {
    type Value = RawRecord<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<RawRecord<'de>, D::Error> {
        self.parsing.place = Place::Record(self.i);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for RecordSeed<'_, '_> {
    type Value = RawRecord<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record: an object with the field `value`")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<RawRecord<'de>, E> {
        let message = format!("records[{}] must not be null (was null)", self.i);
        Err(self.parsing.fail(KafkaError::unprocessable(422, message)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawRecord<'de>, A::Error> {
        let mut record = RawRecord::default();
        while let Some(Text(name)) = map.next_key()? {
            match &*name {
                "key" => record.key = map.next_value()?,
                "value" => record.value = map.next_value()?,
                "partition" => {
                    self.parsing.place = Place::Partition(self.i);
                    record.partition = map.next_value::<Option<Whole>>()?.map(|Whole(n)| n);
                    self.parsing.place = Place::Record(self.i);
                }
                "headers" if !self.parsing.config.strict => record.headers = map.next_value()?,
                "timestamp" if !self.parsing.config.strict => record.timestamp = map.next_value()?,
                _ => return Err(self.parsing.unrecognized(&name)),
            }
        }
        Ok(record)
    }
}

/// Turns one raw record after the other into what is stored.
struct Reader<'c> {
    config: &'c IngestConfig,
    format: Format,
    now: Timestamp,
}

impl Reader<'_> {
    fn record(&self, i: usize, raw: &RawRecord<'_>, compactor: &mut Compactor<'_>) -> Result<Addressed, KafkaError> {
        let record = Record {
            key: self.data(i, "key", raw.key, compactor)?,
            value: self.data(i, "value", raw.value, compactor)?,
            headers: raw.headers.map_or(Ok(Vec::new()), |raw| headers(&format!("records[{i}].headers"), raw))?,
            timestamp: raw.timestamp.map_or(Ok(self.now), |raw| timestamp(i, raw))?,
        };
        let (size_bytes, limit_bytes) = (record.size_bytes(), self.config.max_record_bytes);
        if size_bytes > limit_bytes {
            return Err(KafkaError::too_large(format!(
                "records[{i}] has {size_bytes} bytes, {limit_bytes} are allowed (ingest.max_record_bytes)"
            )));
        }
        Ok(Addressed { partition: raw.partition.map(|p| partition(i, p)).transpose()?, record })
    }

    fn data(
        &self,
        i: usize,
        field: &str,
        raw: Option<&RawValue>,
        compactor: &mut Compactor<'_>,
    ) -> Result<Option<Bytes>, KafkaError> {
        let Some(raw) = raw else { return Ok(None) };
        let data = match self.format {
            Format::Binary => base64(raw)?,
            Format::Json | Format::Schema(_) => compactor
                .compact(raw.get())
                .map_err(|too_deep| KafkaError::bad_request(format!("records[{i}].{field} {too_deep}")))?,
        };
        Ok(Some(data))
    }
}

fn partition(i: usize, partition: i64) -> Result<u32, KafkaError> {
    if partition < 0 {
        let message = format!("records[{i}].partition must be greater than or equal to 0 (was {partition})");
        return Err(KafkaError::unprocessable(422, message));
    }
    u32::try_from(partition).map_err(|_| KafkaError::partition_not_found())
}

pub(super) fn base64(raw: &RawValue) -> Result<Bytes, KafkaError> {
    let json = raw.get();
    let Some(inner) = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return Err(KafkaError::not_base64(&shortened(json)));
    };
    let decoded = if inner.contains('\\') {
        // `\/` is a usual way to write a slash.
        serde_json::from_str(json).ok().and_then(|text: String| BASE64_STANDARD.decode(text).ok())
    } else {
        BASE64_STANDARD.decode(inner).ok()
    };
    decoded.map(Bytes::from).ok_or_else(|| KafkaError::invalid_base64(&shortened(json)))
}

/// `[{"name": "…", "value": "<base64>"}]`; Strimzi's bridge says `key` for `name`.
pub(super) fn headers(place: &str, raw: &RawValue) -> Result<Vec<Header>, KafkaError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct RawHeader<'a> {
        #[serde(alias = "key")]
        name: String,
        #[serde(borrow, default)]
        value: Option<&'a RawValue>,
    }
    let raw: Vec<Object<RawHeader<'_>>> = serde_json::from_str(raw.get())
        .map_err(|e| KafkaError::bad_request(format!("{place}: {}", without_position(&e))))?;
    let header = |Object(h): Object<RawHeader<'_>>| Ok(Header { key: h.name, value: h.value.map(base64).transpose()? });
    if raw.iter().any(|Object(header)| header.name == idempotency::NAME) {
        return Err(KafkaError::bad_request(format!("{place}: {} is for the server to set", idempotency::NAME)));
    }
    raw.into_iter().map(header).collect()
}

fn timestamp(i: usize, raw: &RawValue) -> Result<Timestamp, KafkaError> {
    timestamp_of(raw.get()).ok_or_else(|| {
        KafkaError::bad_request(format!(
            "records[{i}].timestamp is neither milliseconds since 1970 nor an RFC 3339 time (was {})",
            shortened(raw.get())
        ))
    })
}

/// Milliseconds since 1970, or RFC 3339.
pub(super) fn timestamp_of(json: &str) -> Option<Timestamp> {
    let whole = || serde_json::from_str(json).ok().map(|Whole(ms)| ms);
    let milliseconds = json.parse::<i64>().ok().or_else(whole).filter(|ms| *ms >= 0);
    let from_text = || {
        let text: String = serde_json::from_str(json).ok()?;
        Some(DateTime::parse_from_rfc3339(&text).ok()?.timestamp_millis())
    };
    milliseconds.or_else(from_text).map(Timestamp)
}

/// Positions inside a part of the body would mislead.
pub(super) fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.clone(), |(what, _)| what.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use model::config::Config;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// Bodies that are right but for a few bytes.
    fn body() -> impl Strategy<Value = Vec<u8>> {
        let right = json!({
            "key_schema": null,
            "records": [
                { "key": "Zm9v", "value": "YmFy", "partition": 0 },
                { "value": { "a": [1, 2.5, "\u{1f600} \"x\" \\ \n"], "b": null }, "timestamp": 1 },
                { "value": [], "headers": [{ "name": "n", "value": "Zm9v" }] },
            ],
        });
        let mutation = (any::<prop::sample::Index>(), 0..4_usize, prop::collection::vec(any::<u8>(), 0..4));
        prop::collection::vec(mutation, 0..4).prop_map(move |mutations| {
            let mut body = right.to_string().into_bytes();
            for (at, n_removed, added) in mutations {
                let start = at.index(body.len() + 1);
                let end = body.len().min(start + n_removed);
                body.splice(start..end, added);
            }
            body
        })
    }

    /// What serde_json reads in the same place; None where it cannot say.
    fn values_of(body: &[u8]) -> Option<Vec<Value>> {
        let mut parsed: Value = serde_json::from_slice(body).ok()?;
        Some(parsed["records"].as_array_mut()?.iter_mut().map(|r| r["value"].take()).collect())
    }

    proptest! {
        #[test]
        fn any_body_is_refused_or_stored_with_its_meaning(body in body()) {
            let (body, config) = (Bytes::from(body), Config::defaults().ingest);
            for format in [Format::Json, Format::Binary, Format::Schema("avro")] {
                let read = read(&body, format, &config);
                let (Format::Json, Ok(records)) = (format, read) else { continue };
                let stored = records.iter().map(|r| r.record.value.as_deref().unwrap_or(b"null"));
                let stored: Result<Vec<Value>, _> = stored.map(serde_json::from_slice).collect();
                if let (Ok(stored), Some(sent)) = (stored, values_of(&body)) {
                    prop_assert_eq!(stored, sent);
                }
            }
        }
    }
}
