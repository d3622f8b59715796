//! Signatures that were used, as many as fit in two halves: when one is full or old enough, the
//! other is forgotten and takes its turn.

use std::{
    collections::HashSet,
    mem,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

pub(super) struct Replays {
    halves: Mutex<Halves>,
    max_in_half: usize,
    /// After this long no signature is taken any more, so none need be remembered.
    window: Duration,
}

struct Halves {
    latest: HashSet<[u8; 32]>,
    before: HashSet<[u8; 32]>,
    since: Instant,
}

impl Replays {
    pub(super) fn new(max_signatures: usize, window: Duration) -> Self {
        let halves = Halves { latest: HashSet::new(), before: HashSet::new(), since: Instant::now() };
        Self { halves: Mutex::new(halves), max_in_half: max_signatures.div_ceil(2), window }
    }

    /// Whether it is used for the first time, as far as is remembered.
    pub(super) fn is_first(&self, signature: [u8; 32]) -> bool {
        let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        let halves = &mut *halves;
        if halves.before.contains(&signature) || halves.latest.contains(&signature) {
            return false;
        }
        if halves.latest.len() >= self.max_in_half || halves.since.elapsed() > self.window {
            halves.before = mem::take(&mut halves.latest);
            halves.since = Instant::now();
        }
        halves.latest.insert(signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_new_once_and_only_so_many_are_remembered() {
        let replays = Replays::new(4, Duration::from_secs(600));
        assert!((0..4).all(|i| replays.is_first([i; 32])));
        assert!((0..4).all(|i| !replays.is_first([i; 32])));
        assert!((4..9).all(|i| replays.is_first([i; 32])));
        let halves = replays.halves.lock().expect("no panic");
        assert!(halves.latest.len() <= 2 && halves.before.len() <= 2);
    }
}
