//! A stream as AWS's SDK for Rust uses it, against a server that is running:
//!
//!     AWS_ACCESS_KEY_ID=any AWS_SECRET_ACCESS_KEY=any cargo run -- http://127.0.0.1:8082
//!
//! If CORKBOARD_OTHER_ID and CORKBOARD_OTHER_SECRET are those of a key that may only describe, the server
//! asks for keys, and refuses wrong ones. Any claim that does not hold ends it.

use std::{
    env,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail, ensure};
use aws_sdk_kinesis::{
    Client, Config,
    config::{Credentials, Region, retry::RetryConfig},
    error::ProvideErrorMetadata,
    primitives::Blob,
    types::{
        PutRecordsRequestEntry, Record, ShardIteratorType, StartingPosition, StreamDescriptionSummary, StreamStatus,
        SubscribeToShardEventStream,
    },
};

/// The middle of the circle of hash keys.
const HALF: u128 = 1 << 127;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis();
    let client = client(&env::var("AWS_ACCESS_KEY_ID")?, &env::var("AWS_SECRET_ACCESS_KEY")?)?;
    let stream = Stream { client, name: format!("rust-{now}") };
    tokio::time::timeout(Duration::from_secs(60), stream.all()).await.context("it hangs")??;
    println!("Rust: all claims hold");
    Ok(())
}

fn client(id: &str, secret: &str) -> Result<Client> {
    let config = Config::builder()
        .behavior_version_latest()
        .region(Region::new("us-east-1"))
        .endpoint_url(env::args().nth(1).context("name the server")?)
        .retry_config(RetryConfig::disabled())
        .credentials_provider(Credentials::new(id, secret, None, None, "test"))
        .build();
    Ok(Client::from_conf(config))
}

struct Stream {
    client: Client,
    name: String,
}

impl Stream {
    async fn all(&self) -> Result<()> {
        self.client.create_stream().stream_name(&self.name).shard_count(1).send().await?;
        let arn = self.until_active().await?.stream_arn;
        if let Ok(other) = env::var("CORKBOARD_OTHER_ID") {
            self.keys(&other).await?;
        }
        let shard = self.put("hello", 0).await?;
        let expected: Vec<String> =
            std::iter::once("hello".to_owned()).chain((0..500).map(|i| format!("record {i}"))).collect();
        let mut batch = self.client.put_records().stream_name(&self.name);
        for (i, data) in expected.iter().skip(1).enumerate() {
            let entry = PutRecordsRequestEntry::builder().partition_key(format!("k{i}"));
            batch = batch.records(entry.data(Blob::new(data.as_bytes())).build()?);
        }
        let batch = batch.send().await?;
        ensure!(batch.failed_record_count() == Some(0) && batch.records().len() == 500, "{batch:?}");

        let records = self.read(&shard).await?;
        ensure!(texts(&records)? == expected, "what is read is not what was put");
        let arrived: SystemTime = SystemTime::UNIX_EPOCH
            + Duration::try_from_secs_f64(
                records[0].approximate_arrival_timestamp().context("it has no time")?.as_secs_f64(),
            )?;
        ensure!(arrived.elapsed().unwrap_or_default() < Duration::from_secs(120), "it arrived at {arrived:?}");
        self.subscribe(&arn, &shard, &expected).await?;
        self.split(&shard).await?;

        let unknown = self.client.describe_stream().stream_name("nowhere").send().await;
        let unknown = unknown.err().context("a stream that is not there was described")?.into_service_error();
        ensure!(unknown.is_resource_not_found_exception(), "{unknown:?}");
        self.client.delete_stream().stream_name(&self.name).send().await?;
        Ok(())
    }

    async fn put(&self, data: &str, hash_key: u128) -> Result<String> {
        let put = self.client.put_record().stream_name(&self.name).partition_key("a").data(Blob::new(data));
        Ok(put.explicit_hash_key(hash_key.to_string()).send().await?.shard_id)
    }

