//! The Kafka REST door: what is stored, and every answer byte by byte.

use axum::body::Body;
use bytes::Bytes;
use http::{Request, StatusCode};
use model::{
    EventLog, Header, LogError, OffsetRange, Stop, Timestamp, TopicChange, TopicPartition, config::Config,
    partitioner::partition_of_key,
};

use server::router;
use tower::ServiceExt;

use crate::harness::{BINARY, JSON, Server, post, services};

const KAFKA_V2: &str = "application/vnd.kafka.v2+json";
const PLAIN_JSON: &str = "application/json";

/// What Python's `json.dumps({"records": [{"value": row}]}, default=str)` makes of a row.
const PYTHON_BODY: &str = r#"{"records": [{"value": {"index": 7528, "unique_id": "fbe53c66-3442-4773-b19e-d3ec6f54dddf", "title": "Caf\u00e9 \u2013 \"d\u00e9j\u00e0 vu\" \ud83d\ude00", "follower_count": "124k", "tag_list": "N,o, ,T", "is_image_or_video": "image", "save_location": "Local save in /data/mens-fashion", "downloaded": 1, "timestamp": "2021-10-22 12:59:06", "latitude": -88.8298, "longitude": -170.188}}]}"#;
const PYTHON_VALUE: &str = r#"{"index":7528,"unique_id":"fbe53c66-3442-4773-b19e-d3ec6f54dddf","title":"Café – \"déjà vu\" 😀","follower_count":"124k","tag_list":"N,o, ,T","is_image_or_video":"image","save_location":"Local save in /data/mens-fashion","downloaded":1,"timestamp":"2021-10-22 12:59:06","latitude":-88.8298,"longitude":-170.188}"#;

