//! Keys: who is let in, to what, how often, and that nobody else is.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use event_log::MemoryLog;
use http::Request;
use model::{
    Stop,
    config::{AuthConfig, AuthMode, Config},
};
use server::{
    auth::{
        Action, AskedUri, Auth, Exceeded, Period, Plan, Refused, ServerSecret, SignatureError,
        keys::{KeyEntry, KeysFile},
    },
    guard::policy::{self, Demand, On},
    router,
};
use tempfile::TempDir;

use crate::{
    harness::{JSON, Reply, Server, TestLog, post, services},
    node::{KAFKA_V2, Node, append, create},
};

const RECORD: &str = r#"{"records":[{"value":1}]}"#;
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// A folder with keys in it.
pub(crate) struct Keys {
    folder: TempDir,
    pub(crate) file: KeysFile,
}

impl Keys {
    pub(crate) fn new() -> Self {
        let keys = Self { folder: tempfile::tempdir().unwrap(), file: KeysFile::default() };
        ServerSecret::read_or_create(Path::new(&keys.config().secret_file)).unwrap();
        keys.write();
        keys
    }

    /// Adds a key and returns its text.
    pub(crate) fn add(&mut self, permissions: &[&str], plan: Option<Plan>) -> String {
        let permissions = permissions.iter().map(|p| p.parse().unwrap()).collect();
        let (entry, text) = KeyEntry::generate("a test", permissions, plan, None).unwrap();
        self.file.add(entry);
        self.write();
        text.reveal().to_owned()
    }

    pub(crate) fn write(&self) {
        self.file.write(Path::new(&self.config().keys_file)).unwrap();
    }

    pub(crate) fn config(&self) -> AuthConfig {
        let path = |name: &str| self.folder.path().join(name).to_str().unwrap().to_owned();
        let (keys_file, secret_file) = (path("keys.toml"), path("keys.secret"));
        AuthConfig { mode: AuthMode::Keys, keys_file, secret_file, ..Config::defaults().auth }
    }

    pub(crate) async fn server(&self) -> Server {
        Server::with(|config| config.auth = self.config()).await
    }

    pub(crate) fn signing_secret(&self, id: &str) -> String {
        let secret = ServerSecret::read(Path::new(&self.config().secret_file)).unwrap();
        secret.signing_secret(self.file.keys.iter().find(|key| key.id == id).unwrap()).unwrap()
    }
}

pub(crate) fn id_of(key: &str) -> &str {
    key.split_once('.').unwrap().0
}

pub(crate) async fn ask(server: &Server, method: &str, path: &str, header: &str) -> Reply {
    let mut client = server.connect().await;
    let body = if method == "POST" { RECORD } else { "" };
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {JSON}\r\n{header}");
    client.send(format!("{head}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}")).await;
    if method == "HEAD" { client.head().await } else { client.reply().await }
}

pub(crate) async fn ask_with(server: &Server, method: &str, path: &str, key: &str) -> Reply {
    ask(server, method, path, &format!("x-api-key: {key}\r\n")).await
}

/// Methods (`*` for all) and templates of the router, as its `Debug` shows them.
pub(crate) fn routes() -> BTreeSet<(String, String)> {
    let router = format!("{:?}", router::routes(&services(TestLog::new(), Config::defaults()), Stop::new()));
    let (routes, _) = router.split_once("fallback_router").expect("axum shows its parts");
    let (routes, rest) = routes.split_once("node: Node").expect("axum shows its paths");
    let paths: BTreeMap<&str, &str> = rest
        .split("RouteId(")
        .filter_map(|part| part.split_once("): \""))
        .map(|(id, path)| (id, path.split('"').next().unwrap()))
        .collect();
    let mut found = BTreeSet::new();
    for (id, methods) in routes.split("RouteId(").filter_map(|part| part.split_once("): MethodRouter(MethodRouter { "))
    {
        let methods = methods.split(", ").filter_map(|field| field.split_once(": "));
        let methods = methods.take_while(|(name, _)| *name != "fallback").filter(|(_, handler)| *handler != "None");
        let mut methods: Vec<String> = methods.map(|(name, _)| name.to_uppercase()).collect();
        if methods.is_empty() {
            methods.push("*".to_owned());
        }
        found.extend(methods.into_iter().map(|method| (method, paths[id].to_owned())));
    }
    assert!(found.len() > 30, "{router}");
    found
}

/// Where doors stand that this process may lack: they are compared once they are there.
pub(crate) fn is_elsewhere(template: &str) -> bool {
    let routes = routes();
    let has = |begin: &str| routes.iter().any(|(_, path)| path.starts_with(begin));
    (template.starts_with("/consumers") && !has("/consumers"))
        || (template.starts_with("/v3") && !has("/v3"))
        || (template == "/kinesis" && !has("/kinesis"))
}

