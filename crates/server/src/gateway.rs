//! The shape that Amazon's API Gateway gives to the doors behind it: every path begins with the name
//! of a stage, `/prod/topics/…`, and what leads nowhere is answered in the gateway's words.

use axum::{
    extract::Request,
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, StatusCode, Uri, header, uri::PathAndQuery};

/// Where the doors' own paths begin; no stage is called so.
const DOORS: [&str; 4] = ["topics", "brokers", "consumers", "v3"];
/// What most people call their stage. Below these, paths that lead nowhere are the gateway's.
const USUAL_STAGES: [&str; 3] = ["dev", "test", "prod"];
const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");

/// The request as the doors know it.
pub fn without_stage(mut request: Request) -> Request {
    if let Some(uri) = beyond_stage(request.uri()) {
        *request.uri_mut() = uri;
    }
    request
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

fn first_segment(path: &str) -> Option<&str> {
    path.strip_prefix('/')?.split('/').next()
}

/// Whether a path that leads nowhere is for the gateway to answer.
pub fn is_of_a_stage(uri: &Uri) -> bool {
    let first = first_segment(uri.path());
    first.is_some_and(|first| USUAL_STAGES.iter().any(|stage| stage.eq_ignore_ascii_case(first)))
}

/// What the gateway says of any path that it does not know.
pub fn not_found() -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (ERROR_TYPE, HeaderValue::from_static("MissingAuthenticationTokenException")),
    ];
    (StatusCode::FORBIDDEN, headers, r#"{"message":"Missing Authentication Token"}"#).into_response()
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
