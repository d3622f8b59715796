//! All streams, as every process on one log agrees on them: each change is a command, and the
//! commands' order in the log decides which of two that contradict each other holds.

use std::{collections::BTreeMap, sync::Arc};

use model::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::stream::{Consumer, Mode, Step, Stream, Tags};
use crate::replicated::StateMachine;

/// As in the service.
pub(super) const MAX_TAGS: usize = 50;
const MAX_CONSUMERS: usize = 20;

#[derive(Default, Serialize, Deserialize)]
pub(super) struct Streams {
    /// What iterators are sealed with; the first that was drawn.
    secret: Option<String>,
    streams: BTreeMap<String, Arc<Stream>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Command {
    Secret(String),
    /// A stream over a topic that is there. `replaces` is the one of this name whose topic is gone.
    Create {
        name: String,
        stream: New,
        replaces: Option<Uuid>,
    },
    /// Something about the stream of this name, if it is still this one.
    Change {
        name: String,
        id: Uuid,
        change: Change,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct New {
    pub(super) id: Uuid,
    pub(super) mode: Mode,
    /// Where the partitions stand; one for each shard.
    pub(super) first_offsets: Vec<u64>,
    pub(super) max_record_kib: u32,
    pub(super) tags: Tags,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Change {
    Delete,
    /// Planned for so many shards.
    Reshard {
        n_shards: u32,
        steps: Vec<Step>,
        ends: BTreeMap<u32, u64>,
    },
    Retention(u32),
    Mode(Mode),
    MaxRecord(u32),
    Tag {
        consumer: Option<String>,
        tags: Tags,
    },
    Untag {
        consumer: Option<String>,
        keys: Vec<String>,
    },
    EnableMetrics(Vec<String>),
    DisableMetrics(Vec<String>),
    Register {
        consumer: String,
        tags: Tags,
    },
    Deregister {
        consumer: String,
    },
}

/// Why a command changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    StreamExists,
    NoStream,
    /// The shards have changed since the plan was made.
    Outdated,
    ConsumerExists,
    NoConsumer,
    TooManyConsumers,
    TooManyTags,
}

impl Streams {
    pub(super) fn get(&self, name: &str) -> Option<&Arc<Stream>> {
        self.streams.get(name)
    }

    pub(super) fn secret(&self) -> Option<&str> {
        self.secret.as_deref()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &Arc<Stream>)> {
        self.streams.iter().map(|(name, stream)| (name.as_str(), stream))
    }

    fn create(&mut self, name: String, new: New, replaces: Option<Uuid>, at_ms: i64) -> Result<Arc<Stream>, Refusal> {
        if self.streams.get(&name).is_some_and(|there| Some(there.id) != replaces) || new.first_offsets.is_empty() {
            return Err(Refusal::StreamExists);
        }
        let mut stream = Stream::new(new.id, &new.first_offsets, new.mode, at_ms);
        stream.max_record_kib = new.max_record_kib;
        stream.tags = new.tags;
        let stream = Arc::new(stream);
        self.streams.insert(name, stream.clone());
        Ok(stream)
    }

    fn change(&mut self, name: &str, id: Uuid, change: Change, at_ms: i64) -> Result<Arc<Stream>, Refusal> {
        let stream = self.streams.get_mut(name).filter(|there| there.id == id).ok_or(Refusal::NoStream)?;
        if matches!(change, Change::Delete) {
            return self.streams.remove(name).ok_or(Refusal::NoStream);
        }
        let mut changed = Stream::clone(stream);
        changed.apply(change, at_ms)?;
        *stream = Arc::new(changed);
        Ok(stream.clone())
    }
}

impl Stream {
    fn apply(&mut self, change: Change, at_ms: i64) -> Result<(), Refusal> {
        match change {
            Change::Delete => {}
            Change::Reshard { n_shards, steps, ends } => {
                if n_shards != self.n_shards() {
                    return Err(Refusal::Outdated);
                }
                self.reshard(&steps, &ends, at_ms).map_err(|_| Refusal::Outdated)?;
            }
            Change::Retention(hours) => self.retention_hours = hours,
            Change::Mode(mode) => self.mode = mode,
            Change::MaxRecord(kib) => self.max_record_kib = kib,
            Change::Tag { consumer, tags } => {
                let tagged = self.tags_of(consumer.as_deref())?;
                let n_more = tags.keys().filter(|key| !tagged.contains_key(*key)).count();
                if tagged.len() + n_more > MAX_TAGS {
                    return Err(Refusal::TooManyTags);
                }
                tagged.extend(tags);
            }
            Change::Untag { consumer, keys } => {
                let tagged = self.tags_of(consumer.as_deref())?;
                tagged.retain(|key, _| !keys.contains(key));
            }
            Change::EnableMetrics(metrics) => self.metrics.extend(metrics),
            Change::DisableMetrics(metrics) => self.metrics.retain(|metric| !metrics.contains(metric)),
            Change::Register { consumer, tags } => {
                if self.consumers.contains_key(&consumer) {
                    return Err(Refusal::ConsumerExists);
                }
                if self.consumers.len() >= MAX_CONSUMERS {
                    return Err(Refusal::TooManyConsumers);
                }
                self.consumers.insert(consumer, Consumer { created_ms: at_ms, tags });
            }
            Change::Deregister { consumer } => {
                self.consumers.remove(&consumer).ok_or(Refusal::NoConsumer)?;
            }
        }
        Ok(())
    }

    fn tags_of(&mut self, consumer: Option<&str>) -> Result<&mut Tags, Refusal> {
        match consumer {
            None => Ok(&mut self.tags),
            Some(name) => Ok(&mut self.consumers.get_mut(name).ok_or(Refusal::NoConsumer)?.tags),
        }
    }
}

impl StateMachine for Streams {
    type Command = Command;
    /// The stream as it is then, or was before it was deleted.
    type Outcome = Result<Option<Arc<Stream>>, Refusal>;
    const TOPIC: &'static str = "__kinesis_streams";

    fn apply(&mut self, command: Command, at: Timestamp) -> Self::Outcome {
        match command {
            Command::Secret(secret) => {
                self.secret.get_or_insert(secret);
                Ok(None)
            }
            Command::Create { name, stream, replaces } => self.create(name, stream, replaces, at.0).map(Some),
            Command::Change { name, id, change } => self.change(&name, id, change, at.0).map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::ingest::kinesis::hash::HashKey;

    fn create(name: &str, id: u128, replaces: Option<u128>) -> Command {
        let id = Uuid::from_u128(id);
        let stream =
            New { id, mode: Mode::Provisioned, first_offsets: vec![0, 7], max_record_kib: 1024, tags: Tags::new() };
        Command::Create { name: name.to_owned(), stream, replaces: replaces.map(Uuid::from_u128) }
    }

    fn change(id: u128, change: Change) -> Command {
        Command::Change { name: "a".to_owned(), id: Uuid::from_u128(id), change }
    }

    fn refusal(outcome: Result<Option<Arc<Stream>>, Refusal>) -> Option<Refusal> {
        outcome.err()
    }

    #[test]
    fn the_first_of_two_that_contradict_each_other_holds() {
        let mut streams = Streams::default();
        let mut apply = |command| refusal(streams.apply(command, Timestamp(1_700_000_000_000)));
        assert_eq!(apply(create("a", 1, None)), None);
        assert_eq!(apply(create("a", 2, None)), Some(Refusal::StreamExists));
        assert_eq!(apply(change(2, Change::Retention(48))), Some(Refusal::NoStream));
        let split = |n_shards| {
            let steps = vec![Step::Split { shard: 0, at: HashKey(9) }];
            change(1, Change::Reshard { n_shards, steps, ends: BTreeMap::new() })
        };
        assert_eq!(apply(split(2)), None);
        assert_eq!(apply(split(2)), Some(Refusal::Outdated));
        assert_eq!(apply(split(4)), Some(Refusal::Outdated));
        let register = || change(1, Change::Register { consumer: "c".to_owned(), tags: Tags::new() });
        assert_eq!(apply(register()), None);
        assert_eq!(apply(register()), Some(Refusal::ConsumerExists));
        assert_eq!(apply(create("a", 3, Some(1))), None);
        assert_eq!(apply(change(1, Change::Delete)), Some(Refusal::NoStream));
        assert_eq!(apply(change(3, Change::Delete)), None);
    }

    #[test]
    fn the_state_reads_back_as_it_was_written() {
        let mut streams = Streams::default();
        for command in [
            Command::Secret("first".to_owned()),
            Command::Secret("second".to_owned()),
            create("a", 1, None),
            change(
                1,
                Change::Reshard {
                    n_shards: 2,
                    steps: vec![Step::Split { shard: 1, at: HashKey(u128::MAX - 9) }],
                    ends: BTreeMap::from([(1, 5)]),
                },
            ),
            change(1, Change::Tag { consumer: None, tags: Tags::from([("k".to_owned(), "v".to_owned())]) }),
        ] {
            let command = serde_json::from_str(&serde_json::to_string(&command).unwrap()).unwrap();
            streams.apply(command, Timestamp(1_700_000_000_000)).unwrap();
        }
        let text = serde_json::to_string(&streams).unwrap();
        let read: Streams = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        assert_eq!((read.secret(), read.get("a").unwrap().n_open()), (Some("first"), 3));
    }
}
