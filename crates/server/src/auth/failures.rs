//! How often an address showed a wrong key within the last minute. A fixed number of places, which
//! addresses share by their hash: whoever shares a place with a guesser loses nothing but the
//! difference between 401 and 429, since right keys are not counted.

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Instant,
};

const N_PLACES: usize = 4096;

pub(super) struct Failures {
    /// The minute in the upper half, the count in the lower.
    places: Box<[AtomicU64]>,
    hasher: RandomState,
    began: Instant,
    max_per_minute: u32,
}

impl Failures {
    pub(super) fn new(max_per_minute: u32) -> Self {
        let places = (0..N_PLACES).map(|_| AtomicU64::new(0)).collect();
        Self { places, hasher: RandomState::new(), began: Instant::now(), max_per_minute }
    }

    /// Counts one more; true when it is one too many.
    pub(super) fn are_too_many(&self, address: Option<IpAddr>) -> bool {
        let minute = self.began.elapsed().as_secs() / 60;
        let place = &self.places[self.hasher.hash_one(address) as usize % N_PLACES];
        let add = |was: u64| {
            let count = if was >> 32 == minute { (was & 0xffff_ffff) + 1 } else { 1 };
            // Counted no further than needed, so that it cannot run over.
            Some(minute << 32 | count.min(u64::from(self.max_per_minute) + 1))
        };
        let was = place.fetch_update(Relaxed, Relaxed, add).unwrap_or_else(|was| was);
        was >> 32 == minute && (was & 0xffff_ffff) >= u64::from(self.max_per_minute)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_told_after_so_many_and_others_are_not() {
        let failures = Failures::new(3);
        let [guesser, other]: [Option<IpAddr>; 2] = ["192.0.2.1", "192.0.2.2"].map(|a| a.parse().ok());
        let told: Vec<bool> = (0..6).map(|_| failures.are_too_many(guesser)).collect();
        assert_eq!(told, [false, false, false, true, true, true]);
        let same_place = failures.hasher.hash_one(guesser) as usize % N_PLACES
            == failures.hasher.hash_one(other) as usize % N_PLACES;
        assert!(same_place || !failures.are_too_many(other));
    }
}