    async fn until_active(&self) -> Result<StreamDescriptionSummary> {
        loop {
            let described = self.client.describe_stream_summary().stream_name(&self.name).send().await?;
            let described = described.stream_description_summary.context("it is not described")?;
            if described.stream_status == StreamStatus::Active {
                return Ok(described);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// The records of a shard from its beginning, up to its tip or its end.
    async fn read(&self, shard: &str) -> Result<Vec<Record>> {
        let iterator = self.client.get_shard_iterator().stream_name(&self.name).shard_id(shard);
        let iterator = iterator.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await?;
        let (mut records, mut iterator) = (Vec::new(), iterator.shard_iterator);
        while let Some(at) = iterator {
            let answer = self.client.get_records().shard_iterator(at).send().await?;
            let is_tip = answer.records.is_empty() && answer.millis_behind_latest == Some(0);
            records.extend(answer.records);
            iterator = answer.next_shard_iterator.filter(|_| !is_tip);
        }
        Ok(records)
    }

    /// Those that are wrong, or may not.
    async fn keys(&self, other: &str) -> Result<()> {
        let (own, secret) = (env::var("AWS_ACCESS_KEY_ID")?, env::var("AWS_SECRET_ACCESS_KEY")?);
        let others_secret = env::var("CORKBOARD_OTHER_SECRET")?;
        for (id, secret, expected) in [
            (&*own, "wrong", "InvalidSignatureException"),
            (&*own, &*others_secret, "InvalidSignatureException"),
            ("AKIDEXAMPLE", &*secret, "UnrecognizedClientException"),
            (other, &*others_secret, "AccessDeniedException"),
        ] {
            let put = client(id, secret)?.put_record().stream_name(&self.name).partition_key("a");
            let Err(refused) = put.data(Blob::new("refused")).send().await else { bail!("{expected} was not said") };
            ensure!(refused.code() == Some(expected), "{expected}, not {refused:?}");
        }
        client(other, &others_secret)?.describe_stream_summary().stream_name(&self.name).send().await?;
        Ok(())
    }

    /// What is there is pushed, and then what comes.
    async fn subscribe(&self, arn: &str, shard: &str, expected: &[String]) -> Result<()> {
        let consumer = self.client.register_stream_consumer().stream_arn(arn).consumer_name("c").send().await?;
        let consumer = consumer.consumer.context("no consumer")?.consumer_arn;
        let beginning = StartingPosition::builder().r#type(ShardIteratorType::TrimHorizon).build()?;
        let subscription = self.client.subscribe_to_shard().consumer_arn(&consumer).shard_id(shard);
        let mut events = subscription.starting_position(beginning).send().await?.event_stream;
        let mut pushed = Vec::new();
        while pushed.len() <= expected.len() {
            let Some(SubscribeToShardEventStream::SubscribeToShardEvent(event)) = events.recv().await? else {
                bail!("the subscription ended after {} records", pushed.len());
            };
            let new = texts(&event.records)?;
            if !new.is_empty() && pushed.len() + new.len() == expected.len() {
                self.put("later", 0).await?;
            }
            pushed.extend(new);
        }
        ensure!(pushed.pop().is_some_and(|last| last == "later") && pushed == expected, "pushed was {pushed:?}");
        self.client.deregister_stream_consumer().consumer_arn(&consumer).send().await?;
        Ok(())
    }

    async fn split(&self, shard: &str) -> Result<()> {
        let split = self.client.split_shard().stream_name(&self.name).shard_to_split(shard);
        split.new_starting_hash_key(HALF.to_string()).send().await?;
        ensure!(self.until_active().await?.open_shard_count == 2, "two are open");
        let shards = self.client.list_shards().stream_name(&self.name).send().await?.shards.unwrap_or_default();
        let child = self.put("child", HALF).await?;
        ensure!(shards.len() == 3 && shards[2].shard_id == child, "{child} of {shards:?}");
        ensure!(shards[2].parent_shard_id() == Some(shard), "{shards:?}");
        ensure!(texts(&self.read(&child).await?)? == ["child"], "the child has its record");
        ensure!(self.read(shard).await?.len() == 502, "the parent keeps its records");
        Ok(())
    }
}

fn texts(records: &[Record]) -> Result<Vec<String>> {
    records.iter().map(|record| Ok(String::from_utf8(record.data.as_ref().to_vec())?)).collect()
}
