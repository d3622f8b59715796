//! Kafka's record batch, version 2 (magic 2), uncompressed: what a segment is made of.
//!
//! `baseOffset` and `partitionLeaderEpoch` lie outside the checksum, so an appender encodes and
//! checksums in its own task and the partition's writer only fills in these two. Written by hand
//! because the codec of `kafka-protocol` keeps headers in a map (a repeated header key would be
//! lost) and wants offsets before it encodes; the tests hold the two against each other.

use bytes::{BufMut, Bytes};
use model::{Header, Offset, Record, StoredRecord, Timestamp};

pub(crate) const HEADER_BYTES: usize = 61;
/// `baseOffset` and `batchLength`, which `batchLength` does not count.
const LENGTH_EXCLUDES_BYTES: usize = 12;
/// The version of the format, and how far from a batch's first byte it stands.
pub(crate) const MAGIC: u8 = 2;
pub(crate) const MAGIC_AT: usize = 16;
const LEADER_EPOCH_AT: usize = 12;
const CRC_AT: usize = 17;
const CRC_COVERS_FROM: usize = 21;
/// More in one batch and its offset deltas would leave Kafka's 32 bits.
const MAX_BATCH_RECORDS: usize = 1 << 20;

/// One batch, whole but for its place in a log.
#[derive(Debug)]
pub(crate) struct EncodedBatch {
    bytes: Vec<u8>,
    n_records: usize,
}

impl EncodedBatch {
    /// # Panics
    /// When there is no record.
    pub(crate) fn new(records: &[Record]) -> Self {
        let first_timestamp = records.first().expect("a batch has at least one record").timestamp;
        let max_timestamp = records.iter().map(|r| r.timestamp).max().unwrap_or(first_timestamp);
        let estimate: usize = records.iter().map(|r| r.size_bytes() + 24).sum();
        let mut bytes = Vec::with_capacity(HEADER_BYTES + estimate);
        bytes.put_i64(0); // baseOffset: `place`
        bytes.put_i32(0); // batchLength: below
        bytes.put_u32(0); // partitionLeaderEpoch: `place`
        bytes.put_u8(MAGIC);
        bytes.put_u32(0); // crc: below
        bytes.put_i16(0); // attributes: no compression, time of creation, no transaction
        bytes.put_i32(records.len() as i32 - 1); // lastOffsetDelta
        bytes.put_i64(first_timestamp.0);
        bytes.put_i64(max_timestamp.0);
        bytes.put_i64(-1); // producerId
        bytes.put_i16(-1); // producerEpoch
        bytes.put_i32(-1); // baseSequence
        bytes.put_i32(records.len() as i32);
        debug_assert_eq!(bytes.len(), HEADER_BYTES);
        for (delta, record) in records.iter().enumerate() {
            put_record(&mut bytes, record, record.timestamp.0.wrapping_sub(first_timestamp.0), delta as i64);
        }
        let length = (bytes.len() - LENGTH_EXCLUDES_BYTES) as u32;
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[CRC_COVERS_FROM..]);
        bytes[CRC_AT..CRC_COVERS_FROM].copy_from_slice(&crc.to_be_bytes());
        Self { bytes, n_records: records.len() }
    }

    /// Says where the batch goes: the offset of its first record, and the number of the group
    /// commit within the segment, which takes the field of the leader epoch (a broker sets that
    /// itself when it takes a batch).
    pub(crate) fn place(&mut self, base: Offset, group: u32) {
        self.bytes[..8].copy_from_slice(&base.0.to_be_bytes());
        self.bytes[LEADER_EPOCH_AT..MAGIC_AT].copy_from_slice(&group.to_be_bytes());
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn n_records(&self) -> usize {
        self.n_records
    }
}

/// The records in as few batches as hold about `batch_bytes` each.
pub(crate) fn encode(records: &[Record], batch_bytes: usize) -> Vec<EncodedBatch> {
    let mut batches = Vec::new();
    let (mut begin, mut held) = (0, 0);
    for (i, record) in records.iter().enumerate() {
        let size_bytes = record.size_bytes();
        if i > begin && (held + size_bytes > batch_bytes || i - begin == MAX_BATCH_RECORDS) {
            batches.push(EncodedBatch::new(&records[begin..i]));
            (begin, held) = (i, 0);
        }
        held += size_bytes;
    }
    if begin < records.len() {
        batches.push(EncodedBatch::new(&records[begin..]));
    }
    batches
}

