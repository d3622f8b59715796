//! `vectors.json` was signed by botocore, but for the request of HTTP/2, which AWS's SDK for JavaScript
//! signed; those named as in AWS's own test suite have its signatures.

use http::{HeaderName, HeaderValue, Method, Request};
use serde::Deserialize;

use super::*;

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const SIGNED_AT: &str = "2015-08-30T12:36:00Z";

#[derive(Clone, Deserialize)]
struct Vector {
    name: String,
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: String,
    service: String,
}

impl Vector {
    fn all() -> Vec<Self> {
        serde_json::from_str(include_str!("vectors.json")).expect("vectors")
    }

    fn named(name: &str) -> Self {
        Self::all().into_iter().find(|vector| vector.name == name).expect(name)
    }

    fn set(&mut self, name: &str, value: impl Into<String>) {
        let header = self.headers.iter_mut().find(|(n, _)| n.eq_ignore_ascii_case(name)).expect(name);
        header.1 = value.into();
    }

    /// None when no client can send it.
    fn head(&self) -> Option<Parts> {
        let method = Method::from_bytes(self.method.as_bytes()).ok()?;
        let mut request = Request::builder().method(method).uri(&self.target);
        for (name, value) in &self.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            request = request.header(name, HeaderValue::from_bytes(value.as_bytes()).ok()?);
        }
        Some(request.body(()).ok()?.into_parts().0)
    }

    fn check_at(&self, now: &str) -> Result<[u8; 32], SignatureError> {
        let head = self.head().expect("a request");
        let now = now.parse().expect("a time");
        Signed::of(&head)?.check(&head, self.body.as_bytes(), SECRET, &self.service, now)
    }

    fn check(&self) -> Result<[u8; 32], SignatureError> {
        self.check_at(SIGNED_AT)
    }
}

#[test]
fn requests_that_clients_signed_are_taken() {
    for vector in Vector::all() {
        assert!(vector.check().is_ok(), "{}: {:?}", vector.name, vector.check());
    }
    let known = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31";
    assert_eq!(hex::encode(&Vector::named("get-vanilla").check().expect("taken")), known);
}

#[test]
fn the_host_is_signed_by_the_name_that_http_2_has_for_it() {
    let signed = Vector::named("kinesis-http2");
    let to = |target: &str, host: Option<&str>| {
        let mut vector = Vector { target: target.to_owned(), ..signed.clone() };
        vector.headers.extend(host.map(|host| ("host".to_owned(), host.to_owned())));
        vector.check().is_ok()
    };
    for (target, host, taken) in [
        ("https://localhost:8443/", None, true),
        ("https://localhost:8443/", Some("localhost:8443"), true),
        // As a proxy passes it on that speaks HTTP/1.1 from there.
        ("/", Some("localhost:8443"), true),
        ("https://localhost:8444/", None, false),
        ("https://localhost:8443/", Some("localhost:8444"), false),
        ("https://localhost:8444/", Some("localhost:8443"), false),
        ("/", Some("localhost:8444"), false),
        ("/", None, false),
    ] {
        assert_eq!(to(target, host), taken, "{target} {host:?}");
    }
}

/// Each text with each of its bits flipped, where that is a text again.
fn flips(text: &str) -> impl Iterator<Item = String> {
    let flip = |i: usize| {
        let mut bytes = text.as_bytes().to_vec();
        bytes[i / 8] ^= 1 << (i % 8);
        String::from_utf8(bytes).ok()
    };
    (0..text.len() * 8).filter_map(flip)
}

