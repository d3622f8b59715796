//! What `/metrics` shows.

use std::time::Duration;

use http::{Method, StatusCode};
use model::{Report, Scope, TopicName};
use server::{metrics::Metrics, orchestrator::Handle};

use crate::fakes::CountingLog;

#[tokio::test]
async fn counts_are_kept_by_route_topic_reason_and_view() {
    let metrics = Metrics::new();
    let pin: TopicName = "0a3.pin".parse().unwrap();
    metrics.request("/topics/{topic}", &Method::POST, StatusCode::OK, Duration::from_millis(3));
    metrics.request("/topics/{topic}", &Method::POST, StatusCode::CREATED, Duration::from_millis(4));
    metrics.request("/topics/{topic}", &"BREW".parse().unwrap(), StatusCode::IM_A_TEAPOT, Duration::ZERO);
    metrics.appended(&pin, 3, 900);
    metrics.appended(&pin, 1, 100);
    metrics.refused("too_large");
    metrics.inflight_bytes.set(77);
    for lag_records in [40, 30] {
        let mut report = Report::default();
        report.add("lag_records", lag_records);
        report.add("n_records", 5);
        metrics.task_ran("landing", Some(&report), Duration::from_millis(9));
    }
    metrics.task_ran("landing", None, Duration::from_millis(9));
    metrics.view_answered("posts_per_category", Scope::Merged, Duration::from_millis(30));
    let text = metrics.scrape(&*CountingLog::with(&[("0a3.pin", &[9])]), &Handle::default()).await;
    for line in [
        "corkboard_http_requests_total{route=\"/topics/{topic}\",method=\"POST\",status=\"2xx\"} 2",
        "corkboard_http_requests_total{route=\"/topics/{topic}\",method=\"other\",status=\"4xx\"} 1",
        "corkboard_http_request_seconds_count{route=\"/topics/{topic}\"} 3",
        "corkboard_appended_records_total{topic=\"0a3.pin\"} 4",
        "corkboard_appended_bytes_total{topic=\"0a3.pin\"} 1000",
        "corkboard_refused_requests_total{reason=\"too_large\"} 1",
        "corkboard_ingest_inflight_bytes 77",
        "corkboard_view_query_seconds_count{view=\"posts_per_category\",scope=\"merged\"} 1",
        "corkboard_task_runs_total{task=\"landing\"} 3",
        "corkboard_task_failures_total{task=\"landing\"} 1",
        "corkboard_task_run_seconds_count{task=\"landing\"} 3",
        "corkboard_task_figures_total{task=\"landing\",figure=\"n_records\"} 10",
        "corkboard_task_levels{task=\"landing\",figure=\"lag_records\"} 30",
        "corkboard_log_up 1",
        "corkboard_log_start_offset{topic=\"0a3.pin\",partition=\"0\"} 0",
        "corkboard_log_end_offset{topic=\"0a3.pin\",partition=\"0\"} 9",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
    assert!(text.contains("corkboard_build_info{version=\""));
    assert!(text.ends_with("# EOF\n"));
    if cfg!(target_os = "linux") {
        for name in ["process_resident_memory_bytes ", "process_open_fds ", "process_cpu_seconds_total "] {
            assert!(text.lines().any(|l| l.starts_with(name)), "{name} is not in\n{text}");
        }
    }
}

#[tokio::test]
async fn topics_beyond_the_limit_count_as_other() {
    let metrics = Metrics::new();
    for i in 0..250 {
        metrics.appended(&format!("topic-{i}").parse().unwrap(), 1, 1);
    }
    metrics.appended(&"topic-3".parse().unwrap(), 1, 1);
    let text = metrics.scrape(&*CountingLog::with(&[]), &Handle::default()).await;
    let labels = text.lines().filter(|l| l.starts_with("corkboard_appended_records_total{")).count();
    assert_eq!(labels, 201);
    assert!(text.contains("corkboard_appended_records_total{topic=\"other\"} 50\n"));
    assert!(text.contains("corkboard_appended_records_total{topic=\"topic-3\"} 2\n"));
}

#[tokio::test]
async fn labels_of_any_text_keep_the_format() {
    let metrics = Metrics::new();
    metrics.request("/a\"b\\c\nd", &Method::GET, StatusCode::OK, Duration::ZERO);
    let text = metrics.scrape(&*CountingLog::with(&[]), &Handle::default()).await;
    assert!(text.contains(r#"route="/a\"b\\c\nd""#), "{text}");
}
