//! The API, the metrics and the page's files, asked as programs and browsers ask.

use std::sync::Arc;

use axum::{Router, body::Body};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use model::{
    Query, Report, Stop, Task,
    config::{Config, ScheduleConfig},
};
use serde_json::{Value, json};
use server::{
    Services, api, dashboard,
    metrics::Metrics,
    orchestrator::{Driver, Handle},
};
use tower::ServiceExt;

use crate::fakes::{CountingLog, GivenViews, services};

const ROWS: &str = r#"[{"category":"<script>alert(1)</script>","n":3},{"category":null,"n":0}]"#;

fn log() -> Arc<CountingLog> {
    CountingLog::with(&[("0a3.pin", &[100, 20]), ("other", &[7])])
}

fn views(log: &Arc<CountingLog>) -> Arc<dyn Query> {
    let views = [
        ("posts_per_category", "bar category n", ROWS),
        ("slow", "table", "unavailable: four queries run already"),
        ("broken", "table", "failed: no column p.colour"),
    ];
    GivenViews::of(log.clone(), &views)
}

fn all() -> Services {
    let log = log();
    services(log.clone(), Some(views(&log)), Handle::default())
}

fn router(services: Services) -> Router {
    api::routes().merge(dashboard::routes()).with_state(services)
}

/// Method, path, then headers by name; `Host: localhost` unless one is given.
async fn ask(router: &Router, method: &str, path: &str, headers: &[(&str, &str)]) -> (StatusCode, HeaderMap, String) {
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", "localhost:8082");
    }
    for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
        request = request.header(*name, *value);
    }
    let response = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (parts.status, parts.headers, String::from_utf8_lossy(&body).into_owned())
}

async fn ask_json(router: &Router, path: &str) -> (StatusCode, Value) {
    let (status, headers, body) = ask(router, "GET", path, &[]).await;
    assert_eq!(headers["content-type"], "application/json", "{path}");
    assert_eq!(
        (&headers["cache-control"], &headers["x-content-type-options"]),
        (&"no-store".parse().unwrap(), &"nosniff".parse().unwrap())
    );
    (status, serde_json::from_str(&body).expect(&body))
}

#[tokio::test]
async fn the_list_of_views_says_how_to_ask_for_each() {
    let (status, body) = ask_json(&router(all()), "/api/views").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        body["views"][0],
        json!({
            "name": "posts_per_category",
            "title": "posts per category",
            "question": "What about posts per category?",
            "chart": "bar category n",
            "links": {
                "json": "/api/views/posts_per_category?format=json",
                "csv": "/api/views/posts_per_category?format=csv",
                "arrow": "/api/views/posts_per_category?format=arrow",
            },
        })
    );
}

#[tokio::test]
async fn an_answer_is_its_rows_beside_the_boundary_they_were_taken_at() {
    let (status, body) = ask_json(&router(all()), "/api/views/posts_per_category?scope=realtime").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        body,
        json!({
            "view": "posts_per_category",
            "n_rows": 2,
            "rows": [{"category": "<script>alert(1)</script>", "n": 3}, {"category": null, "n": 0}],
            "scope": "realtime",
            "batch_through": {"0a3.pin-0": 60, "0a3.pin-1": 12, "other-0": 4},
            "realtime_through": {"0a3.pin-0": 90, "0a3.pin-1": 18, "other-0": 6},
            "tail_through": {"0a3.pin-0": 100, "0a3.pin-1": 20, "other-0": 7},
            "batch_age_ms": 10_800_000,
            "realtime_age_ms": 2100,
            "tail_age_ms": 12,
            "complete": true,
            "dedup": {"pin": "key"},
        })
    );
}