#[test]
fn a_request_with_any_bit_flipped_is_refused() {
    for name in ["kinesis-put-record", "kinesis-content-hash", "kinesis-presigned", "post-vanilla-query", "get-space"] {
        let signed = Vector::named(name);
        let mut changed = Vec::new();
        changed.extend(flips(&signed.method).map(|method| Vector { method, ..signed.clone() }));
        // An escape is the same in capitals or not.
        let targets = flips(&signed.target).filter(|target| target.replace("%2f", "%2F") != signed.target);
        changed.extend(targets.map(|target| Vector { target, ..signed.clone() }));
        changed.extend(flips(&signed.body).map(|body| Vector { body, ..signed.clone() }));
        for (i, (header, value)) in signed.headers.iter().enumerate() {
            let with = |pair: (String, String)| {
                let mut vector = signed.clone();
                vector.headers[i] = pair;
                vector
            };
            changed.extend(flips(value).map(|value| with((header.clone(), value))));
            // In lower case all the same: names have no case.
            let other = flips(header).filter(|flipped| !flipped.eq_ignore_ascii_case(header));
            changed.extend(other.map(|header| with((header, value.clone()))));
        }
        let mut n_sent = 0;
        for vector in &changed {
            let Some(head) = vector.head() else { continue };
            n_sent += 1;
            let now = SIGNED_AT.parse().expect("a time");
            let checked = Signed::of(&head).and_then(|s| {
                s.check(&head, vector.body.as_bytes(), SECRET, &vector.service, now).map(|_| s.key_id.to_owned())
            });
            // The key id itself is looked up, not signed: another one has another secret.
            assert!(checked.as_deref().is_err() || checked.as_deref() != Ok("AKIDEXAMPLE"), "{head:?}");
        }
        assert!(n_sent > 200, "{name}: {n_sent}");
    }
}

#[test]
fn the_time_is_within_five_minutes_and_presigned_ones_last_as_long_as_they_say() {
    let (header, query) = (Vector::named("kinesis-put-record"), Vector::named("kinesis-presigned"));
    for (now, taken) in [
        ("2015-08-30T12:30:59Z", false),
        ("2015-08-30T12:31:00Z", true),
        ("2015-08-30T12:41:00Z", true),
        ("2015-08-30T12:41:01Z", false),
        ("2015-08-30T12:51:00Z", false),
        ("2015-08-31T12:36:00Z", false),
    ] {
        for vector in [&header, &query] {
            assert_eq!(vector.check_at(now).is_ok(), taken, "{} at {now}", vector.name);
        }
    }
    let late = header.check_at("2015-08-30T12:45:00Z").expect_err("late");
    assert_eq!(
        late.to_string(),
        "Signature expired: 20150830T123600Z is now earlier than 20150830T124000Z (20150830T124500Z - 5 min.)"
    );
    assert_eq!(late.kinesis_type(), "InvalidSignatureException");
}

#[test]
fn what_is_missing_or_said_twice_is_named() {
    let signed = Vector::named("kinesis-put-record");
    let authorization = signed.headers.last().expect("headers").1.clone();
    let with = |name: &str, value: String| {
        let mut vector = signed.clone();
        vector.set(name, value);
        vector
    };
    let more = |name: &str, value: &str| {
        let mut vector = signed.clone();
        vector.headers.push((name.to_owned(), value.to_owned()));
        vector
    };
    let without = |name: &str| {
        let mut vector = signed.clone();
        vector.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
        vector
    };
    let scope = |from: &str, to: &str| with("authorization", authorization.replace(from, to));
    let mut dated = without("x-amz-date");
    dated.headers.push(("date".to_owned(), "Sun, 30 Aug 2015 12:36:00 GMT".to_owned()));
    let both = Vector { target: "/?X-Amz-Algorithm=AWS4-HMAC-SHA256".to_owned(), ..signed.clone() };
    for (vector, name, words) in [
        (without("authorization"), "MissingAuthenticationToken", "Missing Authentication Token"),
        (both, "InvalidSignature", "Found both"),
        (more("authorization", &authorization), "IncompleteSignature", "once"),
        (scope("Credential=", "Cred="), "IncompleteSignature", "unknown"),
        (
            with("authorization", "AWS4-HMAC-SHA256 ".to_owned()),
            "IncompleteSignature",
            "requires 'Credential' parameter. Authorization header requires 'Signature'",
        ),
        (with("authorization", "AWS4-HMAC-SHA512 Credential=a".to_owned()), "IncompleteSignature", "algorithm"),
        (with("authorization", format!("{authorization}, Signature=00")), "IncompleteSignature", "twice"),
        (without("x-amz-date"), "IncompleteSignature", "X-Amz-Date"),
        (dated, "IncompleteSignature", "X-Amz-Date"),
        (more("x-amz-date", "20150830T123600Z"), "IncompleteSignature", "Date"),
        (with("x-amz-date", "20150830T123600".to_owned()), "IncompleteSignature", "ISO-8601"),
        (with("x-amz-date", "20150831T000000Z".to_owned()), "InvalidSignature", "YYYYMMDD"),
        (scope("/kinesis/", "/s3/"), "InvalidSignature", "correct service"),
        (scope("/aws4_request", "/aws5_request"), "InvalidSignature", "terminator"),
        (scope("/aws4_request", ""), "IncompleteSignature", "5 slash-delimited"),
        (scope("content-type;host;", "content-type;"), "InvalidSignature", "'Host'"),
        (scope("content-type;host;", "host;"), "InvalidSignature", "'content-type'"),
        (scope(";x-amz-target", ""), "InvalidSignature", "'x-amz-target'"),
        (scope(";x-amz-date", ""), "InvalidSignature", "'x-amz-date'"),
        (scope("/us-east-1/", "/us east 1/"), "InvalidSignature", "valid region"),
        (scope("/us-east-1/", "//"), "IncompleteSignature", "5 slash-delimited"),
        (scope("content-type;host", "host;content-type"), "InvalidSignature", "sorted"),
        (scope("content-type;host", "Content-Type;host"), "InvalidSignature", "lower case"),
        (more("x-amz-acl", "public"), "InvalidSignature", "'x-amz-acl'"),
        (more("x-amz-target", "Kinesis_20131202.DeleteStream"), "InvalidSignature", "once"),
        (more("host", "example.org"), "InvalidSignature", "once"),
        (more("x-amz-security-token", "t"), "UnrecognizedClient", "security token"),
        (scope(";x-amz-target", ";x-amz-target;zzz"), "InvalidSignature", "does not match"),
    ] {
        let error = vector.check().expect_err(words);
        assert!(
            error.kinesis_type().starts_with(name) && error.to_string().contains(words),
            "{name}, {words}: {error:?}"
        );
        assert!(!error.to_string().contains(SECRET));
    }
}

