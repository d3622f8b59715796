//! What tells of most hashes that they are new, in little more than a byte for each that is not.

use std::mem;

/// Words of 64 bits, of which each hash sets four in one: some eleven bits per hash, and of a hundred
/// others one or two seem to be there.
pub struct Filter(Vec<u64>);

impl Filter {
    pub fn for_hashes(n: usize) -> Self {
        Self(vec![0; n_words(n)])
    }

    pub fn size_bytes(&self) -> usize {
        size_of::<u64>() * self.0.capacity()
    }

    pub fn add(&mut self, hash: u64) {
        let at = self.word_of(hash);
        self.0[at] |= bits_of(hash);
    }

    pub fn may_have(&self, hash: u64) -> bool {
        let bits = bits_of(hash);
        self.0[self.word_of(hash)] & bits == bits
    }

    /// By the hash's high bits, and its bits in the word by its low ones.
    fn word_of(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.0.len() as u128) >> 64) as usize
    }
}

fn n_words(n_hashes: usize) -> usize {
    n_hashes / 6 + 1
}

fn bits_of(hash: u64) -> u64 {
    [0, 6, 12, 18].into_iter().fold(0, |bits, shift| bits | 1 << (hash >> shift & 63))
}

/// Hashes that were seen, however many will come: when a filter is full, a larger one follows.
pub struct Seen {
    full: Vec<Filter>,
    /// Takes what is new.
    last: Filter,
    /// How many the last one is for, and how many more it takes.
    room: usize,
    n_free: usize,
}

impl Default for Seen {
    fn default() -> Self {
        let room = Self::FIRST_ROOM;
        Self { full: Vec::new(), last: Filter::for_hashes(room), room, n_free: room }
    }
}

impl Seen {
    /// Little memory, which is there always.
    const FIRST_ROOM: usize = 1 << 16;
    const GROWTH: usize = 4;

    pub fn size_bytes(&self) -> usize {
        self.last.size_bytes() + self.full.iter().map(Filter::size_bytes).sum::<usize>()
    }

    pub fn is_full(&self) -> bool {
        self.n_free == 0
    }

    /// So many bytes more it takes after `grow`.
    pub fn growth_bytes(&self) -> usize {
        size_of::<u64>() * n_words(self.room * Self::GROWTH)
    }

    pub fn grow(&mut self) {
        self.room *= Self::GROWTH;
        self.n_free = self.room;
        self.full.push(mem::replace(&mut self.last, Filter::for_hashes(self.room)));
    }

    /// Which hashes may have been seen before, among these or earlier; almost all others were not. Filter by
    /// filter, since each look is a wait for memory, and so one look need not wait for the one before.
    pub fn see(&mut self, hashes: &[u64]) -> Vec<bool> {
        let mut seen = vec![false; hashes.len()];
        for filter in &self.full {
            for (seen, hash) in seen.iter_mut().zip(hashes) {
                *seen |= filter.may_have(*hash);
            }
        }
        for (seen, hash) in seen.iter_mut().zip(hashes) {
            if *seen {
                continue;
            }
            *seen = self.last.may_have(*hash);
            if !*seen {
                self.last.add(*hash);
                self.n_free = self.n_free.saturating_sub(1);
            }
        }
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_before_was_seen_and_almost_nothing_else() {
        let mut seen = Seen::default();
        let n = 1_000_000_u64;
        let hash = |i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut n_mistaken = 0;
        for first in (0..n).step_by(8_000) {
            if seen.is_full() {
                let bytes = seen.size_bytes() + seen.growth_bytes();
                seen.grow();
                assert_eq!(seen.size_bytes(), bytes);
            }
            // One of them twice.
            let hashes: Vec<u64> = (first..first + 8_000).chain([first]).map(hash).collect();
            let told = seen.see(&hashes);
            assert_eq!(told.last(), Some(&true));
            n_mistaken += told.iter().filter(|seen| **seen).count() - 1;
        }
        assert!(n_mistaken < n as usize / 30, "{n_mistaken} of {n} were mistaken for others");
        assert!(seen.size_bytes() < 3_000_000, "{} bytes", seen.size_bytes());
        for first in (0..n).step_by(8_000) {
            let again: Vec<u64> = (first..first + 8_000).map(hash).collect();
            assert!(seen.see(&again).iter().all(|seen| *seen));
        }
    }
}
