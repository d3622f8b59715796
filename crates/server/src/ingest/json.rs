//! From the text of a JSON value, as a producer sent it, to the bytes that the log keeps: what
//! Jackson would write for the same value, without parsing it into a tree.
//!
//! Relies on its input being one valid JSON value, as `serde_json::value::RawValue` checks.
//! Numbers keep their text and objects the order of their keys, duplicates included.

use std::{borrow::Cow, fmt, marker::PhantomData};

use bytes::{Bytes, BytesMut};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Unexpected, Visitor, value::MapAccessDeserializer},
};

/// Longer texts are cut when an error repeats them.
const MAX_ECHO_CHARS: usize = 200;

/// A value is nested deeper than `limit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooDeep {
    pub(super) limit: usize,
}

impl fmt::Display for TooDeep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "is nested deeper than {} levels (ingest.max_json_depth)", self.limit)
    }
}

/// Compacts the values of one request. What has to be rewritten goes to one buffer that they
/// share; what is compact already stays a slice of the body.
pub(super) struct Compactor<'a> {
    body: &'a Bytes,
    max_depth: usize,
    rewritten: BytesMut,
}

impl<'a> Compactor<'a> {
    pub(super) fn new(body: &'a Bytes, max_depth: usize) -> Self {
        Self { body, max_depth, rewritten: BytesMut::new() }
    }

    /// What a string says, None of anything else; `raw` must be a part of the body and one valid JSON value.
    pub(super) fn text(&self, raw: &str) -> Option<Bytes> {
        if !raw.starts_with('"') {
            return None;
        }
        let Text(text) = serde_json::from_str(raw).ok()?;
        Some(match text {
            Cow::Borrowed(text) => self.body.slice_ref(text.as_bytes()),
            Cow::Owned(text) => text.into(),
        })
    }

    /// Of `raw` the same is asked.
    pub(super) fn compact(&mut self, raw: &str) -> Result<Bytes, TooDeep> {
        // A value never grows, so the rest of the body is room enough for all that follow.
        let room = self.body.len() - (raw.as_ptr() as usize - self.body.as_ptr() as usize);
        let rewrite = Rewrite { raw: raw.as_bytes(), room, kept: 0, out: &mut self.rewritten };
        match rewrite.run(self.max_depth) {
            Ok(true) => Ok(self.rewritten.split().freeze()),
            Ok(false) => Ok(self.body.slice_ref(raw.as_bytes())),
            Err(too_deep) => {
                self.rewritten.clear();
                Err(too_deep)
            }
        }
    }
}

/// A struct that is read of an object alone: serde's derived code would also take an array for one, with
/// the fields in the order in which they are declared.
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(Fields(PhantomData))
    }
}

/// A string, borrowed unless it is written with escapes.
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

/// A whole number as JSON has it, and as Jackson takes it: `3`, and `3.0` too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Whole(pub(super) i64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// Of numbers with a point the parser may miss the last bits; up to here they are after the point.
        const MAX_EXACT: f64 = 1_125_899_906_842_624.0;
        struct Number;

        impl Visitor<'_> for Number {
            type Value = Whole;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("i64")
            }

            fn visit_i64<E: serde::de::Error>(self, n: i64) -> Result<Whole, E> {
                Ok(Whole(n))
            }

            fn visit_u64<E: serde::de::Error>(self, n: u64) -> Result<Whole, E> {
                i64::try_from(n).map(Whole).map_err(|_| E::invalid_value(Unexpected::Unsigned(n), &self))
            }

            fn visit_f64<E: serde::de::Error>(self, n: f64) -> Result<Whole, E> {
                let whole = n.round();
                let is_whole = (n - whole).abs() <= n.abs() * 2.0 * f64::EPSILON && n.abs() <= MAX_EXACT;
                if is_whole { Ok(Whole(whole as i64)) } else { Err(E::invalid_type(Unexpected::Float(n), &self)) }
            }
        }
        deserializer.deserialize_i64(Number)
    }
}

