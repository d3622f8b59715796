//! SubscribeToShard: records are pushed as they come, for five minutes, as events of one answer.
//!
//! An event is made when the connection has taken the one before, so that a slow reader holds one.
//! While nothing comes, an empty event every few seconds says that both sides are still there.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use model::{Stop, Timestamp, TopicPartition};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    Ask, Reply,
    error::KinesisError,
    event,
    fields::{ANY, Fields, SHARD_ID},
    names::{Caller, ShardId},
    read::{Batch, Beginning, Reading, write_children},
    service::Handle,
    stream::Stream,
    writer::{Format, written_in},
};
use crate::{
    error::KafkaError,
    ingest::{Doors, Permit},
};

const LASTS: Duration = Duration::from_secs(300);
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Between two looks at the log, however much is appended elsewhere.
const MIN_PAUSE: Duration = Duration::from_millis(10);
const MAX_RECORDS: usize = 10_000;
const MAX_EVENT_BYTES: usize = 1 << 20;
/// With limits, a subscription can be taken over only after so long.
const PROTECTED_MS: i64 = 5000;

/// Who reads which shard, by consumer and shard.
#[derive(Default)]
pub(super) struct Subscriptions(Mutex<HashMap<(String, u32), Turn>>);

struct Turn {
    began_ms: i64,
    ended: Stop,
}

/// The place of a subscription, given back when it ends.
struct Seat {
    handle: Arc<Handle>,
    key: (String, u32),
    ended: Stop,
}

impl Seat {
    /// Takes the place over from whoever has it.
    fn take(handle: Arc<Handle>, key: (String, u32), now_ms: i64, is_protected: bool) -> Result<Self, KinesisError> {
        let ended = Stop::new();
        {
            let mut turns = handle.subscriptions.0.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(turn) = turns.get(&key) {
                if is_protected && now_ms.saturating_sub(turn.began_ms) < PROTECTED_MS {
                    let message = format!(
                        "Another active subscription exists for consumer {} and shard {}.",
                        key.0,
                        ShardId(key.1)
                    );
                    return Err(KinesisError::in_use(message));
                }
                turn.ended.cancel();
            }
            turns.insert(key.clone(), Turn { began_ms: now_ms, ended: ended.clone() });
        }
        Ok(Self { handle, key, ended })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // Whoever took the place over has cancelled this first.
        if !self.ended.is_cancelled() {
            self.handle.subscriptions.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
        }
    }
}

/// A subscription under way.
struct Subscription {
    doors: Arc<Doors>,
    caller: Caller,
    format: Format,
    name: String,
    stream: Arc<Stream>,
    partition: TopicPartition,
    seat: Seat,
    /// The next offset to tell.
    position: u64,
    until: Instant,
    heartbeat: Instant,
    moved: watch::Receiver<u64>,
    /// For the event that is on its way.
    permit: Option<Permit>,
    phase: Phase,
}

enum Phase {
    Begins,
    Runs,
    Over,
}

impl Doors {
    pub(super) async fn subscribe(self: &Arc<Self>, ask: &Ask) -> Result<Reply, KinesisError> {
        let mut fields = ask.fields();
        let arn = fields.needed_text("ConsumerARN", &ANY)?;
        let shard_id = fields.needed_text("ShardId", &SHARD_ID)?;
        let beginning = fields.map("StartingPosition")?;
        if beginning.is_none() {
            fields.faults.missing("startingPosition");
        }
        fields.done()?;
        let mut inner = Fields::of(beginning.ok_or_else(KinesisError::internal)?);
        let beginning = Beginning::read(&mut inner, "Type", "SequenceNumber", ask.format)?;
        inner.done()?;
        let found = self.consumer(ask, arn).await?;
        let reading = self.reading(&ask.caller, &found.stream_name, &found.stream, shard_id)?;
        let position = self.position(&reading, &beginning, "SubscribeToShard").await?;
        let (number, partition) = (reading.number, reading.partition);
        let handle = self.kinesis.handle(&found.stream_name)?;
        let seat = Seat::take(handle, (found.name, number), Timestamp::now().0, self.kinesis.has_limits())?;
        let subscription = Subscription {
            doors: self.clone(),
            caller: ask.caller.clone(),
            format: ask.format,
            name: found.stream_name,
            stream: found.stream,
            partition,
            seat,
            position,
            until: Instant::now() + LASTS,
            heartbeat: Instant::now(),
            moved: self.kinesis.log().moved(),
            permit: None,
            phase: Phase::Begins,
        };
        let events = stream::unfold(subscription, |mut subscription| async move {
            let event = subscription.next().await?;
            Some((Ok::<_, std::convert::Infallible>(event), subscription))
        });
        Ok(Reply::Events(Body::from_stream(events)))
    }
}

