//! Python's `random.Random(seed)`: MT19937, seeded and read exactly as CPython does it, so
//! that the emulator picks the rows that the scripts before it picked.
//!
//! Only integer seeds; only the methods those scripts call.

use std::str::FromStr;

use uuid::Uuid;

const N: usize = 624;
const M: usize = 397;

/// A non-negative integer of any size. Python seeds with the absolute value, so the sign of
/// what is parsed does not matter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Seed {
    /// 32 bits each, lowest first; at least one, no leading zeros beyond it.
    words: Vec<u32>,
}

impl From<u64> for Seed {
    fn from(seed: u64) -> Self {
        let (low, high) = (seed as u32, (seed >> 32) as u32);
        Self { words: if high == 0 { vec![low] } else { vec![low, high] } }
    }
}

impl FromStr for Seed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const MAX_DIGITS: usize = 1_000;
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        if digits.is_empty() || digits.len() > MAX_DIGITS || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(format!("a seed is an integer of at most {MAX_DIGITS} digits"));
        }
        let mut words = vec![0];
        for digit in digits.bytes() {
            let mut carry = u64::from(digit - b'0');
            for word in &mut words {
                let value = u64::from(*word) * 10 + carry;
                (*word, carry) = (value as u32, value >> 32);
            }
            if carry > 0 {
                words.push(carry as u32);
            }
        }
        Ok(Self { words })
    }
}

#[derive(Clone)]
pub struct Random {
    state: [u32; N],
    next: usize,
}

impl Random {
    pub fn new(seed: impl Into<Seed>) -> Self {
        let mut random = Self { state: [0; N], next: N };
        random.init_by_array(&seed.into().words);
        random
    }

    fn init_genrand(&mut self, seed: u32) {
        self.state[0] = seed;
        for i in 1..N {
            let before = self.state[i - 1];
            self.state[i] = 1_812_433_253_u32.wrapping_mul(before ^ (before >> 30)).wrapping_add(i as u32);
        }
        self.next = N;
    }

    /// The reference implementation's seeding from a key of any length.
    fn init_by_array(&mut self, key: &[u32]) {
        self.init_genrand(19_650_218);
        let (mut i, mut j) = (1, 0);
        for _ in 0..N.max(key.len()) {
            let before = self.state[i - 1];
            self.state[i] = (self.state[i] ^ (before ^ (before >> 30)).wrapping_mul(1_664_525))
                .wrapping_add(key[j])
                .wrapping_add(j as u32);
            i = self.after(i);
            j = (j + 1) % key.len();
        }
        for _ in 0..N - 1 {
            let before = self.state[i - 1];
            self.state[i] =
                (self.state[i] ^ (before ^ (before >> 30)).wrapping_mul(1_566_083_941)).wrapping_sub(i as u32);
            i = self.after(i);
        }
        self.state[0] = 0x8000_0000;
    }

    /// The next index of the seeding; past the end it carries the last word to the front.
    fn after(&mut self, i: usize) -> usize {
        if i + 1 < N {
            return i + 1;
        }
        self.state[0] = self.state[N - 1];
        1
    }

    fn twist(&mut self) {
        let mixed = |word: u32, next: u32, far: u32| {
            let y = (word & 0x8000_0000) | (next & 0x7fff_ffff);
            let odd = if y & 1 == 1 { 0x9908_b0df } else { 0 };
            far ^ (y >> 1) ^ odd
        };
        let state = &mut self.state;
        for i in 0..N - M {
            state[i] = mixed(state[i], state[i + 1], state[i + M]);
        }
        for i in N - M..N - 1 {
            state[i] = mixed(state[i], state[i + 1], state[i + M - N]);
        }
        state[N - 1] = mixed(state[N - 1], state[0], state[M - 1]);
        self.next = 0;
    }

    /// 32 random bits: `genrand_uint32`.
    pub fn next_u32(&mut self) -> u32 {
        if self.next == N {
            self.twist();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// `getrandbits(k)` for `k` up to 128.
    pub fn getrandbits(&mut self, k: u32) -> u128 {
        assert!(k <= 128, "getrandbits({k}): at most 128 bits");
        let (mut value, mut shift) = (0, 0);
        while shift < k {
            let take = (k - shift).min(32);
            value |= u128::from(self.next_u32() >> (32 - take)) << shift;
            shift += take;
        }
        value
    }

    /// `_randbelow_with_getrandbits(n)`: an integer in `[0, n)`; 0 for `n` = 0.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 {
            return 0;
        }
        let k = u64::BITS - n.leading_zeros();
        loop {
            // The short way for what fits one word gives the same bits.
            let r = if k <= 32 { u64::from(self.next_u32() >> (32 - k)) } else { self.getrandbits(k) as u64 };
            if r < n {
                return r;
            }
        }
    }

