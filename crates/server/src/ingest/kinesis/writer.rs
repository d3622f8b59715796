//! Answers in JSON or CBOR, written straight into one buffer. Both have the same members; they
//! differ in times (decimal seconds, tagged milliseconds) and blobs (base64, bytes).

use std::io::Write;

use base64::{Engine, prelude::BASE64_STANDARD};
use http::HeaderValue;

use super::cbor::write_header;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Cbor,
}

impl Format {
    pub(super) fn media_type(self) -> HeaderValue {
        HeaderValue::from_static(self.media_type_text())
    }

    pub(super) fn media_type_text(self) -> &'static str {
        match self {
            Self::Json => "application/x-amz-json-1.1",
            Self::Cbor => "application/x-amz-cbor-1.1",
        }
    }
}

pub(super) struct Writer {
    format: Format,
    out: Vec<u8>,
    /// In JSON: whether a comma stands before the next member or item.
    follows: bool,
}

/// One map, whose members `write` adds.
pub(super) fn written(format: Format, write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    written_in(format, 256, write)
}

/// The same, in a buffer of about the right size from the start.
pub(super) fn written_in(format: Format, capacity: usize, write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer { format, out: Vec::with_capacity(capacity), follows: false };
    writer.braced(write);
    writer.out
}

impl Writer {
    pub(super) fn text(&mut self, name: &str, text: &str) {
        self.name(name);
        self.put_text(text);
    }

    /// What is shown becomes a text; it must not need escapes.
    pub(super) fn shown(&mut self, name: &str, shown: impl std::fmt::Display) {
        self.name(name);
        match self.format {
            Format::Json => write!(self.out, "\"{shown}\"").expect("writing to a buffer cannot fail"),
            Format::Cbor => self.put_text(&shown.to_string()),
        }
    }

    pub(super) fn integer(&mut self, name: &str, n: i64) {
        self.name(name);
        self.put_integer(n);
    }

    pub(super) fn count(&mut self, name: &str, n: usize) {
        self.integer(name, i64::try_from(n).unwrap_or(i64::MAX));
    }

    pub(super) fn boolean(&mut self, name: &str, value: bool) {
        self.name(name);
        match self.format {
            Format::Json => self.out.extend_from_slice(if value { b"true" } else { b"false" }),
            Format::Cbor => self.out.push(0xf4 | u8::from(value)),
        }
    }

    /// Milliseconds since 1970.
    pub(super) fn time(&mut self, name: &str, ms: i64) {
        self.name(name);
        match self.format {
            Format::Json => {
                let sign = if ms < 0 { "-" } else { "" };
                let ms = ms.unsigned_abs();
                write!(self.out, "{sign}{}.{:03}", ms / 1000, ms % 1000).expect("writing to a buffer cannot fail");
            }
            Format::Cbor => {
                self.out.push(0xc1);
                self.put_integer(ms);
            }
        }
    }

    pub(super) fn blob(&mut self, name: &str, bytes: &[u8]) {
        self.name(name);
        match self.format {
            Format::Json => {
                self.out.push(b'"');
                let start = self.out.len();
                self.out.resize(start + bytes.len().div_ceil(3) * 4, 0);
                BASE64_STANDARD.encode_slice(bytes, &mut self.out[start..]).expect("there is just enough room");
                self.out.push(b'"');
            }
            Format::Cbor => {
                write_header(&mut self.out, 2, bytes.len() as u64);
                self.out.extend_from_slice(bytes);
            }
        }
    }

    pub(super) fn map(&mut self, name: &str, write: impl FnOnce(&mut Self)) {
        self.name(name);
        self.braced(write);
        self.follows = true;
    }

