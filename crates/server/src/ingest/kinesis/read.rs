//! GetShardIterator and GetRecords: a place in a shard is an offset of its partition.
//!
//! Times are looked for by halving, as if they grew with the offsets. Records that came in through
//! Kinesis have such times; where producers of other doors stamped theirs otherwise, the place found
//! is one of several that are right.

use model::{Bounds, LogError, Offset, StoredRecord, Timestamp, TopicPartition};

use super::{
    Ask, Reply,
    error::KinesisError,
    fields::{Fields, SEQUENCE_NUMBER, SHARD_ID, SHARD_ITERATOR},
    iterator::ShardIterator,
    names::{Caller, ShardId},
    sequence::SequenceNumber,
    stream::{Shard, Stream},
    writer::{Format, Writer, written_in},
};
use crate::{
    error::KafkaError,
    ingest::{Doors, time::offset_at},
};

const MAX_RECORDS: i64 = 10_000;
/// Of data and partition keys in one answer.
const MAX_BYTES: usize = 10 << 20;
/// Fetched at a time, so that memory is paid for as it is taken.
const FETCH_BYTES: usize = 1 << 20;
/// What a record's share of an answer is beside its data.
const RECORD_BYTES: usize = 256;

const ITERATOR_TYPES: [&str; 5] =
    ["AFTER_SEQUENCE_NUMBER", "LATEST", "AT_TIMESTAMP", "AT_SEQUENCE_NUMBER", "TRIM_HORIZON"];

/// Where a reader wants to begin.
pub(super) struct Beginning<'a> {
    pub(super) kind: &'a str,
    pub(super) sequence_number: Option<&'a str>,
    pub(super) timestamp_ms: Option<i64>,
}

/// A shard, for whoever reads it.
pub(super) struct Reading<'a> {
    pub(super) caller: &'a Caller,
    pub(super) name: &'a str,
    pub(super) stream: &'a Stream,
    pub(super) number: u32,
    pub(super) partition: TopicPartition,
}

/// Records from one place on.
pub(super) struct Batch {
    pub(super) records: Vec<StoredRecord>,
    /// The offset of the next one.
    pub(super) next: u64,
    pub(super) millis_behind: i64,
    /// The shard is closed, and there is nothing more in it.
    pub(super) is_drained: bool,
    pub(super) n_bytes: usize,
}

impl Doors {
    pub(super) async fn get_shard_iterator(&self, ask: &Ask) -> Result<Reply, KinesisError> {
        let mut fields = ask.fields();
        let name = ask.stream_name(&mut fields)?;
        let shard_id = fields.needed_text("ShardId", &SHARD_ID)?;
        let beginning = Beginning::read(&mut fields, "ShardIteratorType", "StartingSequenceNumber", ask.format)?;
        fields.done()?;
        let stream = self.kinesis.stream(&ask.caller, &name).await?;
        let reading = self.reading(&ask.caller, &name, &stream, shard_id)?;
        let position = self.position(&reading, &beginning, "GetShardIterator").await?;
        let iterator = ShardIterator { stream: name.clone(), stream_id: stream.id, shard: reading.number, position };
        let token = self.kinesis.seal().await?.iterator(&iterator, Timestamp::now().0);
        Ok(ask.whole(|writer| writer.text("ShardIterator", &token)))
    }

    pub(super) async fn get_records(&self, ask: &Ask) -> Result<Reply, KinesisError> {
        let mut fields = ask.fields();
        let token = fields.needed_text("ShardIterator", &SHARD_ITERATOR)?;
        let limit = fields.integer("Limit", 1, MAX_RECORDS)?.unwrap_or(MAX_RECORDS);
        fields.done()?;
        let now = Timestamp::now();
        let seal = self.kinesis.seal().await?;
        let iterator = seal.read_iterator(token, now.0)?;
        // An iterator is as good as the permission of whoever brings it.
        ask.caller.check(&iterator.stream)?;
        let stream = self.kinesis.stream_soon(&ask.caller, &iterator.stream).await;
        let is_same = |stream: &std::sync::Arc<Stream>| stream.id == iterator.stream_id;
        let stream = stream.ok().filter(is_same);
        let id = ShardId(iterator.shard).to_string();
        let stream = stream.ok_or_else(|| no_shard(&ask.caller, &iterator.stream, &id))?;
        let reading = self.reading(&ask.caller, &iterator.stream, &stream, &id)?;
        let handle = self.kinesis.handle(&iterator.stream)?;
        if self.kinesis.has_limits() && !handle.rates.read(iterator.shard, now.0) {
            return Err(reading.throttled());
        }
        // Held until the answer is on its way.
        let mut permit = self.bodies.permit().ok_or_else(KafkaError::overloaded)?;
        let batch = self.batch(&reading, iterator.position, limit as usize, MAX_BYTES, &mut permit).await?;
        if self.kinesis.has_limits() {
            handle.rates.was_read(iterator.shard, batch.n_bytes);
        }
        let next = ShardIterator { position: batch.next, ..iterator.clone() };
        let next = (!batch.is_drained).then(|| seal.iterator(&next, now.0));
        let capacity = batch.n_bytes / 3 * 4 + (batch.records.len() + 4) * RECORD_BYTES;
        if !permit.grow(capacity) {
            return Err(KafkaError::overloaded().into());
        }
        let answer = written_in(ask.format, capacity, |writer| {
            match &next {
                Some(token) => writer.text("NextShardIterator", token),
                None => write_children(writer, &stream, iterator.shard),
            }
            writer.integer("MillisBehindLatest", batch.millis_behind);
            reading.write_records(writer, &batch.records);
        });
        Ok(Reply::Paid(answer, permit))
    }

