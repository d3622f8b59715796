//! Streams as a whole: made, deleted, told, listed, and what is set on them.

use std::sync::Arc;

use model::Timestamp;

use super::{
    Ask, Reply,
    error::KinesisError,
    fields::{NEXT_TOKEN, SHARD_ID, STREAM_ARN, STREAM_NAME},
    names::ShardId,
    service::{is_open, no_stream},
    shards::write_shard,
    stream::{DEFAULT_MAX_RECORD_KIB, Mode, Stream},
    streams::{Change, MAX_TAGS, Refusal},
    tags,
    writer::Writer,
};
use crate::ingest::Doors;

const MODES: [&str; 2] = ["PROVISIONED", "ON_DEMAND"];
/// What a stream without a number of its own begins with, if it may grow by itself.
const ON_DEMAND_SHARDS: i64 = 4;
const MAX_SHARDS: i64 = 100_000;
const MIN_RETENTION_HOURS: i64 = 24;
const MAX_RETENTION_HOURS: i64 = 8760;
const MAX_RECORD_KIB: i64 = 10_240;
/// Shards that one description tells at most, and streams that one list does by default.
const DESCRIBED_SHARDS: i64 = 100;
const LISTED_STREAMS: i64 = 100;
const ON_DEMAND_STREAMS: i64 = 50;
const METRICS: [&str; 8] = [
    "IncomingBytes",
    "OutgoingRecords",
    "IteratorAgeMilliseconds",
    "IncomingRecords",
    "ReadProvisionedThroughputExceeded",
    "WriteProvisionedThroughputExceeded",
    "OutgoingBytes",
    "ALL",
];

impl Doors {
    pub(super) async fn create_stream(&self, ask: &Ask) -> Result<Reply, KinesisError> {
        let mut fields = ask.fields();
        let name = fields.needed_text("StreamName", &STREAM_NAME)?;
        let n_shards = fields.integer("ShardCount", 1, MAX_SHARDS)?;
        let max_record_kib = fields.integer("MaxRecordSizeInKiB", i64::from(DEFAULT_MAX_RECORD_KIB), MAX_RECORD_KIB)?;
        let mode = ask.mode(&mut fields, false)?;
        let tags = tags::read(&mut fields, false)?;
        if n_shards.is_none() && mode == Mode::Provisioned {
            fields.faults.missing("shardCount");
        }
        fields.done()?;
        ask.caller.check(name)?;
        let max_record_kib = max_record_kib.unwrap_or(i64::from(DEFAULT_MAX_RECORD_KIB)) as u32;
        self.check_max_record(max_record_kib)?;
        tags::check(&tags)?;
        let n_shards = n_shards.unwrap_or(ON_DEMAND_SHARDS) as u32;
        match self.kinesis.create(name, n_shards, mode, max_record_kib, tags).await? {
            Some(_) => Ok(Reply::Empty),
            None => {
                Err(KinesisError::in_use(format!("Stream {name} under account {} already exists.", ask.caller.account)))
            }
        }
    }

    pub(super) async fn delete_stream(&self, ask: &Ask) -> Result<Reply, KinesisError> {
        let mut fields = ask.fields();
        let name = ask.stream_name(&mut fields)?;
        let with_consumers = fields.boolean("EnforceConsumerDeletion")?.unwrap_or(false);
        fields.done()?;
        let stream = self.kinesis.stream(&ask.caller, &name).await?;
        if !stream.consumers.is_empty() && !with_consumers {
            return Err(KinesisError::in_use(format!(
                "Stream {name} under account {} has consumers registered with it.",
                ask.caller.account
            )));
        }
        self.kinesis.delete(&name, stream.id).await?;
        Ok(Reply::Empty)
    }

    pub(super) async fn describe_stream(&self, ask: &Ask) -> Result<Reply, KinesisError> {
        let mut fields = ask.fields();
        let name = ask.stream_name(&mut fields)?;
        let limit = fields.integer("Limit", 1, 10_000)?.unwrap_or(DESCRIBED_SHARDS).min(DESCRIBED_SHARDS);
        let after = fields.text("ExclusiveStartShardId", &SHARD_ID)?;
        fields.done()?;
        let after = after.map(|id| ask.shard_number(&name, id)).transpose()?;
        let stream = self.kinesis.stream(&ask.caller, &name).await?;
        let visible =
            stream.visible(Timestamp::now().0).filter(|(number, _)| after.is_none_or(|after| *number > after));
        let shards: Vec<_> = visible.collect();
        let n_told = shards.len().min(limit as usize);
        Ok(ask.whole(|writer| {
            writer.map("StreamDescription", |writer| {
                write_stream(writer, ask, &name, &stream);
                writer.maps("Shards", &shards[..n_told], |writer, (number, shard)| write_shard(writer, *number, shard));
                writer.boolean("HasMoreShards", n_told < shards.len());
            });
        }))
    }

