//! `GET …/records`: collects what an instance may read, waits for more if there is nothing, and
//! hands it out. The log wakes who waits; a wake carries no data, and many of them count as one.

use std::{collections::BTreeMap, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use model::{LogError, Offset, StoredRecord, Timestamp, TopicPartition};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::embedded;
use crate::{
    error::KafkaError,
    ingest::{
        Doors, Permit,
        consumers::{Act, Move, Name, Place, Refusal, Reset, View},
        paid_body::PaidBody,
    },
};

/// Read from a partition at a time.
const FETCH_BYTES: usize = 1 << 20;
/// After a wake more is likely to come soon: so that a busy log does not keep its readers busy.
const LINGER: Duration = Duration::from_millis(20);

pub(super) struct Question {
    pub(super) name: Name,
    pub(super) timeout: Duration,
    pub(super) max_bytes: usize,
}

/// What was collected for one question.
struct Answer {
    /// In the order of their partitions.
    places: Vec<Place>,
    /// Of each place: where the answer begins and how far it has come.
    taken: BTreeMap<TopicPartition, (Offset, Offset)>,
    text: Vec<u8>,
    n_records: usize,
    /// Of keys and values.
    n_bytes: usize,
    is_full: bool,
    permit: Permit,
}

impl Doors {
    /// The records as a JSON array. Their positions have moved on.
    pub(super) async fn read_records(&self, question: &Question) -> Result<Body, KafkaError> {
        let deadline = Instant::now() + question.timeout;
        let mut moved = self.services.log.moved();
        let mut answer = self.nothing_yet(Vec::new())?;
        loop {
            moved.borrow_and_update();
            let view = self.groups.view(&question.name).await?;
            if answer.places != view.places {
                answer = self.nothing_yet(view.places.clone())?;
            }
            self.collect(&view, question.max_bytes, &mut answer).await?;
            let is_enough = answer.n_records > 0 && answer.n_bytes >= view.settings.min_bytes;
            let is_time = Instant::now() >= deadline || self.stop.is_cancelled();
            if is_enough || answer.is_full || is_time {
                match self.hand_out(question, &view, answer).await? {
                    Some(body) => return Ok(body),
                    None => answer = self.nothing_yet(Vec::new())?,
                }
                continue;
            }
            // Whoever asks again has dealt with what was returned before; and a reader that begins
            // at the end remembers where that was.
            if answer.n_records == 0 && (view.has_to_commit || answer.has_new_place()) {
                let act = Act::Send { moves: answer.moves() };
                match self.groups.submit(&question.name, view.epoch, act).await? {
                    Ok(()) | Err(Refusal::Stale) => continue,
                    Err(refusal) => return Err(self.groups.explain(&refusal)),
                }
            }
            let wake = deadline.min(next_expiry(&view));
            let more = async {
                let _ = timeout_at(wake, moved.changed()).await;
                sleep_until(wake.min(Instant::now() + LINGER)).await;
            };
            let _ = self.stop.run_until_cancelled(more).await;
        }
    }

    fn nothing_yet(&self, places: Vec<Place>) -> Result<Answer, KafkaError> {
        let permit = self.bodies.permit().ok_or_else(KafkaError::overloaded)?;
        let taken = BTreeMap::new();
        Ok(Answer { places, taken, text: Vec::new(), n_records: 0, n_bytes: 0, is_full: false, permit })
    }

    /// Adds what there is, beginning with another partition each time.
    async fn collect(&self, view: &View, max_bytes: usize, answer: &mut Answer) -> Result<(), KafkaError> {
        let n_places = view.places.len();
        let first = self.groups.next_turn();
        for place in (0..n_places).map(|i| &view.places[(first + i) % n_places]) {
            if answer.is_full {
                break;
            }
            self.collect_from(place, view, max_bytes, answer).await?;
        }
        Ok(())
    }

    async fn collect_from(
        &self,
        place: &Place,
        view: &View,
        max_bytes: usize,
        answer: &mut Answer,
    ) -> Result<(), KafkaError> {
        let (log, partition) = (&self.services.log, &place.partition);
        let begin = match answer.taken.get(partition) {
            Some((_, next)) => Some(*next),
            None => place.position.or(place.committed),
        };
        let bounds = match log.bounds(partition).await {
            Ok(bounds) => bounds,
            // Gone, or not there yet.
            Err(e) if e.is_gone() => return Ok(()),
            Err(e) => return Err(KafkaError::of_log(&e)),
        };
        let begin = begin.filter(|offset| (bounds.start..=bounds.end).contains(offset));
        let mut next = match (begin, view.settings.reset) {
            (Some(offset), _) => offset,
            (None, Reset::Earliest) => bounds.start,
            (None, Reset::Latest) => bounds.end,
            (None, Reset::None) => return Err(KafkaError::no_offset(partition)),
        };
        let from = answer.taken.entry(partition.clone()).or_insert((next, next)).0;
        while next < bounds.end && !answer.is_full {
            let records = match log.fetch(partition, next, FETCH_BYTES.min(max_bytes)).await {
                Ok(records) => records,
                // Trimmed meanwhile: the next look begins behind that.
                Err(LogError::OutOfRange { .. }) => break,
                Err(_) if answer.n_records > 0 => {
                    answer.is_full = true;
                    break;
                }
                Err(e) => return Err(KafkaError::of_log(&e)),
            };
            if records.is_empty() {
                break;
            }
            for stored in &records {
                if !answer.add(partition, stored, view, max_bytes)? {
                    break;
                }
                next = stored.offset.plus(1);
            }
        }
        answer.taken.insert(partition.clone(), (from, next));
        Ok(())
    }

    /// None when someone else moved a position meanwhile.
    async fn hand_out(&self, question: &Question, view: &View, answer: Answer) -> Result<Option<Body>, KafkaError> {
        let moves = answer.moves();
        let (records, n_bytes) = (answer.moves_of_topics(), answer.n_bytes);
        let Answer { mut text, n_records, permit, .. } = answer;
        text.insert(0, b'[');
        text.push(b']');
        let mut body = PaidBody::new(text, permit);
        if n_records == 0 && !view.has_to_commit && moves.iter().all(|m| m.seen.is_some()) {
            return Ok(Some(Body::new(body)));
        }
        if n_records > 0 {
            // Handed out by the command below, and on its way from then on.
            let (groups, name, moves) = (self.groups.clone(), question.name.clone(), moves.clone());
            let (epoch, turns) = (view.epoch, view.turns);
            body.broken_off = Some(Box::new(move || groups.unsend(name, epoch, moves, turns)));
        }
        match self.groups.submit(&question.name, view.epoch, Act::Send { moves }).await? {
            Ok(()) => {
                self.services.metrics.consumed(&records, n_bytes as u64);
                Ok(Some(Body::new(body)))
            }
            Err(refusal) => {
                body.broken_off = None;
                if refusal == Refusal::Stale { Ok(None) } else { Err(self.groups.explain(&refusal)) }
            }
        }
    }
}

/// When partitions may become free because a lease ends.
fn next_expiry(view: &View) -> Instant {
    let in_ms = view.next_expiry_ms.map_or(u64::MAX, |at_ms| at_ms.saturating_sub(Timestamp::now().0).max(0) as u64);
    // Half an hour is longer than anyone waits.
    Instant::now() + Duration::from_millis(in_ms.saturating_add(1).min(1_800_000))
}

impl Answer {
    /// Whether there was room. The first record is taken however large it is: its reader would never
    /// get beyond it.
    fn add(
        &mut self,
        partition: &TopicPartition,
        stored: &StoredRecord,
        view: &View,
        max_bytes: usize,
    ) -> Result<bool, KafkaError> {
        let record = &stored.record;
        let n_bytes = [&record.key, &record.value].into_iter().flatten().map(Bytes::len).sum::<usize>();
        if self.n_records > 0 && self.n_bytes + n_bytes > max_bytes {
            self.is_full = true;
            return Ok(false);
        }
        let before = self.text.len();
        let written = embedded::write(&mut self.text, view.settings.format, partition, stored, self.n_records > 0);
        let added = self.text.len() - before;
        let problem = match written {
            Ok(()) if self.permit.grow(added) => {
                self.n_records += 1;
                self.n_bytes += n_bytes;
                return Ok(true);
            }
            Ok(()) => KafkaError::overloaded(),
            Err(problem) => problem,
        };
        self.text.truncate(before);
        // What came before goes out first.
        self.is_full = true;
        if self.n_records > 0 { Ok(false) } else { Err(problem) }
    }

    fn seen(&self, partition: &TopicPartition) -> Option<Offset> {
        let at = self.places.binary_search_by(|place| place.partition.cmp(partition)).ok()?;
        self.places[at].position
    }

    /// What moves, and what has no position yet.
    fn moves(&self) -> Vec<Move> {
        let moves = self.taken.iter().map(|(partition, (from, until))| Move {
            partition: partition.clone(),
            seen: self.seen(partition),
            from: *from,
            until: *until,
        });
        moves.filter(|m| m.until > m.from || m.seen != Some(m.until)).collect()
    }

    fn has_new_place(&self) -> bool {
        self.taken.iter().any(|(partition, (_, until))| self.seen(partition) != Some(*until))
    }

    fn moves_of_topics(&self) -> BTreeMap<model::TopicName, u64> {
        let mut n_of_topics = BTreeMap::new();
        for (partition, (from, until)) in self.taken.iter().filter(|(_, (from, until))| until > from) {
            *n_of_topics.entry(partition.topic.clone()).or_default() += until.0 - from.0;
        }
        n_of_topics
    }
}
