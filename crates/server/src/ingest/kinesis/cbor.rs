//! CBOR as the AWS SDK for Java writes it: maps and texts of either length, blobs as byte strings,
//! times as tag 1 with whole milliseconds (where the standard has seconds).

use std::borrow::Cow;

use ciborium_ll::{Decoder, Header, simple};

use super::value::Value;

/// Nested deeper than any request of the service.
const MAX_DEPTH: usize = 16;
const NULL: u8 = 0xf6;

/// Not CBOR, cut off, or nested too deep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

type Result<T> = std::result::Result<T, Malformed>;

/// Reads item by item; what has one piece is borrowed.
pub(super) struct Reader<'b> {
    body: &'b [u8],
    at: usize,
}

impl<'b> Reader<'b> {
    pub(super) fn new(body: &'b [u8]) -> Self {
        Self { body, at: 0 }
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at == self.body.len()
    }

    /// The next header; tags, which add nothing to what the member's name says, are passed over.
    fn header(&mut self) -> Result<Header> {
        loop {
            let mut decoder = Decoder::from(&self.body[self.at..]);
            let header = decoder.pull().map_err(|_| Malformed)?;
            self.at += decoder.offset();
            if !matches!(header, Header::Tag(_)) {
                return Ok(header);
            }
        }
    }

    fn take(&mut self, n: usize) -> Result<&'b [u8]> {
        let end = self.at.checked_add(n).filter(|end| *end <= self.body.len()).ok_or(Malformed)?;
        let taken = &self.body[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// The pieces of a text or byte string; `len` is that of its header.
    fn string(&mut self, len: Option<usize>, is_text: bool) -> Result<Cow<'b, [u8]>> {
        if let Some(n) = len {
            return self.take(n).map(Cow::Borrowed);
        }
        let mut whole = Vec::new();
        loop {
            match self.header()? {
                Header::Break => return Ok(Cow::Owned(whole)),
                Header::Text(Some(n)) if is_text => whole.extend_from_slice(self.take(n)?),
                Header::Bytes(Some(n)) if !is_text => whole.extend_from_slice(self.take(n)?),
                _ => return Err(Malformed),
            }
        }
    }

    fn text_of(&mut self, len: Option<usize>) -> Result<Cow<'b, str>> {
        match self.string(len, true)? {
            Cow::Borrowed(bytes) => std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| Malformed),
            Cow::Owned(bytes) => String::from_utf8(bytes).map(Cow::Owned).map_err(|_| Malformed),
        }
    }

    /// Whether null comes next; then it was passed over.
    pub(super) fn null(&mut self) -> bool {
        let is_null = self.body.get(self.at) == Some(&NULL);
        self.at += usize::from(is_null);
        is_null
    }

    /// The members of a map, one by one; `read` must read the value. False where there is no map,
    /// and then a whole value was passed over.
    pub(super) fn map(&mut self, mut read: impl FnMut(&mut Self, &str) -> Result<()>) -> Result<bool> {
        let header = self.header()?;
        let Header::Map(len) = header else {
            self.value_of(header, 0)?;
            return Ok(false);
        };
        let mut n_left = len;
        loop {
            if n_left == Some(0) {
                return Ok(true);
            }
            let key = match self.header()? {
                Header::Break if n_left.is_none() => return Ok(true),
                Header::Text(len) => self.text_of(len)?,
                _ => return Err(Malformed),
            };
            read(self, &key)?;
            n_left = n_left.map(|n| n - 1);
        }
    }

    /// The items of an array, as `map` has its members.
    pub(super) fn list(&mut self, mut read: impl FnMut(&mut Self) -> Result<()>) -> Result<bool> {
        let header = self.header()?;
        let Header::Array(len) = header else {
            self.value_of(header, 0)?;
            return Ok(false);
        };
        let mut n_left = len;
        while n_left != Some(0) {
            if n_left.is_none() && self.body.get(self.at) == Some(&0xff) {
                self.at += 1;
                break;
            }
            read(self)?;
            n_left = n_left.map(|n| n - 1);
        }
        Ok(true)
    }

    /// A text or a byte string, borrowed where it came in one piece; whatever else as a value.
    pub(super) fn scalar(&mut self) -> Result<Scalar<'b>> {
        match self.header()? {
            Header::Text(len) => self.text_of(len).map(Scalar::Text),
            Header::Bytes(len) => self.string(len, false).map(Scalar::Bytes),
            header => self.value_of(header, 0).map(Scalar::Other),
        }
    }

    pub(super) fn value(&mut self) -> Result<Value> {
        let header = self.header()?;
        self.value_of(header, 0)
    }

    fn value_of(&mut self, header: Header, depth: usize) -> Result<Value> {
        if depth > MAX_DEPTH {
            return Err(Malformed);
        }
        Ok(match header {
            Header::Positive(n) => Value::Integer(i64::try_from(n).unwrap_or(i64::MAX)),
            Header::Negative(n) => Value::Integer(i64::try_from(n).map_or(i64::MIN, |n| !n)),
            Header::Float(n) => Value::Float(n),
            Header::Simple(simple::FALSE) => Value::Bool(false),
            Header::Simple(simple::TRUE) => Value::Bool(true),
            Header::Simple(_) => Value::Null,
            Header::Bytes(len) => Value::Blob(self.string(len, false)?.into_owned()),
            Header::Text(len) => Value::Text(self.text_of(len)?.into_owned()),
            Header::Array(len) => {
                let mut items = Vec::new();
                while len.is_none_or(|n| items.len() < n) {
                    match self.header()? {
                        Header::Break if len.is_none() => break,
                        header => items.push(self.value_of(header, depth + 1)?),
                    }
                }
                Value::List(items)
            }
            Header::Map(len) => {
                let mut members = Vec::new();
                while len.is_none_or(|n| members.len() < n) {
                    let key = match self.header()? {
                        Header::Break if len.is_none() => break,
                        Header::Text(len) => self.text_of(len)?.into_owned(),
                        _ => return Err(Malformed),
                    };
                    let header = self.header()?;
                    members.push((key, self.value_of(header, depth + 1)?));
                }
                Value::Map(members)
            }
            Header::Break | Header::Tag(_) => return Err(Malformed),
        })
    }
}

pub(super) enum Scalar<'b> {
    Text(Cow<'b, str>),
    Bytes(Cow<'b, [u8]>),
    Other(Value),
}

/// The beginning of an item: its major type and its length or value.
pub(super) fn write_header(out: &mut Vec<u8>, major: u8, n: u64) {
    let major = major << 5;
    match n {
        0..24 => out.push(major | n as u8),
        24..0x100 => out.extend([major | 24, n as u8]),
        0x100..0x1_0000 => {
            out.push(major | 25);
            out.extend((n as u16).to_be_bytes());
        }
        0x1_0000..0x1_0000_0000 => {
            out.push(major | 26);
            out.extend((n as u32).to_be_bytes());
        }
        _ => {
            out.push(major | 27);
            out.extend(n.to_be_bytes());
        }
    }
}