/// Text of a request as an error repeats it.
pub(super) fn shortened(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(MAX_ECHO_CHARS) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

/// One value compacted by itself.
#[cfg(test)]
fn compact(raw: &str, max_depth: usize) -> Result<Bytes, TooDeep> {
    let body = Bytes::copy_from_slice(raw.as_bytes());
    let whole = std::str::from_utf8(&body).expect("copied from a str");
    Compactor::new(&body, max_depth).compact(whole)
}

/// One pass over one value. `raw[..kept]` is in `out` or was dropped.
struct Rewrite<'a> {
    raw: &'a [u8],
    room: usize,
    kept: usize,
    out: &'a mut BytesMut,
}

impl Rewrite<'_> {
    /// Whether the value had to be rewritten; if not, nothing was added to `out`.
    fn run(mut self, max_depth: usize) -> Result<bool, TooDeep> {
        let mut depth = 0;
        let mut at = 0;
        while at < self.raw.len() {
            match self.raw[at] {
                b'"' => at = self.string(at + 1),
                b' ' | b'\n' | b'\r' | b'\t' => {
                    self.replace(at, at + 1, b"");
                    at += 1;
                }
                b'{' | b'[' => {
                    depth += 1;
                    if depth > max_depth {
                        return Err(TooDeep { limit: max_depth });
                    }
                    at += 1;
                }
                b'}' | b']' => {
                    depth -= 1;
                    at += 1;
                }
                _ => at += 1,
            }
        }
        if self.kept == 0 {
            return Ok(false);
        }
        self.out.extend_from_slice(&self.raw[self.kept..]);
        Ok(true)
    }

    /// Goes over the string whose content begins at `at`; returns the place after its quote.
    fn string(&mut self, mut at: usize) -> usize {
        loop {
            at += plain_len(&self.raw[at..]);
            match self.raw[at] {
                b'"' => return at + 1,
                b'\\' => {
                    let (len, plain) = unescape(&self.raw[at..]);
                    if let Some(plain) = plain {
                        self.replace(at, at + len, plain.as_bytes());
                    }
                    at += len;
                }
                _ => at += 1,
            }
        }
    }

    /// Puts `by` in the place of `raw[start..end]`.
    fn replace(&mut self, start: usize, end: usize, by: &[u8]) {
        if self.kept == 0 {
            self.out.reserve(self.room);
        }
        self.out.extend_from_slice(&self.raw[self.kept..start]);
        self.out.extend_from_slice(by);
        self.kept = end;
    }
}

/// How many bytes at least come before the next quote or backslash: most of a record is text,
/// and eight bytes at a time make this pass a third shorter.
pub(super) fn plain_len(text: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGH_BITS: u64 = ONES << 7;
    // The high bit of the first byte that equals `byte`; those of later bytes mean nothing.
    let find = |word: u64, byte: u8| {
        let zero_where_equal = word ^ (ONES * u64::from(byte));
        zero_where_equal.wrapping_sub(ONES) & !zero_where_equal & HIGH_BITS
    };
    let (words, _) = text.as_chunks::<8>();
    for (i, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let found = find(word, b'"') | find(word, b'\\');
        if found != 0 {
            return 8 * i + found.trailing_zeros() as usize / 8;
        }
    }
    8 * words.len()
}

/// What an escape becomes: its length, and what stands for it unless it stays as it is.
fn unescape(escape: &[u8]) -> (usize, Option<Plain>) {
    match escape[1] {
        b'/' => (2, Some(Plain::of(b"/"))),
        b'u' => unescape_unit(escape),
        _ => (2, None),
    }
}

fn unescape_unit(escape: &[u8]) -> (usize, Option<Plain>) {
    let first = unit(&escape[2..]);
    if let Some(c) = char::from_u32(first) {
        return (6, plain(c, &escape[..6]));
    }
    // A surrogate: with its other half a character, alone nothing that UTF-8 could say.
    let second = match escape.get(6..12) {
        Some(next) if next.starts_with(b"\\u") => unit(&next[2..]),
        _ => return (6, None),
    };
    match char::decode_utf16([first as u16, second as u16]).next() {
        Some(Ok(c)) => (12, plain(c, &escape[..12])),
        _ => (6, None),
    }
}