    pub(super) fn reading<'a>(
        &self,
        caller: &'a Caller,
        name: &'a str,
        stream: &'a Stream,
        shard_id: &str,
    ) -> Result<Reading<'a>, KinesisError> {
        let Some(ShardId(number)) = ShardId::parse(shard_id) else {
            return Err(could_not_find(caller, name, shard_id));
        };
        if stream.shard(number).is_none() {
            return Err(no_shard(caller, name, &ShardId(number).to_string()));
        }
        let topic = self.kinesis.handle(name)?.topic.clone();
        Ok(Reading { caller, name, stream, number, partition: TopicPartition::new(topic, number) })
    }

    /// The offset at which a reader begins.
    pub(super) async fn position(
        &self,
        reading: &Reading<'_>,
        beginning: &Beginning<'_>,
        action: &str,
    ) -> Result<u64, KinesisError> {
        let bounds = self.bounds(reading).await?;
        match beginning.kind {
            "LATEST" => {
                beginning.without_number()?;
                Ok(bounds.end.0)
            }
            "TRIM_HORIZON" => {
                beginning.without_number()?;
                Ok(bounds.start.0)
            }
            "AT_TIMESTAMP" => self.position_at(reading, beginning.timestamp_ms).await,
            kind => {
                let number = reading.number_of(beginning, action)?;
                let offset = if kind == "AT_SEQUENCE_NUMBER" { number.index } else { number.next_offset() };
                Ok(offset.clamp(bounds.start.0, bounds.end.0))
            }
        }
    }

    /// The first record that is not older.
    async fn position_at(&self, reading: &Reading<'_>, timestamp_ms: Option<i64>) -> Result<u64, KinesisError> {
        let asked = timestamp_ms.ok_or_else(|| {
            KinesisError::invalid_argument(
                "Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP. Current request has no \
                 timestamp parameter.",
            )
        })?;
        let now = Timestamp::now().0;
        if asked > now {
            return Err(KinesisError::invalid_argument(format!(
                "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. \
                 timestampInMillis: {asked}, currentTimestampInMillis: {now}"
            )));
        }
        let offset = offset_at(self.kinesis.log(), &reading.partition, Timestamp(asked)).await;
        offset.map(|offset| offset.0).map_err(|e| reading.failed(&e))
    }

    async fn bounds(&self, reading: &Reading<'_>) -> Result<Bounds, KinesisError> {
        self.kinesis.log().bounds(&reading.partition).await.map_err(|e| reading.failed(&e))
    }

    /// Reads on from `position`, as far as `permit` can pay.
    pub(super) async fn batch(
        &self,
        reading: &Reading<'_>,
        position: u64,
        max_records: usize,
        max_bytes: usize,
        permit: &mut crate::ingest::Permit,
    ) -> Result<Batch, KinesisError> {
        // Before the bounds, so that nothing that was put later can be taken for the end of a shard
        // that was open then.
        let is_closed = !reading.shard().is_open();
        let bounds = self.bounds(reading).await?;
        let mut next = position.clamp(bounds.start.0, bounds.end.0);
        let (mut records, mut n_bytes): (Vec<StoredRecord>, usize) = (Vec::new(), 0);
        while next < bounds.end.0 && records.len() < max_records && n_bytes < max_bytes {
            let wanted = FETCH_BYTES.min(max_bytes - n_bytes);
            if !permit.grow(wanted) {
                if records.is_empty() {
                    return Err(KafkaError::overloaded().into());
                }
                break;
            }
            let fetched = match self.kinesis.log().fetch(&reading.partition, Offset(next), wanted).await {
                Ok(fetched) => fetched,
                // Trimmed meanwhile.
                Err(LogError::OutOfRange { bounds, .. }) if records.is_empty() && next < bounds.start.0 => {
                    next = bounds.start.0;
                    continue;
                }
                Err(_) if !records.is_empty() => break,
                Err(e) => return Err(reading.failed(&e)),
            };
            if fetched.is_empty() {
                break;
            }
            for stored in fetched {
                let size_bytes = stored.record.size_bytes();
                let is_full = records.len() == max_records || n_bytes + size_bytes > max_bytes;
                if is_full && !records.is_empty() {
                    n_bytes = max_bytes;
                    break;
                }
                next = stored.offset.0 + 1;
                n_bytes += size_bytes;
                records.push(stored);
            }
        }
        let is_at_end = next >= bounds.end.0;
        let behind = |record: &StoredRecord| Timestamp::now().0.saturating_sub(record.record.timestamp.0).max(1);
        let millis_behind = if is_at_end { 0 } else { records.last().map_or(0, behind) };
        let n_bytes = records.iter().map(|stored| stored.record.size_bytes()).sum();
        Ok(Batch { next, millis_behind, is_drained: is_at_end && is_closed, n_bytes, records })
    }
}