    pub(super) async fn describe_stream_summary(&self, ask: &Ask) -> Result<Reply, KinesisError> {
        let (name, stream) = self.asked_stream(ask).await?;
        Ok(ask.whole(|writer| {
            writer.map("StreamDescriptionSummary", |writer| {
                write_stream(writer, ask, &name, &stream);
                writer.count("OpenShardCount", stream.n_open());
                writer.count("ConsumerCount", stream.consumers.len());
                writer.integer("MaxRecordSizeInKiB", i64::from(stream.max_record_kib));
            });
        }))
    }

    /// Topics that nobody has asked for as streams yet are listed, too.
    pub(super) async fn list_streams(&self, ask: &Ask) -> Result<Reply, KinesisError> {
        let mut fields = ask.fields();
        let limit = fields.integer("Limit", 1, 10_000)?.unwrap_or(LISTED_STREAMS) as usize;
        let after = fields.text("ExclusiveStartStreamName", &STREAM_NAME)?;
        let token = fields.text("NextToken", &NEXT_TOKEN)?;
        fields.done()?;
        let (now, seal) = (Timestamp::now().0, self.kinesis.seal().await?);
        let after = match token {
            Some(token) => Some(seal.read_streams_token(token, now)?),
            None => after.map(str::to_owned),
        };
        let description = self.kinesis.describe().await?;
        let is_listed =
            |name: &&str| is_open(name) && ask.caller.may(name) && after.as_ref().is_none_or(|after| **name > **after);
        let names: Vec<&str> = description.topics.keys().map(|name| name.as_str()).filter(is_listed).collect();
        let told = &names[..names.len().min(limit)];
        let known: Vec<Option<Arc<Stream>>> =
            self.kinesis.read(|streams| told.iter().map(|name| streams.get(name).cloned()).collect()).await?;
        let has_more = told.len() < names.len();
        Ok(ask.whole(|writer| {
            writer.texts("StreamNames", told);
            writer.boolean("HasMoreStreams", has_more);
            if let (true, Some(last)) = (has_more, told.last()) {
                writer.text("NextToken", &seal.streams_token(last, now));
            }
            writer.maps("StreamSummaries", told.iter().zip(&known), |writer, (name, stream)| {
                writer.text("StreamName", name);
                writer.text("StreamARN", &ask.caller.stream_arn(name));
                writer.text("StreamStatus", "ACTIVE");
                let mode = stream.as_ref().map_or(Mode::default(), |stream| stream.mode);
                writer.map("StreamModeDetails", |writer| writer.text("StreamMode", mode.as_str()));
                if let Some(stream) = stream {
                    writer.time("StreamCreationTimestamp", stream.created_ms);
                }
            });
        }))
    }

    pub(super) async fn describe_limits(&self, ask: &Ask) -> Result<Reply, KinesisError> {
        ask.fields().done()?;
        let topics = self.kinesis.describe().await?.topics;
        let (n_open, n_on_demand) = self
            .kinesis
            .read(|streams| {
                let there = streams.all().filter(|(name, _)| topics.contains_key(*name));
                there.fold((0, 0), |(open, on_demand), (_, stream)| {
                    (open + stream.n_open(), on_demand + usize::from(stream.mode == Mode::OnDemand))
                })
            })
            .await?;
        let config = &self.services.config.ingest;
        let limit = config.max_topics.saturating_mul(config.max_partitions_per_topic as usize);
        Ok(ask.whole(|writer| {
            writer.count("ShardLimit", limit);
            writer.count("OpenShardCount", n_open);
            writer.count("OnDemandStreamCount", n_on_demand);
            writer.integer("OnDemandStreamCountLimit", ON_DEMAND_STREAMS);
        }))
    }

