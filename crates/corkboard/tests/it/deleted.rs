//! Topics that are deleted while their posts are on the way through the layers.

use std::fs;

use serde_json::{Value, json};

use crate::{
    http::{Client, KAFKA_JSON, Response},
    pipeline::{self, BY_HAND},
    process::Server,
};

const N_POSTS: u64 = 20;

fn delete(client: &mut Client, topic: &str) -> Response {
    let clusters = client.json("/v3/clusters");
    let cluster = clusters["data"][0]["cluster_id"].as_str().unwrap();
    client.send("DELETE", &format!("/v3/clusters/{cluster}/topics/{topic}"), KAFKA_JSON, b"").unwrap()
}

/// Of the layers that nothing else wakes within a day; every row counts, whatever its key.
#[test]
fn a_topic_is_deleted_once_its_posts_are_taken_and_they_count_once_from_then_on() {
    let scratch = tempfile::tempdir().unwrap();
    let config = pipeline::definitions(&scratch.path().join("definitions"), "off", BY_HAND);
    let data = scratch.path().join("data");
    let server = Server::start("up", &[("--data", &data), ("--config", &config)]);
    let mut client = server.client();
    let counts = |client: &mut Client, n_posts: u64, what: &str| {
        let rows = client.json("/api/views/posts_per_category")["rows"].clone();
        assert_eq!(rows, json!([{"category": "art", "number_posts": n_posts}]), "{what}");
    };
    let mut n_posts = 0;
    for life in 0..3 {
        for n in 0..N_POSTS {
            let post = json!({"index": n, "unique_id": format!("id-{n}"), "follower_count": "3k", "category": "art"});
            client.produce("0a3.pin", &[&post.to_string()]).unwrap();
            n_posts += 1;
        }
        if life == 1 {
            counts(&mut client, n_posts, "before the deletion");
        }
        let deleted = delete(&mut client, "0a3.pin");
        assert_eq!(deleted.status, 204, "{}", deleted.text());
        assert_eq!(delete(&mut client, "0a3.pin").status, 404);
        counts(&mut client, n_posts, "deleted");
        let landed = fs::read_dir(data.join("landing/topics/0a3.pin/partition=0")).unwrap().count();
        assert_eq!(landed as u64, n_posts, "each in an object of its own");
        if life != 1 {
            client.run_task("batch");
            counts(&mut client, n_posts, "in batch");
            client.run_task("trim");
            counts(&mut client, n_posts, "trimmed");
        }
    }
    client.run_task("batch");
    let boundary = client.json("/api/views/posts_per_category");
    assert_eq!(boundary["batch_through"], json!({"0a3.pin-0": n_posts}), "{boundary}");
    assert_eq!(boundary["complete"], Value::Bool(true));
    for task in ["landing", "speed", "batch", "trim"] {
        assert_eq!(client.task(task)["n_failures_in_a_row"], 0, "{task}");
    }
}

/// With a layer that cannot take it, and then can.
#[test]
fn a_topic_whose_posts_cannot_be_taken_stays_with_all_of_them() {
    let scratch = tempfile::tempdir().unwrap();
    let settings = format!("{BY_HAND}\n[ingest]\ndelete_timeout_ms = 300\n");
    let config = pipeline::settings(scratch.path(), &settings);
    let data = scratch.path().join("data");
    let server = Server::start("up", &[("--data", &data), ("--config", &config)]);
    let mut client = server.client();
    client.produce("likes", &["1", "2"]).unwrap();
    client.run_task("landing");
    client.produce("likes", &["3"]).unwrap();
    // Something else stands where the next object has to be.
    let next = data.join("landing/topics/likes/partition=0/likes+0+0000000002.json");
    fs::write(&next, "what is this\n").unwrap();
    let refused = delete(&mut client, "likes");
    let message = refused.json()["message"].as_str().unwrap().to_owned();
    assert_eq!((refused.status, &refused.json()["error_code"]), (409, &json!(409)), "{message}");
    assert!(message.starts_with("Topic likes was not deleted"), "{message}");
    client.produce("likes", &["4"]).unwrap();
    fs::remove_file(&next).unwrap();
    let mut deleted = delete(&mut client, "likes");
    for _ in 0..20 {
        if deleted.status == 204 {
            break;
        }
        // Landing waits a little after its failures.
        deleted = delete(&mut client, "likes");
    }
    assert_eq!(deleted.status, 204, "{}", deleted.text());
    let lines: Vec<String> = (0..4)
        .map(|offset| {
            let object = data.join(format!("landing/topics/likes/partition=0/likes+0+000000000{offset}.json"));
            fs::read_to_string(object).unwrap()
        })
        .collect();
    assert_eq!(lines, ["1\n", "2\n", "3\n", "4\n"]);
}
