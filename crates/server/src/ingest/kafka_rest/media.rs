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
        let is = |name: &str| media_type.eq_ignore_ascii_case(name.as_bytes());
        if is("application/vnd.kafka.json.v2+json") || (!strict && is("application/json")) {
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

/// `application/json` for those who accept only that, the proxy's own type for all others.
pub(super) fn answer_type(headers: &HeaderMap) -> HeaderValue {
    let mut accepts = headers.get_all(header::ACCEPT).iter().peekable();
    let accepts_only_json = accepts.peek().is_some()
        && accepts
            .flat_map(|value| value.as_bytes().split(|b| *b == b','))
            .all(|accepted| without_parameters(accepted).eq_ignore_ascii_case(b"application/json"));
    if accepts_only_json { HeaderValue::from_static("application/json") } else { KAFKA_JSON }
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
