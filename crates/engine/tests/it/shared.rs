//! A topic that two streams take: no layer takes it, until the streams are told apart.

use std::sync::Arc;

use engine::store::Store;
use model::{EventLog, QueryError, Record, Scope, TopicChange, TopicPartition};
use serde_json::json;

use crate::pipeline::{self, Pipeline, pin};

const PINS_FROM: &str = "topics = [\"pin\", \"*.pin\", \"streaming-*-pin\"]";

/// What `places-7.pin` is remains to be seen until the pins name their topics.
async fn pipeline(pins_from: &str) -> Pipeline {
    let mut pipeline = Pipeline::new(&Store::in_memory(), 1).await;
    pipeline.definitions = definitions(pins_from).await;
    pipeline
}

async fn definitions(pins_from: &str) -> Arc<engine::definitions::Definitions> {
    let places = ("streams/geo.toml", "\"*.geo\"", "\"places-*\"");
    let pins = ("streams/pin.toml", PINS_FROM, pins_from);
    pipeline::definitions(&[places, pins]).await
}

#[tokio::test]
async fn a_topic_that_two_streams_take_is_refused_by_name_until_they_are_told_apart() {
    let mut pipeline = pipeline(PINS_FROM).await;
    pipeline.post(0, [pin(0, "art")]).await;
    let posts = json!([{"category": "art", "number_posts": 1}]);
    assert_eq!(pipeline.ask("posts_per_category", Scope::Merged).await, posts, "no such topic yet");

    let topic: TopicPartition = "places-7.pin-0".parse().unwrap();
    let place = json!({"ind": 0, "country": "Norway", "timestamp": "2021-01-01 00:00:00"}).to_string();
    pipeline.log.change_topic(&topic.topic, TopicChange::Create { n_partitions: 1 }).await.unwrap();
    pipeline.log.append(&topic, vec![Record::of_value(place)]).await.unwrap();
    let words = "topic places-7.pin is taken by the streams geo and pin, and a topic belongs to one stream";
    for view in ["posts_per_category", "most_popular_category_per_country", "positions", "rejects"] {
        let refused = pipeline::rows(&pipeline.serving(), view, Scope::Merged).await;
        assert!(matches!(&refused, Err(QueryError::Unavailable(e)) if e.contains(words)), "{view}: {refused:?}");
    }
    pipeline::rows(&pipeline.serving(), "new_users_per_year", Scope::Merged).await.unwrap();
    pipeline.land().await;
    for error in [pipeline.run_speed().await.unwrap_err(), pipeline.try_batch().await.unwrap_err()] {
        let error = format!("{error:#}");
        assert!(["stream pin: ", "stream geo: "].iter().all(|of| error.contains(&format!("{of}{words}"))), "{error}");
    }
    pipeline.trim().await;

    pipeline.definitions = definitions("topics = [\"a.pin\"]").await;
    for step in ["in the tail", "in real-time", "in batch", "trimmed"] {
        match step {
            "in real-time" => drop(pipeline.run_speed().await.unwrap()),
            "in batch" => drop(pipeline.run_batch().await),
            "trimmed" => drop(pipeline.trim().await),
            _ => {}
        }
        assert_eq!(pipeline.ask("posts_per_category", Scope::Merged).await, posts, "{step}");
        let rejects = pipeline.ask("pin_rejected", Scope::Merged).await;
        assert_eq!(rejects, json!([]), "{step}");
    }
}
