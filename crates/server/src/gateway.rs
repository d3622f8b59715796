//! The shape that Amazon's API Gateway gives to the doors behind it: every path begins with the name
//! of a stage, `/prod/topics/…`, and what leads nowhere is answered in the gateway's words.

use axum::{
    extract::Request,
    response::{IntoResponse, Response},
};
use http::{Extensions, HeaderName, HeaderValue, StatusCode, Uri, header, uri::PathAndQuery};
use serde_json::json;

use crate::auth::{Exceeded, Refused};

/// Where the doors' own paths begin; no stage is called so.
const DOORS: [&str; 5] = ["topics", "brokers", "consumers", "v3", STREAMS];
/// The gateway's own resources.
const STREAMS: &str = "streams";
/// What most people call their stage. Below these, paths that lead nowhere are the gateway's.
const USUAL_STAGES: [&str; 3] = ["dev", "test", "prod"];
const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");

/// On a request whose path began with a stage.
#[derive(Clone, Copy)]
struct ByStage;

/// The request as the doors know it.
pub fn without_stage(mut request: Request) -> Request {
    if let Some(uri) = beyond_stage(request.uri()) {
        *request.uri_mut() = uri;
        request.extensions_mut().insert(ByStage);
    }
    request
}

/// Whether the caller speaks to the gateway, and not to a door by its own path.
pub fn is_asked(uri: &Uri, extensions: &Extensions) -> bool {
    extensions.get::<ByStage>().is_some() || answers_for(uri)
}

/// Whether records come in or go out below this path.
pub fn is_of_a_door(uri: &Uri) -> bool {
    first_segment(uri.path()).is_some_and(|first| DOORS.contains(&first) || first == "pin")
}

fn beyond_stage(uri: &Uri) -> Option<Uri> {
    let stage = first_segment(uri.path())?;
    let rest = uri.path_and_query()?.as_str().get(1 + stage.len()..)?;
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    let is_stage = !stage.is_empty() && !DOORS.contains(&stage) && stage.bytes().all(is_name);
    if !is_stage || !DOORS.contains(&first_segment(uri.path().get(1 + stage.len()..)?)?) {
        return None;
    }
    // The rest stays: who is asked decides what pages may do.
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(rest).ok()?);
    Uri::from_parts(parts).ok()
}

pub fn first_segment(path: &str) -> Option<&str> {
    path.strip_prefix('/')?.split('/').next()
}

/// Whether a path or method that leads nowhere is for the gateway to answer.
pub fn answers_for(uri: &Uri) -> bool {
    let is_own = |first: &str| first == STREAMS || USUAL_STAGES.iter().any(|stage| stage.eq_ignore_ascii_case(first));
    first_segment(uri.path()).is_some_and(is_own)
}

/// What the gateway says of any path or method that it does not know.
pub fn not_found() -> Response {
    message(StatusCode::FORBIDDEN, "MissingAuthenticationTokenException", "Missing Authentication Token")
}

/// What the gateway says to a caller who is not let in.
pub fn refusal(status: StatusCode, refused: Refused) -> Response {
    let (error_type, text) = match refused {
        Refused::NoKey | Refused::BadKey | Refused::Forbidden => ("ForbiddenException", "Forbidden"),
        Refused::Exceeded(Exceeded::Quota { .. }) => ("LimitExceededException", "Limit Exceeded"),
        Refused::Exceeded(Exceeded::Rate { .. }) | Refused::TooManyFailures => {
            ("TooManyRequestsException", "Too Many Requests")
        }
    };
    message(status, error_type, text)
}

/// An answer of the gateway itself.
pub fn message(status: StatusCode, error_type: &'static str, text: &str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (ERROR_TYPE, HeaderValue::from_static(error_type)),
    ];
    (status, headers, json!({ "message": text }).to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_taken_off_before_a_door_alone() {
        for (asked, known) in [
            ("/prod/topics/0a3.pin", Some("/topics/0a3.pin")),
            ("/my-stage_2/topics/a/partitions/0?x=/topics/", Some("/topics/a/partitions/0?x=/topics/")),
            ("/dev/brokers", Some("/brokers")),
            ("/dev/streams/a/record", Some("/streams/a/record")),
            ("/test/consumers/g", Some("/consumers/g")),
            ("/streams/topics/x", None),
            ("http://example.org:1/dev/topics?x", Some("http://example.org:1/topics?x")),
            ("/dev/topics", Some("/topics")),
            ("/dev/consumers/g/instances/i/records?timeout=1", Some("/consumers/g/instances/i/records?timeout=1")),
            ("/dev/v3/clusters", Some("/v3/clusters")),
            ("/consumers/topics", None),
            ("/v3/clusters/x/topics", None),
            ("/topics/topics", None),
            ("/topics/topics/partitions", None),
            ("/brokers/topics/x", None),
            ("/dev", None),
            ("/dev/", None),
            ("/dev/topic/x", None),
            ("/dev/dev/topics/x", None),
            ("//topics/x", None),
            ("/a%20b/topics/x", None),
            ("*", None),
        ] {
            let asked: Uri = asked.parse().expect("a target");
            assert_eq!(beyond_stage(&asked).map(|uri| uri.to_string()).as_deref(), known, "{asked}");
        }
    }
}
