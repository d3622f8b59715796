//! What a change of a topic comes to, the same for every log.

use std::ops::Range;

use model::{LogError, TopicChange, TopicName};

/// A partition is a folder, a mailbox and two open files; its number has four digits, so that the
/// longest topic name still fits.
const MAX_PARTITIONS: u32 = 10_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Planned {
    Nothing,
    /// Partitions with these numbers are added.
    Add(Range<u32>),
    Delete,
}

/// `n_before` is the topic's number of partitions, `None` where there is no such topic.
pub(crate) fn plan(topic: &TopicName, change: TopicChange, n_before: Option<u32>) -> Result<Planned, LogError> {
    match (change, n_before) {
        (TopicChange::Create { .. }, Some(_)) => Err(LogError::TopicExists(topic.clone())),
        (TopicChange::Create { n_partitions }, None) => added(0, n_partitions),
        (_, None) => Err(LogError::UnknownTopic(topic.clone())),
        (TopicChange::Delete, Some(_)) => Ok(Planned::Delete),
        (TopicChange::Grow { n_partitions: asked }, Some(actual)) if asked < actual => {
            Err(LogError::FewerPartitions { topic: topic.clone(), actual, asked })
        }
        (TopicChange::Grow { n_partitions }, Some(actual)) if n_partitions == actual => Ok(Planned::Nothing),
        (TopicChange::Grow { n_partitions }, Some(actual)) => added(actual, n_partitions),
    }
}

fn added(from: u32, to: u32) -> Result<Planned, LogError> {
    let limit = match to {
        0 => 1,
        1..=MAX_PARTITIONS => return Ok(Planned::Add(from..to)),
        _ => MAX_PARTITIONS,
    };
    Err(LogError::LimitExceeded { what: "number of partitions", actual: to.into(), limit: limit.into() })
}