#[test]
fn every_route_has_its_policy_and_every_policy_its_route() {
    for (method, template) in routes() {
        assert!(policy::demand(&method, &template).is_some(), "{method} {template} has no row in guard/policy.rs");
    }
    let shape = |template: &str| {
        let segment = |s: &str| if s.starts_with('{') { "{}".to_owned() } else { s.to_owned() };
        template.split('/').map(segment).collect::<Vec<_>>().join("/")
    };
    let known: BTreeSet<(String, String)> = routes().into_iter().map(|(m, t)| (m, shape(&t))).collect();
    for (method, template, _) in policy::routes() {
        let is_there = known.contains(&(method.to_owned(), shape(template))) || template == "/assets/{}";
        assert!(is_there || is_elsewhere(template), "{method} {template} is a policy without a route");
    }
}

#[tokio::test]
async fn without_a_key_nothing_is_answered_but_whether_the_server_is_there() {
    let keys = Keys::new();
    let server = keys.server().await;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
    // A signature covers the body: the Kinesis door asks for it, and its tests show that.
    let is_open = |template: &str| ["/healthz", "/readyz", "/kinesis"].contains(&template);
    let mut paths: BTreeSet<String> =
        routes().into_iter().map(|(_, template)| template).filter(|template| !is_open(template)).collect();
    paths.extend(["/nothing", "/api", "/api/nothing", "/dev/topics", "/prod/x", "/assets/"].map(str::to_owned));
    for path in paths {
        let path = path.replace(['{', '}'], "");
        for method in METHODS {
            for header in [
                "",
                "x-api-key: \r\n",
                "Authorization: Bearer x\r\n",
                "Authorization: Basic Og==\r\n",
                "Cookie: key=x\r\n",
            ] {
                let reply = ask(&server, method, &path, header).await;
                assert!([401, 403, 429].contains(&reply.status), "{method} {path} {header}: {}", reply.status);
                assert!(reply.status != 401 || reply.headers.contains_key("www-authenticate"), "{method} {path}");
            }
        }
    }
    assert!(server.log.topic_names().is_empty());
}