    /// The same period is right both ways: tools that describe what should be ask for it.
    pub(super) async fn set_retention(&self, ask: &Ask, is_increase: bool) -> Result<Reply, KinesisError> {
        let mut fields = ask.fields();
        let name = ask.stream_name(&mut fields)?;
        let hours = fields.needed_integer("RetentionPeriodHours", 1, MAX_RETENTION_HOURS)?;
        fields.done()?;
        let stream = self.kinesis.stream(&ask.caller, &name).await?;
        if hours < MIN_RETENTION_HOURS {
            return Err(KinesisError::invalid_argument(format!(
                "Minimum allowed retention period is {MIN_RETENTION_HOURS} hours. Requested retention period ({hours} \
                 hours) is too short."
            )));
        }
        let existing = i64::from(stream.retention_hours);
        let (is_wrong, word, other) = match is_increase {
            true => (hours < existing, "shorter", "Decrease"),
            false => (hours > existing, "longer", "Increase"),
        };
        if is_wrong {
            return Err(KinesisError::invalid_argument(format!(
                "Requested retention period ({hours} hours) for stream {name} can not be {word} than existing \
                 retention period ({existing} hours). Use {other}RetentionPeriod API."
            )));
        }
        if hours != existing {
            self.changed(ask, &name, &stream, Change::Retention(hours as u32)).await?;
        }
        Ok(Reply::Empty)
    }

    pub(super) async fn update_stream_mode(&self, ask: &Ask) -> Result<Reply, KinesisError> {
        let mut fields = ask.fields();
        let name = ask.stream_name(&mut fields)?;
        let mode = ask.mode(&mut fields, true)?;
        fields.done()?;
        let stream = self.kinesis.stream(&ask.caller, &name).await?;
        self.changed(ask, &name, &stream, Change::Mode(mode)).await?;
        Ok(Reply::Empty)
    }

    pub(super) async fn update_max_record_size(&self, ask: &Ask) -> Result<Reply, KinesisError> {
        let mut fields = ask.fields();
        let name = ask.stream_name(&mut fields)?;
        let kib =
            fields.needed_integer("MaxRecordSizeInKiB", i64::from(DEFAULT_MAX_RECORD_KIB), MAX_RECORD_KIB)? as u32;
        fields.done()?;
        let stream = self.kinesis.stream(&ask.caller, &name).await?;
        self.check_max_record(kib)?;
        self.changed(ask, &name, &stream, Change::MaxRecord(kib)).await?;
        Ok(Reply::Empty)
    }

    pub(super) async fn set_monitoring(&self, ask: &Ask, is_enabled: bool) -> Result<Reply, KinesisError> {
        let mut fields = ask.fields();
        let name = ask.stream_name(&mut fields)?;
        let metrics = fields.texts("ShardLevelMetrics")?;
        match &metrics {
            None => fields.faults.missing("shardLevelMetrics"),
            Some(metrics) => {
                for metric in metrics {
                    fields.faults.check_one_of("shardLevelMetrics", metric, &METRICS);
                }
            }
        }
        fields.done()?;
        let asked = metrics.unwrap_or_default();
        let asked: Vec<String> = match asked.contains(&"ALL") {
            true => METRICS.iter().filter(|metric| **metric != "ALL").map(|metric| (*metric).to_owned()).collect(),
            false => asked.into_iter().map(str::to_owned).collect(),
        };
        let before = self.kinesis.stream(&ask.caller, &name).await?;
        let change = if is_enabled { Change::EnableMetrics(asked) } else { Change::DisableMetrics(asked) };
        let after = self.changed(ask, &name, &before, change).await?;
        Ok(ask.whole(|writer| {
            writer.text("StreamName", &name);
            writer.text("StreamARN", &ask.caller.stream_arn(&name));
            writer.texts("CurrentShardLevelMetrics", &before.metrics);
            writer.texts("DesiredShardLevelMetrics", &after.metrics);
        }))
    }

    /// The stream that a request names, and that is all it says.
    pub(super) async fn asked_stream(&self, ask: &Ask) -> Result<(String, Arc<Stream>), KinesisError> {
        let mut fields = ask.fields();
        let name = ask.stream_name(&mut fields)?;
        fields.done()?;
        let stream = self.kinesis.stream(&ask.caller, &name).await?;
        Ok((name, stream))
    }

    pub(super) async fn changed(
        &self,
        ask: &Ask,
        name: &str,
        stream: &Stream,
        change: Change,
    ) -> Result<Arc<Stream>, KinesisError> {
        let changed = self.kinesis.change(name, stream.id, change).await?;
        changed.map_err(|refusal| explain(ask, name, refusal))
    }