fn put_record(out: &mut Vec<u8>, record: &Record, timestamp_delta: i64, offset_delta: i64) {
    let optional = |field: &Option<Bytes>| match field {
        Some(bytes) => varint_bytes(bytes.len() as i64) + bytes.len(),
        None => varint_bytes(-1),
    };
    let headers: usize =
        record.headers.iter().map(|h| varint_bytes(h.key.len() as i64) + h.key.len() + optional(&h.value)).sum();
    let size_bytes = 1
        + varint_bytes(timestamp_delta)
        + varint_bytes(offset_delta)
        + optional(&record.key)
        + optional(&record.value)
        + varint_bytes(record.headers.len() as i64)
        + headers;
    put_varint(out, size_bytes as i64);
    out.push(0); // attributes
    put_varint(out, timestamp_delta);
    put_varint(out, offset_delta);
    put_optional(out, record.key.as_ref());
    put_optional(out, record.value.as_ref());
    put_varint(out, record.headers.len() as i64);
    for header in &record.headers {
        put_optional(out, Some(header.key.as_bytes()));
        put_optional(out, header.value.as_ref());
    }
}

fn put_optional(out: &mut Vec<u8>, field: Option<impl AsRef<[u8]>>) {
    match field {
        Some(bytes) => {
            let bytes = bytes.as_ref();
            put_varint(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
        None => put_varint(out, -1),
    }
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn varint_bytes(value: i64) -> usize {
    (64 - (zigzag(value) | 1).leading_zeros() as usize).div_ceil(7)
}

fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Why bytes are not the batch that should be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damage(pub(crate) String);

fn damage<T>(reason: impl Into<String>) -> Result<T, Damage> {
    Err(Damage(reason.into()))
}

/// The head of a batch, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    pub(crate) base: Offset,
    /// Of the whole batch, this header included.
    pub(crate) size_bytes: usize,
    pub(crate) group: u32,
    pub(crate) n_records: u32,
    pub(crate) first_timestamp: Timestamp,
    pub(crate) max_timestamp: Timestamp,
    crc: u32,
}

impl BatchHeader {
    /// # Panics
    /// When there are fewer than `HEADER_BYTES` bytes.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Damage> {
        let i64_at = |at: usize| i64::from_be_bytes(array(bytes, at));
        let i32_at = |at: usize| i32::from_be_bytes(array(bytes, at));
        if bytes[MAGIC_AT] != MAGIC {
            return damage(format!("the batch's magic is {}, not {MAGIC}", bytes[MAGIC_AT]));
        }
        let base = i64_at(0);
        let length = i32_at(8);
        if base < 0 || length < (HEADER_BYTES - LENGTH_EXCLUDES_BYTES) as i32 {
            return damage(format!("a batch cannot begin at offset {base} and hold {length} bytes"));
        }
        let attributes = i16::from_be_bytes(array(bytes, CRC_COVERS_FROM));
        if attributes & 0x37 != 0 {
            return damage(format!("attributes {attributes:#x} (compression, transactions) are not supported"));
        }
        let (last_delta, n_records) = (i32_at(23), i32_at(57));
        if n_records < 1 || last_delta != n_records - 1 {
            return damage(format!("{n_records} records cannot end at offset delta {last_delta}"));
        }
        Ok(Self {
            base: Offset(base as u64),
            size_bytes: length as usize + LENGTH_EXCLUDES_BYTES,
            group: claimed_group(bytes),
            n_records: n_records as u32,
            first_timestamp: Timestamp(i64_at(27)),
            max_timestamp: Timestamp(i64_at(35)),
            crc: u32::from_be_bytes(array(bytes, CRC_AT)),
        })
    }

    /// The offset after the batch's last record.
    pub(crate) fn next(&self) -> Offset {
        self.base.plus(self.n_records as usize)
    }

    /// Whether these bytes are what was written under this header.
    pub(crate) fn verify(&self, batch: &[u8]) -> Result<(), Damage> {
        let actual = crc32c::crc32c(&batch[CRC_COVERS_FROM..self.size_bytes]);
        if actual == self.crc {
            return Ok(());
        }
        damage(format!("the batch's checksum is {actual:08x}, its header says {:08x}", self.crc))
    }
}

/// The group that a header claims to belong to, readable or not otherwise.
pub(crate) fn claimed_group(header: &[u8]) -> u32 {
    u32::from_be_bytes(array(header, LEADER_EPOCH_AT))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the slice has N bytes")
}

/// A record, and its size on disk.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) stored: StoredRecord,
    pub(crate) size_bytes: usize,
}

