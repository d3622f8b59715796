//! How a row becomes JSON text: column order kept, datetimes and non-ASCII text written the way
//! the caller's scripts write them.

use std::fmt::{Display, Write};

use chrono::{DateTime, Datelike, Timelike};
use clap::ValueEnum;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Escape {
    /// Compact JSON, text as UTF-8.
    #[default]
    Utf8,
    /// As Python's `json.dumps` writes it: blanks after `,` and `:`, non-ASCII text as \uXXXX.
    Ascii,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum DatetimeFormat {
    /// 2020-08-28T03:52:47
    #[default]
    Iso,
    /// 2020-08-28 03:52:47
    Space,
    /// 2020:08:28 03:52:47
    Colons,
    /// 20200828035247
    Compact,
    /// 08/28/2020, 03:52:47
    Us,
}

impl DatetimeFormat {
    /// Appends the moment `seconds` after 1970-01-01T00:00:00, which has no zone.
    fn write(self, seconds: i64, out: &mut String) {
        let at = DateTime::from_timestamp(seconds, 0).expect("the tables' datetimes lie between 2015 and 2022");
        let (y, mo, d) = (at.year(), at.month(), at.day());
        let (h, mi, s) = (at.hour(), at.minute(), at.second());
        match self {
            Self::Iso => write!(out, "{y:04}-{mo:02}-{d:02}T{h:02}:{mi:02}:{s:02}"),
            Self::Space => write!(out, "{y:04}-{mo:02}-{d:02} {h:02}:{mi:02}:{s:02}"),
            Self::Colons => write!(out, "{y:04}:{mo:02}:{d:02} {h:02}:{mi:02}:{s:02}"),
            Self::Compact => write!(out, "{y:04}{mo:02}{d:02}{h:02}{mi:02}{s:02}"),
            Self::Us => write!(out, "{mo:02}/{d:02}/{y:04}, {h:02}:{mi:02}:{s:02}"),
        }
        .expect("writing to a String cannot fail");
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Encoding {
    pub escape: Escape,
    pub datetime: DatetimeFormat,
}

impl Encoding {
    /// What stands between two members.
    pub fn comma(self) -> &'static str {
        match self.escape {
            Escape::Utf8 => ",",
            Escape::Ascii => ", ",
        }
    }

    /// What stands between a name and its value.
    pub fn colon(self) -> &'static str {
        match self.escape {
            Escape::Utf8 => ":",
            Escape::Ascii => ": ",
        }
    }

    /// Appends `text` as a JSON string.
    pub fn write_string(self, text: &str, out: &mut String) {
        out.push('"');
        let mut plain_from = 0;
        for (at, c) in text.char_indices() {
            let is_plain = match c {
                '"' | '\\' | '\0'..='\x1f' => false,
                ' '..='~' => true,
                _ => self.escape == Escape::Utf8,
            };
            if is_plain {
                continue;
            }
            out.push_str(&text[plain_from..at]);
            plain_from = at + c.len_utf8();
            push_escaped(c, out);
        }
        out.push_str(&text[plain_from..]);
        out.push('"');
    }
}

fn push_escaped(c: char, out: &mut String) {
    match c {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\x08' => out.push_str("\\b"),
        '\x0c' => out.push_str("\\f"),
        c => {
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}").expect("writing to a String cannot fail");
            }
        }
    }
}

/// Writes one JSON object, member by member.
pub(super) struct ObjectWriter {
    out: String,
    encoding: Encoding,
}

impl ObjectWriter {
    pub(super) fn new(encoding: Encoding, capacity_bytes: usize) -> Self {
        let mut out = String::with_capacity(capacity_bytes);
        out.push('{');
        Self { out, encoding }
    }

    fn name(&mut self, name: &str) {
        if self.out.len() > 1 {
            self.out.push_str(self.encoding.comma());
        }
        self.out.push('"');
        self.out.push_str(name);
        self.out.push('"');
        self.out.push_str(self.encoding.colon());
    }

    pub(super) fn text(&mut self, name: &str, text: &str) -> &mut Self {
        self.name(name);
        self.encoding.write_string(text, &mut self.out);
        self
    }

    pub(super) fn text_or_null(&mut self, name: &str, text: Option<&str>) -> &mut Self {
        match text {
            Some(text) => self.text(name, text),
            None => self.number(name, "null"),
        }
    }

    /// Appends the value as it displays itself.
    pub(super) fn number(&mut self, name: &str, number: impl Display) -> &mut Self {
        self.name(name);
        write!(self.out, "{number}").expect("writing to a String cannot fail");
        self
    }

    /// As Python prints a float: the shortest text that reads back the same, `5.0` for 5.
    pub(super) fn float(&mut self, name: &str, number: f64) -> &mut Self {
        self.number(name, format_args!("{number:?}"))
    }

    pub(super) fn datetime(&mut self, name: &str, seconds: i64) -> &mut Self {
        self.name(name);
        self.out.push('"');
        self.encoding.datetime.write(seconds, &mut self.out);
        self.out.push('"');
        self
    }

    pub(super) fn finish(&mut self) -> String {
        self.out.push('}');
        std::mem::take(&mut self.out)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn strings_are_escaped_as_python_escapes_them() {
        for (text, ascii, utf8) in [
            ("plain", r#""plain""#, r#""plain""#),
            ("a\"b\\c/d", r#""a\"b\\c/d""#, r#""a\"b\\c/d""#),
            ("\n\r\t\u{8}\u{c}\u{1}", r#""\n\r\t\b\f\u0001""#, r#""\n\r\t\b\f\u0001""#),
            ("é…\u{a0}", r#""\u00e9\u2026\u00a0""#, "\"é…\u{a0}\""),
            ("✨🎄", r#""\u2728\ud83c\udf84""#, "\"✨🎄\""),
            ("\u{7f}", r#""\u007f""#, "\"\u{7f}\""),
        ] {
            for (escape, expected) in [(Escape::Ascii, ascii), (Escape::Utf8, utf8)] {
                let mut out = String::new();
                Encoding { escape, ..Encoding::default() }.write_string(text, &mut out);
                assert_eq!(out, expected);
                assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
            }
        }
    }

    #[test]
    fn every_datetime_format_is_what_the_scripts_send() {
        let at = 1_598_586_767;
        for (format, expected) in [
            (DatetimeFormat::Iso, "2020-08-28T03:52:47"),
            (DatetimeFormat::Space, "2020-08-28 03:52:47"),
            (DatetimeFormat::Colons, "2020:08:28 03:52:47"),
            (DatetimeFormat::Compact, "20200828035247"),
            (DatetimeFormat::Us, "08/28/2020, 03:52:47"),
        ] {
            let mut out = String::new();
            format.write(at, &mut out);
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn objects_keep_order_and_separators() {
        let write = |escape| {
            let mut object = ObjectWriter::new(Encoding { escape, ..Encoding::default() }, 64);
            object.number("b", 1).text("a", "x").float("c", 5.0).float("d", -89.9787).text_or_null("e", None);
            object.finish()
        };
        assert_eq!(write(Escape::Utf8), r#"{"b":1,"a":"x","c":5.0,"d":-89.9787,"e":null}"#);
        assert_eq!(write(Escape::Ascii), r#"{"b": 1, "a": "x", "c": 5.0, "d": -89.9787, "e": null}"#);
    }
}
