//! PutRecord and PutRecords: records go to the partition whose shard holds their hash key, with the
//! partition key as key and the data as value, as if they had come in through any other door.

use std::borrow::Cow;

use base64::{DecodeSliceError, Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use model::{Record, Timestamp, TopicPartition};

use super::{
    Reply,
    error::KinesisError,
    fields::{Faults, HASH_KEY, PARTITION_KEY, SEQUENCE_NUMBER, STREAM_ARN, STREAM_NAME},
    hash::HashKey,
    limits::Rates,
    names::{Caller, Resource, ShardId},
    put_body::{Data, Entry, MAX_ENTRIES, PutBody},
    sequence::SequenceNumber,
    service::{Held, no_stream},
    stream::Stream,
    writer::{Format, Writer, written, written_in},
};
use crate::{
    error::KafkaError,
    ingest::{
        Doors, Permit,
        append::{Addressed, Appended},
        idempotency::{Once, Request},
        json::{Text, shortened},
    },
};

/// Of one record, and of all in one request with their partition keys.
const MAX_BYTES: usize = 10 << 20;
const PUT_ENCRYPTION: &str = "NONE";
/// About as long as one record's share of an answer.
const RECEIPT_BYTES: usize = 128;

/// A record that is right in itself.
struct Given {
    key: Bytes,
    data: Bytes,
    explicit: Option<HashKey>,
}

/// Records that are right for their stream, on the way to its shards.
struct Put {
    name: String,
    held: Held,
    now: Timestamp,
    addressed: Vec<Addressed>,
    request: Option<Request>,
}

impl Doors {
    pub(super) async fn put_record(
        &self,
        caller: &Caller,
        format: Format,
        body: &Bytes,
        put: &PutBody<'_>,
        permit: &mut Permit,
        once: Option<&Once>,
    ) -> Result<Reply, KinesisError> {
        let mut faults = Faults::default();
        let name = stream_name(put, &mut faults);
        check_entry(&put.record, None, &mut faults);
        if let Some(Text(ordering)) = &put.ordering {
            faults.check_text("sequenceNumberForOrdering", ordering, &SEQUENCE_NUMBER);
        }
        let given = decode(body, std::slice::from_ref(&put.record), permit, false, &mut faults)?;
        faults.done()?;
        let ordering = put.ordering.as_ref().map(|Text(ordering)| &**ordering);
        let Put { name, held, now, addressed, request } = self.begin(caller, name, given, permit, once).await?;
        let shard = addressed[0].partition.expect("every record was given its shard");
        if let Some(minimum) = ordering {
            self.check_ordering(caller, &name, &held, shard, minimum, now).await?;
        }
        if self.kinesis.has_limits() && !held.handle.rates.put(shard, addressed[0].record.size_bytes(), now.0) {
            return Err(throttled(caller, &name, shard));
        }
        let appended = self.put(caller, &name, &held, request, addressed, &[]).await?;
        let at = appended.at().unwrap_or(now);
        match appended.outcomes().next() {
            Some(Ok((shard, offset))) => Ok(Reply::Whole(written(format, |writer| {
                put_receipt(writer, &held.stream, shard, offset.0, at);
                writer.text("EncryptionType", PUT_ENCRYPTION);
            }))),
            Some(Err(model::LogError::UnknownTopic(_))) => Err(no_stream(caller, &name)),
            Some(Err(e)) => Err(KinesisError::of_log(e)),
            None => Err(KinesisError::internal()),
        }
    }

    pub(super) async fn put_records(
        &self,
        caller: &Caller,
        format: Format,
        body: &Bytes,
        put: &PutBody<'_>,
        permit: &mut Permit,
        once: Option<&Once>,
    ) -> Result<Reply, KinesisError> {
        let mut faults = Faults::default();
        let name = stream_name(put, &mut faults);
        let entries = match &put.records {
            None => {
                faults.missing("records");
                &[][..]
            }
            Some(records) => {
                faults.check_length("records", || format!("'[{} records]'", records.n), records.n, (1, MAX_ENTRIES));
                &records.kept
            }
        };
        for (i, entry) in entries.iter().enumerate() {
            check_entry(entry, Some(i), &mut faults);
        }
        let given = decode(body, entries, permit, true, &mut faults)?;
        faults.done()?;
        let Put { name, held, now, addressed, request } = self.begin(caller, name, given, permit, once).await?;
        // The places of those that were refused for their shard's throughput.
        let (addressed, refused) = if self.kinesis.has_limits() {
            within_limits(&held.handle.rates, addressed, now)
        } else {
            (addressed, Vec::new())
        };
        self.append_and_answer(caller, &name, format, &held, request, addressed, &refused, now).await
    }

    /// The stream held open, its records on the way to their shards.
    async fn begin(
        &self,
        caller: &Caller,
        name: Option<String>,
        given: Vec<Given>,
        permit: &mut Permit,
        once: Option<&Once>,
    ) -> Result<Put, KinesisError> {
        let name = name.ok_or_else(KinesisError::internal)?;
        let held = self.kinesis.hold(caller, &name).await?;
        check_sizes(self, &held.stream, &given)?;
        let now = once.map_or_else(Timestamp::now, Once::now);
        if !permit.grow(once.map_or(0, |once| once.overhead_bytes(given.len()))) {
            return Err(KafkaError::overloaded().into());
        }
        let addressed = address(&held.stream, given, now);
        let request = once.map(|once| once.request(&addressed));
        Ok(Put { name, held, now, addressed, request })
    }

    /// Brings records to their shards; of a request with a key those that are not there yet.
    async fn put(
        &self,
        caller: &Caller,
        name: &str,
        held: &Held,
        request: Option<Request>,
        addressed: Vec<Addressed>,
        left_out: &[usize],
    ) -> Result<Appended, KinesisError> {
        let put = match request {
            None => Ok(self.store.store_in(&held.topic, addressed).await),
            Some(request) => self.store_once(request, &held.topic, addressed, left_out, held.kept_open()).await,
        };
        let is_without = |error: &model::LogError| matches!(error, model::LogError::UnknownPartition(_));
        let misses_a_shard = match &put {
            Ok(appended) => appended.outcomes().all(|outcome| outcome.err().is_some_and(is_without)),
            Err(error) => *error == KafkaError::partition_not_found(),
        };
        if misses_a_shard {
            // Another door made the topic anew, with fewer partitions: looking at the stream mends it.
            self.kinesis.stream(caller, name).await?;
            return Err(KinesisError::changed(name));
        }
        Ok(put?)
    }

    #[expect(clippy::too_many_arguments, reason = "all that an answer is made of")]
    async fn append_and_answer(
        &self,
        caller: &Caller,
        name: &str,
        format: Format,
        held: &Held,
        request: Option<Request>,
        addressed: Vec<Addressed>,
        refused: &[(usize, u32)],
        now: Timestamp,
    ) -> Result<Reply, KinesisError> {
        let n_records = addressed.len() + refused.len();
        let left_out: Vec<usize> = refused.iter().map(|(place, _)| *place).collect();
        let appended = if addressed.is_empty() {
            None
        } else {
            Some(self.put(caller, name, held, request, addressed, &left_out).await?)
        };
        let at = appended.as_ref().and_then(Appended::at).unwrap_or(now);
        let mut n_stored = 0;
        if let Some(appended) = &appended {
            n_stored = appended.outcomes().filter(Result::is_ok).count();
            // Nothing stored at all is an error of the whole: clients try that again by themselves.
            if n_stored == 0 && refused.is_empty() {
                let error = appended.outcomes().find_map(Result::err);
                return Err(match error {
                    Some(model::LogError::UnknownTopic(_)) => no_stream(caller, name),
                    Some(e) => KinesisError::of_log(e),
                    None => KinesisError::internal(),
                });
            }
        }
        let mut outcomes = appended.iter().flat_map(Appended::outcomes);
        let mut refused = refused.iter().peekable();
        let answer = written_in(format, (n_records + 2) * RECEIPT_BYTES, |writer| {
            writer.text("EncryptionType", PUT_ENCRYPTION);
            writer.count("FailedRecordCount", n_records - n_stored);
            writer.maps("Records", 0..n_records, |writer, i| {
                if let Some((_, shard)) = refused.next_if(|(place, _)| *place == i) {
                    let error = throttled(caller, name, *shard);
                    return put_failure(writer, &error);
                }
                match outcomes.next() {
                    Some(Ok((shard, offset))) => put_receipt(writer, &held.stream, shard, offset.0, at),
                    _ => put_failure(writer, &KinesisError::internal()),
                }
            });
        });
        Ok(Reply::Whole(answer))
    }

    /// The record's number will be above this one.
    async fn check_ordering(
        &self,
        caller: &Caller,
        name: &str,
        held: &Held,
        shard: u32,
        minimum: &str,
        now: Timestamp,
    ) -> Result<(), KinesisError> {
        let invalid = || {
            KinesisError::invalid_argument(format!(
                "ExclusiveMinimumSequenceNumber {minimum} used in PutRecord on stream {name} under account {} is \
                 invalid.",
                caller.account
            ))
        };
        let number: SequenceNumber = minimum.parse().map_err(|_| invalid())?;
        let now_seconds = u64::try_from(now.0 / 1000).unwrap_or(0);
        if number.time > now_seconds || number.created > now_seconds + 1 {
            return Err(invalid());
        }
        if number.shard == shard {
            let partition = TopicPartition::new(held.topic.name.clone(), shard);
            let bounds = self.kinesis.log().bounds(&partition).await.map_err(|e| KinesisError::of_log(&e))?;
            if number.next_offset() > bounds.end.0 {
                return Err(invalid());
            }
        }
        Ok(())
    }
}

fn put_receipt(writer: &mut Writer, stream: &Stream, shard: u32, offset: u64, now: Timestamp) {
    let created = stream.shard(shard).map_or(0, |shard| shard.created);
    writer.shown("SequenceNumber", SequenceNumber::of_record(created, shard, offset, now.0));
    writer.shown("ShardId", ShardId(shard));
}

fn put_failure(writer: &mut Writer, error: &KinesisError) {
    writer.text("ErrorCode", error.name);
    writer.text("ErrorMessage", &error.message);
}

fn throttled(caller: &Caller, name: &str, shard: u32) -> KinesisError {
    KinesisError::throttled(format!(
        "Rate exceeded for shard {} in stream {name} under account {}.",
        ShardId(shard),
        caller.account
    ))
}

fn within_limits(rates: &Rates, addressed: Vec<Addressed>, now: Timestamp) -> (Vec<Addressed>, Vec<(usize, u32)>) {
    let (mut taken, mut refused) = (Vec::with_capacity(addressed.len()), Vec::new());
    for (i, addressed) in addressed.into_iter().enumerate() {
        let shard = addressed.partition.expect("every record was given its shard");
        if rates.put(shard, addressed.record.size_bytes(), now.0) {
            taken.push(addressed);
        } else {
            refused.push((i, shard));
        }
    }
    (taken, refused)
}

/// By name or ARN; None comes with a fault.
fn stream_name(put: &PutBody<'_>, faults: &mut Faults) -> Option<String> {
    if let Some(Text(name)) = &put.stream_name {
        faults.check_text("streamName", name, &STREAM_NAME);
        return Some(name.clone().into_owned());
    }
    let Some(Text(arn)) = &put.stream_arn else {
        faults.missing("streamName");
        return None;
    };
    faults.check_text("streamARN", arn, &STREAM_ARN);
    match Resource::of_arn(arn) {
        Some(Resource::Stream(name)) => Some(name.to_owned()),
        _ => {
            faults.missing("streamName");
            None
        }
    }
}

/// Checks what `decode` does not; `place` counts from 0, and is None in PutRecord.
fn check_entry(entry: &Entry<'_>, place: Option<usize>, faults: &mut Faults) {
    match &entry.partition_key {
        None => faults.missing(&at(place, "partitionKey")),
        // So long in characters, too.
        Some(Text(key)) if (1..=64).contains(&key.len()) => {}
        Some(Text(key)) => faults.check_text(&at(place, "partitionKey"), key, &PARTITION_KEY),
    }
    if let Some(Text(key)) = &entry.explicit_hash_key {
        faults.check_text(&at(place, "explicitHashKey"), key, &HASH_KEY);
    }
    if entry.data.is_none() {
        faults.missing(&at(place, "data"));
    }
}

/// Where a member stands in the request, for whoever has to be told.
fn at(place: Option<usize>, member: &str) -> String {
    place.map_or(member.to_owned(), |i| format!("records.{}.member.{member}", i + 1))
}

/// The records as they will be stored: keys are slices of the body that they came in, data slices of it
/// or of one buffer that they share.
fn decode(
    body: &Bytes,
    entries: &[Entry<'_>],
    permit: &mut Permit,
    is_list: bool,
    faults: &mut Faults,
) -> Result<Vec<Given>, KinesisError> {
    let is_text = |entry: &&Entry<'_>| matches!(entry.data, Some(Data::Base64(_)));
    let bound: usize = entries.iter().filter(is_text).filter_map(|e| Some(e.data.as_ref()?.len_bound())).sum();
    let overhead = entries.len() * (size_of::<Given>() + size_of::<Addressed>());
    if !permit.grow(bound + overhead) {
        return Err(KafkaError::overloaded().into());
    }
    let (mut decoded, mut used, mut ends) = (vec![0; bound], 0, Vec::with_capacity(entries.len()));
    for entry in entries {
        if let Some(Data::Base64(text)) = &entry.data {
            used += BASE64_STANDARD
                .decode_slice(text.as_bytes(), &mut decoded[used..])
                .map_err(|e| not_a_blob(text, &e))?;
        }
        ends.push(used);
    }
    decoded.truncate(used);
    let (decoded, mut start) = (Bytes::from(decoded), 0);
    let mut given = Vec::with_capacity(entries.len());
    for (i, (entry, end)) in entries.iter().zip(ends).enumerate() {
        let data = match &entry.data {
            Some(Data::Base64(_)) => decoded.slice(start..end),
            Some(Data::Bytes(Cow::Borrowed(bytes))) => body.slice_ref(bytes),
            Some(Data::Bytes(Cow::Owned(bytes))) => Bytes::copy_from_slice(bytes),
            Some(Data::Kept(bytes)) => bytes.clone(),
            None => Bytes::new(),
        };
        start = end;
        if data.len() > MAX_BYTES {
            let n = data.len();
            let at = at(is_list.then_some(i), "data");
            faults.check_length(&at, || format!("'java.nio.HeapByteBuffer[pos=0 lim={n} cap={n}]'"), n, (0, MAX_BYTES));
        }
        let key = match &entry.partition_key {
            Some(Text(Cow::Borrowed(key))) => body.slice_ref(key.as_bytes()),
            Some(Text(Cow::Owned(key))) => Bytes::copy_from_slice(key.as_bytes()),
            None => Bytes::new(),
        };
        let explicit = match &entry.explicit_hash_key {
            // What the pattern lets through and 128 bits do not hold.
            Some(Text(text)) => match text.parse() {
                Ok(key) => Some(key),
                Err(_) if text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() => {
                    return Err(KinesisError::invalid_argument(format!(
                        "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. Specified value \
                         was {text}"
                    )));
                }
                Err(_) => None,
            },
            None => None,
        };
        given.push(Given { key, data, explicit });
    }
    Ok(given)
}

fn not_a_blob(text: &str, error: &DecodeSliceError) -> KinesisError {
    let text = shortened(text);
    KinesisError::serialization(format!("'{text}' can not be converted to a Blob: {error}"))
}

fn check_sizes(doors: &Doors, stream: &Stream, given: &[Given]) -> Result<(), KinesisError> {
    let of_stream = stream.max_record_kib as usize * 1024;
    let limit = of_stream.min(doors.services.config.ingest.max_record_bytes);
    let mut total = 0;
    for record in given {
        let n_bytes = record.key.len() + record.data.len();
        if n_bytes > limit {
            return Err(KinesisError::invalid_argument(format!(
                "Record size {n_bytes} bytes exceeds {limit} bytes, the maximum record size of the stream, partition \
                 key included (UpdateMaxRecordSize, and ingest.max_record_bytes of this server)"
            )));
        }
        total += n_bytes;
    }
    if total > MAX_BYTES {
        return Err(KinesisError::invalid_argument("Records size exceeds 10 MB limit"));
    }
    Ok(())
}

fn address(stream: &Stream, given: Vec<Given>, now: Timestamp) -> Vec<Addressed> {
    let addressed = |Given { key, data, explicit }: Given| {
        let hash_key = explicit.unwrap_or_else(|| HashKey::of_partition_key(&key));
        let record = Record { key: Some(key), value: Some(data), headers: Vec::new(), timestamp: now };
        Addressed { partition: Some(stream.route(hash_key)), record }
    };
    given.into_iter().map(addressed).collect()
}