/// The records of a verified batch; keys and values share its memory.
pub(crate) fn decode(header: &BatchHeader, batch: &Bytes) -> Result<Vec<Decoded>, Damage> {
    let mut fields = Fields { bytes: batch.slice(HEADER_BYTES..header.size_bytes) };
    let mut records = Vec::new();
    for delta in 0..i64::from(header.n_records) {
        records.push(fields.record(header, delta)?);
    }
    if !fields.bytes.is_empty() {
        return damage(format!("{} bytes follow the batch's last record", fields.bytes.len()));
    }
    Ok(records)
}

struct Fields {
    bytes: Bytes,
}

impl Fields {
    fn record(&mut self, header: &BatchHeader, expected_delta: i64) -> Result<Decoded, Damage> {
        let before = self.bytes.len();
        let size = self.varint()?;
        let mut fields = Fields { bytes: self.take(size)? };
        let size_bytes = before - self.bytes.len();
        fields.take(1)?; // attributes
        let timestamp = Timestamp(header.first_timestamp.0.wrapping_add(fields.varint()?));
        let delta = fields.varint()?;
        if delta != expected_delta {
            return damage(format!("record {expected_delta} of the batch has offset delta {delta}"));
        }
        let key = fields.optional()?;
        let value = fields.optional()?;
        let n_headers = fields.varint()?;
        let mut headers = Vec::new();
        for _ in 0..n_headers {
            let Some(key) = fields.optional()? else { return damage("a header has no key") };
            let Ok(key) = String::from_utf8(key.to_vec()) else { return damage("a header's key is not UTF-8") };
            headers.push(Header { key, value: fields.optional()? });
        }
        if !fields.bytes.is_empty() {
            return damage(format!("{} bytes follow a record's last header", fields.bytes.len()));
        }
        let offset = header.base.plus(expected_delta as usize);
        Ok(Decoded { stored: StoredRecord { offset, record: Record { key, value, headers, timestamp } }, size_bytes })
    }

    fn optional(&mut self) -> Result<Option<Bytes>, Damage> {
        match self.varint()? {
            -1 => Ok(None),
            length => self.take(length).map(Some),
        }
    }

    fn take(&mut self, length: i64) -> Result<Bytes, Damage> {
        match usize::try_from(length) {
            Ok(length) if length <= self.bytes.len() => Ok(self.bytes.split_to(length)),
            _ => damage(format!("a field of {length} bytes leaves its record")),
        }
    }

