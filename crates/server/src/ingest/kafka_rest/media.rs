//! Media types: which format a body has, and what an answer calls itself.

use http::{HeaderMap, HeaderValue, header};

use crate::error::KAFKA_JSON;

/// How keys and values stand in the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// As JSON values; their compact text is stored.
    Json,
    /// As base64 strings; what they encode is stored.
    Binary,
    /// By a schema, in the format of this name; there is no schema registry here.
    Schema(&'static str),
}

impl Format {
    /// None for a media type that is not taken, and where none is given.
    pub(super) fn of(headers: &HeaderMap, strict: bool) -> Option<Self> {
        let media_type = without_parameters(headers.get(header::CONTENT_TYPE)?.as_bytes());
        if !strict && media_type.eq_ignore_ascii_case(b"application/json") {
            return Some(Self::Json);
        }
        Self::named(media_type)
    }

    fn named(media_type: &[u8]) -> Option<Self> {
        let is = |name: &str| media_type.eq_ignore_ascii_case(name.as_bytes());
        if is("application/vnd.kafka.json.v2+json") {
            Some(Self::Json)
        } else if is("application/vnd.kafka.binary.v2+json") {
            Some(Self::Binary)
        } else if is("application/vnd.kafka.avro.v2+json") {
            Some(Self::Schema("avro"))
        } else if is("application/vnd.kafka.protobuf.v2+json") {
            Some(Self::Schema("protobuf"))
        } else if is("application/vnd.kafka.jsonschema.v2+json") {
            Some(Self::Schema("jsonschema"))
        } else {
            None
        }
    }
}

/// What a client accepts for records: its own choice, or whatever the instance has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Format(Format),
    /// `application/vnd.kafka.v2+json`, which means the binary format.
    Unnamed,
    /// Anything, in the type that the format has.
    Any,
    /// Anything, as `application/json`.
    PlainJson,
}

/// What is accepted, the best first; empty when that is nothing that there is. Strictly, anything
/// means the binary format, as with Confluent's proxy, and plain JSON is not there.
pub(super) fn wanted(headers: &HeaderMap, strict: bool) -> Vec<Wanted> {
    let values = headers.get_all(header::ACCEPT).iter().flat_map(|value| value.as_bytes().split(|b| *b == b','));
    let mut accepted = values.filter(|value| !value.trim_ascii().is_empty()).peekable();
    if accepted.peek().is_none() {
        return vec![if strict { Wanted::Unnamed } else { Wanted::Any }];
    }
    let known = accepted.filter_map(|value| Some((one_wanted(without_parameters(value), strict)?, quality(value))));
    let mut known: Vec<_> = known.filter(|(_, quality)| *quality > 0).collect();
    known.sort_by_key(|(_, quality)| std::cmp::Reverse(*quality));
    known.into_iter().map(|(wanted, _)| wanted).collect()
}

fn one_wanted(media_type: &[u8], strict: bool) -> Option<Wanted> {
    let is = |name: &str| media_type.eq_ignore_ascii_case(name.as_bytes());
    if is("*/*") || is("application/*") {
        return Some(if strict { Wanted::Unnamed } else { Wanted::Any });
    }
    if is("application/vnd.kafka.v2+json") {
        return Some(Wanted::Unnamed);
    }
    if is("application/json") {
        return (!strict).then_some(Wanted::PlainJson);
    }
    Format::named(media_type).map(Wanted::Format)
}

/// In thousandths.
fn quality(accepted: &[u8]) -> u32 {
    let parameters = accepted.split(|b| *b == b';').skip(1).filter_map(|p| std::str::from_utf8(p).ok());
    let given = parameters.filter_map(|p| p.trim().strip_prefix("q=")?.parse::<f32>().ok()).next();
    (given.unwrap_or(1.0).clamp(0.0, 1.0) * 1000.0) as u32
}

/// Whether a consumer's call may have a body of this type.
pub(super) fn is_for_consumers(headers: &HeaderMap, strict: bool) -> bool {
    let Some(content_type) = headers.get(header::CONTENT_TYPE) else { return false };
    let media_type = without_parameters(content_type.as_bytes());
    media_type.eq_ignore_ascii_case(KAFKA_JSON.as_bytes()) || Format::of(headers, strict).is_some()
}

/// `application/json` for those who accept only that, the proxy's own type for all others.
pub(super) fn answer_type(headers: &HeaderMap) -> HeaderValue {
    let mut accepts = headers.get_all(header::ACCEPT).iter().peekable();
    let accepts_only_json = accepts.peek().is_some()
        && accepts
            .flat_map(|value| value.as_bytes().split(|b| *b == b','))
            .all(|accepted| without_parameters(accepted).eq_ignore_ascii_case(b"application/json"));
    if accepts_only_json { HeaderValue::from_static("application/json") } else { KAFKA_JSON }
}

/// The media type of records in a format.
pub(super) fn records_type(format: Format) -> HeaderValue {
    HeaderValue::from_static(match format {
        Format::Json => "application/vnd.kafka.json.v2+json",
        Format::Binary | Format::Schema(_) => "application/vnd.kafka.binary.v2+json",
    })
}

fn without_parameters(media_type: &[u8]) -> &[u8] {
    media_type.split(|b| *b == b';').next().unwrap_or_default().trim_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().expect("visible ASCII"))])
    }

    #[test]
    fn a_format_is_named_exactly_but_for_parameters_and_case() {
        for (content_type, strict, format) in [
            ("application/vnd.kafka.json.v2+json", true, Some(Format::Json)),
            ("Application/Vnd.Kafka.JSON.v2+json ; charset=utf-8", true, Some(Format::Json)),
            ("application/json", false, Some(Format::Json)),
            ("application/json", true, None),
            ("application/vnd.kafka.binary.v2+json", true, Some(Format::Binary)),
            ("application/vnd.kafka.avro.v2+json", true, Some(Format::Schema("avro"))),
            ("application/vnd.kafka.v2+json", false, None),
            ("application/vnd.kafka.json.v1+json", false, None),
            ("text/plain", false, None),
            ("", false, None),
        ] {
            assert_eq!(Format::of(&headers(header::CONTENT_TYPE, content_type), strict), format, "{content_type}");
        }
        assert_eq!(Format::of(&HeaderMap::new(), false), None);
    }

    #[test]
    fn answers_are_plain_json_only_for_those_who_take_nothing_else() {
        for (accept, answer) in [
            ("*/*", KAFKA_JSON),
            ("application/json", HeaderValue::from_static("application/json")),
            ("application/json; q=0.9", HeaderValue::from_static("application/json")),
            ("application/json, application/vnd.kafka.v2+json", KAFKA_JSON),
        ] {
            assert_eq!(answer_type(&headers(header::ACCEPT, accept)), answer, "{accept}");
        }
        assert_eq!(answer_type(&HeaderMap::new()), KAFKA_JSON);
    }
}
