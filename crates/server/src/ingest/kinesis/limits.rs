//! The throughput that Kinesis allows a shard, for those who want to see how their programs behave
//! at it (`kinesis.limits = "aws"`). Kept by this process alone.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

const RECORDS_IN_PER_SECOND: f64 = 1000.0;
const BYTES_IN_PER_SECOND: f64 = (1 << 20) as f64;
const READS_PER_SECOND: f64 = 5.0;
const BYTES_OUT_PER_SECOND: f64 = (2 << 20) as f64;

/// By shard; of shards that were used.
#[derive(Default)]
pub(super) struct Rates {
    shards: Mutex<HashMap<u32, ShardRates>>,
}

#[derive(Default)]
struct ShardRates {
    records_in: Rate,
    bytes_in: Rate,
    reads: Rate,
    bytes_out: Rate,
}

/// What was used and has not yet worn off, as of `at_ms`.
#[derive(Default)]
struct Rate {
    used: f64,
    at_ms: i64,
}

impl Rate {
    fn wear_off(&mut self, per_second: f64, now_ms: i64) {
        let elapsed_ms = now_ms.saturating_sub(self.at_ms).max(0) as f64;
        self.used = (self.used - elapsed_ms * per_second / 1000.0).max(0.0);
        self.at_ms = now_ms;
    }

    /// Whether a second's worth has room for so much.
    fn has_room(&mut self, n: f64, per_second: f64, now_ms: i64) -> bool {
        self.wear_off(per_second, now_ms);
        self.used + n <= per_second
    }
}

impl Rates {
    /// Whether a record may come in; if so, it counts.
    pub(super) fn put(&self, shard: u32, n_bytes: usize, now_ms: i64) -> bool {
        let mut shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        let rates = shards.entry(shard).or_default();
        let n_bytes = n_bytes as f64;
        let has_room = rates.records_in.has_room(1.0, RECORDS_IN_PER_SECOND, now_ms)
            & rates.bytes_in.has_room(n_bytes, BYTES_IN_PER_SECOND, now_ms);
        if has_room {
            rates.records_in.used += 1.0;
            rates.bytes_in.used += n_bytes;
        }
        has_room
    }

    /// Whether a reader may ask; if so, it counts. What was read before has to have worn off: after
    /// 10 MiB that takes five seconds.
    pub(super) fn read(&self, shard: u32, now_ms: i64) -> bool {
        let mut shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        let rates = shards.entry(shard).or_default();
        let has_room = rates.reads.has_room(1.0, READS_PER_SECOND, now_ms)
            & rates.bytes_out.has_room(0.0, BYTES_OUT_PER_SECOND, now_ms);
        if has_room {
            rates.reads.used += 1.0;
        }
        has_room
    }

    pub(super) fn was_read(&self, shard: u32, n_bytes: usize) {
        let mut shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        shards.entry(shard).or_default().bytes_out.used += n_bytes as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_takes_a_thousand_records_or_a_mebibyte_a_second() {
        let rates = Rates::default();
        let n_taken = |n_bytes, now_ms| (0..2000).filter(|_| rates.put(0, n_bytes, now_ms)).count();
        assert_eq!(n_taken(1, 10_000), 1000);
        assert_eq!(n_taken(1, 10_500), 500);
        assert_eq!(n_taken(1 << 18, 20_000), 4);
        assert!(rates.put(1, 1, 20_000));
    }

    #[test]
    fn a_shard_is_read_five_times_a_second_and_rests_after_much() {
        let rates = Rates::default();
        assert_eq!((0..9).filter(|_| rates.read(0, 10_000)).count(), 5);
        assert!(rates.read(0, 10_200));
        rates.was_read(0, 10 << 20);
        assert!(!rates.read(0, 12_000));
        assert!(rates.read(0, 15_000));
    }
}
