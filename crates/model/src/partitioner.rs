//! Which partition a record goes to when its producer names none.

/// Kafka's default for a keyed record: `murmur2(key)` with the sign bit cleared, modulo the
/// number of partitions (org.apache.kafka.common.utils.Utils).
///
/// # Panics
/// When `n_partitions` is 0: a topic has at least one.
pub fn partition_of_key(key: &[u8], n_partitions: u32) -> u32 {
    assert!(n_partitions > 0, "a topic has at least one partition");
    (murmur2(key) & 0x7fff_ffff) % n_partitions
}

/// MurmurHash2, 32 bit, with Kafka's seed.
pub fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    let mut hash = SEED ^ (data.len() as u32);
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    for (i, byte) in rest.iter().enumerate() {
        hash ^= u32::from(*byte) << (8 * i);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of Apache Kafka's own UtilsTest.
    #[test]
    fn murmur2_equals_kafkas() {
        let vectors: [(&[u8], i32); 7] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
            (b"", 275_646_681),
        ];
        for (data, expected) in vectors {
            assert_eq!(murmur2(data) as i32, expected, "{data:?}");
        }
        // Bytes are unsigned, also the last ones of a key. From another client, kafka-python.
        for (data, expected) in [("é".as_bytes(), 186_971_271), (&[0xff, 0x80, 0xfe], 957_058_525)] {
            assert_eq!(murmur2(data) as i32, expected, "{data:?}");
        }
    }

    /// From another client, kafka-python; the hashes of the first two are negative.
    #[test]
    fn keys_go_where_kafka_puts_them() {
        for (key, of_3, of_12, of_256) in
            [("foobar", 0, 6, 190), ("21", 0, 0, 236), ("abc", 0, 3, 27), ("é", 0, 3, 135), ("ключ", 2, 8, 112)]
        {
            let found = [1, 3, 12, 256].map(|n_partitions| partition_of_key(key.as_bytes(), n_partitions));
            assert_eq!(found, [0, of_3, of_12, of_256], "{key}");
        }
    }
}
