//! The canonical text of a request, and the small grammars inside it. Whatever could be read in two
//! ways has no canonical text.

use std::fmt::Write;

use http::{HeaderMap, Uri, header, request::Parts};

/// How HTTP/2 calls the host; requests that came by it may sign it under this name.
pub(super) const AUTHORITY: &str = ":authority";

pub(super) struct CanonicalRequest<'r> {
    pub(super) head: &'r Parts,
    /// As the client asked for it.
    pub(super) target: &'r Uri,
    pub(super) signed_headers: &'r [String],
    pub(super) body_hash: &'r str,
    /// The signature in the query does not cover itself.
    pub(super) is_presigned: bool,
}

impl CanonicalRequest<'_> {
    pub(super) fn text(&self) -> Option<String> {
        let uri = self.target;
        let mut text = format!("{}\n{}\n", self.head.method, path(uri.path()));
        text.push_str(&query(uri.query().unwrap_or_default(), self.is_presigned)?);
        text.push('\n');
        for name in self.signed_headers {
            writeln!(text, "{name}:{}", self.header(name)?).expect("writing to a string cannot fail");
        }
        write!(text, "\n{}\n{}", self.signed_headers.join(";"), self.body_hash)
            .expect("writing to a string cannot fail");
        Some(text)
    }

    fn header(&self, name: &str) -> Option<String> {
        if name == header::HOST.as_str() || name == AUTHORITY {
            return self.host();
        }
        header_text(&self.head.headers, name)
    }

    /// HTTP/2 has it in the request's target alone; where it stands twice, it says the same.
    fn host(&self) -> Option<String> {
        let of_target = self.target.authority().map(|authority| authority.as_str().to_owned());
        let of_header = header_text(&self.head.headers, header::HOST.as_str());
        match (of_target, of_header) {
            (Some(target), Some(header)) => target.eq_ignore_ascii_case(&header).then_some(header),
            (target, header) => header.or(target),
        }
    }
}

fn header_text(headers: &HeaderMap, name: &str) -> Option<String> {
    let mut text = String::new();
    let mut values = headers.get_all(name).iter().peekable();
    values.peek()?;
    for (i, value) in values.enumerate() {
        if i > 0 {
            text.push(',');
        }
        let value = std::str::from_utf8(value.as_bytes()).ok()?;
        for (j, word) in value.split([' ', '\t']).filter(|word| !word.is_empty()).enumerate() {
            text.push_str(if j > 0 { " " } else { "" });
            text.push_str(word);
        }
    }
    Some(text)
}

/// Without empty and dotted segments, and escaped once more, as every service but S3 has it.
fn path(raw: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in raw.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    let mut out = String::from("/");
    for (i, segment) in segments.iter().enumerate() {
        out.push_str(if i > 0 { "/" } else { "" });
        escape(segment.as_bytes(), &mut out);
    }
    if raw.ends_with('/') && !segments.is_empty() {
        out.push('/');
    }
    out
}

/// Sorted, each name and value escaped in the one canonical way. None for what is escaped wrongly,
/// empty between two `&`, or has a `+`, which some read as a space.
fn query(raw: &str, is_presigned: bool) -> Option<String> {
    if raw.is_empty() {
        return Some(String::new());
    }
    let mut pairs = Vec::new();
    for pair in raw.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if pair.is_empty() || pair.contains('+') {
            return None;
        }
        if !(is_presigned && name == "X-Amz-Signature") {
            pairs.push((normal(name)?, normal(value)?));
        }
    }
    pairs.sort();
    let pairs: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    Some(pairs.join("&"))
}

fn normal(escaped: &str) -> Option<String> {
    let mut out = String::with_capacity(escaped.len());
    escape(&unescaped(escaped)?, &mut out);
    Some(out)
}

fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        out.push(u8::try_from(digit()? * 16 + digit()?).ok()?);
    }
    Some(out)
}

fn escape(bytes: &[u8], out: &mut String) {
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("writing to a string cannot fail");
        }
    }
}

/// Whether a query has this parameter, however its name is written.
pub(super) fn has_parameter(query: &str, wanted: &str) -> bool {
    query.split('&').any(|pair| {
        let name = pair.split_once('=').map_or(pair, |(name, _)| name);
        unescaped(name).is_some_and(|name| name.eq_ignore_ascii_case(wanted.as_bytes()))
    })
}

/// The value as it is written, None where there is none; an error when it comes twice.
pub(super) fn single_parameter<'q>(query: &'q str, wanted: &str) -> Result<Option<&'q str>, ()> {
    let value = |pair: &'q str| pair.split_once('=').filter(|(name, _)| *name == wanted).map(|(_, value)| value);
    let mut values = query.split('&').filter_map(value);
    match (values.next(), values.next()) {
        (first, None) => Ok(first),
        _ => Err(()),
    }
}

/// `keyid/date/region/service/term`; in a query the slashes are escaped.
pub(super) fn split_credential(text: &str) -> Option<[&str; 5]> {
    let parts: Vec<&str> = if text.contains('/') { text.split('/').collect() } else { split_escaped(text, "%2f") };
    parts.try_into().ok()
}

/// Lower case, in order, each once; semicolons are escaped in a query.
pub(super) fn header_names(text: &str, at_most: usize) -> Option<Vec<String>> {
    let names: Vec<&str> = if text.contains('%') { split_escaped(text, "%3b") } else { text.split(';').collect() };
    let is_name = |name: &&str| {
        let is_token = |b: u8| b.is_ascii_graphic() && !b.is_ascii_uppercase() && !b";,:%=\"".contains(&b);
        *name == AUTHORITY || !name.is_empty() && name.bytes().all(is_token)
    };
    let is_in_order = names.windows(2).all(|pair| pair[0] < pair[1]);
    (names.len() <= at_most && is_in_order && names.iter().all(is_name))
        .then(|| names.into_iter().map(str::to_owned).collect())
}

/// Splits at an escape of three characters, in capitals or not.
fn split_escaped<'t>(text: &'t str, escape: &str) -> Vec<&'t str> {
    let mut parts = Vec::new();
    let mut begin = 0;
    for (at, _) in text.match_indices('%') {
        let found = text.get(at..at + escape.len()).is_some_and(|found| found.eq_ignore_ascii_case(escape));
        if found {
            parts.push(&text[begin..at]);
            begin = at + escape.len();
        }
    }
    parts.push(&text[begin..]);
    parts
}