#[tokio::test]
async fn files_carry_the_boundary_in_their_headers() {
    let router = router(all());
    for (format, media_type, name, body) in [
        ("csv", "text/csv; charset=utf-8; header=present", "posts_per_category.batch.csv", "category,n\r\nart,1\r\n"),
        (
            "arrow",
            "application/vnd.apache.arrow.stream",
            "posts_per_category.batch.arrow",
            "\u{fffd}\u{fffd}\u{fffd}\u{fffd}",
        ),
    ] {
        let path = format!("/api/views/posts_per_category?scope=batch&format={format}");
        let (status, headers, text) = ask(&router, "GET", &path, &[]).await;
        assert_eq!((status, text.as_str()), (StatusCode::OK, body));
        for (header, value) in [
            ("content-type", media_type),
            ("content-disposition", &format!("attachment; filename=\"{name}\"")),
            ("corkboard-scope", "batch"),
            ("corkboard-complete", "true"),
            ("corkboard-rows", "2"),
            ("corkboard-batch-age-ms", "10800000"),
            ("corkboard-batch-through", "0a3.pin-0=60, 0a3.pin-1=12, other-0=4"),
        ] {
            assert_eq!(headers[header], value);
        }
        assert!(!headers.contains_key("corkboard-tail-age-ms"), "the batch scope does not read the tail");
    }
}

#[tokio::test]
async fn what_cannot_be_answered_names_its_cause() {
    let with_views = router(all());
    let without_views = router(services(log(), None, Handle::default()));
    for (router, path, status, field, words) in [
        (&with_views, "/api/views/posts?scope=batch", 404, Some("view"), "posts_per_category, slow, broken"),
        (&with_views, "/api/views/posts_per_category?scope=speed", 400, Some("scope"), "merged, batch or realtime"),
        (&with_views, "/api/views/posts_per_category?format=xml", 400, Some("format"), "json, csv or arrow"),
        (&with_views, "/api/views/posts_per_category?limit=3", 400, None, "\"limit\""),
        (&with_views, "/api/views/slow", 503, None, "four queries run already"),
        (&with_views, "/api/views/broken", 500, None, "planning the view: no column p.colour"),
        (&without_views, "/api/views", 404, None, "does not serve views"),
        (&without_views, "/api/views/slow", 404, None, "does not serve views"),
    ] {
        let (actual, body) = ask_json(router, path).await;
        assert_eq!(actual.as_u16(), status, "{path}");
        assert_eq!(body["field"].as_str(), field, "{path}");
        assert!(body["error"].as_str().unwrap().contains(words), "{path}: {body}");
    }
    let (_, headers, _) = ask(&with_views, "GET", "/api/views/slow", &[]).await;
    assert_eq!(headers["retry-after"], "1");
}

#[tokio::test]
async fn the_log_shows_each_partition_with_its_stream() {
    let (status, mut body) = ask_json(&router(all()), "/api/log").await;
    assert_eq!(status, StatusCode::OK);
    assert!(body.as_object_mut().unwrap().remove("at_ms").unwrap().as_i64() > Some(0));
    assert_eq!(
        body,
        json!({
            "id": "00000000-0000-0000-0000-000000000000",
            "epoch": 3,
            "partitions": [
                {"topic": "0a3.pin", "partition": 0, "stream": "pin", "start": 0, "end": 100},
                {"topic": "0a3.pin", "partition": 1, "stream": "pin", "start": 0, "end": 20},
                {"topic": "other", "partition": 0, "stream": null, "start": 0, "end": 7},
            ],
        })
    );
}

/// Counts its runs in its report.
struct Counts;