fn stored(partition: u32, offset: u64) -> String {
    format!(r#"{{"partition":{partition},"offset":{offset},"error_code":null,"error":null}}"#)
}

fn receipts(receipts: &[String]) -> String {
    format!(r#"{{"offsets":[{}],"key_schema_id":null,"value_schema_id":null}}"#, receipts.join(","))
}

fn error(code: u32, message: &str) -> String {
    format!(r#"{{"error_code":{code},"message":"{message}"}}"#)
}

#[tokio::test]
async fn a_post_of_the_emulation_is_stored_as_its_compact_text() {
    let server = Server::start().await;
    let reply = server.produce("0a3.pin", PYTHON_BODY).await;
    assert_eq!((reply.status, reply.body), (200, receipts(&[stored(0, 0)])));
    assert_eq!(reply.headers["content-type"], KAFKA_V2);
    let records = server.log.records("0a3.pin", 0);
    assert_eq!(records[0].value.as_deref(), Some(PYTHON_VALUE.as_bytes()));
    assert_eq!((&records[0].key, records[0].headers.len()), (&None, 0));
    assert!(records[0].timestamp > Timestamp(1_700_000_000_000));
}

#[tokio::test]
async fn behind_a_stage_the_door_is_as_it_is_behind_a_gateway() {
    let server = Server::start().await;
    let reply = server.post("/prod/topics/0a3.pin", JSON, PYTHON_BODY).await;
    assert_eq!((reply.status, reply.body), (200, receipts(&[stored(0, 0)])));
    let reply = server.post("/any-stage_1/topics/0a3.pin/partitions/0", JSON, PYTHON_BODY).await;
    assert_eq!((reply.status, reply.body), (200, receipts(&[stored(0, 1)])));
    assert_eq!(server.get("/prod/topics").await.body, r#"["0a3.pin"]"#);
    let reply = server.post("/prod/topics/0a3.pin", JSON, r#"{"ind":1}"#).await;
    assert_eq!((reply.status, reply.body), (422, error(422, "Unrecognized field: ind")));
    for path in ["/prod", "/Test/", "/dev/topic/0a3.pin"] {
        for reply in [server.get(path).await, server.post(path, JSON, PYTHON_BODY).await] {
            assert_eq!((reply.status, reply.body.as_str()), (403, r#"{"message":"Missing Authentication Token"}"#));
            assert_eq!(reply.headers["x-amzn-errortype"], "MissingAuthenticationTokenException");
        }
    }
    // Whom a request asks does not get lost with the stage.
    for stage in ["", "/prod"] {
        let (target, length) = (format!("http://elsewhere.example{stage}/topics/0a3.pin"), PYTHON_BODY.len());
        let request = format!(
            "POST {target} HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\nContent-Type: {JSON}\r\n\
             Content-Length: {length}\r\n\r\n{PYTHON_BODY}"
        );
        assert_eq!(server.ask(request).await.status, 403, "{target}");
    }
    assert_eq!(server.log.records("0a3.pin", 0).len(), 2);
}

#[tokio::test]
async fn what_is_stored_is_what_was_sent() {
    let text = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
    for (media_type, record, key, value) in [
        (JSON, r#"{"value":{"a":[1,2.50,1e3]}}"#, None, text(r#"{"a":[1,2.50,1e3]}"#)),
        (JSON, r#"{"value":[{"ind": 1}]}"#, None, text(r#"[{"ind":1}]"#)),
        (JSON, r#"{"key":"k","value":"v"}"#, text(r#""k""#), text(r#""v""#)),
        (JSON, r#"{"key": {"b": 1, "a": 2} , "value": true}"#, text(r#"{"b":1,"a":2}"#), text("true")),
        (JSON, r#"{"key":null,"value":null}"#, None, None),
        (JSON, "{}", None, None),
        (JSON, r#"{"v\u0061lue":"\ud83d"}"#, None, text(r#""\ud83d""#)),
        (JSON, r#"{"value":"null"}"#, None, text(r#""null""#)),
        (JSON, r#"{"value":{"a":1,"a":2}}"#, None, text(r#"{"a":1,"a":2}"#)),
        (PLAIN_JSON, r#"{"value": 123456789012345678901234567890}"#, None, text("123456789012345678901234567890")),
        ("application/vnd.kafka.json.v2+json; charset=utf-8", r#"{"value":"é"}"#, None, text("\"é\"")),
        (BINARY, r#"{"key":"Zm9v","value":"/+8="}"#, text("foo"), Some(Bytes::from_static(b"\xff\xef"))),
        (BINARY, r#"{"value":"\/+8="}"#, None, Some(Bytes::from_static(b"\xff\xef"))),
        (BINARY, r#"{"key":"","value":null}"#, text(""), None),
    ] {
        let server = Server::start().await;
        let body = format!(r#"{{"key_schema":null,"records":[{record}],"value_schema_id":null}}"#);
        let reply = server.post("/topics/pin", media_type, body).await;
        assert_eq!((reply.status, reply.body), (200, receipts(&[stored(0, 0)])), "{record}");
        let records = server.log.records("pin", 0);
        assert_eq!((records[0].key.clone(), records[0].value.clone()), (key, value), "{record}");
    }
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused_whole() {
    let server = Server::start().await;
    server.log.with_topic("pin", 1);
    let unrecognized = |field: &str| (422, error(422, &format!("Unrecognized field: {field}")));
    let malformed = |text: &str| (400, error(400, text));
    let ok = r#"{"value":1}"#;
    let cases = [
        (JSON, r#"{"ind":1,"first_name":"A"}"#.to_owned(), unrecognized("ind")),
        (JSON, r#"{"records":[{"ind":1}]}"#.to_owned(), unrecognized("ind")),
        (JSON, r#"{"records":[{"value":1}],"x":1}"#.to_owned(), unrecognized("x")),
        (JSON, r#"{"records":[]}"#.to_owned(), (422, error(422, "records must not be empty (was [])"))),
        (JSON, r#"{"records":null}"#.to_owned(), (422, error(422, "records must not be empty (was null)"))),
        (JSON, "{}".to_owned(), (422, error(422, "records must not be empty (was null)"))),
        (JSON, r#"{"records":[null]}"#.to_owned(), (422, error(422, "records[0] must not be null (was null)"))),
        (JSON, String::new(), (422, error(42206, "Payload error. Request body is empty. Data is required."))),
        (JSON, r#"{"records":[{"value":1}"#.to_owned(), malformed("EOF while parsing a list at line 1 column 23")),
        (JSON, "{\"records\":\n[{\"value\":x}]}".to_owned(), malformed("expected value at line 2 column 11")),
        (JSON, r#"{"records":[{"value":"\x"}]}"#.to_owned(), malformed("invalid escape at line 1 column 24")),
        (JSON, r#"{"records":[{"value":1}]} x"#.to_owned(), malformed("trailing characters at line 1 column 27")),
        (
            JSON,
            r#"{"records":[{"value":1}],"records":[]}"#.to_owned(),
            malformed("duplicate field `records` at line 1 column 34"),
        ),
        (
            JSON,
            r#"{"records":{"value":1}}"#.to_owned(),
            malformed("records: invalid type: map, expected an array of records at line 1 column 12"),
        ),
        (
            JSON,
            r#"{"records":[1]}"#.to_owned(),
            malformed(
                "records[0]: invalid type: integer `1`, expected a record: an object with the field `value` at line 1 column 13",
            ),
        ),
        (
            JSON,
            "[]".to_owned(),
            malformed("invalid type: sequence, expected an object with the field `records` at line 1 column 0"),
        ),
        (
            JSON,
            r#"{"records":[{"value":1,"partition":"0"}]}"#.to_owned(),
            malformed("records[0].partition: invalid type: string \\\"0\\\", expected i64 at line 1 column 38"),
        ),
        (
            JSON,
            format!(r#"{{"records":[{ok},{{"value":1,"partition":-1}}]}}"#),
            (422, error(422, "records[1].partition must be greater than or equal to 0 (was -1)")),
        ),
        (
            JSON,
            format!(r#"{{"records":[{ok},{{"value":1,"partition":1}}]}}"#),
            (404, error(40402, "Partition not found.")),
        ),
        (BINARY, r#"{"records":[{"value":1}]}"#.to_owned(), malformed("Bad Request: data=1 is not a base64 string.")),
        (
            BINARY,
            r#"{"records":[{"value":{"a": 1}}]}"#.to_owned(),
            malformed(r#"Bad Request: data={\"a\": 1} is not a base64 string."#),
        ),
        (
            BINARY,
            r#"{"records":[{"value":"Zm9v"},{"key":"Zm9","value":"Zm9v"}]}"#.to_owned(),
            malformed(r#"Bad Request: data=\"Zm9\" is not a valid base64 string."#),
        ),
        (
            JSON,
            r#"{"records":[{"value":1,"timestamp":"yesterday"}]}"#.to_owned(),
            malformed(
                "records[0].timestamp is neither milliseconds since 1970 nor an RFC 3339 time (was \\\"yesterday\\\")",
            ),
        ),
        (
            JSON,
            r#"{"records":[{"value":1,"headers":[{"value":"eA=="}]}]}"#.to_owned(),
            malformed("records[0].headers: missing field `name`"),
        ),
        (
            JSON,
            r#"{"records":[{"value":1,"headers":[{"name":"n","value":"é"}]}]}"#.to_owned(),
            malformed("Bad Request: data=\\\"é\\\" is not a valid base64 string."),
        ),
    ];
    for (media_type, body, (status, answer)) in cases {
        let reply = server.post("/topics/pin", media_type, &body).await;
        assert_eq!((reply.status, reply.body), (status, answer), "{body}");
        assert_eq!(reply.headers["content-type"], KAFKA_V2, "{body}");
    }
    let not_utf8 = server.produce("pin", b"{\"records\":[{\"value\":\"\xff\"}]}").await;
    assert_eq!((not_utf8.status, not_utf8.body), malformed("the request body is not UTF-8: byte 23 is wrong"));
    assert!(server.log.records("pin", 0).is_empty());
}

#[tokio::test]
async fn media_types_are_exact() {
    let server = Server::start().await;
    let refused = (415, error(415, "HTTP 415 Unsupported Media Type"));
    for media_type in
        ["text/plain", KAFKA_V2, "application/vnd.kafka.json.v1+json", "application/x-www-form-urlencoded", ""]
    {
        let reply = server.post("/topics/pin", media_type, r#"{"records":[{"value":1}]}"#).await;
        assert_eq!((reply.status, reply.body), refused, "{media_type}");
    }
    for head in ["", "Content-Type: application/json\r\nContent-Encoding: gzip\r\n"] {
        let reply = server.ask(format!("POST /topics/pin HTTP/1.1\r\n{head}Content-Length: 2\r\n\r\n{{}}")).await;
        assert_eq!((reply.status, reply.body), refused, "{head}");
    }
    assert!(server.log.topic_names().is_empty());
}

#[tokio::test]
async fn formats_that_need_a_schema_say_what_is_missing() {
    let server = Server::start().await;
    for (body, code, message) in [
        (r#"{"records":[{"key":1,"value":1}]}"#, 42201, "Request includes keys but does not include key schema"),
        (
            r#"{"key_schema_id":7,"records":[{"key":1,"value":1}]}"#,
            42202,
            "Request includes values but does not include value schema",
        ),
        (
            r#"{"value_schema":"{}","records":[{"value":1}]}"#,
            42205,
            "Invalid schema: this server has no schema registry, so it does not take the avro format; \
             send application/vnd.kafka.json.v2+json or application/vnd.kafka.binary.v2+json",
        ),
    ] {
        let reply = server.post("/topics/pin", "application/vnd.kafka.avro.v2+json", body).await;
        assert_eq!((reply.status, reply.body), (422, error(code, message)), "{body}");
    }
    for format in ["protobuf", "jsonschema"] {
        let media_type = format!("application/vnd.kafka.{format}.v2+json");
        let reply = server.post("/topics/pin", &media_type, r#"{"records":[{"value":1}]}"#).await;
        assert_eq!(reply.status, 422, "{format}");
    }
}

#[tokio::test]
async fn records_go_to_the_partition_of_their_own_then_of_the_path_then_of_their_key() {
    let server = Server::start().await;
    server.log.with_topic("pin", 4);
    let path = "/topics/pin/partitions/2";
    let reply =
        server.post(path, JSON, r#"{"records":[{"key":"k","value":1},{"value":2,"partition":3},{"value":3}]}"#).await;
    assert_eq!((reply.status, reply.body), (200, receipts(&[stored(2, 0), stored(3, 0), stored(2, 1)])));

    let of_key = partition_of_key(br#"{"a":1}"#, 4);
    let reply = server.produce("pin", r#"{"records":[{"key":{"a": 1},"value":4}]}"#).await;
    let offset = server.log.records("pin", of_key as usize).len() as u64 - 1;
    assert_eq!(reply.body, receipts(&[stored(of_key, offset)]));
    assert_eq!(server.log.values("pin", 3).first().map(String::as_str), Some("2"));

    for (path, code, message) in [
        ("/topics/pin/partitions/4", 40402, "Partition not found."),
        ("/topics/pin/partitions/-1", 40402, "Partition not found."),
        ("/topics/pin/partitions/99999999999", 40402, "Partition not found."),
        ("/topics/pin/partitions/x", 404, "HTTP 404 Not Found"),
    ] {
        let reply = server.post(path, JSON, r#"{"records":[{"value":1,"partition":0}]}"#).await;
        assert_eq!((reply.status, reply.body), (404, error(code, message)), "{path}");
    }
}

#[tokio::test]
async fn records_without_key_stay_together_and_take_turns() {
    let server = Server::start().await;
    server.log.with_topic("pin", 2);
    for partition in [0, 1, 0] {
        let reply = server.produce("pin", r#"{"records":[{"value":1},{"value":2}]}"#).await;
        let first = if server.log.records("pin", partition).len() == 4 { 2 } else { 0 };
        assert_eq!(reply.body, receipts(&[stored(partition as u32, first), stored(partition as u32, first + 1)]));
    }
}

#[tokio::test]
async fn a_request_that_is_stored_in_part_says_what_is_not() {
    let server = Server::start().await;
    server.log.with_topic("pin", 3);
    let range = |p: u32| OffsetRange {
        partition: TopicPartition::new("pin".parse().unwrap(), p),
        start: model::Offset(0),
        end: model::Offset(1),
    };
    server.log.fail_next(1, LogError::unavailable("the disk is full"));
    server.log.fail_next(2, LogError::Corrupt { range: range(2), reason: "a \"bit\" flipped".to_owned() });
    let body = r#"{"records":[
        {"value":1,"partition":1}, {"value":2,"partition":0}, {"value":3,"partition":2}, {"value":4,"partition":0}
    ]}"#;
    let reply = server.produce("pin", body).await;
    let failed =
        |code: u32, text: &str| format!(r#"{{"partition":null,"offset":null,"error_code":{code},"error":"{text}"}}"#);
    let answer = receipts(&[
        failed(50003, "the log is unavailable: the disk is full"),
        stored(0, 0),
        failed(50002, r#"pin-2 [0, 1) is corrupt: a \"bit\" flipped"#),
        stored(0, 1),
    ]);
    assert_eq!((reply.status, reply.body), (200, answer));
}

#[tokio::test]
async fn nothing_stored_is_never_an_answer_of_200() {
    let server = Server::start().await;
    server.log.with_topic("pin", 2);
    let body = r#"{"records":[{"value":1,"partition":0},{"value":2,"partition":1}]}"#;

    server.log.fail_next(0, LogError::unavailable("the disk is full"));
    server.log.fail_next(1, LogError::unavailable("the disk is full"));
    let reply = server.produce("pin", body).await;
    assert_eq!(
        (reply.status, reply.body.as_str()),
        (503, error(50302, "the log is unavailable: the disk is full").as_str())
    );
    assert_eq!(reply.headers["retry-after"], "1");

    server.log.fail_next(0, LogError::unavailable("the disk is full"));
    server.log.fail_next(1, LogError::Unavailable { reason: "the sync failed".to_owned(), outcome_unknown: true });
    let reply = server.produce("pin", body).await;
    let message = "the log is unavailable: the sync failed; whether the records were stored is not known";
    assert_eq!((reply.status, reply.body), (503, error(50302, message)));

    server.log.fail_next(0, LogError::TooLarge { actual_bytes: 9, limit_bytes: 8 });
    let reply = server.produce("pin", r#"{"records":[{"value":1,"partition":0}]}"#).await;
    let message = "a record of 9 bytes is larger than the limit of 8 bytes";
    assert_eq!((reply.status, reply.body), (413, error(413, message)));
}

#[tokio::test]
async fn what_is_too_large_or_too_deep_is_refused() {
    let server = Server::with(|config| {
        config.ingest.max_body_bytes = 500;
        config.ingest.max_record_bytes = 20;
        config.ingest.max_records_per_request = 3;
        config.ingest.max_json_depth = 2;
    })
    .await;
    let records = |records: &[&str]| format!(r#"{{"records":[{}]}}"#, records.join(","));
    let one = r#"{"value":1}"#;
    for (body, status, answer) in [
        (records(&[one; 3]), 200, receipts(&[stored(0, 0), stored(0, 1), stored(0, 2)])),
        (records(&[one; 4]), 413, error(413, "the request has more than 3 records (ingest.max_records_per_request)")),
        (records(&[r#"{"value":[[]]}"#]), 200, receipts(&[stored(0, 3)])),
        (
            records(&[one, r#"{"value":[[[]]]}"#]),
            400,
            error(400, "records[1].value is nested deeper than 2 levels (ingest.max_json_depth)"),
        ),
        (
            records(&[r#"{"key":[[{}]],"value":1}"#]),
            400,
            error(400, "records[0].key is nested deeper than 2 levels (ingest.max_json_depth)"),
        ),
        (records(&[r#"{"key":12345,"value":"1234567890123"}"#]), 200, receipts(&[stored(0, 4)])),
        (
            records(&[one, r#"{"key":123456,"value":"1234567890123"}"#]),
            413,
            error(413, "records[1] has 21 bytes, 20 are allowed (ingest.max_record_bytes)"),
        ),
        (" ".repeat(501), 413, error(413, "the request body is larger than 500 bytes (ingest.max_body_bytes)")),
    ] {
        let reply = server.produce("pin", &body).await;
        assert_eq!((reply.status, reply.body), (status, answer), "{body}");
    }
    assert_eq!(server.log.records("pin", 0).len(), 5);
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_before_it_is_read() {
    let server = Server::with(|config| config.ingest.max_body_bytes = 500).await;
    let answer = error(413, "the request body is larger than 500 bytes (ingest.max_body_bytes)");
    let head = "POST /topics/pin HTTP/1.1\r\nContent-Type: application/json\r\n";

    let reply = server.ask(format!("{head}Content-Length: 501\r\n\r\n")).await;
    assert_eq!((reply.status, reply.body.as_str()), (413, answer.as_str()));
    assert_eq!(reply.headers["connection"], "close");

    // A client that reads only when all is sent still gets its answer.
    let reply = server.produce("pin", vec![b' '; 8 << 20]).await;
    assert_eq!((reply.status, reply.body.as_str()), (413, answer.as_str()));

    let chunks = format!("{:x}\r\n{}\r\n", 400, " ".repeat(400)).repeat(2);
    let reply = server.ask(format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunks}")).await;
    assert_eq!((reply.status, reply.body.as_str()), (413, answer.as_str()));
}

#[tokio::test]
async fn a_body_in_chunks_is_one_body() {
    let server = Server::start().await;
    let body = r#"{"records":[{"value":{"a": 1}},{"value":2}]}"#;
    let chunks: String = body.chars().map(|c| format!("1\r\n{c}\r\n")).collect();
    let head = "POST /topics/pin HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n";
    let mut client = server.connect().await;
    client.send(format!("{head}Trailer: x\r\n\r\n{chunks}0\r\nx: y\r\n\r\n")).await;
    assert_eq!(client.reply().await.body, receipts(&[stored(0, 0), stored(0, 1)]));
    client.send(post("/topics/pin", JSON, body)).await;
    assert_eq!(client.reply().await.body, receipts(&[stored(0, 2), stored(0, 3)]));
    assert_eq!(server.log.values("pin", 0), [r#"{"a":1}"#, "2", r#"{"a":1}"#, "2"]);
}

#[tokio::test]
async fn a_large_body_in_many_pieces_is_one_body() {
    let server = Server::start().await;
    let value = format!(r#"{{"text":"{}"}}"#, "ab é ".repeat(100_000));
    let reply = server.produce("pin", format!(r#"{{"records":[{{"value":{value}}},{{"value": {value} }}]}}"#)).await;
    assert_eq!((reply.status, reply.body), (200, receipts(&[stored(0, 0), stored(0, 1)])));
    assert!(server.log.values("pin", 0) == [value.clone(), value]);
}

#[tokio::test]
async fn depth_exhausts_no_stack() {
    let server = Server::start().await;
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(100_000), close.repeat(100_000));
    let refused = error(400, "records[0].value is nested deeper than 64 levels (ingest.max_json_depth)");
    for value in [deep("[", "]"), format!("{}1{}", r#"{"a":"#.repeat(100_000), "}".repeat(100_000))] {
        let reply = server.produce("pin", format!(r#"{{"records":[{{"value":{value}}}]}}"#)).await;
        assert_eq!((reply.status, reply.body.as_str()), (400, refused.as_str()));
    }
    for body in [deep("[", "]"), "[".repeat(100_000), format!(r#"{{"records":{}"#, "[".repeat(100_000))] {
        assert_eq!(server.produce("pin", body).await.status, 400);
    }
    let reply =
        server.produce("pin", format!(r#"{{"key_schema":{},"records":[{{"value":1}}]}}"#, deep("[", "]"))).await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn bodies_that_find_no_room_are_refused_before_they_are_read() {
    let server = Server::with(|config| {
        config.ingest.max_body_bytes = 1000;
        config.ingest.max_inflight_bytes = 1000;
    })
    .await;
    let body = |n: usize| format!(r#"{{"records":[{{"value":"{}"}}]}}"#, "x".repeat(n - 26));
    let refused =
        error(503, "too many bytes are in flight (ingest.max_inflight_bytes); nothing was accepted, try again");
    server.log.close_gate();
    let mut first = server.connect().await;
    first.send(post("/topics/pin", JSON, body(900))).await;
    server.log.append_at_gate().await;

    // Only the head: the server does not wait for a body that it has no room for.
    let head = "POST /topics/pin HTTP/1.1\r\nContent-Type: application/json\r\n";
    let reply = server.ask(format!("{head}Content-Length: 101\r\n\r\n")).await;
    assert_eq!((reply.status, reply.body.as_str()), (503, refused.as_str()));
    assert_eq!((reply.headers["retry-after"].as_str(), reply.headers["connection"].as_str()), ("1", "close"));

    let chunk = format!("{:x}\r\n{}\r\n", 101, " ".repeat(101));
    let reply = server.ask(format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunk}")).await;
    assert_eq!((reply.status, reply.body), (503, refused));
    assert!(server.get("/metrics").await.body.contains("corkboard_ingest_inflight_bytes 900\n"));

    server.log.open_gate();
    assert_eq!(first.reply().await.status, 200);
    assert_eq!(server.produce("pin", body(900)).await.status, 200);
    let metrics = server.get("/metrics").await.body;
    assert!(metrics.contains("corkboard_ingest_inflight_bytes 0\n"), "{metrics}");
    assert!(metrics.contains("corkboard_refused_requests_total{reason=\"overloaded\"} 2\n"), "{metrics}");
    assert!(metrics.contains("corkboard_appended_records_total{topic=\"pin\"} 2\n"), "{metrics}");
    assert!(metrics.contains("route=\"/topics/{topic}\",method=\"POST\""), "{metrics}");
}

#[tokio::test]
async fn many_tiny_records_are_weighed_by_what_they_take_in_memory() {
    let server = Server::with(|config| {
        config.ingest.max_body_bytes = 2000;
        config.ingest.max_inflight_bytes = 20_000;
    })
    .await;
    let body = |n: usize| format!(r#"{{"records":[{}{{}}]}}"#, "{},".repeat(n - 1));
    let reply = server.produce("pin", body(500)).await;
    assert_eq!(reply.status, 503, "{}", reply.body);
    assert_eq!(server.log.topic_names(), Vec::<String>::new(), "nothing of it was accepted");
    assert_eq!(server.produce("pin", body(10)).await.status, 200);
    assert_eq!(server.log.records("pin", 0).len(), 10);
}

#[tokio::test]
async fn topics_are_created_within_limits_and_only_by_requests_that_make_sense() {
    let body = r#"{"records":[{"value":1}]}"#;
    let server = Server::with(|config| {
        config.ingest.max_topics = 2;
        config.ingest.default_partitions = 3;
    })
    .await;
    server.produce("nonsense", "{").await;
    for name in ["a", "b", "a"] {
        assert_eq!(server.produce(name, body).await.status, 200, "{name}");
    }
    let reply = server.produce("c", body).await;
    let message = "topic c was not created: there are 2 already (ingest.max_topics)";
    assert_eq!((reply.status, reply.body), (400, error(40002, message)));
    for name in [".", "a%2Fb", "a%20b", "%00", "%C3%BC", &"x".repeat(250)] {
        let reply = server.produce(name, body).await;
        assert!(
            reply.status == 400 && reply.body.starts_with(r#"{"error_code":40002,"message":"topic name "#),
            "{name}"
        );
    }
    for (path, record) in
        [("/topics/new/partitions/3", r#"{"value":1}"#), ("/topics/new", r#"{"value":1,"partition":3}"#)]
    {
        let server = Server::with(|config| config.ingest.default_partitions = 3).await;
        let reply = server.post(path, JSON, format!(r#"{{"records":[{{"value":0}},{record}]}}"#)).await;
        assert_eq!((reply.status, reply.body), (404, error(40402, "Partition not found.")), "{path}");
        assert!(server.log.topic_names().is_empty(), "{path}");
    }
    assert_eq!(server.log.topic_names(), ["a", "b"]);
    assert_eq!(server.get("/topics/a/partitions/2/offsets").await.status, 200);

    let server = Server::with(|config| config.ingest.auto_create_topics = false).await;
    let reply = server.produce("pin", body).await;
    assert_eq!((reply.status, reply.body), (404, error(40401, "Topic not found.")));
    server.log.with_topic("pin", 1);
    assert_eq!(server.produce("pin", body).await.status, 200);
}

#[tokio::test]
async fn topics_that_the_log_changed_are_known_as_they_are_now() {
    let body = r#"{"records":[{"value":1}]}"#;
    let server = Server::start().await;
    assert_eq!(server.produce("pin", body).await.status, 200);
    let at_two = || server.post("/topics/pin/partitions/2", JSON, body);
    assert_eq!(at_two().await.status, 404);
    let pin = "pin".parse().unwrap();
    server.log.change_topic(&pin, TopicChange::Grow { n_partitions: 3 }).await.unwrap();
    assert_eq!(at_two().await.status, 200, "a partition that was added since is found");

    server.log.change_topic(&pin, TopicChange::Delete).await.unwrap();
    let reply = server.produce("pin", body).await;
    assert_eq!((reply.status, reply.body), (404, error(40401, "Topic not found.")), "it is gone, and then made anew");
    assert_eq!(server.produce("pin", body).await.status, 200);
    assert_eq!(server.log.records("pin", 0).len(), 1);
}

#[tokio::test]
async fn internal_topics_are_not_there_for_producers() {
    let server = Server::with(|config| config.ingest.max_topics = 1).await;
    server.log.with_topic("__state", 1);
    for name in ["__state", "__new"] {
        let reply = server.produce(name, r#"{"records":[{"value":1}]}"#).await;
        let message = format!("topic {name} is internal: nobody else writes there");
        assert_eq!((reply.status, reply.body), (400, error(40002, &message)));
    }
    assert_eq!(server.get("/topics/__state").await.status, 404);
    assert!(server.log.records("__state", 0).is_empty());
    let made = server.produce("pin", r#"{"records":[{"value":1}]}"#).await;
    assert_eq!(made.status, 200, "they take none of ingest.max_topics: {}", made.body);
    assert_eq!(server.get("/topics").await.body, r#"["pin"]"#);
    let log = server.get("/api/log").await.body;
    assert!(log.contains("pin") && !log.contains("__state"), "{log}");
}

#[tokio::test]
async fn headers_and_times_may_be_given() {
    let server = Server::start().await;
    let body = r#"{"records":[
        {"value":1,"timestamp":1634907546000,"headers":[{"name":"a","value":"Zm9v"},{"key":"b","value":null},{"name":"c"}]},
        {"value":2,"timestamp":"2021-10-22T13:59:06.5+01:00","headers":null}
    ]}"#;
    assert_eq!(server.produce("pin", body).await.status, 200);
    let records = server.log.records("pin", 0);
    let header = |key: &str, value| Header { key: key.to_owned(), value };
    let headers = [header("a", Some(Bytes::from_static(b"foo"))), header("b", None), header("c", None)];
    assert_eq!((records[0].timestamp, &records[0].headers[..]), (Timestamp(1_634_907_546_000), &headers[..]));
    assert_eq!((records[1].timestamp, records[1].headers.len()), (Timestamp(1_634_907_546_500), 0));
}

#[tokio::test]
async fn strict_means_as_confluents_proxy_does() {
    let server = Server::with(|config| config.ingest.strict = true).await;
    for (field, record) in [("headers", r#"{"value":1,"headers":[]}"#), ("timestamp", r#"{"value":1,"timestamp":1}"#)] {
        let reply = server.produce("pin", format!(r#"{{"records":[{record}]}}"#)).await;
        assert_eq!((reply.status, reply.body), (422, error(422, &format!("Unrecognized field: {field}"))));
    }
    assert_eq!(server.post("/topics/pin", PLAIN_JSON, r#"{"records":[{"value":1}]}"#).await.status, 415);
    assert_eq!(server.produce("pin", r#"{"records":[{"value":1}]}"#).await.status, 200);
    let reply = server.get("/topics/none").await;
    let message = "This server does not host this topic-partition.";
    assert_eq!((reply.status, reply.body), (404, error(40403, message)));
}

#[tokio::test]
async fn metadata_says_what_there_is() {
    let server = Server::start().await;
    server.log.with_topic("b.pin", 1);
    server.log.with_topic("a", 2);
    server.produce("b.pin", r#"{"records":[{"value":1},{"value":2}]}"#).await;
    let partition =
        |p: u32| format!(r#"{{"partition":{p},"leader":1,"replicas":[{{"broker":1,"leader":true,"in_sync":true}}]}}"#);
    let configs = r#"{"cleanup.policy":"delete","max.message.bytes":"1048576","retention.bytes":"10737418240","retention.ms":"604800000","segment.bytes":"134217728"}"#;
    for (path, status, answer) in [
        ("/", 200, "{}".to_owned()),
        ("/brokers", 200, r#"{"brokers":[1]}"#.to_owned()),
        ("/topics", 200, r#"["a","b.pin"]"#.to_owned()),
        (
            "/topics/a",
            200,
            format!(r#"{{"name":"a","configs":{configs},"partitions":[{},{}]}}"#, partition(0), partition(1)),
        ),
        ("/topics/a/partitions", 200, format!("[{},{}]", partition(0), partition(1))),
        ("/topics/a/partitions/1", 200, partition(1)),
        ("/topics/b.pin/partitions/0/offsets", 200, r#"{"beginning_offset":0,"end_offset":2}"#.to_owned()),
        ("/topics/none", 404, error(40401, "Topic not found.")),
        ("/topics/a%2Fb", 404, error(40401, "Topic not found.")),
        ("/topics/none/partitions", 404, error(40401, "Topic not found.")),
        ("/topics/none/partitions/0", 404, error(40401, "Topic not found.")),
        ("/topics/a/partitions/2", 404, error(40402, "Partition not found.")),
        ("/topics/a/partitions/-1/offsets", 404, error(40402, "Partition not found.")),
        ("/topics/a/partitions/x", 404, error(404, "HTTP 404 Not Found")),
        ("/nothing", 404, error(404, "HTTP 404 Not Found")),
        ("/topics/a/b", 404, error(404, "HTTP 404 Not Found")),
    ] {
        let reply = server.get(path).await;
        assert_eq!((reply.status, reply.body), (status, answer), "{path}");
        assert_eq!(reply.headers["content-type"], KAFKA_V2, "{path}");
    }
    for request in ["DELETE /topics/a", "PUT /topics", "POST /brokers", "OPTIONS /topics/a"] {
        let reply = server.ask(format!("{request} HTTP/1.1\r\n\r\n")).await;
        assert_eq!((reply.status, reply.body), (405, error(405, "HTTP 405 Method Not Allowed")), "{request}");
        assert!(reply.headers["allow"].contains("GET"), "{request}");
    }
    let mut client = server.connect().await;
    for path in ["/", "/topics", "/topics/a/partitions/0/offsets"] {
        client.send(format!("HEAD {path} HTTP/1.1\r\n\r\n")).await;
        assert_eq!(client.head().await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn answers_are_in_the_type_that_is_asked_for() {
    let server = Server::start().await;
    for (accept, expected) in [
        (PLAIN_JSON, PLAIN_JSON),
        ("*/*", KAFKA_V2),
        (KAFKA_V2, KAFKA_V2),
        ("application/vnd.kafka.v2+json, application/json", KAFKA_V2),
    ] {
        for request in [
            "GET /topics HTTP/1.1\r\n".to_owned(),
            "GET /topics/none HTTP/1.1\r\n".to_owned(),
            "POST /topics/pin HTTP/1.1\r\n".to_owned(),
        ] {
            let reply = server.ask(format!("{request}Accept: {accept}\r\n\r\n")).await;
            assert_eq!(reply.headers["content-type"], expected, "{accept}: {request}");
        }
    }
    let reply = server.ask("GET / HTTP/1.1\r\nHost: localhost\r\nAccept: text/html,*/*;q=0.8\r\n\r\n").await;
    assert_eq!((reply.status, reply.headers["content-type"].as_str()), (200, "text/html; charset=utf-8"));
    let reply = server.ask("GET / HTTP/1.1\r\nHost: evil.example\r\nAccept: text/html\r\n\r\n").await;
    assert_eq!(reply.status, 421);
}

#[tokio::test]
async fn pages_of_other_sites_cannot_produce() {
    let server = Server::start().await;
    let body = r#"{"records":[{"value":1}]}"#;
    for (host, origin, status) in [
        ("localhost:8082", "http://localhost:8082", 200),
        ("localhost:8082", "http://evil.example", 403),
        ("evil.example", "http://evil.example", 403),
        ("localhost:8082", "null", 403),
    ] {
        let head = format!("POST /topics/pin HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\nContent-Type: {JSON}\r\n");
        let reply = server.ask(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())).await;
        assert_eq!(reply.status, status, "{host} {origin}: {}", reply.body);
    }
    assert_eq!(server.log.records("pin", 0).len(), 1);
}

#[tokio::test]
async fn every_answer_carries_a_request_id() {
    let server = Server::start().await;
    let (first, second) = (server.get("/nothing").await, server.produce("pin", "{").await);
    assert!(!first.headers["x-request-id"].is_empty());
    assert_ne!(first.headers["x-request-id"], second.headers["x-request-id"]);
    let reply = server.ask("GET /topics HTTP/1.1\r\nX-Request-Id: mine-7\r\n\r\n").await;
    assert_eq!(reply.headers["x-request-id"], "mine-7");
    let reply = server.ask(format!("GET /topics HTTP/1.1\r\nX-Request-Id: {}\r\n\r\n", "x".repeat(65))).await;
    assert!(reply.headers["x-request-id"].len() < 65);
}

#[tokio::test]
async fn readiness_ends_when_a_stop_begins() {
    let server = Server::start().await;
    assert_eq!(server.get("/healthz").await.status, 200);
    let reply = server.get("/readyz").await;
    assert_eq!((reply.status, reply.body.as_str()), (200, r#"{"status":"ready"}"#));

    // Asked without a connection, because the listener closes those that wait for a request.
    let stop = Stop::new();
    let router = router::router(services(server.log.clone(), Config::defaults()), stop.clone());
    stop.cancel();
    let request = Request::get("/readyz").body(Body::empty()).unwrap();
    assert_eq!(router.oneshot(request).await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
}
