//! Values by hash, sorted and without room for more: a third of what a map takes.

/// Entries that share a place in `starts`, about.
const ENTRIES_PER_START: usize = 8;

pub struct Sorted<V> {
    entries: Vec<(u64, V)>,
    /// Where the entries begin whose hash begins with these bits, and where the last ones end.
    starts: Vec<u32>,
    shift: u32,
}

impl<V: Copy> Sorted<V> {
    pub fn of(entries: impl IntoIterator<Item = (u64, V)>) -> Self {
        let mut entries: Vec<(u64, V)> = entries.into_iter().collect();
        entries.sort_unstable_by_key(|(hash, _)| *hash);
        entries.shrink_to_fit();
        let n_starts = (entries.len() / ENTRIES_PER_START).next_power_of_two().max(2);
        let shift = u64::BITS - n_starts.trailing_zeros();
        let mut starts = Vec::with_capacity(n_starts + 1);
        for (at, (hash, _)) in entries.iter().enumerate() {
            while starts.len() <= (hash >> shift) as usize {
                starts.push(at as u32);
            }
        }
        starts.resize(n_starts + 1, entries.len() as u32);
        Self { entries, starts, shift }
    }

    pub fn size_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<(u64, V)>() + self.starts.capacity() * size_of::<u32>()
    }

    /// All values of a hash.
    pub fn of_hash(&self, hash: u64) -> impl Iterator<Item = V> + '_ {
        let bits = (hash >> self.shift) as usize;
        let near = &self.entries[self.starts[bits] as usize..self.starts[bits + 1] as usize];
        near.iter().filter(move |(other, _)| *other == hash).map(|(_, value)| *value)
    }

    pub fn get(&self, hash: u64) -> Option<V> {
        self.of_hash(hash).next()
    }

    pub fn iter(&self) -> impl Iterator<Item = (u64, V)> + '_ {
        self.entries.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_there_is_found_and_nothing_else(
            entries in prop::collection::vec((prop_oneof![0..50_u64, any::<u64>(), Just(u64::MAX)], 0..9_u32), 0..400),
            others in prop::collection::vec(prop_oneof![0..60_u64, any::<u64>()], 0..50),
        ) {
            let sorted = Sorted::of(entries.iter().copied());
            for hash in entries.iter().map(|(hash, _)| *hash).chain(others) {
                let mut found: Vec<u32> = sorted.of_hash(hash).collect();
                let mut expected: Vec<u32> = entries.iter().filter(|(h, _)| *h == hash).map(|(_, v)| *v).collect();
                found.sort_unstable();
                expected.sort_unstable();
                prop_assert_eq!(found, expected);
            }
            prop_assert_eq!(sorted.iter().count(), entries.len());
        }
    }
}
