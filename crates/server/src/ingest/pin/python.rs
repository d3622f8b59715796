//! What Pydantic 1 makes of JSON values in fields of type `str` and `int`, and how Python writes
//! the result.

use std::{borrow::Cow, fmt, fmt::Write};

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Value, json, value::RawValue};

use crate::ingest::json::shortened;

/// A value as Python holds it: text, or the digits of a whole number.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Coerced<'a> {
    Text(Cow<'a, str>),
    Integer(Cow<'a, str>),
}

/// What is wrong, and its type in FastAPI's words.
type Fault = (&'static str, &'static str);

const IS_NONE: Fault = ("none is not an allowed value", "type_error.none.not_allowed");
const NO_TEXT: Fault = ("str type expected", "type_error.str");
const NO_INTEGER: Fault = ("value is not a valid integer", "type_error.integer");

/// How a JSON object is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// `json.dumps`: ASCII alone, blanks behind commas and colons.
    Dumps,
    /// What FastAPI answers.
    Compact,
}

/// The values of an object's fields by these names, the last of a name counting. `raw` is an object.
pub(super) fn fields<'a, const N: usize>(raw: &'a RawValue, names: [&str; N]) -> [Option<&'a RawValue>; N] {
    let fields = Fields { names, values: [None; N] };
    serde_json::Deserializer::from_str(raw.get()).deserialize_map(fields).unwrap_or([None; N])
}

/// What nobody asks for is passed over, so that an object of many fields takes no room.
struct Fields<'n, 'a, const N: usize> {
    names: [&'n str; N],
    values: [Option<&'a RawValue>; N],
}

/// Borrowed where it holds no escape.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a, const N: usize> Visitor<'a> for Fields<'_, 'a, N> {
    type Value = [Option<&'a RawValue>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(mut self, mut map: A) -> Result<Self::Value, A::Error> {
        while let Some(Name(name)) = map.next_key()? {
            match self.names.iter().position(|known| name == *known) {
                Some(i) => self.values[i] = Some(map.next_value()?),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(self.values)
    }
}

pub(super) fn text(raw: &RawValue) -> Result<Coerced<'_>, Fault> {
    let json = raw.get();
    let text: Cow<'_, str> = match json.as_bytes()[0] {
        b'"' if !json.contains('\\') => json[1..json.len() - 1].into(),
        b'"' => serde_json::from_str::<String>(json).map_err(|_| NO_TEXT)?.into(),
        b't' => "True".into(),
        b'f' => "False".into(),
        b'n' => return Err(IS_NONE),
        b'{' | b'[' => return Err(NO_TEXT),
        _ if is_whole(json) => whole(json).into(),
        _ => float(json).into(),
    };
    Ok(Coerced::Text(text))
}

pub(super) fn integer(raw: &RawValue) -> Result<Coerced<'_>, Fault> {
    let json = raw.get();
    let digits = match json.as_bytes()[0] {
        b'"' => {
            let text: String = serde_json::from_str(json).map_err(|_| NO_INTEGER)?;
            of_text(&text).ok_or(NO_INTEGER)?.into()
        }
        b't' => "1".into(),
        b'f' => "0".into(),
        b'n' => return Err(IS_NONE),
        b'{' | b'[' => return Err(NO_INTEGER),
        _ if is_whole(json) => whole(json).into(),
        // Towards zero, and exactly, however large.
        _ => {
            let value: f64 = json.parse().map_err(|_| NO_INTEGER)?;
            let digits = format!("{:.0}", value.trunc());
            if !value.is_finite() {
                return Err(NO_INTEGER);
            }
            (if digits == "-0" { "0".to_owned() } else { digits }).into()
        }
    };
    Ok(Coerced::Integer(digits))
}

/// What Python's parser says of text that is no JSON, and where.
pub(super) fn not_json(error: &serde_json::Error, text: &str) -> Value {
    let said = error.to_string();
    let says = |words: &[&str]| words.iter().any(|word| said.starts_with(word));
    let before_line: usize = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    let end = if error.is_eof() { text.len() } else { before_line + error.column() };
    let last = end.saturating_sub(1);
    let is_within_object = text.trim_end().ends_with([',', '{']);
    let (message, at) = if says(&["trailing characters"]) {
        ("Extra data", last)
    } else if says(&["key must be a string"]) {
        ("Expecting property name enclosed in double quotes", last)
    } else if says(&["EOF while parsing an object"]) && is_within_object {
        ("Expecting property name enclosed in double quotes", end)
    } else if says(&["expected `:`"]) {
        ("Expecting ':' delimiter", last)
    } else if says(&["EOF while parsing an object", "EOF while parsing a list"]) {
        ("Expecting ',' delimiter", end)
    } else if says(&["expected `,`"]) {
        ("Expecting ',' delimiter", last)
    } else if says(&["EOF while parsing a string"]) {
        ("Unterminated string starting at", text.rfind('"').unwrap_or(end))
    } else if says(&["control character"]) {
        ("Invalid control character at", end)
    } else if says(&["invalid escape"]) {
        ("Invalid \\escape", last.saturating_sub(1))
    } else if error.is_eof() {
        ("Expecting value", text.trim_end_matches(char::is_alphabetic).len())
    } else {
        ("Expecting value", last)
    };
    let before = String::from_utf8_lossy(&text.as_bytes()[..at.min(text.len())]);
    let pos = before.chars().count();
    let lineno = before.matches('\n').count() + 1;
    let colno = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    json!({
        "loc": ["body", pos],
        "msg": format!("{message}: line {lineno} column {colno} (char {pos})"),
        "type": "value_error.jsondecode",
        "ctx": {"msg": message, "doc": shortened(text), "pos": pos, "lineno": lineno, "colno": colno},
    })
}

