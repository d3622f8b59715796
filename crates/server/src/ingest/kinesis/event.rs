//! Messages of `application/vnd.amazon.eventstream`: lengths, their checksum, headers, payload, and
//! the checksum of it all.

use super::{
    error::KinesisError,
    writer::{Format, Writer, written},
};

pub(super) const MEDIA_TYPE: &str = "application/vnd.amazon.eventstream";
/// Lengths and checksum before the headers, checksum after the payload.
const PRELUDE_BYTES: usize = 12;
const TRAILER_BYTES: usize = 4;
/// A header whose value is a text.
const TEXT: u8 = 7;

/// What every answer begins with.
pub(super) fn initial_response(format: Format) -> Vec<u8> {
    event(format, "initial-response", &written(format, |_| {}))
}

pub(super) fn event(format: Format, kind: &str, payload: &[u8]) -> Vec<u8> {
    let headers = [(":message-type", "event"), (":event-type", kind), (":content-type", format.media_type_text())];
    message(&headers, payload)
}

/// The last message of an answer that cannot go on.
pub(super) fn exception(format: Format, error: &KinesisError) -> Vec<u8> {
    let payload = written(format, |writer: &mut Writer| writer.text("message", &error.message));
    let headers =
        [(":message-type", "exception"), (":exception-type", error.name), (":content-type", format.media_type_text())];
    message(&headers, &payload)
}

fn message(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
    let n_headers: usize = headers.iter().map(|(name, value)| 1 + name.len() + 1 + 2 + value.len()).sum();
    let n_bytes = PRELUDE_BYTES + n_headers + payload.len() + TRAILER_BYTES;
    let mut out = Vec::with_capacity(n_bytes);
    // Payloads are some mebibytes at most.
    out.extend((n_bytes as u32).to_be_bytes());
    out.extend((n_headers as u32).to_be_bytes());
    out.extend(crc32fast::hash(&out).to_be_bytes());
    for (name, value) in headers {
        out.push(name.len() as u8);
        out.extend_from_slice(name.as_bytes());
        out.push(TEXT);
        out.extend((value.len() as u16).to_be_bytes());
        out.extend_from_slice(value.as_bytes());
    }
    out.extend_from_slice(payload);
    out.extend(crc32fast::hash(&out).to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn messages_are_framed_as_aws_frames_them() {
        // The vector `payload_one_str_header` of the event stream's own tests.
        let framed = message(&[("content-type", "application/json")], b"{'foo':'bar'}");
        let expected = b"\x00\x00\x00\x3d\x00\x00\x00\x20\x07\xfd\x83\x96\x0ccontent-type\x07\x00\x10application/json{'foo':'bar'}\x8d\x9c\x08\xb1";
        assert_eq!(framed, expected);
        // And `empty_message`.
        assert_eq!(message(&[], b""), b"\x00\x00\x00\x10\x00\x00\x00\x00\x05\xc2\x48\xeb\x7d\x98\xc8\xff");
    }
}