#[async_trait::async_trait]
impl Task for Counts {
    fn name(&self) -> &'static str {
        "batch"
    }

    async fn run(&mut self, _: &Stop) -> anyhow::Result<Report> {
        let mut report = Report { did_work: true, ..Report::default() };
        report.add("n_records", 5);
        Ok(report)
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_runs_when_it_is_asked_to_over_http() {
    let log = log();
    let metrics = Arc::new(Metrics::new());
    let mut driver = Driver::new(&Config::defaults().driver, model::EventLog::moved(&*log), metrics.clone());
    driver.add(Box::new(Counts), &ScheduleConfig::default()).unwrap();
    let services = Services { metrics, ..services(log, None, driver.handle()) };
    let router = router(services);
    let stop = Stop::new();
    let driver = tokio::spawn(driver.run(stop.clone(), Stop::new()));

    let (status, _, body) = ask(&router, "POST", "/api/tasks/batch/run", &[]).await;
    assert_eq!((status, body.as_str()), (StatusCode::ACCEPTED, r#"{"task":"batch","queued":true}"#));
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let (_, body) = ask_json(&router, "/api/tasks").await;
    let task = &body["tasks"][0];
    assert_eq!((&task["name"], &task["state"], &task["n_runs"]), (&json!("batch"), &json!("idle"), &json!(1)));
    assert_eq!(task["last_run"]["woken_by"], "asked");
    assert_eq!(task["last_run"]["report"]["figures"], json!({"n_records": 5}));

    let (_, headers, metrics) = ask(&router, "GET", "/metrics", &[]).await;
    assert!(headers["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
    for line in [
        "corkboard_task_runs_total{task=\"batch\"} 1",
        "corkboard_task_figures_total{task=\"batch\",figure=\"n_records\"} 5",
        "corkboard_task_running{task=\"batch\"} 0",
        "corkboard_log_end_offset{topic=\"0a3.pin\",partition=\"1\"} 20",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line} is not in\n{metrics}");
    }

    let (status, _, body) = ask(&router, "POST", "/api/tasks/btch/run", &[]).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(body.contains("there are: batch"), "{body}");
    stop.cancel();
    driver.await.unwrap();
    let (status, ..) = ask(&router, "POST", "/api/tasks/batch/run", &[]).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn names_that_are_not_ours_are_turned_away() {
    let mut services = all();
    let mut config = Config::defaults();
    config.server.allowed_hosts = vec!["cork.example".to_owned()];
    config.server.listen = "10.1.2.3:8082".parse().unwrap();
    services.config = Arc::new(config);
    let router = router(services);
    for (host, status) in [
        ("localhost", 200),
        ("LOCALHOST:9999", 200),
        ("127.0.0.1:8082", 200),
        ("127.7.7.7", 200),
        ("[::1]:8082", 200),
        ("10.1.2.3:8082", 200),
        ("cork.example", 200),
        ("Cork.Example:443", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("evil.cork.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("10.1.2.4", 421),
        ("", 400),
        ("a b", 400),
    ] {
        for path in ["/api/views", "/api/tasks", "/api/log", "/dashboard", "/assets/app.js"] {
            let (actual, _, body) = ask(&router, "GET", path, &[("host", host)]).await;
            assert_eq!(actual.as_u16(), status, "{host:?} {path}: {body}");
        }
    }
    let twice = [("host", "localhost"), ("host", "localhost")];
    assert_eq!(ask(&router, "GET", "/api/log", &twice).await.0, StatusCode::BAD_REQUEST);
    // A request target in absolute form goes before the header.
    let (status, ..) = ask(&router, "GET", "http://evil.example/api/log", &[]).await;
    assert_eq!(status, StatusCode::MISDIRECTED_REQUEST);
    // Whoever scrapes the metrics has names of their own for this server.
    let (status, ..) = ask(&router, "GET", "/metrics", &[("host", "evil.example")]).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn whoever_listens_everywhere_is_asked_by_address() {
    let mut services = all();
    let mut config = Config::defaults();
    config.server.listen = "0.0.0.0:8082".parse().unwrap();
    services.config = Arc::new(config);
    let router = router(services);
    for (host, status) in [("192.168.1.5:8082", 200), ("evil.example", 421)] {
        assert_eq!(ask(&router, "GET", "/api/log", &[("host", host)]).await.0.as_u16(), status, "{host}");
    }
}

#[tokio::test]
async fn pages_of_other_sites_change_nothing() {
    let router = router(all());
    let own = ("origin", "http://localhost:8082");
    for (headers, status) in [
        (vec![], 404),
        (vec![own], 404),
        (vec![own, ("sec-fetch-site", "same-origin")], 404),
        (vec![("sec-fetch-site", "none")], 404),
        (vec![("host", "[::1]:1"), ("origin", "http://[::1]:1")], 404),
        (vec![("host", "localhost"), ("origin", "https://localhost")], 404),
        (vec![("origin", "http://evil.example")], 403),
        (vec![("origin", "http://localhost:3000")], 403),
        (vec![("origin", "http://localhost:8082.evil.example")], 403),
        (vec![("origin", "null")], 403),
        (vec![("origin", "file://")], 403),
        (vec![("sec-fetch-site", "cross-site")], 403),
        (vec![own, ("sec-fetch-site", "cross-site")], 403),
        (vec![("sec-fetch-site", "same-site")], 403),
        (vec![own, ("origin", "http://evil.example")], 400),
        (vec![("host", "evil.example"), ("origin", "http://evil.example")], 421),
    ] {
        // There are no tasks: a request that is let in finds none.
        let (actual, _, body) = ask(&router, "POST", "/api/tasks/batch/run", &headers).await;
        assert_eq!(actual.as_u16(), status, "{headers:?}: {body}");
    }
    let (status, ..) = ask(&router, "GET", "/api/tasks/batch/run", &[]).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "nothing changes by looking");
}

#[tokio::test]
async fn the_page_runs_only_its_own_files() {
    let router = router(all());
    let (_, _, page) = ask(&router, "GET", "/dashboard", &[]).await;
    assert_eq!(page, index().await);
    let mut files = vec!["/dashboard".to_owned()];
    files.extend(quoted(&page, "/assets/").map(|f| format!("/assets/{f}")));
    let (_, _, app) = ask(&router, "GET", "/assets/app.js", &[]).await;
    files.extend(quoted(&app, "./").map(|f| format!("/assets/{f}")));
    assert!(files.len() > 8, "{files:?}");
    for file in files {
        let (status, headers, text) = ask(&router, "GET", &file, &[]).await;
        assert_eq!(status, StatusCode::OK, "{file}");
        let policy = headers["content-security-policy"].to_str().unwrap();
        for part in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "form-action 'none'"] {
            assert!(policy.contains(part), "{file}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{file}: {policy}");
        for (header, value) in
            [("x-content-type-options", "nosniff"), ("referrer-policy", "no-referrer"), ("cache-control", "no-cache")]
        {
            assert_eq!(headers[header], value, "{file}");
        }
        // What the policy would stop, and what would let posts become markup.
        for word in
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "https://"]
        {
            assert!(!text.contains(word), "{file} says {word}");
        }
        assert!(!text.contains(" style=\"") && !text.contains(" onclick="), "{file} has inline code");
    }
    for path in ["/assets/", "/assets/../Cargo.toml", "/assets/%2e%2e/Cargo.toml", "/assets/app.js.map"] {
        assert_eq!(ask(&router, "GET", path, &[]).await.0, StatusCode::NOT_FOUND, "{path}");
    }
}

async fn index() -> String {
    let body = dashboard::index().into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

/// The rest of each quoted text that begins so.
fn quoted<'a>(text: &'a str, beginning: &'static str) -> impl Iterator<Item = &'a str> {
    text.split(['"', '\'']).filter_map(move |part| part.strip_prefix(beginning)).filter(|f| f.contains('.'))
}

#[tokio::test]
async fn an_unchanged_file_is_not_sent_again() {
    let router = router(all());
    let (_, headers, _) = ask(&router, "GET", "/assets/app.js", &[]).await;
    let tag = headers["etag"].to_str().unwrap();
    for (asked, status) in [(tag, 304), ("\"other\"", 200)] {
        let (actual, ..) = ask(&router, "GET", "/assets/app.js", &[("if-none-match", asked)]).await;
        assert_eq!(actual.as_u16(), status, "{asked}");
    }
}

#[tokio::test]
async fn what_was_posted_is_data_and_never_markup() {
    let router = router(all());
    let (_, headers, body) = ask(&router, "GET", "/api/views/posts_per_category", &[]).await;
    assert!(body.contains("<script>"));
    assert_eq!(
        (&headers["content-type"], &headers["x-content-type-options"]),
        (&"application/json".parse().unwrap(), &"nosniff".parse().unwrap())
    );
    let (_, headers, _) = ask(&router, "GET", "/api/views/%3Cscript%3E", &[]).await;
    assert_eq!(headers["content-type"], "application/json");
}