/// The four hexadecimal digits of `\uXXXX`.
fn unit(digits: &[u8]) -> u32 {
    digits[..4].iter().fold(0, |unit, digit| {
        let value = char::from(*digit).to_digit(16).expect("the parser has checked the digits of escapes");
        unit * 16 + value
    })
}

/// The shortest way to write a character in a JSON string; None where it was written so.
fn plain(c: char, written: &[u8]) -> Option<Plain> {
    let plain = match c {
        '"' => Plain::of(b"\\\""),
        '\\' => Plain::of(b"\\\\"),
        '\u{8}' => Plain::of(b"\\b"),
        '\t' => Plain::of(b"\\t"),
        '\n' => Plain::of(b"\\n"),
        '\u{c}' => Plain::of(b"\\f"),
        '\r' => Plain::of(b"\\r"),
        '\0'..'\u{20}' => Plain::control(c),
        c => Plain::of(c.encode_utf8(&mut [0; 4]).as_bytes()),
    };
    (plain.as_bytes() != written).then_some(plain)
}

/// A few bytes that stand for an escape.
struct Plain {
    bytes: [u8; 6],
    len: usize,
}

impl Plain {
    fn of(text: &[u8]) -> Self {
        let mut bytes = [0; 6];
        bytes[..text.len()].copy_from_slice(text);
        Self { bytes, len: text.len() }
    }