impl<'a> Beginning<'a> {
    pub(super) fn read(
        fields: &mut Fields<'a>,
        kind: &str,
        number: &str,
        format: Format,
    ) -> Result<Self, KinesisError> {
        Ok(Self {
            kind: fields.needed_one_of(kind, &ITERATOR_TYPES)?,
            sequence_number: fields.text(number, &SEQUENCE_NUMBER)?,
            timestamp_ms: fields.time("Timestamp", format == Format::Json)?,
        })
    }

    fn without_number(&self) -> Result<(), KinesisError> {
        match self.sequence_number {
            None => Ok(()),
            Some(_) => Err(self.mixed("also a")),
        }
    }

    fn mixed(&self, has: &str) -> KinesisError {
        KinesisError::invalid_argument(format!(
            "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and StartingSequenceNumber or (2) \
             TRIM_HORIZON or LATEST and no StartingSequenceNumber. Request specified {} and {has} \
             StartingSequenceNumber.",
            self.kind
        ))
    }
}

impl Reading<'_> {
    fn shard(&self) -> &Shard {
        &self.stream.shards[self.number as usize]
    }

    pub(super) fn number_at(&self, record: &StoredRecord) -> SequenceNumber {
        SequenceNumber::of_record(self.shard().created, self.number, record.offset.0, record.record.timestamp.0)
    }

    /// A number below that of the record at `position` and above all before.
    pub(super) fn number_before(&self, position: u64) -> SequenceNumber {
        SequenceNumber::before(self.shard().created, self.number, position)
    }

    fn number_of(&self, beginning: &Beginning<'_>, action: &str) -> Result<SequenceNumber, KinesisError> {
        let text = beginning.sequence_number.ok_or_else(|| beginning.mixed("no"))?;
        let (shard_id, account) = (ShardId(self.number), &self.caller.account);
        let invalid = |why: &str| {
            KinesisError::invalid_argument(format!(
                "StartingSequenceNumber {text} used in {action} on shard {shard_id} in stream {} under account \
                 {account} is invalid{why}.",
                self.name
            ))
        };
        let number: SequenceNumber = text.parse().map_err(|_| invalid(""))?;
        if number.shard != self.number {
            return Err(KinesisError::invalid_argument(format!(
                "Invalid StartingSequenceNumber. It encodes {}, while it was used in a call to a shard with {shard_id}",
                ShardId(number.shard)
            )));
        }
        if number.created != self.shard().created {
            return Err(invalid(" because it did not come from this stream"));
        }
        Ok(number)
    }

    fn failed(&self, error: &LogError) -> KinesisError {
        if error.is_gone() {
            return no_shard(self.caller, self.name, &ShardId(self.number).to_string());
        }
        KinesisError::of_log(error)
    }

    fn throttled(&self) -> KinesisError {
        KinesisError::throttled(format!(
            "Rate exceeded for shard {} in stream {} under account {}.",
            ShardId(self.number),
            self.name,
            self.caller.account
        ))
    }

    pub(super) fn write_records(&self, writer: &mut Writer, records: &[StoredRecord]) {
        writer.maps("Records", records, |writer, stored| {
            writer.shown("SequenceNumber", self.number_at(stored));
            writer.time("ApproximateArrivalTimestamp", stored.record.timestamp.0);
            writer.blob("Data", stored.record.value.as_deref().unwrap_or_default());
            // Other doors take keys of any bytes.
            writer.text("PartitionKey", &String::from_utf8_lossy(stored.record.key.as_deref().unwrap_or_default()));
            writer.text("EncryptionType", "NONE");
        });
    }
}

/// The shards in which a drained one goes on.
pub(super) fn write_children(writer: &mut Writer, stream: &Stream, parent: u32) {
    writer.maps("ChildShards", stream.children(parent), |writer, (number, shard)| {
        writer.shown("ShardId", ShardId(number));
        writer.texts("ParentShards", shard.parents.iter().map(|parent| ShardId(*parent).to_string()));
        write_range(writer, shard);
    });
}

pub(super) fn write_range(writer: &mut Writer, shard: &Shard) {
    writer.map("HashKeyRange", |writer| {
        writer.shown("StartingHashKey", shard.start);
        writer.shown("EndingHashKey", shard.end);
    });
}

pub(super) fn could_not_find(caller: &Caller, name: &str, shard_id: &str) -> KinesisError {
    KinesisError::not_found(format!(
        "Could not find shard {shard_id} in stream {name} under account {}.",
        caller.account
    ))
}

fn no_shard(caller: &Caller, name: &str, shard_id: &str) -> KinesisError {
    KinesisError::not_found(format!(
        "Shard {shard_id} in stream {name} under account {} does not exist",
        caller.account
    ))
}
