//! Brings the records of a request with a key to the log: those that are not there yet.

use std::{collections::BTreeSet, sync::Arc};

use model::{LogError, TopicPartition, partitioner::partition_of_key};

use super::{
    Doors,
    append::{Addressed, Appended},
    idempotency::Request,
    topics::Topic,
};
use crate::error::KafkaError;

impl Doors {
    /// Stores what is missing of the request, and answers as if all were stored now. `records` are
    /// those of the request but for the places in `left_out`, which its door does not want stored
    /// now. What is appended is appended to its end even if nobody waits for the answer any more;
    /// `kept` lives as long.
    pub(super) async fn store_once(
        &self,
        request: Request,
        topic: &Topic,
        mut records: Vec<Addressed>,
        left_out: &[usize],
        kept: impl Send + 'static,
    ) -> Result<Appended, KafkaError> {
        let mut begun = self.topics.window().begin(&*self.services.log, &topic.name, &request).await?;
        address(topic, &mut records);
        let mut left_out = left_out.iter().copied().peekable();
        let mut places = (0..).filter(|place| left_out.next_if_eq(place).is_none());
        let (mut known, mut missing, mut missing_places) = (Vec::with_capacity(records.len()), Vec::new(), Vec::new());
        for (mut addressed, place) in records.into_iter().zip(&mut places) {
            let place = u32::try_from(place).unwrap_or(u32::MAX);
            let stored = begun.stored(place);
            known.push(stored);
            if stored.is_none() {
                let record = &mut addressed.record;
                if record.timestamp == request.now() {
                    record.timestamp = begun.at;
                }
                record.headers.push(request.mark(place, begun.at));
                missing.push(addressed);
                missing_places.push(place);
            }
        }
        if missing.is_empty() {
            return Ok(Appended::of(&topic.name, &known, None, begun.at));
        }
        begun.busy.doubt(self.ends(topic, &missing).await?);
        let (at, store, topic) =
            (begun.at, self.store.clone(), Arc::new(Topic::new(topic.name.clone(), topic.n_partitions)));
        // The answer may find nobody, and the key is free again only when the outcome is known.
        let appending = self.services.unattended.spawn({
            let topic = topic.clone();
            async move {
                let _kept = kept;
                let appended = store.store_in(&topic, missing).await;
                let is_unknown = |e| matches!(e, &LogError::Unavailable { outcome_unknown: true, .. });
                let is_certain = !appended.outcomes().any(|outcome| outcome.err().is_some_and(is_unknown));
                let stored = missing_places.into_iter().zip(appended.outcomes());
                let stored = stored.filter_map(|(place, outcome)| outcome.ok().map(|(p, offset)| (place, p, offset)));
                begun.busy.finish(stored, is_certain);
                appended
            }
        });
        let appended = appending.await.map_err(|_| KafkaError::internal())?;
        Ok(Appended::of(&topic.name, &known, Some(appended), at))
    }

    /// Where the partitions of these records end.
    async fn ends(&self, topic: &Topic, records: &[Addressed]) -> Result<Vec<(u32, model::Offset)>, KafkaError> {
        let partitions: BTreeSet<u32> = records.iter().filter_map(|addressed| addressed.partition).collect();
        let mut ends = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let id = TopicPartition::new(topic.name.clone(), partition);
            let bounds = self.services.log.bounds(&id).await.map_err(|e| {
                self.topics.missed(&topic.name, &e);
                KafkaError::of_log(&e)
            })?;
            ends.push((partition, bounds.end));
        }
        Ok(ends)
    }
}

/// Gives every record its partition.
fn address(topic: &Topic, records: &mut [Addressed]) {
    let mut keyless = None;
    for Addressed { partition, record } in records {
        let of_record = || match &record.key {
            Some(key) => partition_of_key(key, topic.n_partitions),
            None => *keyless.get_or_insert_with(|| topic.next_keyless()),
        };
        *partition = Some(partition.unwrap_or_else(of_record));
    }
}