#[tokio::test]
async fn each_protocol_refuses_in_its_own_words() {
    let mut keys = Keys::new();
    let key = keys.add(&["produce:mine"], None);
    let server = keys.server().await;
    for (path, none, wrong, other) in [
        (
            "/topics/a",
            (
                401,
                r#"{"error_code":40101,"message":"Authentication failed: the request brings no key (x-api-key, or Authorization)"}"#,
            ),
            (401, r#"{"error_code":40101,"message":"Authentication failed: the key is not valid"}"#),
            (403, r#"{"error_code":40301,"message":"Not authorized: this key lacks describe on \"a\""}"#),
        ),
        (
            "/api/tasks",
            (401, r#"{"error":"Authentication failed: the request brings no key (x-api-key, or Authorization)"}"#),
            (401, r#"{"error":"Authentication failed: the key is not valid"}"#),
            (403, r#"{"error":"Not authorized: this key lacks tasks on any name"}"#),
        ),
        (
            "/dev/topics/a",
            (403, r#"{"message":"Forbidden"}"#),
            (403, r#"{"message":"Forbidden"}"#),
            (403, r#"{"message":"Forbidden"}"#),
        ),
        (
            "/streams/a",
            (403, r#"{"message":"Forbidden"}"#),
            (403, r#"{"message":"Forbidden"}"#),
            (403, r#"{"message":"Forbidden"}"#),
        ),
        (
            "/pin/",
            (401, r#"{"detail":"Authentication failed: the request brings no key (x-api-key, or Authorization)"}"#),
            (401, r#"{"detail":"Authentication failed: the key is not valid"}"#),
            (403, r#"{"detail":"Not authorized: this key lacks produce on \"Pinterest_data\""}"#),
        ),
    ] {
        let method = if path == "/pin/" { "POST" } else { "GET" };
        for (header, (status, body)) in
            [(String::new(), none), ("x-api-key: A.b\r\n".to_owned(), wrong), (format!("x-api-key: {key}\r\n"), other)]
        {
            let reply = ask(&server, method, path, &header).await;
            assert_eq!((reply.status, reply.body.as_str()), (status, body), "{path}");
        }
    }
    assert_eq!(
        ask_with(&server, "GET", "/dev/nothing", &key).await.body,
        r#"{"message":"Missing Authentication Token"}"#
    );
}

#[tokio::test]
async fn a_key_is_taken_in_each_of_its_forms_and_no_other() {
    let mut keys = Keys::new();
    let (key, other) = (keys.add(&["produce:a"], None), keys.add(&["produce:a"], None));
    let server = keys.server().await;
    let (id, secret) = key.split_once('.').unwrap();
    let basic = |text: String| format!("Authorization: Basic {}\r\n", BASE64_STANDARD.encode(text));
    for header in [
        format!("x-api-key: {key}\r\n"),
        format!("Authorization: Bearer {key}\r\n"),
        basic(format!("{id}:{secret}")),
        basic(format!("{id}:{key}")),
    ] {
        assert_eq!(ask(&server, "POST", "/topics/a", &header).await.status, 200, "{header}");
    }
    let cut = &key[..key.len() - 1];
    for header in [
        format!("x-api-key: {cut}\r\n"),
        format!("x-api-key: {key}x\r\n"),
        format!("x-api-key: {secret}\r\n"),
        format!("x-api-key: {id}\r\n"),
        format!("x-api-key: {id}.{}\r\n", other.split_once('.').unwrap().1),
        format!("x-api-key: {}\r\n", key.to_lowercase()),
        format!("x-api-key: {key}\r\nx-api-key: {key}\r\n"),
        format!("x-api-key: {key}\r\nAuthorization: Bearer {key}\r\n"),
        format!("Authorization: {key}\r\n"),
        basic(format!("{}:{secret}", id_of(&other))),
    ] {
        assert_eq!(ask(&server, "POST", "/topics/a", &header).await.status, 401, "{header}");
    }
    for path in [format!("/topics/a?x-api-key={key}"), format!("/topics/a?api_key={key}&key={key}")] {
        assert_eq!(ask(&server, "POST", &path, "").await.status, 401, "{path}");
    }
}

#[tokio::test]
async fn a_key_that_is_removed_or_expired_is_refused() {
    let mut keys = Keys::new();
    let (stays, goes, ends) =
        (keys.add(&["produce:a"], None), keys.add(&["produce:a"], None), keys.add(&["produce:a"], None));
    keys.file.keys[2].expires = Some("2020-01-01T00:00:00Z".to_owned());
    keys.write();
    let server = keys.server().await;
    assert_eq!(ask_with(&server, "POST", "/topics/a", &ends).await.status, 401);
    assert_eq!(ask_with(&server, "POST", "/topics/a", &goes).await.status, 200);
    keys.file.remove(id_of(&goes)).unwrap();
    let added = keys.add(&["produce:a"], None);
    let began = std::time::Instant::now();
    while ask_with(&server, "POST", "/topics/a", &goes).await.status == 200 {
        assert!(began.elapsed().as_secs() < 5, "a removed key is taken for too long");
    }
    assert_eq!(ask_with(&server, "POST", "/topics/a", &added).await.status, 200);
    // A file that is broken changes nothing.
    std::fs::write(keys.config().keys_file, "[[key]]\nid = 1").unwrap();
    let began = std::time::Instant::now();
    while began.elapsed().as_millis() < 1200 {
        assert_eq!(ask_with(&server, "POST", "/topics/a", &stays).await.status, 200);
    }
}

/// Roles times routes times names, from the table of policies: whatever is not granted is refused.
#[tokio::test]
async fn what_is_not_granted_is_refused_on_every_route() {
    let mut keys = Keys::new();
    let mut granted = BTreeMap::new();
    let mut others = BTreeMap::new();
    for action in Action::ALL {
        granted.insert(action, keys.add(&[&format!("{action}:mine*")], None));
        let rest = Action::ALL.into_iter().filter(|other| *other != action).map(|other| other.to_string());
        let rest = format!("{}:*", rest.collect::<Vec<_>>().join(","));
        others.insert(action, keys.add(&[&rest, &format!("{action}:theirs")], None));
    }
    let nothing = keys.add(&[], None);
    let server = keys.server().await;
    let mut n_cells = 0;
    for (method, template) in routes() {
        let (demand, _) = policy::demand(&method, &template).unwrap();
        let Demand::May(action, on) = demand else { continue };
        let method = if method == "*" { "GET" } else { &method };
        let path = |name: &str| {
            let fill = |s: &str| if s.starts_with('{') { name.to_owned() } else { s.to_owned() };
            let numbered = template.replace("{partition}", "0");
            numbered.split('/').map(fill).collect::<Vec<_>>().join("/")
        };
        let (mine, theirs, mut cells) = (path("mine.a"), path("other"), Vec::new());
        cells.push((&nothing, &mine, false));
        match on {
            On::Name => {
                cells.extend([(&granted[&action], &mine, true), (&granted[&action], &theirs, false)]);
                cells.push((&others[&action], &mine, false));
            }
            On::Some => cells.push((&granted[&action], &mine, true)),
            On::Fixed(_) | On::Every => {
                cells.extend([(&granted[&action], &mine, false), (&others[&action], &mine, false)]);
            }
        }
        for other in Action::ALL.into_iter().filter(|other| *other != action) {
            cells.push((&granted[&other], &mine, false));
        }
        for (key, path, is_granted) in cells {
            n_cells += 1;
            let reply = ask_with(&server, method, path, key).await;
            assert_eq!(reply.status != 403, is_granted, "{method} {path}: {} {}", reply.status, reply.body);
            assert_ne!(reply.status, 401);
        }
    }
    assert!(n_cells > 150, "{n_cells}");
}

#[tokio::test]
async fn lists_leave_out_what_the_caller_may_not_see() {
    let mut keys = Keys::new();
    let key = keys.add(&["describe:mine.*"], None);
    let server = keys.server().await;
    for topic in ["mine.a", "mine.b", "theirs"] {
        server.log.with_topic(topic, 1);
    }
    assert_eq!(ask_with(&server, "GET", "/topics", &key).await.body, r#"["mine.a","mine.b"]"#);
    let log = ask_with(&server, "GET", "/api/log", &key).await.body;
    assert!(log.contains("mine.b") && !log.contains("theirs"), "{log}");
    assert_eq!(ask_with(&server, "GET", "/metrics", &key).await.status, 403);
}

/// Which topics a consumer reads stands in bodies, and instances outlive the request that made them.
#[tokio::test]
async fn no_consumer_reads_for_a_key_what_the_key_may_not() {
    let mut keys = Keys::new();
    let (mine, theirs) = (keys.add(&["consume:mine*"], None), keys.add(&["consume:theirs"], None));
    let log = Arc::new(MemoryLog::new());
    for topic in ["mine.a", "theirs"] {
        create(&*log, topic, 1).await;
        append(&*log, topic, 0, &["1"]).await;
    }
    let node = Node::on(&log, |config| config.auth = keys.config());
    let ask = async |method: &str, path: &str, key: &str, body: &'static str| {
        let accept = ("accept", "application/vnd.kafka.json.v2+json");
        let headers = [("x-api-key", key), ("content-type", KAFKA_V2), accept];
        node.ask(method, &format!("/consumers/g{path}"), &headers, body).await
    };
    let made = r#"{"name":"c","format":"json","auto.offset.reset":"earliest"}"#;
    assert_eq!(ask("POST", "", &mine, made).await.status, 200);
    let at = "/instances/c";
    for (path, body, status) in [
        ("/subscription", r#"{"topics":["theirs"]}"#, 403),
        ("/subscription", r#"{"topics":["mine.a","theirs"]}"#, 403),
        ("/subscription", r#"{"topics":["not.there.yet"]}"#, 403),
        ("/subscription", r#"{"topic_pattern":".*"}"#, 403),
        ("/assignments", r#"{"partitions":[{"topic":"theirs","partition":0}]}"#, 403),
        ("/offsets", r#"{"offsets":[{"topic":"theirs","partition":0,"offset":1}]}"#, 403),
        ("/subscription", r#"{"topics":["mine.a"]}"#, 204),
    ] {
        let said = ask("POST", &format!("{at}{path}"), &mine, body).await;
        assert_eq!(said.status, status, "{path} {body}: {}", said.body);
        assert!(status != 403 || said.body.starts_with(r#"{"error_code":40301,"#), "{}", said.body);
    }
    let asked = r#"{"partitions":[{"topic":"theirs","partition":0}]}"#;
    assert_eq!(ask("GET", &format!("{at}/offsets"), &mine, asked).await.status, 403);
    for (method, path) in [
        ("GET", "/records"),
        ("GET", "/subscription"),
        ("GET", "/assignments"),
        ("DELETE", "/subscription"),
        ("DELETE", ""),
    ] {
        assert_eq!(ask(method, &format!("{at}{path}"), &theirs, "").await.status, 403, "{method} {path}");
    }
    let read = ask("GET", &format!("{at}/records?timeout=1"), &mine, "").await;
    assert_eq!(read.status, 200, "{}", read.body);
    assert!(read.body.contains("mine.a") && !read.body.contains("theirs"), "{}", read.body);
    assert_eq!(ask("DELETE", at, &mine, "").await.status, 204);
}

#[tokio::test]
async fn version_three_creates_and_shows_what_the_key_may_alone() {
    let mut keys = Keys::new();
    let key = keys.add(&["admin,describe,consume:mine*"], None);
    let log = Arc::new(MemoryLog::new());
    create(&*log, "theirs", 1).await;
    let node = Node::on(&log, |config| config.auth = keys.config());
    let ask = async |method: &str, path: &str, body: &'static str| {
        let headers = [("x-api-key", key.as_str()), ("content-type", "application/json")];
        node.ask(method, path, &headers, body).await
    };
    let cluster = ask("GET", "/v3/clusters", "").await.json()["data"][0]["cluster_id"].as_str().unwrap().to_owned();
    let topics = format!("/v3/clusters/{cluster}/topics");
    assert_eq!(ask("POST", &topics, r#"{"topic_name":"other"}"#).await.status, 403);
    assert_eq!(ask("POST", &topics, r#"{"topic_name":"mine.a"}"#).await.status, 201);
    let shown = ask("GET", &topics, "").await.body;
    assert!(shown.contains("mine.a") && !shown.contains("theirs"), "{shown}");
    assert_eq!(ask("DELETE", &format!("{topics}/theirs"), "").await.status, 403);
    assert_eq!(ask("PATCH", &format!("{topics}/theirs"), r#"{"partitions_count":2}"#).await.status, 403);
    assert_eq!(ask("DELETE", &format!("{topics}/mine.a"), "").await.status, 204);
}

#[tokio::test]
async fn names_are_compared_as_the_doors_read_them() {
    let mut keys = Keys::new();
    let key = keys.add(&["produce:mine*"], None);
    let server = keys.server().await;
    for (path, status) in [
        ("/topics/%6dine.a", 200),
        ("/dev/topics/mine.b", 200),
        ("/topics/mine%2f..%2fother", 400),
        ("/topics/mine/../other", 401),
        ("/topics/other", 403),
        ("/topics/%6Fther", 403),
        ("/topics/Mine", 403),
        ("/topics/%ff", 403),
        ("/dev/topics/other", 403),
        ("/topics/other/partitions/0?mine", 403),
    ] {
        let reply = ask_with(&server, "POST", path, &key).await;
        let allowed = if status == 401 { [403, 404] } else { [status, status] };
        assert!(allowed.contains(&reply.status), "{path}: {}", reply.status);
    }
    assert_eq!(server.log.topic_names(), ["mine.a", "mine.b"]);
}

#[tokio::test]
async fn a_usage_plan_is_kept_and_said_in_the_words_of_each_door() {
    let mut keys = Keys::new();
    let rate = Plan { rate: Some(0.001), burst: Some(2), quota: None, per: None };
    let quota = Plan { rate: None, burst: None, quota: Some(2), per: Some(Period::Month) };
    let (slow, few) = (keys.add(&["produce:*"], Some(rate)), keys.add(&["produce:*"], Some(quota)));
    let free = keys.add(&["produce:*"], None);
    let server = keys.server().await;
    for key in [&slow, &few] {
        for _ in 0..2 {
            assert_eq!(ask_with(&server, "POST", "/topics/a", key).await.status, 200);
        }
        let reply = ask_with(&server, "POST", "/topics/a", key).await;
        assert_eq!((reply.status, &reply.body[..20]), (429, r#"{"error_code":42901,"#));
        assert!(reply.headers["retry-after"].parse::<u64>().unwrap() > 0);
    }
    assert_eq!(ask_with(&server, "POST", "/dev/topics/a", &slow).await.body, r#"{"message":"Too Many Requests"}"#);
    let reply = ask_with(&server, "POST", "/dev/topics/a", &few).await;
    assert_eq!((reply.status, reply.body.as_str()), (429, r#"{"message":"Limit Exceeded"}"#));
    assert_eq!(reply.headers["x-amzn-errortype"], "LimitExceededException");
    assert_eq!(ask_with(&server, "POST", "/topics/a", &free).await.status, 200);
    assert_eq!(server.log.records("a", 0).len(), 5);
}

#[tokio::test]
async fn whoever_guesses_is_slowed_down_and_others_are_not() {
    let mut keys = Keys::new();
    let key = keys.add(&["produce:a"], None);
    let server = Server::with(|config| {
        config.auth = keys.config();
        config.auth.max_failures_per_minute = 5;
    })
    .await;
    let mut statuses = Vec::new();
    for i in 0..20 {
        statuses.push(ask_with(&server, "POST", "/topics/a", &format!("{}.{i}", id_of(&key))).await.status);
    }
    // A minute may end between two of them.
    assert!(statuses.starts_with(&[401; 5]) && statuses.contains(&429), "{statuses:?}");
    assert_eq!(ask_with(&server, "POST", "/topics/a", &key).await.status, 200);
    let metrics = keys.add(&["describe:*"], None);
    let server = keys.server().await;
    server.get("/topics/a").await;
    let metrics = ask_with(&server, "GET", "/metrics", &metrics).await.body;
    assert!(metrics.contains("corkboard_refused_requests_total{reason=\"unauthenticated\"} 1"), "{metrics}");
}

pub(crate) fn mac(key: &[u8], text: &str) -> Vec<u8> {
    ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

pub(crate) fn sha(text: &str) -> String {
    hex(ring::digest::digest(&ring::digest::SHA256, text.as_bytes()).as_ref())
}

/// Signed by hand, as `auth::sigv4` is compared with botocore elsewhere.
fn signed(id: &str, secret: &str, body: &str) -> http::request::Parts {
    signed_call("ListStreams", id, secret, body)
}

pub(crate) fn signed_call(action: &str, id: &str, secret: &str, body: &str) -> http::request::Parts {
    let time = chrono::Utc::now().format("%Y%m%dT%H%M%SZ").to_string();
    let scope = format!("{}/eu-west-1/kinesis/aws4_request", &time[..8]);
    let (media_type, target) = ("application/x-amz-json-1.1", format!("Kinesis_20131202.{action}"));
    let headers = format!("content-type:{media_type}\nhost:localhost:8082\nx-amz-date:{time}\nx-amz-target:{target}\n");
    let names = "content-type;host;x-amz-date;x-amz-target";
    let request = format!("POST\n/\n\n{headers}\n{names}\n{}", sha(body));
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", sha(&request));
    let key = scope.split('/').fold(format!("AWS4{secret}").into_bytes(), |key, part| mac(&key, part));
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={names}, Signature={}",
        hex(&mac(&key, &text))
    );
    let request = Request::post("/")
        .header("host", "localhost:8082")
        .header("x-amz-date", time)
        .header("content-type", media_type)
        .header("x-amz-target", target)
        .header("authorization", authorization);
    request.body(()).unwrap().into_parts().0
}

#[test]
fn a_signature_is_as_good_as_the_key_it_was_made_with() {
    let mut keys = Keys::new();
    let key =
        keys.add(&["produce:a"], Some(Plan { rate: None, burst: None, quota: Some(1), per: Some(Period::Month) }));
    let id = id_of(&key);
    let secret = keys.signing_secret(id);
    let auth = Auth::open(&keys.config()).unwrap();
    let caller = auth.signed(&signed(id, &secret, "{}"), b"{}", true).expect("signed");
    assert_eq!(caller.key_id(), Some(id));
    assert!(caller.may(Action::Produce, "a") && !caller.may(Action::Produce, "b") && !caller.may_some(Action::Admin));
    assert_eq!(auth.admit(&caller), Ok(()));
    assert!(matches!(auth.admit(&caller), Err(Exceeded::Quota { .. })));

    for (head, body, error) in [
        (signed(id, &secret, "{}"), "{ }", SignatureError::Mismatch),
        (signed(id, "other", "{}"), "{}", SignatureError::Mismatch),
        // The key that is sent is not the one that is signed with.
        (signed(id, &key, "{}"), "{}", SignatureError::Mismatch),
        (signed("CORKNOBODY", &secret, "{}"), "{}", SignatureError::Unrecognized),
        (Request::post("/").body(()).unwrap().into_parts().0, "{}", SignatureError::Missing),
    ] {
        let refused = auth.signed(&head, body.as_bytes(), true).expect_err("refused");
        assert_eq!(refused, error);
        assert!(!refused.to_string().contains(&secret));
    }
    // A signature is no key, and a key no signature.
    assert_eq!(auth.caller(&signed(id, &secret, "{}").headers, None).unwrap_err(), Refused::BadKey);
    let bearer = Request::post("/").header("authorization", format!("Bearer {key}")).body(()).unwrap().into_parts().0;
    assert!(matches!(auth.signed(&bearer, b"", true), Err(SignatureError::Incomplete(_))));
}

#[tokio::test]
async fn the_kinesis_door_takes_signatures_and_looks_at_every_stream_that_is_named() {
    let mut keys = Keys::new();
    let all = "produce,consume,describe,admin";
    let (mine, theirs) = (keys.add(&[&format!("{all}:mine*")], None), keys.add(&[&format!("{all}:theirs")], None));
    let reader = keys.add(&["consume:mine*"], None);
    let slow = keys.add(&["describe:*"], Some(Plan { rate: Some(0.001), burst: None, quota: None, per: None }));
    let node = Node::on(&Arc::new(MemoryLog::new()), |config| config.auth = keys.config());
    let send = async |head: http::request::Parts, body: &str| {
        let headers: Vec<_> = head.headers.iter().map(|(n, v)| (n.as_str(), v.to_str().unwrap())).collect();
        let headers: Vec<_> = headers.into_iter().filter(|(name, _)| *name != "host").collect();
        node.ask("POST", "/", &headers, body.to_owned()).await
    };
    let ask = async |key: &str, action: &str, body: String| {
        let mut head = signed_call(action, id_of(key), &keys.signing_secret(id_of(key)), &body);
        head.headers.remove("host");
        send(head, &body).await
    };
    let named = |name: &str, more: &str| format!(r#"{{"StreamName":"{name}"{more}}}"#);
    let record = r#","Data":"eA==","PartitionKey":"k""#;
    for name in ["mine.a", "theirs"] {
        let key = if name == "theirs" { &theirs } else { &mine };
        assert_eq!(ask(key, "CreateStream", named(name, r#","ShardCount":1"#)).await.status, 200, "{name}");
        assert_eq!(ask(key, "PutRecord", named(name, record)).await.status, 200, "{name}");
    }
    let shard = r#","ShardId":"shardId-000000000000","ShardIteratorType":"TRIM_HORIZON""#;
    let iterator = ask(&theirs, "GetShardIterator", named("theirs", shard)).await.json()["ShardIterator"].to_string();
    let arn = r#"{"ResourceARN":"arn:aws:kinesis:us-east-1:000000000000:stream/theirs"}"#;
    for (key, action, body) in [
        (&mine, "PutRecord", named("theirs", record)),
        (&mine, "PutRecords", named("theirs", r#","Records":[{"Data":"eA==","PartitionKey":"k"}]"#)),
        (&mine, "DescribeStream", named("theirs", "")),
        (
            &mine,
            "DescribeStreamSummary",
            r#"{"StreamARN":"arn:aws:kinesis:us-east-1:000000000000:stream/theirs"}"#.to_owned(),
        ),
        (&mine, "ListShards", named("theirs", "")),
        (&mine, "DeleteStream", named("theirs", "")),
        (&mine, "DeleteStream", named("nowhere", "")),
        (&mine, "CreateStream", named("other", r#","ShardCount":1"#)),
        (&mine, "GetShardIterator", named("theirs", shard)),
        (&mine, "GetRecords", format!(r#"{{"ShardIterator":{iterator}}}"#)),
        (&mine, "ListTagsForResource", arn.to_owned()),
        (&mine, "UpdateShardCount", named("theirs", r#","TargetShardCount":2,"ScalingType":"UNIFORM_SCALING""#)),
        (&reader, "PutRecord", named("mine.a", record)),
        (&reader, "DescribeStream", named("mine.a", "")),
        (&reader, "ListStreams", "{}".to_owned()),
    ] {
        let said = ask(key, action, body).await;
        assert_eq!(
            (said.status, said.json()["__type"].as_str()),
            (400, Some("AccessDeniedException")),
            "{action} {said:?}"
        );
    }
    assert_eq!(ask(&reader, "GetShardIterator", named("mine.a", shard)).await.status, 200);
    assert_eq!(ask(&theirs, "GetRecords", format!(r#"{{"ShardIterator":{iterator}}}"#)).await.status, 200);
    assert_eq!(ask(&mine, "ListStreams", "{}".to_owned()).await.json()["StreamNames"], serde_json::json!(["mine.a"]));
    assert_eq!(ask(&slow, "ListStreams", "{}".to_owned()).await.status, 200);
    let said = ask(&slow, "ListStreams", "{}".to_owned()).await;
    assert_eq!(said.json()["__type"], "ThrottlingException", "{said:?}");
    // Neither a key nor a signature of another body is a signature.
    let good = signed_call("ListStreams", id_of(&mine), &keys.signing_secret(id_of(&mine)), "{}");
    let body = r#"{"Limit":1}"#;
    assert_eq!(send(good, body).await.json()["__type"], "InvalidSignatureException");
    let headers = [("x-amz-target", "Kinesis_20131202.ListStreams"), ("content-type", "application/x-amz-json-1.1")];
    for path in ["/", "/healthz", "/api/tasks", "/topics/mine.a"] {
        let said = node.ask("POST", path, &[headers[0], headers[1], ("x-api-key", &mine)], "{}").await;
        assert_eq!(said.json()["__type"], "MissingAuthenticationTokenException", "{path}");
    }
}

#[test]
fn a_signed_request_is_taken_twice_unless_replays_are_refused() {
    let mut keys = Keys::new();
    let key = keys.add(&["produce:a"], None);
    let head = signed(id_of(&key), &keys.signing_secret(id_of(&key)), "{}");
    for (refuse_replays, changes, second) in
        [(false, true, Ok(())), (true, false, Ok(())), (true, true, Err(SignatureError::Replayed))]
    {
        let auth = Auth::open(&AuthConfig { refuse_replays, ..keys.config() }).unwrap();
        assert!(auth.signed(&head, b"{}", changes).is_ok());
        assert_eq!(auth.signed(&head, b"{}", changes).map(|_| ()), second);
    }
}

#[test]
fn where_authentication_is_off_a_signature_must_be_there_and_may_be_any() {
    let auth = Auth::off();
    let with = |request: http::request::Builder| request.body(()).unwrap().into_parts().0;
    assert!(auth.signed(&signed("AKID", "any", ""), b"other", true).is_ok());
    assert!(auth.signed(&with(Request::post("/?X-Amz-Algorithm=x")), b"", true).is_ok());
    assert_eq!(auth.signed(&with(Request::post("/")), b"", true).unwrap_err(), SignatureError::Missing);
    let both = with(Request::post("/?X-Amz-Algorithm=x").header("authorization", "AWS4-HMAC-SHA256 x"));
    assert_eq!(auth.signed(&both, b"", true).unwrap_err(), SignatureError::Both);
}

#[test]
fn what_was_signed_is_what_the_client_asked_for() {
    let mut keys = Keys::new();
    let key = keys.add(&["produce:a"], None);
    let auth = Auth::open(&keys.config()).unwrap();
    let mut head = signed(id_of(&key), &keys.signing_secret(id_of(&key)), "{}");
    let asked = std::mem::replace(&mut head.uri, "/kinesis".parse().unwrap());
    assert!(auth.signed(&head, b"{}", true).is_err());
    head.extensions.insert(AskedUri(asked));
    assert!(auth.signed(&head, b"{}", true).is_ok());
}

#[test]
fn a_server_without_its_files_does_not_begin() {
    let keys = Keys::new();
    let error = |config: AuthConfig| format!("{:#}", Auth::open(&config).err().expect("refused"));
    let gone = AuthConfig { keys_file: "nowhere/keys.toml".to_owned(), ..keys.config() };
    assert!(error(gone).contains("corkboard keys add"));
    let gone = AuthConfig { secret_file: "nowhere/keys.secret".to_owned(), ..keys.config() };
    assert!(error(gone).contains("auth.secret_file"));
}

#[tokio::test]
async fn pages_of_other_sites_may_use_the_doors_where_the_settings_name_them() {
    let mut keys = Keys::new();
    let key = keys.add(&["produce:a", "describe:*"], None);
    let server = Server::with(|config| {
        config.auth = keys.config();
        config.server.cors_origins = vec!["https://example.org".to_owned()];
    })
    .await;
    let asks_first = "Access-Control-Request-Method: PUT\r\n";
    for (path, origin, status, allowed) in [
        ("/dev/streams/a/record", "https://example.org", 204, true),
        ("/streams/a/record", "https://EXAMPLE.org", 204, true),
        ("/topics/a", "https://example.org", 204, true),
        ("/topics/a", "https://example.org.evil.test", 401, false),
        ("/topics/a", "http://example.org", 401, false),
        ("/topics/a", "null", 401, false),
        ("/api/tasks", "https://example.org", 401, false),
        ("/metrics", "https://example.org", 401, false),
    ] {
        let reply = ask(&server, "OPTIONS", path, &format!("Origin: {origin}\r\n{asks_first}")).await;
        assert_eq!(reply.status, status, "{path} {origin}");
        assert_eq!(reply.headers.contains_key("access-control-allow-origin"), allowed, "{path} {origin}");
        assert_eq!(reply.headers.contains_key("access-control-allow-headers"), allowed, "{path} {origin}");
        assert!(!reply.headers.contains_key("access-control-allow-credentials"));
    }
    let from = |origin: &str| format!("Origin: {origin}\r\nSec-Fetch-Site: cross-site\r\nx-api-key: {key}\r\n");
    let reply = ask(&server, "POST", "/topics/a", &from("https://example.org")).await;
    assert_eq!((reply.status, reply.headers["access-control-allow-origin"].as_str()), (200, "https://example.org"));
    assert_eq!(reply.headers["vary"], "Origin");
    let reply = ask(&server, "POST", "/topics/a", &from("https://evil.test")).await;
    assert_eq!((reply.status, reply.headers.get("access-control-allow-origin")), (403, None));
    // A refusal can be read too, or a page could not tell what is wrong.
    let reply = ask(&server, "POST", "/topics/a", "Origin: https://example.org\r\n").await;
    assert_eq!((reply.status, reply.headers["access-control-allow-origin"].as_str()), (401, "https://example.org"));
}

#[tokio::test]
async fn by_default_no_other_site_is_told_anything() {
    let server = Server::start().await;
    let headers = "Origin: https://example.org\r\nAccess-Control-Request-Method: POST\r\n";
    for path in ["/topics/a", "/dev/streams", "/api/tasks"] {
        let reply = ask(&server, "OPTIONS", path, headers).await;
        assert!(reply.status >= 400, "{path}");
        assert!(reply.headers.keys().all(|name| !name.starts_with("access-control")), "{path}");
    }
    let mut client = server.connect().await;
    client.send(post("/topics/a", JSON, RECORD)).await;
    assert_eq!(client.reply().await.status, 200);
}