impl Subscription {
    async fn next(&mut self) -> Option<Bytes> {
        self.permit = None;
        let event = match self.phase {
            Phase::Begins => {
                self.phase = Phase::Runs;
                event::initial_response(self.format)
            }
            Phase::Runs => match self.event().await {
                Ok(event) => event?,
                Err(error) => {
                    self.phase = Phase::Over;
                    event::exception(self.format, &error)
                }
            },
            Phase::Over => return None,
        };
        Some(event.into())
    }

    /// None when time is up.
    async fn event(&mut self) -> Result<Option<Vec<u8>>, KinesisError> {
        loop {
            let looked = Instant::now();
            self.moved.borrow_and_update();
            // Shards may be closed and streams deleted meanwhile.
            let stream = self.doors.kinesis.stream_soon(&self.caller, &self.name).await?;
            if stream.id != self.stream.id {
                return Err(super::service::no_stream(&self.caller, &self.name));
            }
            self.stream = stream;
            let mut permit = self.doors.bodies.permit().ok_or_else(KafkaError::overloaded)?;
            let reading = self.reading();
            let read = self.doors.batch(&reading, self.position, MAX_RECORDS, MAX_EVENT_BYTES, &mut permit);
            let batch = read.await?;
            if !batch.records.is_empty() || batch.is_drained || looked >= self.heartbeat {
                let event = self.written(&batch);
                self.position = batch.next;
                self.heartbeat = Instant::now() + HEARTBEAT;
                self.permit = Some(permit);
                if batch.is_drained {
                    self.phase = Phase::Over;
                }
                return Ok(Some(event));
            }
            drop(permit);
            if !self.wait(looked + MIN_PAUSE).await {
                return Ok(None);
            }
        }
    }

    /// Until there may be something to tell, not before `pause`; false when the subscription is over.
    async fn wait(&mut self, pause: Instant) -> bool {
        let news = async {
            sleep_until(pause).await;
            tokio::select! {
                moved = self.moved.changed() => if moved.is_err() { sleep_until(self.heartbeat).await },
                () = sleep_until(self.heartbeat) => {}
            }
        };
        tokio::select! {
            () = news => true,
            () = sleep_until(self.until) => false,
            () = self.seat.ended.cancelled() => false,
            () = self.doors.stop.cancelled() => false,
        }
    }

    fn reading(&self) -> Reading<'_> {
        Reading {
            caller: &self.caller,
            name: &self.name,
            stream: &self.stream,
            number: self.partition.partition,
            partition: self.partition.clone(),
        }
    }

    fn written(&self, batch: &Batch) -> Vec<u8> {
        let reading = self.reading();
        let payload = written_in(self.format, batch.n_bytes * 4 / 3 + 256 * (batch.records.len() + 2), |writer| {
            reading.write_records(writer, &batch.records);
            if batch.is_drained {
                write_children(writer, &self.stream, reading.number);
            } else {
                writer.shown("ContinuationSequenceNumber", reading.number_before(batch.next));
            }
            writer.integer("MillisBehindLatest", batch.millis_behind);
        });
        event::event(self.format, "SubscribeToShardEvent", &payload)
    }
}
