//! What `cargo xtask bench doors` sends is what the doors take, and all of it is stored.

#[path = "../../../../xtask/src/bench/doors/requests.rs"]
mod requests;

use serde_json::{Value, json};

use self::requests::{Door, TOPIC, Target, action};
use crate::harness::Server;

const N_PARTITIONS: usize = 4;

/// What landed of a pin of the emulator.
fn pin(n: u64) -> Vec<u8> {
    json!({
        "index": n, "unique_id": format!("id-{n}"), "title": "a \"title\"", "description": "é".repeat(100),
        "poster_name": "p", "follower_count": "12k", "tag_list": "a,b", "is_image_or_video": "image",
        "image_src": "https://i.example/1.jpg", "downloaded": 1, "save_location": "/data/a", "category": "art",
    })
    .to_string()
    .into_bytes()
}

#[tokio::test]
async fn every_door_takes_what_the_bench_sends() {
    let server = Server::start().await;
    let host = server.addr.to_string();
    let clusters: Value = serde_json::from_str(&server.get("/v3/clusters").await.body).unwrap();
    let to = Target { host: &host, cluster: clusters["data"][0]["cluster_id"].as_str().unwrap() };
    let stream = json!({ "StreamName": TOPIC, "ShardCount": N_PARTITIONS }).to_string();
    let reply = server.ask(action("CreateStream", to, &stream)).await;
    assert_eq!(reply.status, 200, "{reply:?}");

    let n_stored = || (0..N_PARTITIONS).map(|partition| server.log.records(TOPIC, partition).len()).sum::<usize>();
    for door in Door::ALL {
        for &n_records in door.batches() {
            let name = door.name(n_records);
            let before = n_stored();
            let records: Vec<_> = (0..n_records).map(pin).collect();
            let mut client = server.connect().await;
            client.send(door.request(to, 1000, &records)).await;
            // The end of any answer is known by the next one.
            client.send(format!("GET /v3/clusters HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
            let status = client.head().await.status;
            client.until("KafkaClusterList").await;
            assert!((200..300).contains(&status), "{name}: {status}");
            assert_eq!(n_stored() - before, n_records as usize, "{name}");
            if n_records > 1 {
                let n_used = (0..N_PARTITIONS).filter(|p| !server.log.records(TOPIC, *p).is_empty()).count();
                assert_eq!(n_used, N_PARTITIONS, "{name}");
            }
        }
    }
}
