//! Registered consumers of a stream, which SubscribeToShard asks for.

use std::sync::Arc;

use model::Timestamp;

use super::{
    Ask, Reply,
    error::KinesisError,
    fields::{ANY, CONSUMER_NAME, Fields, NEXT_TOKEN, STREAM_ARN},
    names::Resource,
    stream::{Consumer, Stream},
    streams::{Change, Refusal},
    tags,
    writer::Writer,
};
use crate::ingest::Doors;

const MAX_LISTED: i64 = 100;

/// A consumer that is registered.
pub(super) struct Found {
    pub(super) stream_name: String,
    pub(super) stream: Arc<Stream>,
    pub(super) name: String,
    pub(super) consumer: Consumer,
}

impl Doors {
    pub(super) async fn register_consumer(&self, ask: &Ask) -> Result<Reply, KinesisError> {
        let mut fields = ask.fields();
        let arn = fields.needed_text("StreamARN", &STREAM_ARN)?;
        let consumer = fields.needed_text("ConsumerName", &CONSUMER_NAME)?;
        let tags = tags::read(&mut fields, false)?;
        fields.done()?;
        tags::check(&tags)?;
        let name = stream_of(arn)?;
        let stream = self.kinesis.stream(&ask.caller, name).await?;
        let change = Change::Register { consumer: consumer.to_owned(), tags };
        let changed = match self.kinesis.change(name, stream.id, change).await? {
            Ok(changed) => changed,
            Err(Refusal::ConsumerExists) => {
                return Err(KinesisError::in_use(format!(
                    "Consumer {consumer} under stream {name} already exists for account {}.",
                    ask.caller.account
                )));
            }
            Err(refusal) => return Err(super::manage::explain(ask, name, refusal)),
        };
        let registered = changed.consumers.get(consumer).ok_or_else(KinesisError::internal)?;
        Ok(ask.whole(|writer| {
            writer.map("Consumer", |writer| write_consumer(writer, ask, name, consumer, registered));
        }))
    }

    pub(super) async fn deregister_consumer(&self, ask: &Ask) -> Result<Reply, KinesisError> {
        let found = self.asked_consumer(ask).await?;
        let change = Change::Deregister { consumer: found.name };
        self.changed(ask, &found.stream_name, &found.stream, change).await?;
        Ok(Reply::Empty)
    }

    pub(super) async fn describe_consumer(&self, ask: &Ask) -> Result<Reply, KinesisError> {
        let found = self.asked_consumer(ask).await?;
        Ok(ask.whole(|writer| {
            writer.map("ConsumerDescription", |writer| {
                write_consumer(writer, ask, &found.stream_name, &found.name, &found.consumer);
                writer.text("StreamARN", &ask.caller.stream_arn(&found.stream_name));
            });
        }))
    }

    pub(super) async fn list_consumers(&self, ask: &Ask) -> Result<Reply, KinesisError> {
        let mut fields = ask.fields();
        let arn = fields.needed_text("StreamARN", &STREAM_ARN)?;
        let token = fields.text("NextToken", &NEXT_TOKEN)?;
        let limit = fields.integer("MaxResults", 1, 10_000)?.unwrap_or(MAX_LISTED).min(MAX_LISTED) as usize;
        fields.time("StreamCreationTimestamp", true)?;
        fields.done()?;
        let name = stream_of(arn)?;
        let (now, seal) = (Timestamp::now().0, self.kinesis.seal().await?);
        let after = token.map(|token| seal.read_consumers_token(token, now)).transpose()?;
        let stream = self.kinesis.stream(&ask.caller, name).await?;
        let is_listed = |(consumer, _): &(&String, &Consumer)| after.as_ref().is_none_or(|after| *consumer > after);
        let consumers: Vec<_> = stream.consumers.iter().filter(is_listed).collect();
        let told = &consumers[..consumers.len().min(limit)];
        Ok(ask.whole(|writer| {
            writer.maps("Consumers", told, |writer, (consumer, registered)| {
                write_consumer(writer, ask, name, consumer, registered);
            });
            if let (true, Some((last, _))) = (told.len() < consumers.len(), told.last()) {
                writer.text("NextToken", &seal.consumers_token(last, now));
            }
        }))
    }

    /// The consumer of an ARN, or of a name beside the ARN of its stream.
    async fn asked_consumer(&self, ask: &Ask) -> Result<Found, KinesisError> {
        let mut fields: Fields<'_> = ask.fields();
        let arn = fields.text("ConsumerARN", &ANY)?;
        let stream_arn = fields.text("StreamARN", &STREAM_ARN)?;
        let name = fields.text("ConsumerName", &CONSUMER_NAME)?;
        fields.done()?;
        match (arn, stream_arn, name) {
            (Some(arn), _, _) => self.consumer(ask, arn).await,
            (None, Some(stream_arn), Some(name)) => {
                let stream_name = stream_of(stream_arn)?;
                self.find_consumer(ask, stream_name, name, None).await
            }
            _ => Err(KinesisError::invalid_argument(
                "Either ConsumerARN or both StreamARN and ConsumerName should be provided.",
            )),
        }
    }

    pub(super) async fn consumer(&self, ask: &Ask, arn: &str) -> Result<Found, KinesisError> {
        match Resource::of_arn(arn) {
            Some(Resource::Consumer(stream, name, created)) => {
                self.find_consumer(ask, stream, name, Some(created)).await
            }
            _ => Err(KinesisError::invalid_argument(format!("ConsumerARN {arn} is not valid."))),
        }
    }

    async fn find_consumer(
        &self,
        ask: &Ask,
        stream_name: &str,
        name: &str,
        created_seconds: Option<i64>,
    ) -> Result<Found, KinesisError> {
        let stream = self.kinesis.stream(&ask.caller, stream_name).await?;
        let consumer = stream.consumers.get(name);
        let is_meant = |consumer: &&Consumer| created_seconds.is_none_or(|at| at == consumer.created_ms / 1000);
        let consumer = consumer.filter(is_meant).cloned().ok_or_else(|| {
            KinesisError::not_found(format!(
                "Consumer {name} under stream {stream_name} not found for account {}.",
                ask.caller.account
            ))
        })?;
        Ok(Found { stream_name: stream_name.to_owned(), stream, name: name.to_owned(), consumer })
    }
}

fn stream_of(arn: &str) -> Result<&str, KinesisError> {
    match Resource::of_arn(arn) {
        Some(Resource::Stream(name)) => Ok(name),
        _ => Err(KinesisError::invalid_argument(format!("StreamARN {arn} is not valid."))),
    }
}

fn write_consumer(writer: &mut Writer, ask: &Ask, stream: &str, name: &str, consumer: &Consumer) {
    writer.text("ConsumerName", name);
    writer.text("ConsumerARN", &ask.caller.consumer_arn(stream, name, consumer.created_ms));
    writer.text("ConsumerStatus", "ACTIVE");
    writer.time("ConsumerCreationTimestamp", consumer.created_ms);
}
