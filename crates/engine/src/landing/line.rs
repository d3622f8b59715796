//! The canonical line of a record: what stands in a landing object, and what both layers
//! clean, so that a record means the same wherever it is read from. The line is JSON and its
//! own decoding; neither the key, the headers nor the timestamp are in it.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use model::Record;
use serde::de::IgnoredAny;

/// One line, without its end:
/// - a value that is one JSON text stands as it is, byte for byte; if it contains line breaks
///   (they can only be between tokens), it stands without whitespace between tokens;
/// - a tombstone is `null`;
/// - any other bytes are a JSON string with their standard Base64.
pub fn canonical(record: &Record) -> Bytes {
    let Some(value) = &record.value else { return Bytes::from_static(b"null") };
    if !is_json(value) {
        return format!("\"{}\"", STANDARD.encode(value)).into();
    }
    if value.contains(&b'\n') || value.contains(&b'\r') {
        return without_whitespace(value).into();
    }
    value.clone()
}

/// `IgnoredAny` looks at the grammar only, without recursion or allocation. It does not look
/// at UTF-8 inside strings, hence the `str`.
fn is_json(value: &[u8]) -> bool {
    std::str::from_utf8(value).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

/// Valid JSON without the whitespace outside of strings.
fn without_whitespace(json: &[u8]) -> Vec<u8> {
    let mut compact = Vec::with_capacity(json.len());
    let (mut in_string, mut escaped) = (false, false);
    for &byte in json {
        if !in_string && matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            continue;
        }
        compact.push(byte);
        if escaped {
            escaped = false;
        } else if byte == b'\\' {
            escaped = true;
        } else if byte == b'"' {
            in_string = !in_string;
        }
    }
    compact
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn line(value: &[u8]) -> Vec<u8> {
        canonical(&Record::of_value(value.to_vec())).to_vec()
    }

    #[test]
    fn lines_of_values() {
        for (value, expected) in [
            (&br#"{"index":1,"title":"caf\u00e9 \n"}"#[..], &br#"{"index":1,"title":"caf\u00e9 \n"}"#[..]),
            ("{\"a\":\"é😀\u{2028}\"}".as_bytes(), "{\"a\":\"é😀\u{2028}\"}".as_bytes()),
            (br#"  {"a" : 1.50e0 }  "#, br#"  {"a" : 1.50e0 }  "#),
            (b"{\n  \"a\": \"x  y\\\"  \\\\\",\r\n\t\"b\": [1,\n2]\n}\n", br#"{"a":"x  y\"  \\","b":[1,2]}"#),
            (b"12345678901234567890123", b"12345678901234567890123"),
            (b"null", b"null"),
            // Not one JSON text.
            (b"", br#""""#),
            (b"{} {}", br#""e30ge30=""#),
            (b"{\"a\":1", br#""eyJhIjox""#),
            (b"\"a\nb\"", br#""ImEKYiI=""#),
            (b"\"\xff\"", br#""Iv8i""#),
            (b"\xef\xbb\xbf{}", br#""77u/e30=""#),
            (b"\0\0", br#""AAA=""#),
        ] {
            assert_eq!(line(value).escape_ascii().to_string(), expected.escape_ascii().to_string());
        }
        assert_eq!(canonical(&Record::default()), "null");
    }

    #[test]
    fn deep_nesting_neither_recurses_nor_fails() {
        let deep = [b"[".repeat(1_000_000), b"]".repeat(1_000_000)].concat();
        assert_eq!(line(&deep), deep);
    }

    #[test]
    fn json_without_line_breaks_is_not_copied() {
        let record = Record::of_value(&b"{\"a\":1}"[..]);
        assert_eq!(canonical(&record).as_ptr(), record.value.as_ref().unwrap().as_ptr());
    }

    proptest! {
        #[test]
        fn a_line_is_one_line_of_json_and_its_own_canonical_form(value: Vec<u8>) {
            let once = line(&value);
            prop_assert!(!once.contains(&b'\n'));
            prop_assert!(serde_json::from_slice::<serde_json::Value>(&once).is_ok());
            prop_assert_eq!(line(&once), once);
        }

        #[test]
        fn taking_out_whitespace_changes_no_value(keys in proptest::collection::vec("\\PC*", 0..5), n: i64) {
            let value: serde_json::Value = keys.iter().map(|k| (k.clone(), serde_json::json!([k, n, {"x": k}]))).collect();
            let pretty = serde_json::to_vec_pretty(&value).unwrap();
            let compact = line(&pretty);
            prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(&compact).unwrap(), value.clone());
            if pretty.contains(&b'\n') {
                prop_assert_eq!(compact, serde_json::to_vec(&value).unwrap());
            }
        }
    }
}