#[test]
fn the_signature_covers_the_body_as_it_came() {
    let signed = |said: &str| {
        let mut vector = Vector::named("kinesis-put-record");
        vector.headers.push(("x-amz-content-sha256".to_owned(), said.to_owned()));
        let authorization = vector.headers.iter().find(|(n, _)| n == "authorization").expect("signed").1.clone();
        vector.set("authorization", authorization.replace(";x-amz-date", ";x-amz-content-sha256;x-amz-date"));
        vector
    };
    for said in ["UNSIGNED-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"] {
        let error = signed(said).check().expect_err(said);
        assert!(error.to_string().contains("must cover the whole body"), "{error}");
    }
    for said in ["", "00", &"0".repeat(64)] {
        assert_eq!(signed(said).check(), Err(SignatureError::Mismatch), "{said}");
    }
}

#[test]
fn ambiguous_queries_have_no_canonical_text() {
    let signed = Vector::named("kinesis-presigned");
    for (from, to) in [
        ("Action=ListStreams&", "Action=List+Streams&"),
        ("Action=ListStreams&", "Action=ListStreams&&"),
        ("Action=ListStreams&", "Action=%4"),
        ("Action=ListStreams&", "Action=%zz&"),
        ("X-Amz-Expires=300", "X-Amz-Expires=300&X-Amz-Expires=300"),
        ("X-Amz-Expires=300", "X-Amz-Expires=99999999"),
        ("X-Amz-Expires=300", "X-Amz-Expires=-1"),
        ("X-Amz-Expires=300", "X-Amz-Security-Token=a&X-Amz-Expires=300"),
        ("&X-Amz-SignedHeaders=host", ""),
    ] {
        let target = signed.target.replace(from, to);
        assert_ne!(target, signed.target);
        assert!(Vector { target: target.clone(), ..signed.clone() }.check().is_err(), "{target}");
    }
    // The same, written in another way.
    let target = signed.target.replace("Action=ListStreams", "%41ction=ListStreams");
    assert!(Vector { target, ..signed }.check().is_ok());
}

#[test]
fn no_text_is_slow_to_take_apart() {
    let long = "%2f".repeat(20_000);
    assert!(canonical::split_credential(&long).is_none());
    assert!(canonical::header_names(&"%3b".repeat(20_000), 100).is_none());
    let mut vector = Vector::named("kinesis-presigned");
    vector.target = format!("{}&{}", vector.target, "a=%41&".repeat(9000));
    assert!(vector.check().is_err());
}
