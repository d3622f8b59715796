//! Which shard a record goes to: the MD5 of its partition key, as a number of 128 bits, lies in the
//! range of one open shard.

use std::{fmt, ops::RangeInclusive, str::FromStr};

use md5::{Digest, Md5};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A place on the circle of hash keys; decimal wherever people or programs see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct HashKey(pub(super) u128);

impl HashKey {
    #[cfg(test)]
    pub(super) const MIN: Self = Self(0);
    pub(super) const MAX: Self = Self(u128::MAX);

    pub(super) fn of_partition_key(key: &[u8]) -> Self {
        Self(u128::from_be_bytes(Md5::digest(key).into()))
    }
}

impl fmt::Display for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for HashKey {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// As text: few readers of JSON know numbers of 128 bits.
impl Serialize for HashKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HashKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// The ranges of `n` shards that share the circle evenly; the last one takes what is left over.
pub(super) fn even_ranges(n: u32) -> impl Iterator<Item = RangeInclusive<HashKey>> {
    (0..n).map(move |i| even_start(i, n)..=if i + 1 < n { HashKey(even_start(i + 1, n).0 - 1) } else { HashKey::MAX })
}

/// Where the range of shard `i` of `n` begins.
pub(super) fn even_start(i: u32, n: u32) -> HashKey {
    HashKey(even_width(n).saturating_mul(u128::from(i)))
}

/// `⌊2^128 / n⌋`; for one shard, which has it all, a value that is not used.
fn even_width(n: u32) -> u128 {
    let n = u128::from(n.max(1));
    let rest_is_whole = u128::MAX % n == n - 1;
    u128::MAX / n + u128::from(rest_is_whole && n > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_hash_as_they_do_in_kinesis() {
        for (key, hash, shards) in [
            ("partition-1", 198_019_941_650_871_988_756_153_596_255_032_211_816, [(2, 1), (3, 1), (4, 2), (5, 2)]),
            ("test", 12_707_736_894_140_473_154_801_792_860_916_528_374, [(2, 0), (3, 0), (4, 0), (5, 0)]),
        ] {
            let found = HashKey::of_partition_key(key.as_bytes());
            assert_eq!(found, HashKey(hash));
            for (n, shard) in shards {
                assert_eq!(even_ranges(n).position(|range| range.contains(&found)), Some(shard), "{key} of {n}");
            }
        }
    }

    #[test]
    fn shards_share_the_circle_evenly() {
        let of = |n| even_ranges(n).map(|r| (r.start().to_string(), r.end().to_string())).collect::<Vec<_>>();
        let (min, max) = ("0".to_owned(), "340282366920938463463374607431768211455".to_owned());
        assert_eq!(of(1), [(min.clone(), max.clone())]);
        let half = ("170141183460469231731687303715884105727", "170141183460469231731687303715884105728");
        assert_eq!(of(2), [(min.clone(), half.0.to_owned()), (half.1.to_owned(), max.clone())]);
        let three = of(3);
        assert!(three[0].1.ends_with("070484") && three[1].1.ends_with("140969") && three[2].1 == max, "{three:?}");
        for n in 1..=256 {
            let ranges: Vec<_> = even_ranges(n).collect();
            assert_eq!((*ranges[0].start(), *ranges[ranges.len() - 1].end()), (HashKey::MIN, HashKey::MAX));
            assert!(ranges.windows(2).all(|w| w[0].end().0 + 1 == w[1].start().0), "{n}");
        }
    }
}