    fn varint(&mut self) -> Result<i64, Damage> {
        let mut value = 0u64;
        for (i, byte) in self.bytes.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                let _ = self.bytes.split_to(i + 1);
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        damage("a number does not end")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use kafka_protocol::records::{Compression, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions};
    use proptest::{collection::vec, option, prelude::*};

    use super::*;

    /// A header map of `kafka-protocol` keeps each key once, hence the numbering.
    fn records() -> impl Strategy<Value = Vec<Record>> {
        let bytes = || vec(any::<u8>(), 0..200).prop_map(Bytes::from);
        let header = (".{0,8}", option::of(bytes()));
        let record = (option::of(bytes()), option::of(bytes()), vec(header, 0..4), 0i64..=i64::MAX / 4);
        let record = record.prop_map(|(key, value, headers, timestamp)| Record {
            key,
            value,
            headers: headers
                .into_iter()
                .enumerate()
                .map(|(i, (key, value))| Header { key: format!("{i}{key}"), value })
                .collect(),
            timestamp: Timestamp(timestamp),
        });
        vec(record, 1..20)
    }

    fn stored(base: u64, records: Vec<Record>) -> Vec<StoredRecord> {
        let numbered = records.into_iter().zip(base..);
        numbered.map(|(record, offset)| StoredRecord { offset: Offset(offset), record }).collect()
    }

    fn decode_ours(bytes: &Bytes) -> Result<Vec<StoredRecord>, Damage> {
        let header = BatchHeader::read(bytes)?;
        header.verify(bytes)?;
        Ok(decode(&header, bytes)?.into_iter().map(|d| d.stored).collect())
    }

    fn decode_theirs(bytes: &Bytes) -> Vec<StoredRecord> {
        let sets = RecordBatchDecoder::decode(&mut bytes.clone()).unwrap();
        let ours = |r: kafka_protocol::records::Record| StoredRecord {
            offset: Offset(r.offset as u64),
            record: Record {
                key: r.key,
                value: r.value,
                headers: r.headers.into_iter().map(|(k, value)| Header { key: k.to_string(), value }).collect(),
                timestamp: Timestamp(r.timestamp),
            },
        };
        sets.records.into_iter().map(ours).collect()
    }

    fn encode_theirs(stored: &[StoredRecord]) -> Bytes {
        let theirs: Vec<_> = stored
            .iter()
            .map(|s| kafka_protocol::records::Record {
                transactional: false,
                control: false,
                delete_horizon: false,
                partition_leader_epoch: 0,
                producer_id: -1,
                producer_epoch: -1,
                timestamp_type: kafka_protocol::records::TimestampType::Creation,
                offset: s.offset.0 as i64,
                sequence: s.offset.0 as i32,
                timestamp: s.record.timestamp.0,
                key: s.record.key.clone(),
                value: s.record.value.clone(),
                headers: s.record.headers.iter().map(|h| (h.key.clone().into(), h.value.clone())).collect(),
            })
            .collect();
        let mut out = bytes::BytesMut::new();
        let options = RecordEncodeOptions { version: 2, compression: Compression::None };
        RecordBatchEncoder::encode(&mut out, &theirs, &options).unwrap();
        out.freeze()
    }

    proptest! {
        #[test]
        fn both_codecs_read_what_either_wrote(records in records(), base in 0u64..1 << 40) {
            let mut batch = EncodedBatch::new(&records);
            batch.place(Offset(base), 7);
            let ours = Bytes::from(batch.bytes().to_vec());
            let expected = stored(base, records);
            prop_assert_eq!(&decode_ours(&ours).unwrap(), &expected);
            prop_assert_eq!(&decode_theirs(&ours), &expected);
            prop_assert_eq!(&decode_ours(&encode_theirs(&expected)).unwrap(), &expected);
        }

        #[test]
        fn a_flipped_bit_is_damage_or_outside_the_checksum(records in records(), at in any::<prop::sample::Index>()) {
            let batch = EncodedBatch::new(&records);
            let mut bytes = batch.bytes().to_vec();
            let bit = at.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            // A length that is too long is found by whoever cuts the batch out of its file.
            let length_is_whole = bytes[8..12] == batch.bytes()[8..12];
            prop_assume!(length_is_whole);
            match decode_ours(&Bytes::from(bytes)) {
                Err(_) => {}
                Ok(decoded) => {
                    prop_assert!(bit / 8 < MAGIC_AT, "byte {} is not under the checksum", bit / 8);
                    prop_assert!(decoded.into_iter().map(|s| s.record).eq(records));
                }
            }
        }

        #[test]
        fn any_bytes_decode_or_are_damage(bytes in vec(any::<u8>(), HEADER_BYTES..400)) {
            let mut bytes = bytes;
            bytes[MAGIC_AT] = MAGIC;
            let length = bytes.len() as u32 - 12;
            bytes[8..12].copy_from_slice(&length.to_be_bytes());
            bytes[21..27].fill(0);
            bytes[57..61].copy_from_slice(&1u32.to_be_bytes());
            let crc = crc32c::crc32c(&bytes[CRC_COVERS_FROM..]);
            bytes[CRC_AT..CRC_COVERS_FROM].copy_from_slice(&crc.to_be_bytes());
            let _ = decode_ours(&Bytes::from(bytes));
        }
    }

    #[test]
    fn repeated_header_keys_and_extreme_times_survive() {
        let header = |v: &'static str| Header { key: "k".into(), value: Some(v.into()) };
        let records: Vec<Record> = [i64::MAX, i64::MIN, -1, 0]
            .map(|t| Record { headers: vec![header("a"), header("b")], timestamp: Timestamp(t), ..Record::default() })
            .into();
        let batch = EncodedBatch::new(&records);
        assert_eq!(decode_ours(&Bytes::from(batch.bytes().to_vec())).unwrap(), stored(0, records));
    }

    #[test]
    fn long_appends_become_several_batches_and_no_record_is_split() {
        let records: Vec<Record> = (0..10).map(|i| Record::of_value(vec![i; 100])).collect();
        for (batch_bytes, n_records) in
            [(1, vec![1; 10]), (100, vec![1; 10]), (350, vec![3, 3, 3, 1]), (9999, vec![10])]
        {
            let actual: Vec<usize> = encode(&records, batch_bytes).iter().map(EncodedBatch::n_records).collect();
            assert_eq!(actual, n_records, "{batch_bytes}");
        }
        assert!(encode(&[], 10).is_empty());
    }
}
