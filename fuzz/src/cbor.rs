//! JSON as CBOR and back, by the rules of Kinesis: data are texts of base64 in the one and byte strings
//! in the other, times seconds and tagged milliseconds. Nothing of it is shared with the door.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map, Value};

const BLOB: &str = "Data";
const TIME: u64 = 1;

/// A request's body. None where both cannot say the same.
pub(super) fn of_json(value: &Value, has_blobs: bool) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    put(&mut out, "", value, has_blobs)?;
    Some(out)
}

fn put(out: &mut Vec<u8>, name: &str, value: &Value, has_blobs: bool) -> Option<()> {
    match value {
        Value::Null => out.push(0xf6),
        Value::Bool(value) => out.push(0xf4 | u8::from(*value)),
        Value::Number(n) if name.ends_with("Timestamp") => {
            // Fractions are rounded in one and not in the other.
            let ms = n.as_u64()?.checked_mul(1000).filter(|ms| i64::try_from(*ms).is_ok())?;
            header(out, 6, TIME);
            header(out, 0, ms);
        }
        Value::Number(n) => match (n.as_u64(), n.as_i64()) {
            (Some(n), _) => header(out, 0, n),
            (None, Some(n)) => header(out, 1, !n as u64),
            (None, None) => {
                out.push(0xfb);
                out.extend(n.as_f64()?.to_be_bytes());
            }
        },
        Value::String(string) => match BASE64_STANDARD.decode(string) {
            Ok(bytes) if has_blobs && name == BLOB => {
                header(out, 2, bytes.len() as u64);
                out.extend(bytes);
            }
            _ => text(out, string),
        },
        Value::Array(items) => {
            header(out, 4, items.len() as u64);
            items.iter().try_for_each(|item| put(out, "", item, has_blobs))?;
        }
        Value::Object(members) => {
            // As Jackson writes them.
            out.push(0xbf);
            for (name, value) in members {
                text(out, name);
                put(out, name, value, has_blobs)?;
            }
            out.push(0xff);
        }
    }
    Some(())
}

fn text(out: &mut Vec<u8>, text: &str) {
    header(out, 3, text.len() as u64);
    out.extend(text.as_bytes());
}

fn header(out: &mut Vec<u8>, major: u8, n: u64) {
    match n {
        0..24 => out.push(major << 5 | n as u8),
        24..0x1_0000 => {
            out.push(major << 5 | 25);
            out.extend((n as u16).to_be_bytes());
        }
        _ => {
            out.push(major << 5 | 27);
            out.extend(n.to_be_bytes());
        }
    }
}

/// An answer's body, whole.
pub(super) fn to_json(body: &[u8]) -> Value {
    let mut reader = Reader { rest: body };
    let first = reader.byte();
    let value = reader.item(first);
    assert!(reader.rest.is_empty(), "something follows the answer: {body:?}");
    value
}

const BREAK: u8 = 0xff;

struct Reader<'b> {
    rest: &'b [u8],
}

impl<'b> Reader<'b> {
    fn byte(&mut self) -> u8 {
        self.bytes(1)[0]
    }

    fn bytes(&mut self, n: usize) -> &'b [u8] {
        assert!(n <= self.rest.len(), "the answer ends too early");
        let (taken, rest) = self.rest.split_at(n);
        self.rest = rest;
        taken
    }

    fn number(&mut self, minor: u8) -> u64 {
        let n_bytes = match minor {
            0..24 => return minor.into(),
            24..28 => 1 << (minor - 24),
            _ => panic!("answers have no numbers of the kind {minor}"),
        };
        self.bytes(n_bytes).iter().fold(0, |n, byte| n << 8 | u64::from(*byte))
    }

    fn text(&mut self, first: u8) -> String {
        assert_eq!(first >> 5, 3, "a text was expected");
        let n = self.number(first & 31) as usize;
        String::from_utf8(self.bytes(n).to_vec()).expect("texts are UTF-8")
    }

    /// What the door writes; it leaves the lengths of maps and lists open.
    fn item(&mut self, first: u8) -> Value {
        match (first >> 5, first & 31) {
            (0, minor) => self.number(minor).into(),
            (1, minor) => (!(self.number(minor) as i64)).into(),
            (2, minor) => {
                let n = self.number(minor) as usize;
                BASE64_STANDARD.encode(self.bytes(n)).into()
            }
            (3, _) => self.text(first).into(),
            (4, 31) => {
                let mut items = Vec::new();
                loop {
                    match self.byte() {
                        BREAK => return items.into(),
                        first => items.push(self.item(first)),
                    }
                }
            }
            (5, 31) => {
                let mut members = Map::new();
                loop {
                    let name = match self.byte() {
                        BREAK => return members.into(),
                        first => self.text(first),
                    };
                    let first = self.byte();
                    let value = self.item(first);
                    assert!(members.insert(name, value).is_none(), "a member comes twice");
                }
            }
            (6, minor) => {
                assert_eq!(self.number(minor), TIME);
                let first = self.byte();
                self.item(first)
            }
            (7, 20) => false.into(),
            (7, 21) => true.into(),
            _ => panic!("answers have nothing that begins with {first}"),
        }
    }
}