    /// A list of maps.
    pub(super) fn maps<T>(
        &mut self,
        name: &str,
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Self, T),
    ) {
        self.bracketed(name, |writer| {
            for item in items {
                writer.item();
                writer.braced(|writer| write(writer, item));
                writer.follows = true;
            }
        });
    }

    pub(super) fn texts(&mut self, name: &str, items: impl IntoIterator<Item = impl AsRef<str>>) {
        self.bracketed(name, |writer| {
            for item in items {
                writer.item();
                writer.put_text(item.as_ref());
                writer.follows = true;
            }
        });
    }

    fn braced(&mut self, write: impl FnOnce(&mut Self)) {
        self.between([b'{', 0xbf], [b'}', 0xff], write);
    }

    fn bracketed(&mut self, name: &str, write: impl FnOnce(&mut Self)) {
        self.name(name);
        self.between([b'[', 0x9f], [b']', 0xff], write);
        self.follows = true;
    }

    /// CBOR's lengths are left open, so that nothing has to be counted before it is written.
    fn between(&mut self, open: [u8; 2], close: [u8; 2], write: impl FnOnce(&mut Self)) {
        let place = usize::from(self.format == Format::Cbor);
        self.out.push(open[place]);
        self.follows = false;
        write(self);
        self.out.push(close[place]);
    }

    fn item(&mut self) {
        if self.follows && self.format == Format::Json {
            self.out.push(b',');
        }
    }

    /// Names are ours and need no escapes.
    fn name(&mut self, name: &str) {
        self.item();
        self.follows = true;
        match self.format {
            Format::Json => {
                self.out.push(b'"');
                self.out.extend_from_slice(name.as_bytes());
                self.out.extend_from_slice(b"\":");
            }
            Format::Cbor => self.put_text(name),
        }
    }

    fn put_text(&mut self, text: &str) {
        match self.format {
            Format::Json => serde_json::to_writer(&mut self.out, text).expect("a text is JSON, and a buffer takes it"),
            Format::Cbor => {
                write_header(&mut self.out, 3, text.len() as u64);
                self.out.extend_from_slice(text.as_bytes());
            }
        }
    }

    fn put_integer(&mut self, n: i64) {
        match self.format {
            Format::Json => write!(self.out, "{n}").expect("writing to a buffer cannot fail"),
            Format::Cbor if n < 0 => write_header(&mut self.out, 1, !n as u64),
            Format::Cbor => write_header(&mut self.out, 0, n as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::ingest::kinesis::value::Value;

    fn sample(writer: &mut Writer) {
        writer.text("t", "a\"é");
        writer.time("at", 1_700_000_000_123);
        writer.blob("b", b"hello");
        writer.maps("l", [1, 2], |writer, n| writer.integer("n", n - 2));
        writer.texts("s", ["x", "y"]);
        writer.map("m", |writer| writer.boolean("yes", true));
        writer.shown("n", 12);
    }

    #[test]
    fn json_has_decimal_seconds_and_base64() {
        let expected = "{\"t\":\"a\\\"é\",\"at\":1700000000.123,\"b\":\"aGVsbG8=\",\"l\":[{\"n\":-1},{\"n\":0}],\
             \"s\":[\"x\",\"y\"],\"m\":{\"yes\":true},\"n\":\"12\"}";
        assert_eq!(String::from_utf8(written(Format::Json, sample)).unwrap(), expected);
        assert_eq!(written(Format::Json, |_| {}), b"{}");
    }

    #[test]
    fn cbor_has_tagged_milliseconds_and_bytes() {
        let bytes = written(Format::Cbor, |writer| writer.time("at", 1_700_000_000_123));
        assert_eq!(bytes, b"\xbf\x62at\xc1\x1b\x00\x00\x01\x8b\xcf\xe5\x68\x7b\xff");
        let bytes = written(Format::Cbor, |writer| writer.blob("b", b"hello"));
        assert_eq!(bytes, b"\xbf\x61b\x45hello\xff");
        let Some(Value::Map(members)) = Value::parse(Format::Cbor, &written(Format::Cbor, sample)) else { panic!() };
        assert_eq!(members.len(), 7);
        assert_eq!(members[0].1, Value::Text("a\"é".to_owned()));
    }

    #[test]
    fn headers_are_as_short_as_they_can_be() {
        for (n, expected) in [
            (0, &b"\x00"[..]),
            (23, b"\x17"),
            (24, b"\x18\x18"),
            (255, b"\x18\xff"),
            (256, b"\x19\x01\x00"),
            (65_536, b"\x1a\x00\x01\x00\x00"),
        ] {
            let mut out = Vec::new();
            write_header(&mut out, 0, n);
            assert_eq!(out, expected);
        }
    }
}
