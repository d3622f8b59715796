//! The wire of Kinesis: CBOR, HTTP/2, what browsers ask, and what is no request of it.

use axum::body::Body;
use http::Request;
use serde_json::json;

use crate::kinesis_client::{AMZ_CBOR, AMZ_JSON, Http, Kinesis, SIGNATURE, records, whole};

/// A map of texts as Jackson writes it: without a length.
fn cbor(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = vec![0xbf];
    for (name, value) in members {
        out.extend(cbor_text(name));
        out.extend_from_slice(value);
    }
    out.push(0xff);
    out
}

fn cbor_text(text: &str) -> Vec<u8> {
    let n = text.len() as u8;
    let mut out = if n < 24 { vec![0x60 | n] } else { vec![0x78, n] };
    out.extend_from_slice(text.as_bytes());
    out
}

fn position(haystack: &[u8], needle: &[u8]) -> usize {
    haystack.windows(needle.len()).position(|w| w == needle).unwrap_or_else(|| panic!("{needle:?} in {haystack:?}"))
}

#[tokio::test]
async fn the_java_sdk_speaks_cbor() {
    let kinesis = Kinesis::start().await;
    let create = cbor(&[("StreamName", &cbor_text("a")), ("ShardCount", b"\x01")]);
    let (status, headers, body) = kinesis.post("CreateStream", AMZ_CBOR, create).await;
    assert_eq!((status.as_u16(), headers["content-type"].to_str().unwrap(), body.len()), (200, AMZ_CBOR, 0));
    let put = cbor(&[("StreamName", &cbor_text("a")), ("PartitionKey", &cbor_text("k")), ("Data", b"\x45\x00\xffhi!")]);
    let (status, headers, body) = kinesis.post("PutRecord", AMZ_CBOR, put).await;
    assert_eq!((status.as_u16(), headers["content-type"].to_str().unwrap()), (200, AMZ_CBOR));
    assert!(body.starts_with(b"\xbf\x6eSequenceNumber\x78\x38"), "{body:?}");
    let at = position(&body, b"ShardId");
    assert_eq!(&body[at + 7..at + 8 + 20], b"\x74shardId-000000000000");
    let iterator = kinesis.trim_horizon("a", "shardId-000000000000").await;
    let iterator = [&[0x78, iterator.len() as u8], iterator.as_bytes()].concat();
    let (_, _, body) = kinesis.post("GetRecords", AMZ_CBOR, cbor(&[("ShardIterator", &iterator)])).await;
    let at = position(&body, b"Data");
    assert_eq!(&body[at + 4..at + 10], b"\x45\x00\xffhi!");
    // Whole milliseconds, tagged.
    let at = position(&body, b"ApproximateArrivalTimestamp") + "ApproximateArrivalTimestamp".len();
    assert_eq!(&body[at..at + 2], b"\xc1\x1b");
    let ms = u64::from_be_bytes(body[at + 2..at + 10].try_into().unwrap());
    assert!((1_700_000_000_000..4_000_000_000_000).contains(&ms), "{ms}");
    let missing = cbor(&[("StreamName", &cbor_text("none"))]);
    let (status, headers, body) = kinesis.post("DescribeStream", AMZ_CBOR, missing).await;
    assert_eq!((status.as_u16(), headers["content-type"].to_str().unwrap()), (400, AMZ_CBOR));
    assert!(body.starts_with(b"\xbf\x66__type\x78\x19ResourceNotFoundException\x67message"), "{body:?}");
    let (_, _, body) = kinesis.post("PutRecord", AMZ_CBOR, b"\xbf\x64Da".to_vec()).await;
    position(&body, b"SerializationException");
    // What was put by bytes is read by text.
    let answer = kinesis.ask("GetRecords", json!({"ShardIterator": kinesis.trim_horizon("a", "0").await})).await;
    assert_eq!(answer["Records"][0]["Data"], "AP9oaSE=");
}

