//! Sequence numbers: what Kinesis calls a record's place in its shard. Ours carry the offset, so
//! that a number leads back to the record without a look at anything.
//!
//! 47 hexadecimal digits, written as 56 decimal ones: `2`, the second in which the shard was made
//! (9), the shard's last digit (1), the offset (16), `00`, the second of the record (9), the shard
//! (8), `2`. Within a shard they grow with the offset; those of a child are above its parents'.

use std::{fmt, str::FromStr};

/// Nine hexadecimal digits.
const MAX_SECONDS: u64 = (1 << 36) - 1;
/// The first digit is at most 7.
const MAX_INDEX: u64 = i64::MAX as u64;
/// 188 bits are less than 10^57.
const MAX_DIGITS: usize = 57;
/// The largest power of ten that 64 bits hold: decimal digits are made and read in threes of these.
const CHUNK: u64 = 10_u64.pow(CHUNK_DIGITS as u32);
const CHUNK_DIGITS: usize = 19;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SequenceNumber {
    /// The second in which the shard was made.
    pub(super) created: u64,
    /// The record's offset.
    pub(super) index: u64,
    /// The record's second; 0 in a number that stands before the record of this offset.
    pub(super) time: u64,
    pub(super) shard: u32,
}

impl SequenceNumber {
    /// The number of a record.
    pub(super) fn of_record(created: u64, shard: u32, offset: u64, timestamp_ms: i64) -> Self {
        // 0 is taken, and producers of other doors may stamp their records as they like.
        let time = u64::try_from(timestamp_ms / 1000).unwrap_or(0).clamp(1, MAX_SECONDS);
        Self { created, index: offset.min(MAX_INDEX), time, shard }
    }

    /// Below the number of the record at `offset`, above all before it.
    pub(super) fn before(created: u64, shard: u32, offset: u64) -> Self {
        Self { created, index: offset.min(MAX_INDEX), time: 0, shard }
    }

    /// Where a closed shard ends: above every record that it can have.
    pub(super) fn end(created: u64, shard: u32, closed_seconds: u64) -> Self {
        Self { created, index: MAX_INDEX, time: closed_seconds.clamp(1, MAX_SECONDS), shard }
    }

    /// The offset of the first record above this number.
    pub(super) fn next_offset(self) -> u64 {
        if self.time == 0 { self.index } else { self.index.saturating_add(1) }
    }

    /// 188 bits: the upper 60 and the lower 128.
    fn bits(self) -> (u64, u128) {
        let nibble = u64::from(self.shard & 0xf);
        let high = (2 << 56) | ((self.created & MAX_SECONDS) << 20) | (nibble << 16) | (self.index >> 48);
        let low = (u128::from(self.index) << 80)
            | (u128::from(self.time & MAX_SECONDS) << 36)
            | (u128::from(self.shard) << 4)
            | 2;
        (high, low)
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (high, low) = self.bits();
        let mut limbs = [high, (low >> 64) as u64, low as u64];
        let [last, middle, first] = [(); 3].map(|()| {
            let mut rest = 0;
            for limb in &mut limbs {
                let value = (u128::from(rest) << 64) | u128::from(*limb);
                *limb = (value / u128::from(CHUNK)) as u64;
                rest = (value % u128::from(CHUNK)) as u64;
            }
            rest
        });
        write!(f, "{first}{middle:0CHUNK_DIGITS$}{last:0CHUNK_DIGITS$}")
    }
}

/// Not a sequence number of this layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotASequenceNumber;

impl FromStr for SequenceNumber {
    type Err = NotASequenceNumber;

    fn from_str(text: &str) -> Result<Self, NotASequenceNumber> {
        if text.is_empty() || text.len() > MAX_DIGITS || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(NotASequenceNumber);
        }
        let (mut high, mut low) = (0_u64, 0_u128);
        for digit in text.bytes() {
            // 57 digits are at most 190 bits.
            let middle = (low >> 64) * 10;
            let bottom = (low & u128::from(u64::MAX)) * 10 + u128::from(digit - b'0');
            let middle = middle + (bottom >> 64);
            low = (middle << 64) | (bottom & u128::from(u64::MAX));
            high = high * 10 + (middle >> 64) as u64;
        }
        let number = Self {
            created: (high >> 20) & MAX_SECONDS,
            index: ((high & 0xffff) << 48) | (low >> 80) as u64,
            time: (low >> 36) as u64 & MAX_SECONDS,
            shard: (low >> 4) as u32,
        };
        // What the fields do not say must be as it always is.
        if number.index <= MAX_INDEX && number.bits() == (high, low) { Ok(number) } else { Err(NotASequenceNumber) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_laid_out_as_in_kinesis() {
        let number = SequenceNumber { created: 1_700_000_000, index: 0, time: 1_700_000_000, shard: 0 };
        let (high, low) = number.bits();
        assert_eq!(format!("{high:x}{low:032x}"), "206553f100000000000000000000006553f100000000002");
        assert_eq!(number.to_string(), "49646437577108476416916876405825929425585429676275269634");
        let last = SequenceNumber::end(1_700_000_000, 0x123, 1_700_000_001);
        let (high, low) = last.bits();
        assert_eq!(format!("{high:x}{low:032x}"), "206553f10037fffffffffffffff0006553f101000001232");
    }

    #[test]
    fn a_number_leads_back_to_its_offset() {
        for (created, shard, offset, timestamp_ms) in [
            (0, 0, 0, 0),
            (1_700_000_000, 0, 1, 1_700_000_000_123),
            (1_700_000_000, 255, u64::from(u32::MAX) + 7, -5),
            (MAX_SECONDS, u32::MAX, MAX_INDEX, i64::MAX),
        ] {
            let number = SequenceNumber::of_record(created, shard, offset, timestamp_ms);
            let text = number.to_string();
            assert_eq!(text.len(), 56, "{text}");
            assert_eq!(text.parse(), Ok(number), "{text}");
            assert_eq!((number.index, number.next_offset()), (offset, offset + 1));
            let before = SequenceNumber::before(created, shard, offset);
            assert!(before < number && before.next_offset() == offset);
            assert!(before.to_string() < text);
        }
    }

    #[test]
    fn numbers_grow_with_the_offset_whatever_the_time() {
        let at = |offset, ms| SequenceNumber::of_record(1_700_000_000, 3, offset, ms).to_string();
        assert!(at(7, 9_000_000_000_000) < at(8, 0));
        assert!(at(u64::MAX, 0) <= SequenceNumber::end(1_700_000_000, 3, 1_700_000_000).to_string());
        let child = SequenceNumber::before(1_700_000_001, 0, 0).to_string();
        assert!(SequenceNumber::end(1_700_000_000, 3, 1_800_000_000).to_string() < child);
    }

    #[test]
    fn what_is_no_number_is_refused() {
        let good = "49646437577108476416916876405825929425585429676275269634";
        for text in ["", "0", "1", "x", "-1", &format!("{good}0"), &good.replace("634", "635"), &"9".repeat(57)] {
            assert_eq!(text.parse::<SequenceNumber>(), Err(NotASequenceNumber), "{text}");
        }
    }
}
