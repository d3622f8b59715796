//! Brings the records of one request to their partitions, all partitions at once, each with
//! one append, and says what became of every record in the order in which they came.

use std::collections::HashMap;

use futures::future::join_all;
use model::{
    EventLog, Header, LogError, Offset, OffsetRange, Record, Timestamp, TopicName, TopicPartition,
    partitioner::partition_of_key,
};

use super::topics::{Topic, Topics};

/// A record, and the partition that its producer names.
pub(super) struct Addressed {
    pub(super) partition: Option<u32>,
    pub(super) record: Record,
}

/// What records weigh in memory beside their bytes, which are parts of the body.
pub(super) fn overhead_bytes(records: &[Addressed]) -> usize {
    let n_headers: usize = records.iter().map(|r| r.record.headers.len()).sum();
    size_of_val(records) + n_headers * size_of::<Header>()
}

/// What became of a request's records.
pub(super) struct Appended {
    /// When a request with a key came first.
    at: Option<Timestamp>,
    appends: Vec<Append>,
    /// For each record its place in `appends`; empty when there is but one.
    places: Vec<usize>,
}

/// One partition's share.
pub(super) struct Append {
    pub(super) partition: u32,
    pub(super) n_records: usize,
    pub(super) size_bytes: usize,
    pub(super) outcome: Result<OffsetRange, LogError>,
}

/// Partitions that producers name must exist; `records` must not be empty.
pub(super) async fn append(log: &dyn EventLog, topics: &Topics, topic: &Topic, records: Vec<Addressed>) -> Appended {
    let Shares { shares, places } = Shares::of(topic, records);
    let appends = match <[Share; 1]>::try_from(shares) {
        Ok([share]) => vec![share.append(log, topics, &topic.name).await],
        Err(shares) => join_all(shares.into_iter().map(|share| share.append(log, topics, &topic.name))).await,
    };
    Appended { at: None, appends, places }
}

impl Appended {
    /// Of a request that was stored in part, or wholly, before it came again: `known` says where for
    /// each record, `fresh` what became of the others.
    pub(super) fn of(
        topic: &TopicName,
        known: &[Option<(u32, Offset)>],
        fresh: Option<Appended>,
        at: Timestamp,
    ) -> Self {
        let at = Some(at);
        let fresh = fresh.unwrap_or(Self { at, appends: Vec::new(), places: Vec::new() });
        if known.iter().all(Option::is_none) {
            return Self { at, ..fresh };
        }
        let (mut appends, mut n_fresh) = (fresh.appends, 0);
        let mut last_of_partition: HashMap<u32, usize> = HashMap::new();
        let mut place = |stored: &Option<(u32, Offset)>| {
            let Some((partition, offset)) = *stored else {
                n_fresh += 1;
                return fresh.places.get(n_fresh - 1).copied().unwrap_or(0);
            };
            if let Some(i) = last_of_partition.get(&partition)
                && let Append { n_records, outcome: Ok(range), .. } = &mut appends[*i]
                && range.end == offset
            {
                (*n_records, range.end) = (*n_records + 1, offset.plus(1));
                return *i;
            }
            let id = TopicPartition::new(topic.clone(), partition);
            let outcome = Ok(OffsetRange { partition: id, start: offset, end: offset.plus(1) });
            appends.push(Append { partition, n_records: 1, size_bytes: 0, outcome });
            last_of_partition.insert(partition, appends.len() - 1);
            appends.len() - 1
        };
        let places = known.iter().map(&mut place).collect();
        Self { at, appends, places }
    }

    pub(super) fn at(&self) -> Option<Timestamp> {
        self.at
    }

    pub(super) fn appends(&self) -> &[Append] {
        &self.appends
    }

    pub(super) fn n_records(&self) -> usize {
        self.appends.iter().map(|a| a.n_records).sum()
    }

    /// Partition and offset of each record, or why it is not stored.
    pub(super) fn outcomes(&self) -> impl Iterator<Item = Result<(u32, Offset), &LogError>> {
        let mut n_given = vec![0; self.appends.len()];
        (0..self.n_records()).map(move |i| {
            let place = self.places.get(i).copied().unwrap_or(0);
            let append = &self.appends[place];
            let range = append.outcome.as_ref()?;
            let offset = range.start.plus(n_given[place]);
            n_given[place] += 1;
            Ok((append.partition, offset))
        })
    }
}

struct Shares {
    shares: Vec<Share>,
    places: Vec<usize>,
}

struct Share {
    partition: u32,
    records: Vec<Record>,
}

impl Shares {
    fn of(topic: &Topic, records: Vec<Addressed>) -> Self {
        let mut keyless = None;
        let mut partition_of = |addressed: &Addressed| match (addressed.partition, &addressed.record.key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => partition_of_key(key, topic.n_partitions),
            (None, None) => *keyless.get_or_insert_with(|| topic.next_keyless()),
        };
        if topic.n_partitions == 1 {
            let records = records.into_iter().map(|r| r.record).collect();
            return Self { shares: vec![Share { partition: 0, records }], places: Vec::new() };
        }
        let mut places = Vec::with_capacity(records.len());
        let mut place_of_partition = vec![None; topic.n_partitions as usize];
        let mut shares: Vec<Share> = Vec::new();
        for addressed in records {
            let partition = partition_of(&addressed);
            let place = *place_of_partition[partition as usize].get_or_insert_with(|| {
                shares.push(Share { partition, records: Vec::new() });
                shares.len() - 1
            });
            shares[place].records.push(addressed.record);
            places.push(place);
        }
        Self { shares, places }
    }
}

impl Share {
    async fn append(self, log: &dyn EventLog, topics: &Topics, topic: &TopicName) -> Append {
        let n_records = self.records.len();
        let size_bytes = self.records.iter().map(Record::size_bytes).sum();
        let partition = TopicPartition::new(topic.clone(), self.partition);
        let outcome = match topics.check_stays(topic) {
            Ok(()) => log.append(&partition, self.records).await,
            Err(e) => Err(e),
        };
        Append { partition: self.partition, n_records, size_bytes, outcome }
    }
}