    /// `randrange(start, stop)`: an integer in `[start, stop)`.
    pub fn randrange(&mut self, start: u64, stop: u64) -> u64 {
        assert!(start < stop, "randrange({start}, {stop}) is empty");
        start + self.below(stop - start)
    }

    /// `randint(a, b)`: an integer in `[a, b]`.
    pub fn randint(&mut self, a: u64, b: u64) -> u64 {
        self.randrange(a, b + 1)
    }

    /// `random()`: 53 bits in `[0, 1)`.
    pub fn random(&mut self) -> f64 {
        let a = f64::from(self.next_u32() >> 5);
        let b = f64::from(self.next_u32() >> 6);
        (a * 67_108_864.0 + b) / 9_007_199_254_740_992.0
    }

    /// `uniform(a, b)`.
    pub fn uniform(&mut self, a: f64, b: f64) -> f64 {
        a + (b - a) * self.random()
    }

    /// `uuid.UUID(int=getrandbits(128), version=4)`.
    pub fn uuid4(&mut self) -> Uuid {
        uuid::Builder::from_random_bytes(self.getrandbits(128).to_be_bytes()).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_reference_implementation_agrees() {
        // mt19937ar.out: init_by_array({0x123, 0x234, 0x345, 0x456}).
        let mut random = Random { state: [0; N], next: N };
        random.init_by_array(&[0x123, 0x234, 0x345, 0x456]);
        let first: Vec<u32> = (0..5).map(|_| random.next_u32()).collect();
        assert_eq!(first, [1_067_595_299, 955_945_823, 477_289_528, 4_107_218_783, 4_228_976_476]);
    }

    #[test]
    fn seeds_of_any_size_and_sign_give_what_python_gives() {
        for (seed, expected) in [
            ("100", [625_644_691, 1_973_661_107, 1_953_896_601, 4_087_596_401]),
            ("-100", [625_644_691, 1_973_661_107, 1_953_896_601, 4_087_596_401]),
            ("0", [3_626_764_237, 1_654_615_998, 3_255_389_356, 3_823_568_514]),
            ("1", [577_090_037, 2_444_712_010, 3_639_700_191, 3_445_702_192]),
            ("4294967296", [485_306_839, 1_508_871_100, 1_794_561_286, 4_014_597_330]),
            ("4294967295", [2_728_839_433, 2_661_025_012, 872_737_089, 924_893_097]),
            ("18446744073709551623", [4_134_331_577, 364_536_972, 1_405_532_956, 207_176_672]),
            (&format!("1{}1", "0".repeat(299)), [2_795_659_431, 1_576_726_456, 35_405_296, 2_297_443_242]),
        ] {
            let mut random = Random::new(seed.parse::<Seed>().unwrap());
            assert_eq!(expected, std::array::from_fn(|_| random.next_u32()), "{seed}");
        }
        assert_eq!("18446744073709551615".parse::<Seed>().unwrap(), Seed::from(u64::MAX));
        for text in ["", "-", "1.5", "0x10", "1e3", &"9".repeat(1_001)] {
            assert!(text.parse::<Seed>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn every_method_gives_what_python_gives() {
        let mut random = Random::new(2024);
        assert_eq!(random.random(), 0.47009071843107064);
        assert_eq!(random.uniform(0.0, 2.0), 1.4565285828464152);
        assert_eq!(random.randrange(0, 2), 1);
        assert_eq!(random.randint(0, 11_000), 3280);
        assert_eq!(random.randint(5, 5), 5);
        assert_eq!(random.randrange(0, 1_000_000_000_000), 789_231_237_825);
        assert_eq!(random.getrandbits(1), 1);
        assert_eq!(random.getrandbits(70), 286_536_604_878_540_998_724);
        assert_eq!(random.uuid4().to_string(), "7f90ade7-bc38-4756-9005-5979a2da95a8");
        assert_eq!(random.next_u32(), 1_521_158_711);
    }
}