    /// With upper-case digits, as Jackson writes them.
    fn control(c: char) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
        let code = c as usize;
        Self::of(&[b'\\', b'u', b'0', b'0', DIGITS[code >> 4], DIGITS[code & 15]])
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn whole_numbers_may_have_a_point_as_far_as_they_are_exact() {
        for (text, read) in [
            ("0", Some(0)),
            ("-7", Some(-7)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("3.0", Some(3)),
            ("-0.0", Some(0)),
            ("1e3", Some(1000)),
            ("1125899906842623.0", Some(1_125_899_906_842_623)),
            ("2251799813685249.0", None),
            ("0.5", None),
            ("7.000001", None),
            ("1e300", None),
            ("\"3\"", None),
            ("null", None),
        ] {
            assert_eq!(serde_json::from_str(text).ok().map(|Whole(n)| n), read, "{text}");
        }
    }

    #[test]
    fn a_string_says_what_stands_in_it_and_is_copied_only_for_its_escapes() {
        for (sent, text, is_copied) in [
            ("\"é b\"", Some("é b"), false),
            ("\"\"", Some(""), false),
            (r#""a\/\u0041\n""#, Some("a/A\n"), true),
            (r#""\ud800""#, None, false),
            ("1", None, false),
            ("{\"a\":\"b\"}", None, false),
        ] {
            let body = Bytes::from(sent);
            let read = Compactor::new(&body, 8).text(sent);
            assert_eq!(read.as_deref(), text.map(str::as_bytes), "{sent}");
            let is_slice = |text: &Bytes| text.is_empty() || body.as_ptr_range().contains(&text.as_ptr());
            assert_eq!(read.is_some_and(|text| !is_slice(&text)), is_copied, "{sent}");
        }
    }

    #[test]
    fn values_are_stored_as_jackson_would_write_them() {
        for (sent, stored) in [
            (r#"{"a":1}"#, r#"{"a":1}"#),
            ("{ \"b\" : [ 1 , 2.50 ] ,\n\t\"a\": \"x y\"}\r\n", r#"{"b":[1,2.50],"a":"x y"}"#),
            (r#"{"a":1,"a":2}"#, r#"{"a":1,"a":2}"#),
            ("1E400", "1E400"),
            (" null ", "null"),
            (r#""\u00e9t\u00E9""#, "\"été\""),
            (r#""\ud83d\ude00!""#, "\"😀!\""),
            (r#""a\/b""#, r#""a/b""#),
            (r#""\u0041\u007f""#, "\"A\u{7f}\""),
            (r#""\u0022\u005c\u005C""#, r#""\"\\\\""#),
            (r#""\u0008\u0009\u000a\u000c\u000d""#, r#""\b\t\n\f\r""#),
            (r#""\b\t\n\f\r\"\\""#, r#""\b\t\n\f\r\"\\""#),
            (r#""\u0000\u001f\u001F""#, r#""\u0000\u001F\u001F""#),
            (r#""\ud83d""#, r#""\ud83d""#),
            (r#""\ude00\ud83d""#, r#""\ude00\ud83d""#),
            (r#""\ud83dxxxxxx""#, r#""\ud83dxxxxxx""#),
            (r#""\ud83d\u0041""#, r#""\ud83dA""#),
            (r#""\ud83d\ud83d\ude00""#, "\"\\ud83d😀\""),
            (r#""\ud83d\u005cude00""#, r#""\ud83d\\ude00""#),
            (r#""\\u00e9""#, r#""\\u00e9""#),
            (r#"{"\u00e9 \"": "{ } \\"}"#, "{\"é \\\"\":\"{ } \\\\\"}"),
        ] {
            assert_eq!(compact(sent, 64).unwrap(), stored, "{sent}");
            assert_eq!(compact(stored, 64).unwrap(), stored, "{sent}, again");
        }
    }

    #[test]
    fn what_is_compact_stays_a_slice_of_the_body() {
        let body = Bytes::from_static(br#"[{"a":"\n"},{"b": 1}]"#);
        let text = std::str::from_utf8(&body).unwrap();
        let mut compactor = Compactor::new(&body, 64);
        let first = compactor.compact(&text[1..11]).unwrap();
        assert_eq!(first.as_ptr(), text[1..].as_ptr());
        let second = compactor.compact(&text[12..20]).unwrap();
        assert_eq!((first, second), (Bytes::from_static(br#"{"a":"\n"}"#), Bytes::from_static(br#"{"b":1}"#)));
    }

    #[test]
    fn depth_is_counted_in_containers() {
        for (text, depth) in [("1", 0), ("{}", 1), (r#"[[],[{"a":"[[["}]]"#, 3)] {
            assert!(compact(text, depth).is_ok(), "{text}");
            if depth > 0 {
                assert_eq!(compact(text, depth - 1), Err(TooDeep { limit: depth - 1 }), "{text}");
            }
        }
    }

    /// JSON values and the texts that producers write for them: spaced, escaped or neither.
    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_filter("JSON has no NaN", |f| f.is_finite()).prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            "[ \"\\\\/\u{0}-\u{1f}éß€😀a]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec((any::<String>(), inner), 0..5)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    fn written(value: &Value, spaced: bool, escaped: bool) -> String {
        let text = if spaced { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) }.unwrap();
        if !escaped {
            return text;
        }
        let mut units = [0; 2];
        text.chars()
            .flat_map(|c| match c {
                c if c.is_ascii() => vec![c.to_string()],
                c => c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
            })
            .collect()
    }

    fn space_outside_strings(text: &[u8]) -> bool {
        let (mut in_string, mut escaped) = (false, false);
        text.iter().any(|byte| {
            let here = !in_string && byte.is_ascii_whitespace();
            if *byte == b'"' && !escaped {
                in_string = !in_string;
            }
            escaped = in_string && *byte == b'\\' && !escaped;
            here
        })
    }

    proptest! {
        #[test]
        fn compacting_keeps_the_value_and_is_done_once(value in value(), spaced: bool, escaped: bool) {
            let sent = written(&value, spaced, escaped);
            let meant: Value = serde_json::from_str(&sent).unwrap();
            let stored = compact(&sent, 64).unwrap();
            prop_assert_eq!(serde_json::from_slice::<Value>(&stored).unwrap(), meant);
            prop_assert!(!space_outside_strings(&stored));
            prop_assert!(stored.len() <= sent.len());
            let text = std::str::from_utf8(&stored).unwrap();
            prop_assert_eq!(&compact(text, 64).unwrap(), &stored);
        }
    }
}
