//! What a change of a topic comes to, the same for every log.

use std::ops::Range;

use model::{LogError, Offset, TopicChange, TopicName};

/// A partition is a folder, a mailbox and two open files; its number has four digits, so that the
/// longest topic name still fits.
const MAX_PARTITIONS: u32 = 10_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Planned {
    Nothing,
    /// Partitions with these numbers are added.
    Add(Range<u32>),
    /// If the ends of its partitions add up to this; None if in any case.
    Delete {
        sum_of_ends: Option<u64>,
    },
}

/// `n_before` is the topic's number of partitions, `None` where there is no such topic.
pub(crate) fn plan(topic: &TopicName, change: TopicChange, n_before: Option<u32>) -> Result<Planned, LogError> {
    match (change, n_before) {
        (TopicChange::Create { .. }, Some(_)) => Err(LogError::TopicExists(topic.clone())),
        (TopicChange::Create { n_partitions }, None) => added(0, n_partitions),
        (_, None) => Err(LogError::UnknownTopic(topic.clone())),
        (TopicChange::Delete, Some(_)) => Ok(Planned::Delete { sum_of_ends: None }),
        (TopicChange::DeleteUnlessGrown { sum_of_ends }, Some(_)) => {
            Ok(Planned::Delete { sum_of_ends: Some(sum_of_ends) })
        }
        (TopicChange::Grow { n_partitions: asked }, Some(actual)) if asked < actual => {
            Err(LogError::FewerPartitions { topic: topic.clone(), actual, asked })
        }
        (TopicChange::Grow { n_partitions }, Some(actual)) if n_partitions == actual => Ok(Planned::Nothing),
        (TopicChange::Grow { n_partitions }, Some(actual)) => added(actual, n_partitions),
    }
}

/// Refuses a deletion if the partitions do not end where whoever wants it counts on.
pub(crate) fn check_ends(topic: &TopicName, ends: &[Offset], sum_of_ends: Option<u64>) -> Result<(), LogError> {
    let sum: u64 = ends.iter().map(|end| end.0).sum();
    match sum_of_ends {
        Some(expected) if expected != sum => Err(LogError::TopicGrew(topic.clone())),
        _ => Ok(()),
    }
}

/// Notes where partitions ended; those beyond, which an earlier life of the topic had, stay noted.
pub(crate) fn end_at(ended: &mut Vec<Offset>, ends: &[Offset]) {
    ended.resize(ended.len().max(ends.len()), Offset::ZERO);
    ended[..ends.len()].copy_from_slice(ends);
}

fn added(from: u32, to: u32) -> Result<Planned, LogError> {
    let limit = match to {
        0 => 1,
        1..=MAX_PARTITIONS => return Ok(Planned::Add(from..to)),
        _ => MAX_PARTITIONS,
    };
    Err(LogError::LimitExceeded { what: "number of partitions", actual: to.into(), limit: limit.into() })
}