fn is_whole(json: &str) -> bool {
    json.bytes().all(|b| matches!(b, b'-' | b'0'..=b'9'))
}

fn whole(json: &str) -> &str {
    if json == "-0" { "0" } else { json }
}

/// What `int` reads: blanks around, a sign, underscores between digits, zeros in front.
fn of_text(text: &str) -> Option<String> {
    let text = text.trim();
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => ("-", &text[1..]),
        b'+' => ("", &text[1..]),
        _ => ("", text),
    };
    let groups_are_digits =
        digits.split('_').all(|group| !group.is_empty() && group.bytes().all(|b| b.is_ascii_digit()));
    if !groups_are_digits {
        return None;
    }
    let digits = digits.replace('_', "");
    match digits.trim_start_matches('0') {
        "" => Some("0".to_owned()),
        digits => Some(format!("{sign}{digits}")),
    }
}

/// As `repr` writes it: the shortest digits, an exponent of two digits at least.
fn float(json: &str) -> String {
    let value: f64 = json.parse().unwrap_or(f64::NAN);
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let text = format!("{value:?}");
    let Some((digits, exponent)) = text.split_once('e') else { return text };
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    format!("{digits}e{sign}{exponent:0>2}")
}

pub(super) fn object(fields: &[(&'static str, Coerced<'_>)], style: Style) -> String {
    let (comma, colon) = if style == Style::Dumps { (", ", ": ") } else { (",", ":") };
    let n_bytes = |(name, value): &(&str, Coerced<'_>)| match value {
        Coerced::Text(text) | Coerced::Integer(text) => name.len() + text.len() + 8,
    };
    let mut out = String::with_capacity(2 + fields.iter().map(n_bytes).sum::<usize>());
    out.push('{');
    for (i, (name, value)) in fields.iter().enumerate() {
        if i > 0 {
            out.push_str(comma);
        }
        string(&mut out, name, style);
        out.push_str(colon);
        match value {
            Coerced::Text(text) => string(&mut out, text, style),
            Coerced::Integer(digits) => out.push_str(digits),
        }
    }
    out.push('}');
    out
}

fn string(out: &mut String, text: &str, style: Style) {
    let json = serde_json::to_string(text).expect("text is JSON in quotes");
    let is_plain = |c: char| (' '..='~').contains(&c);
    if style == Style::Compact || json.chars().all(is_plain) {
        return out.push_str(&json);
    }
    for c in json.chars() {
        if is_plain(c) {
            out.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            write!(out, "\\u{unit:04x}").expect("writing to a string cannot fail");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn raw(json: &str) -> &RawValue {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn the_last_field_of_a_name_counts_however_it_is_written() {
        let get = |json: &'static str| fields(raw(json), ["a", "b", "c"]).map(|value| value.map(RawValue::get));
        assert_eq!(get(r#"{"a":1,"x":[{}],"\u0061":[2],"b":3}"#), [Some("[2]"), Some("3"), None]);
        assert_eq!(get("[]"), [None; 3]);
    }

    #[test]
    fn text_is_what_pydantic_makes_of_it() {
        for (json, expected) in [
            (r#""124k""#, Ok("124k")),
            ("124", Ok("124")),
            ("-0", Ok("0")),
            ("123456789012345678901234567890", Ok("123456789012345678901234567890")),
            ("1.50", Ok("1.5")),
            ("1e3", Ok("1000.0")),
            ("1e16", Ok("1e+16")),
            ("1e-5", Ok("1e-05")),
            ("12345678901234567.0", Ok("1.2345678901234568e+16")),
            ("true", Ok("True")),
            ("false", Ok("False")),
            ("null", Err(IS_NONE)),
            ("[]", Err(NO_TEXT)),
            (r#"{"a":1}"#, Err(NO_TEXT)),
        ] {
            assert_eq!(text(raw(json)), expected.map(|t| Coerced::Text(t.into())), "{json}");
        }
    }

    #[test]
    fn whole_numbers_are_what_pydantic_makes_of_them() {
        for (json, expected) in [
            ("7528", Ok("7528")),
            ("-1", Ok("-1")),
            ("1.9", Ok("1")),
            ("-1.9", Ok("-1")),
            ("-0.5", Ok("0")),
            ("1e20", Ok("100000000000000000000")),
            (r#"" +012 ""#, Ok("12")),
            (r#""1_000""#, Ok("1000")),
            (r#""1.5""#, Err(NO_INTEGER)),
            (r#""""#, Err(NO_INTEGER)),
            (r#""_1""#, Err(NO_INTEGER)),
            ("true", Ok("1")),
            ("null", Err(IS_NONE)),
            ("[1]", Err(NO_INTEGER)),
        ] {
            assert_eq!(integer(raw(json)), expected.map(|digits| Coerced::Integer(digits.into())), "{json}");
        }
    }

    #[test]
    fn objects_are_written_as_python_writes_them() {
        let pin = [("a", Coerced::Text("é \"\\\n\u{1}😀/\u{7f}".into())), ("b", Coerced::Integer("5".into()))];
        assert_eq!(object(&pin, Style::Dumps), r#"{"a": "\u00e9 \"\\\n\u0001\ud83d\ude00/\u007f", "b": 5}"#);
        assert_eq!(object(&pin, Style::Compact), "{\"a\":\"é \\\"\\\\\\n\\u0001😀/\u{7f}\",\"b\":5}");
    }
}