#[tokio::test]
async fn http_2_is_spoken_with_whoever_begins_with_it() {
    let kinesis = Kinesis::start().await;
    kinesis.create("a", 1).await;
    let put = json!({"StreamName": "a", "PartitionKey": "k", "Data": "aGk="}).to_string();
    let (status, headers, _) = whole(kinesis.send(Http::Two, kinesis.request("PutRecord", AMZ_JSON, put)).await).await;
    assert_eq!((status.as_u16(), headers["content-type"].to_str().unwrap()), (200, AMZ_JSON));
    let answer = kinesis.ask("GetRecords", json!({"ShardIterator": kinesis.trim_horizon("a", "0").await})).await;
    assert_eq!(records(&answer), ["hi"]);
    // The other doors are there, too.
    let topics = Request::get(format!("http://{}/topics", kinesis.addr)).body(Body::empty()).unwrap();
    assert_eq!(whole(kinesis.send(Http::Two, topics).await).await.2, r#"["a"]"#);
}

#[tokio::test]
async fn any_path_will_do_and_every_answer_has_its_ids() {
    let kinesis = Kinesis::start().await;
    let mut request = kinesis.request("ListStreams", AMZ_JSON, "{}");
    *request.uri_mut() = format!("http://{}/topics/a/partitions?x=y", kinesis.addr).parse().unwrap();
    let (status, headers, body) = whole(kinesis.send(Http::One, request).await).await;
    assert_eq!(
        (status.as_u16(), &body[..]),
        (200, &br#"{"StreamNames":[],"HasMoreStreams":false,"StreamSummaries":[]}"#[..])
    );
    assert_eq!((headers["x-amzn-requestid"].len(), headers["x-amz-id-2"].len()), (36, 96));
    assert!(!headers.contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn what_is_no_request_of_the_service_is_refused_as_there() {
    let kinesis = Kinesis::start().await;
    let send = async |method: &str, target: Option<&str>, media_type: &str, body: &'static str| {
        let request =
            Request::builder().method(method).uri(format!("http://{}/", kinesis.addr)).header("host", "localhost");
        let request = request.header("content-type", media_type).header("authorization", SIGNATURE);
        let request = match target {
            Some(target) => request.header("x-amz-target", target),
            None => request,
        };
        let (status, _, body) = whole(kinesis.send(Http::One, request.body(Body::from(body)).unwrap()).await).await;
        (status.as_u16(), String::from_utf8(body.to_vec()).unwrap())
    };
    let list = Some("Kinesis_20131202.ListStreams");
    let denied = "<AccessDeniedException>\n  <Message>Unable to determine service/operation name to be \
                  authorized</Message>\n</AccessDeniedException>\n";
    assert_eq!(send("GET", list, AMZ_JSON, "").await, (403, denied.to_owned()));
    assert_eq!(send("POST", list, "text/plain", "{}").await, (404, "<UnknownOperationException/>\n".to_owned()));
    assert_eq!(send("POST", Some("x"), "text/plain", "{}").await, (403, denied.to_owned()));
    let unknown = r#"{"__type":"UnknownOperationException"}"#;
    for target in [None, Some("ListStreams"), Some("DynamoDB_20120810.ListTables"), Some("Kinesis_20131202.Drop")] {
        assert_eq!(send("POST", target, AMZ_JSON, "{}").await, (400, unknown.to_owned()), "{target:?}");
    }
    for body in ["", "[]", "{", "1"] {
        let (status, answer) = send("POST", list, AMZ_JSON, body).await;
        assert!(status == 400 && answer.starts_with(r#"{"__type":"SerializationException","Message":"#), "{answer}");
    }
}

#[tokio::test]
async fn pages_may_ask_only_if_they_are_named() {
    let page = "https://example.org";
    for (allowed, is_allowed) in
        [(vec![], false), (vec!["https://Example.org"], true), (vec!["*"], true), (vec!["https://example.com"], false)]
    {
        let kinesis =
            Kinesis::with(|config| config.server.cors_origins = allowed.iter().map(ToString::to_string).collect())
                .await;
        let preflight = Request::options(format!("http://{}/", kinesis.addr))
            .header("host", "localhost")
            .header("origin", page)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "content-type,x-amz-target")
            .body(Body::empty())
            .unwrap();
        let (status, headers, _) = whole(kinesis.send(Http::One, preflight).await).await;
        let mut request = kinesis.request("ListStreams", AMZ_JSON, "{}");
        request.headers_mut().insert("origin", page.parse().unwrap());
        let (asked, answered, _) = whole(kinesis.send(Http::One, request).await).await;
        if is_allowed {
            assert_eq!((status.as_u16(), asked.as_u16()), (200, 200));
            assert_eq!(headers["access-control-allow-headers"], "content-type,x-amz-target");
            assert_eq!(
                (&headers["access-control-allow-origin"], &headers["access-control-max-age"]),
                (&"*".parse().unwrap(), &"172800".parse().unwrap())
            );
            assert!(answered["access-control-expose-headers"].to_str().unwrap().contains("x-amzn-RequestId"));
        } else {
            assert_eq!((status.as_u16(), asked.as_u16()), (403, 403));
        }
    }
}
