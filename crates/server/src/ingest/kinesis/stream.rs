//! A stream as Kinesis knows one: shards that share the circle of hash keys, each a partition of the
//! topic of the same name, and what else is set on it. Nothing here asks or waits.
//!
//! A shard's number is its partition's. Shards are split and merged by closing them and making new
//! ones, so that a number once given means the same for ever.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::OnceLock,
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    hash::{HashKey, even_ranges, even_start},
    sequence::SequenceNumber,
};

/// What a stream keeps its records for unless it is told otherwise.
const DEFAULT_RETENTION_HOURS: u32 = 24;
/// What one record may be unless a stream is told otherwise.
pub(super) const DEFAULT_MAX_RECORD_KIB: u32 = 1024;
const HOUR_MS: i64 = 3_600_000;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Mode {
    #[default]
    #[serde(rename = "PROVISIONED")]
    Provisioned,
    #[serde(rename = "ON_DEMAND")]
    OnDemand,
}

impl Mode {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Provisioned => "PROVISIONED",
            Self::OnDemand => "ON_DEMAND",
        }
    }

    pub(super) fn of(text: &str) -> Self {
        if text == Self::OnDemand.as_str() { Self::OnDemand } else { Self::Provisioned }
    }
}

pub(super) type Tags = BTreeMap<String, String>;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Stream {
    /// Drawn when it was made: a stream of the same name that is made later is another one.
    pub(super) id: Uuid,
    pub(super) created_ms: i64,
    pub(super) mode: Mode,
    /// By number; never empty.
    pub(super) shards: Vec<Shard>,
    pub(super) retention_hours: u32,
    pub(super) max_record_kib: u32,
    pub(super) tags: Tags,
    /// Shard-level metrics that were asked for.
    pub(super) metrics: BTreeSet<String>,
    pub(super) consumers: BTreeMap<String, Consumer>,
    /// Where the ranges of the open shards end, in order, and their numbers; made when needed.
    #[serde(skip)]
    routes: OnceLock<Vec<(HashKey, u32)>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shard {
    pub(super) start: HashKey,
    /// The last hash key of the range, as Kinesis counts.
    pub(super) end: HashKey,
    /// The second in which it was made, later than its parents.
    pub(super) created: u64,
    /// Where the partition stood then.
    pub(super) first_offset: u64,
    /// One that was split, or two that were merged.
    pub(super) parents: Vec<u32>,
    pub(super) closed: Option<Closed>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Closed {
    pub(super) at_ms: i64,
    /// Every record that was put before lies below.
    pub(super) end_offset: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Consumer {
    pub(super) created_ms: i64,
    #[serde(default)]
    pub(super) tags: Tags,
}

/// One change to the shards; a plan is several, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Step {
    /// The second child begins at `at`.
    Split { shard: u32, at: HashKey },
    /// `first` lies just below `second`.
    Merge { first: u32, second: u32 },
}

/// The shards are not as the plan expects them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mismatch;

impl Shard {
    pub(super) fn is_open(&self) -> bool {
        self.closed.is_none()
    }

    pub(super) fn starting_number(&self, number: u32) -> SequenceNumber {
        SequenceNumber::before(self.created, number, self.first_offset)
    }

    pub(super) fn ending_number(&self, number: u32) -> Option<SequenceNumber> {
        let closed = self.closed?;
        Some(SequenceNumber::end(self.created, number, seconds(closed.at_ms)))
    }
}

fn seconds(ms: i64) -> u64 {
    u64::try_from(ms / 1000).unwrap_or(0)
}

impl Stream {
    /// A stream whose shards share the circle evenly, one for each of these offsets.
    pub(super) fn new(id: Uuid, first_offsets: &[u64], mode: Mode, created_ms: i64) -> Self {
        let n = u32::try_from(first_offsets.len()).unwrap_or(u32::MAX);
        let shard = |(range, first_offset): (std::ops::RangeInclusive<HashKey>, &u64)| Shard {
            start: *range.start(),
            end: *range.end(),
            created: seconds(created_ms),
            first_offset: *first_offset,
            parents: Vec::new(),
            closed: None,
        };
        Self {
            id,
            created_ms,
            mode,
            shards: even_ranges(n).zip(first_offsets).map(shard).collect(),
            retention_hours: DEFAULT_RETENTION_HOURS,
            max_record_kib: DEFAULT_MAX_RECORD_KIB,
            tags: Tags::new(),
            metrics: BTreeSet::new(),
            consumers: BTreeMap::new(),
            routes: OnceLock::new(),
        }
    }

    pub(super) fn n_shards(&self) -> u32 {
        self.shards.len() as u32
    }

    pub(super) fn n_open(&self) -> usize {
        self.routes().len()
    }

    pub(super) fn shard(&self, number: u32) -> Option<&Shard> {
        self.shards.get(number as usize)
    }

    /// The open shard whose range holds the key.
    pub(super) fn route(&self, key: HashKey) -> u32 {
        let routes = self.routes();
        let place = routes.partition_point(|(end, _)| *end < key);
        // The open shards cover the circle.
        routes[place.min(routes.len() - 1)].1
    }

    /// The open shards by their ranges.
    fn routes(&self) -> &[(HashKey, u32)] {
        self.routes.get_or_init(|| {
            let open = (0..).zip(&self.shards).filter(|(_, shard)| shard.is_open());
            let mut routes: Vec<_> = open.map(|(number, shard)| (shard.end, number)).collect();
            routes.sort_unstable();
            routes
        })
    }

    /// Shards that people can still see: the open ones, and those closed whose records may be there.
    pub(super) fn visible(&self, now_ms: i64) -> impl Iterator<Item = (u32, &Shard)> {
        (0..).zip(&self.shards).filter(move |(_, shard)| !self.is_expired(shard, now_ms))
    }

    fn is_expired(&self, shard: &Shard, now_ms: i64) -> bool {
        shard.closed.is_some_and(|closed| closed.at_ms < self.horizon_ms(now_ms))
    }

    /// Records older than this may be gone.
    pub(super) fn horizon_ms(&self, now_ms: i64) -> i64 {
        now_ms.saturating_sub(i64::from(self.retention_hours) * HOUR_MS)
    }

    pub(super) fn children(&self, parent: u32) -> impl Iterator<Item = (u32, &Shard)> {
        (0..).zip(&self.shards).filter(move |(_, shard)| shard.parents.contains(&parent))
    }

    /// The steps to `target` open shards that share the circle evenly: cuts where ranges are to
    /// begin, and then merges of what lies between. Shards in between live for no time at all.
    pub(super) fn steps_to(&self, target: u32) -> Vec<Step> {
        let (mut planned, mut steps) = (self.clone(), Vec::new());
        let mut take = |planned: &mut Self, step| {
            planned.step(step, &BTreeMap::new(), 0).expect("the step is for shards that were just found open");
            steps.push(step);
        };
        let starts: BTreeSet<HashKey> = (0..target).map(|i| even_start(i, target)).collect();
        for at in &starts {
            let shard = planned.route(*at);
            if planned.shards[shard as usize].start < *at {
                take(&mut planned, Step::Split { shard, at: *at });
            }
        }
        loop {
            let routes = planned.routes().to_vec();
            let pair = routes.windows(2).find(|w| !starts.contains(&planned.shards[w[1].1 as usize].start));
            let Some([(_, first), (_, second)]) = pair else { return steps };
            take(&mut planned, Step::Merge { first: *first, second: *second });
        }
    }

    /// Takes the steps, all or none. `ends` says where the partitions stand, of the shards to close
    /// and of those to come.
    pub(super) fn reshard(&mut self, steps: &[Step], ends: &BTreeMap<u32, u64>, at_ms: i64) -> Result<(), Mismatch> {
        let mut changed = self.clone();
        for step in steps {
            changed.step(*step, ends, at_ms)?;
        }
        *self = changed;
        Ok(())
    }

    fn step(&mut self, step: Step, ends: &BTreeMap<u32, u64>, at_ms: i64) -> Result<(), Mismatch> {
        match step {
            Step::Split { shard, at } => {
                let parent = self.open_shard(shard)?;
                let (start, end) = (parent.start, parent.end);
                if at <= start || at > end {
                    return Err(Mismatch);
                }
                let created = self.close(&[shard], ends, at_ms);
                self.add((start, HashKey(at.0 - 1)), created, vec![shard], ends);
                self.add((at, end), created, vec![shard], ends);
            }
            Step::Merge { first, second } => {
                let (below, above) = (self.open_shard(first)?, self.open_shard(second)?);
                let (start, end) = (below.start, above.end);
                if below.end.0.checked_add(1) != Some(above.start.0) {
                    return Err(Mismatch);
                }
                let created = self.close(&[first, second], ends, at_ms);
                self.add((start, end), created, vec![first, second], ends);
            }
        }
        self.routes = OnceLock::new();
        Ok(())
    }

    fn open_shard(&self, number: u32) -> Result<&Shard, Mismatch> {
        self.shard(number).filter(|shard| shard.is_open()).ok_or(Mismatch)
    }

    /// Returns the second from which their children count: later than theirs, so that sequence
    /// numbers grow from parent to child.
    fn close(&mut self, numbers: &[u32], ends: &BTreeMap<u32, u64>, at_ms: i64) -> u64 {
        let mut created = seconds(at_ms);
        for number in numbers {
            let shard = &mut self.shards[*number as usize];
            let end_offset = ends.get(number).copied().unwrap_or(shard.first_offset);
            shard.closed = Some(Closed { at_ms, end_offset });
            created = created.max(shard.created + 1);
        }
        created
    }

    fn add(&mut self, (start, end): (HashKey, HashKey), created: u64, parents: Vec<u32>, ends: &BTreeMap<u32, u64>) {
        let first_offset = ends.get(&self.n_shards()).copied().unwrap_or(0);
        self.shards.push(Shard { start, end, created, first_offset, parents, closed: None });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn stream(n: usize) -> Stream {
        Stream::new(Uuid::nil(), &vec![0; n], Mode::Provisioned, 1_700_000_000_000)
    }

    /// The open shards lie next to each other around the whole circle.
    fn assert_covers(stream: &Stream) {
        let mut open: Vec<&Shard> = stream.shards.iter().filter(|s| s.is_open()).collect();
        open.sort_by_key(|s| s.start);
        assert_eq!((open[0].start, open[open.len() - 1].end), (HashKey::MIN, HashKey::MAX));
        assert!(open.windows(2).all(|w| w[0].end.0 + 1 == w[1].start.0));
        for shard in open {
            let number = |key| stream.shards[stream.route(key) as usize].start;
            assert_eq!((number(shard.start), number(shard.end)), (shard.start, shard.start));
        }
    }

    #[test]
    fn a_split_closes_the_parent_and_makes_two_children() {
        let mut stream = stream(2);
        let at = HashKey(1 << 126);
        let ends = BTreeMap::from([(0, 17), (2, 3), (3, 0)]);
        stream.reshard(&[Step::Split { shard: 0, at }], &ends, 1_700_000_000_500).unwrap();
        assert_covers(&stream);
        let parent = &stream.shards[0];
        assert_eq!(parent.closed, Some(Closed { at_ms: 1_700_000_000_500, end_offset: 17 }));
        assert_eq!(
            (stream.n_open(), stream.route(HashKey(5)), stream.route(at), stream.route(HashKey::MAX)),
            (3, 2, 3, 1)
        );
        let child = &stream.shards[2];
        assert_eq!((child.parents.clone(), child.first_offset, child.created), (vec![0], 3, 1_700_000_001));
        assert_eq!(stream.children(0).map(|(number, _)| number).collect::<Vec<_>>(), [2, 3]);
        let last = SequenceNumber::of_record(parent.created, 0, 16, 1_700_000_000_400);
        let end = parent.ending_number(0).unwrap();
        assert!(last < end && end < child.starting_number(2));
        assert_eq!(stream.reshard(&[Step::Split { shard: 0, at }], &ends, 0), Err(Mismatch));
    }

    #[test]
    fn only_neighbours_merge_and_a_plan_is_taken_whole_or_not() {
        let mut stream = stream(3);
        for (first, second) in [(0, 2), (1, 0), (0, 0), (0, 4)] {
            let steps = [Step::Merge { first: 1, second: 2 }, Step::Merge { first, second }];
            assert_eq!(stream.reshard(&steps, &BTreeMap::new(), 0), Err(Mismatch), "{first} {second}");
            assert_eq!(stream.n_shards(), 3);
        }
        stream.reshard(&[Step::Merge { first: 0, second: 1 }], &BTreeMap::new(), 1_800_000_000_000).unwrap();
        assert_covers(&stream);
        assert_eq!(stream.shards[3].parents, [0, 1]);
    }

    #[test]
    fn closed_shards_are_seen_for_as_long_as_their_records_stay() {
        let mut stream = stream(1);
        let closed_ms = 1_700_000_000_000;
        stream.reshard(&[Step::Split { shard: 0, at: HashKey(9) }], &BTreeMap::new(), closed_ms).unwrap();
        let visible = |now_ms| stream.visible(now_ms).map(|(number, _)| number).collect::<Vec<_>>();
        assert_eq!(visible(closed_ms + 24 * HOUR_MS), [0, 1, 2]);
        assert_eq!(visible(closed_ms + 24 * HOUR_MS + 1), [1, 2]);
    }

    proptest! {
        #[test]
        fn any_number_of_shards_is_reached_evenly(targets in prop::collection::vec(1..20_u32, 1..5)) {
            let mut stream = stream(3);
            for (i, target) in targets.into_iter().enumerate() {
                let steps = stream.steps_to(target);
                stream.reshard(&steps, &BTreeMap::new(), 1_700_000_000_000 + i as i64).unwrap();
                assert_covers(&stream);
                let mut open: Vec<_> =
                    stream.shards.iter().filter(|s| s.is_open()).map(|s| s.start..=s.end).collect();
                open.sort_by_key(|range| *range.start());
                prop_assert_eq!(open, even_ranges(target).collect::<Vec<_>>());
                prop_assert!(stream.steps_to(target).is_empty());
            }
        }
    }
}