    fn check_max_record(&self, kib: u32) -> Result<(), KinesisError> {
        let limit_bytes = self.services.config.ingest.max_record_bytes;
        if kib as usize * 1024 > limit_bytes.max(DEFAULT_MAX_RECORD_KIB as usize * 1024) {
            return Err(KinesisError::invalid_argument(format!(
                "MaxRecordSizeInKiB {kib} is more than this server takes: {limit_bytes} bytes \
                 (ingest.max_record_bytes)"
            )));
        }
        Ok(())
    }
}

/// Why a change was not made.
pub(super) fn explain(ask: &Ask, name: &str, refusal: Refusal) -> KinesisError {
    let account = &ask.caller.account;
    match refusal {
        Refusal::NoStream => no_stream(&ask.caller, name),
        Refusal::StreamExists => KinesisError::in_use(format!("Stream {name} under account {account} already exists.")),
        Refusal::Outdated => KinesisError::in_use(format!("Stream {name} under account {account} is being changed.")),
        Refusal::ConsumerExists => KinesisError::in_use(format!(
            "The consumer is registered with stream {name} under account {account} already."
        )),
        Refusal::NoConsumer => {
            KinesisError::not_found(format!("The consumer of stream {name} under account {account} was not found."))
        }
        Refusal::TooManyConsumers => KinesisError::limit_exceeded(format!(
            "Stream {name} under account {account} has as many consumers as a stream may have."
        )),
        Refusal::TooManyTags => KinesisError::invalid_argument(format!(
            "Failed to add tags to stream {name} under account {account} because a given stream cannot have more than \
             {MAX_TAGS} tags associated with it."
        )),
    }
}

/// What both descriptions say.
fn write_stream(writer: &mut Writer, ask: &Ask, name: &str, stream: &Stream) {
    writer.text("StreamName", name);
    writer.text("StreamARN", &ask.caller.stream_arn(name));
    writer.text("StreamStatus", "ACTIVE");
    writer.map("StreamModeDetails", |writer| writer.text("StreamMode", stream.mode.as_str()));
    writer.integer("RetentionPeriodHours", i64::from(stream.retention_hours));
    writer.time("StreamCreationTimestamp", stream.created_ms);
    writer.maps("EnhancedMonitoring", [&stream.metrics], |writer, metrics| writer.texts("ShardLevelMetrics", metrics));
    writer.text("EncryptionType", "NONE");
}

impl Ask {
    /// The stream's name, given as such or in an ARN; where there is neither, an empty one and a fault.
    pub(super) fn stream_name(&self, fields: &mut super::fields::Fields<'_>) -> Result<String, KinesisError> {
        let name = self.optional_stream_name(fields)?;
        Ok(name.unwrap_or_else(|| {
            fields.faults.missing("streamName");
            String::new()
        }))
    }

    pub(super) fn optional_stream_name(
        &self,
        fields: &mut super::fields::Fields<'_>,
    ) -> Result<Option<String>, KinesisError> {
        let name = fields.text("StreamName", &STREAM_NAME)?;
        let arn = fields.text("StreamARN", &STREAM_ARN)?;
        let of_arn = match arn.map(super::names::Resource::of_arn) {
            Some(Some(super::names::Resource::Stream(name))) => Some(name),
            Some(_) => {
                // The pattern lets names through that no stream has.
                fields.faults.check_text("streamARN", arn.unwrap_or_default(), &STREAM_NAME);
                None
            }
            None => None,
        };
        match (name, of_arn) {
            (Some(name), Some(of_arn)) if name != of_arn => Err(KinesisError::invalid_argument(
                "StreamARN and StreamName are provided, and name different streams.",
            )),
            (name, of_arn) => Ok(name.or(of_arn).map(str::to_owned)),
        }
    }

    pub(super) fn shard_number(&self, stream: &str, id: &str) -> Result<u32, KinesisError> {
        let number = ShardId::parse(id).map(|id| id.0);
        number.ok_or_else(|| super::read::could_not_find(&self.caller, stream, id))
    }

    fn mode(&self, fields: &mut super::fields::Fields<'_>, is_needed: bool) -> Result<Mode, KinesisError> {
        let Some(details) = fields.map("StreamModeDetails")? else {
            if is_needed {
                fields.faults.missing("streamModeDetails");
            }
            return Ok(Mode::default());
        };
        let mut inner = super::fields::Fields::of(details);
        let mode = inner.text("StreamMode", &super::fields::ANY)?;
        match mode {
            None => fields.faults.missing("streamModeDetails.streamMode"),
            Some(mode) => fields.faults.check_one_of("streamModeDetails.streamMode", mode, &MODES),
        }
        Ok(Mode::of(mode.unwrap_or_default()))
    }
}
