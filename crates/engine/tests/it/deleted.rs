//! Topics that are deleted, with and without all of them taken, and created again: rows stay and
//! count once, and layers go on behind what is gone.

use std::{sync::Arc, time::Duration};

use engine::{batch::Batch, haste::Haste, landing::Landing, store::Store};
use model::{EventLog, Layers, QueryError, Report, Scope, Stop, Task, TopicChange, TopicName};
use serde_json::json;

use crate::pipeline::{self, Pipeline, TOPIC, pin};

const DEDUP_OFF: (&str, &str, &str) = ("streams/pin.toml", "dedup = \"key\"", "dedup = \"off\"");

async fn pipeline() -> Pipeline {
    let mut pipeline = Pipeline::new(&Store::in_memory(), 1).await;
    pipeline.definitions = pipeline::definitions(&[DEDUP_OFF]).await;
    pipeline
}

fn topic() -> TopicName {
    TOPIC.parse().unwrap()
}

async fn change(pipeline: &Pipeline, change: TopicChange) {
    pipeline.log.change_topic(&topic(), change).await.unwrap();
}

/// Deletes the topic whether it was taken or not, and creates it again.
async fn delete_untaken(pipeline: &Pipeline) {
    change(pipeline, TopicChange::Delete).await;
    change(pipeline, TopicChange::Create { n_partitions: 1 }).await;
}

async fn post(pipeline: &Pipeline, range: std::ops::Range<u64>) {
    pipeline.post(0, range.map(|n| pin(n, "art"))).await;
}

/// Whoever is asked, and whether the view stands or comes from all rows.
async fn counts(pipeline: &Pipeline, offsets: impl IntoIterator<Item = u64>, what: &str) {
    let offsets: Vec<u64> = offsets.into_iter().collect();
    assert_eq!(pipeline.offsets("positions", Scope::Merged, 0).await, offsets, "{what}");
    let expected = json!([{"category": "art", "number_posts": offsets.len()}]);
    assert_eq!(pipeline.ask("posts_per_category", Scope::Merged).await, expected, "{what}");
}

async fn land(pipeline: &Pipeline) -> Report {
    let config = pipeline.config.landing.clone();
    Landing::new(pipeline.log.clone(), pipeline.landing.clone(), config).run(&Stop::new()).await.unwrap()
}

async fn whole_batch(pipeline: &Pipeline) -> Report {
    let batch = Batch {
        landing: pipeline.landing.clone(),
        tables: pipeline.tables.clone(),
        definitions: pipeline.definitions.clone(),
        config: pipeline.config.batch.clone(),
        dedup: None,
        spill: pipeline.scratch().to_owned(),
        names: Default::default(),
    };
    batch.run(true, &Stop::new(), &|_| ()).await.unwrap().report
}

#[tokio::test]
async fn rows_of_a_deleted_topic_stay_and_count_once() {
    let pipeline = pipeline().await;
    post(&pipeline, 0..4).await;
    pipeline.land().await;
    pipeline.run_batch().await;
    post(&pipeline, 4..6).await;
    pipeline.run_speed().await.unwrap();
    counts(&pipeline, 0..6, "before").await;
    // The views that follow the log have not seen these.
    post(&pipeline, 6..8).await;
    pipeline.delete(TOPIC).await;
    for step in ["deleted", "in both tables", "real-time rows forgotten", "batch once more", "created again"] {
        match step {
            "in both tables" => drop(pipeline.run_batch().await),
            "real-time rows forgotten" => {
                assert_eq!(pipeline.trim().await.get("n_rows_forgotten"), 8);
                assert_eq!(pipeline.trim().await.get("n_rows_forgotten"), 0);
            }
            "batch once more" => drop(whole_batch(&pipeline).await),
            "created again" => change(&pipeline, TopicChange::Create { n_partitions: 1 }).await,
            _ => {}
        }
        counts(&pipeline, 0..8, step).await;
    }
    for step in ["in the tail", "in real-time", "in batch", "trimmed"] {
        match step {
            "in the tail" => post(&pipeline, 8..10).await,
            "in real-time" => assert_eq!(pipeline.run_speed().await.unwrap().get("n_records_gone"), 0),
            "in batch" => {
                assert_eq!(land(&pipeline).await.get("n_records_gone"), 0);
                pipeline.run_batch().await;
            }
            _ => drop(pipeline.trim().await),
        }
        counts(&pipeline, 0..10, step).await;
    }
}

#[tokio::test]
async fn a_topic_created_again_with_fewer_partitions_keeps_the_others_rows() {
    let mut pipeline = Pipeline::new(&Store::in_memory(), 3).await;
    pipeline.definitions = pipeline::definitions(&[DEDUP_OFF]).await;
    for partition in 0..3 {
        pipeline.post(partition, (0..2).map(|n| pin(n, "art"))).await;
    }
    pipeline.delete(TOPIC).await;
    change(&pipeline, TopicChange::Create { n_partitions: 2 }).await;
    pipeline.post(1, [pin(2, "art")]).await;
    for step in ["in real-time", "in both", "in batch"] {
        match step {
            "in both" => {
                pipeline.land().await;
                pipeline.run_batch().await;
            }
            "in batch" => drop(pipeline.trim().await),
            _ => {}
        }
        for (partition, expected) in [(0, vec![0, 1]), (1, vec![0, 1, 2]), (2, vec![0, 1])] {
            assert_eq!(pipeline.offsets("positions", Scope::Merged, partition).await, expected, "{step}: {partition}");
        }
        let expected = json!([{"category": "art", "number_posts": 7}]);
        assert_eq!(pipeline.ask("posts_per_category", Scope::Merged).await, expected, "{step}");
    }
}

#[tokio::test]
async fn a_topic_is_taken_when_landing_and_the_speed_layer_are_at_its_end() {
    let pipeline = pipeline().await;
    let taken = pipeline.taken();
    let topic = topic();
    let take = || taken.take(&topic, Duration::ZERO);
    assert_eq!(take().await.unwrap(), 0, "there is nothing in it");
    assert_eq!(taken.take(&"nothing".parse().unwrap(), Duration::ZERO).await.unwrap(), 0);
    post(&pipeline, 0..3).await;
    let speed = "the speed layer of stream pin, which is at 0 of a.pin-0 [0, 3)";
    let behind = format!("Behind are landing, which is at 0 of a.pin-0 [0, 3); {speed}");
    assert_eq!(take().await.unwrap_err().to_string(), behind);
    pipeline.land().await;
    assert_eq!(take().await.unwrap_err().to_string(), format!("Behind are {speed}"));
    pipeline.run_speed().await.unwrap();
    assert_eq!(take().await.unwrap(), 3);
    post(&pipeline, 3..4).await;
    assert!(take().await.unwrap_err().to_string().contains("which is at 3 of a.pin-0 [0, 4)"));
    // The batch table is as good.
    pipeline.land().await;
    pipeline.run_batch().await;
    assert_eq!(take().await.unwrap(), 4);

    let likes: TopicName = "likes".parse().unwrap();
    pipeline.log.change_topic(&likes, TopicChange::Create { n_partitions: 2 }).await.unwrap();
    pipeline.log.append(&"likes-1".parse().unwrap(), vec![Default::default()]).await.unwrap();
    let told = taken.take(&likes, Duration::ZERO).await.unwrap_err().to_string();
    assert_eq!(told, "Behind are landing, which is at 0 of likes-1 [0, 1)", "no stream takes it");
    pipeline.land().await;
    assert_eq!(taken.take(&likes, Duration::ZERO).await.unwrap(), 1);
}

/// With settings by which both layers would wait for an hour.
#[tokio::test]
async fn layers_do_not_wait_for_more_of_a_topic_that_is_about_to_be_deleted() {
    let mut pipeline = pipeline().await;
    pipeline.config.landing.idle_flush_ms = 3_600_000;
    pipeline.config.speed.linger_ms = 3_600_000;
    let haste = Haste::default();
    let config = pipeline.config.landing.clone();
    let mut landing = Landing::new(pipeline.log.clone(), pipeline.landing.clone(), config).hurried_by(haste.clone());
    let mut speed = pipeline.speed().hurried_by(haste.clone());
    post(&pipeline, 0..3).await;
    for _ in 0..2 {
        assert!(!landing.run(&Stop::new()).await.unwrap().did_work);
        assert!(!speed.run(&Stop::new()).await.unwrap().did_work);
    }
    let wakes = Arc::new(tokio::sync::Notify::new());
    let mut taken = pipeline.taken();
    taken.haste = haste;
    taken.wake = Box::new({
        let wakes = Arc::clone(&wakes);
        move || wakes.notify_one()
    });
    let layers = tokio::spawn(async move {
        loop {
            wakes.notified().await;
            landing.run(&Stop::new()).await.unwrap();
            speed.run(&Stop::new()).await.unwrap();
        }
    });
    assert_eq!(taken.take(&topic(), Duration::from_secs(60)).await.unwrap(), 3);
    layers.abort();
}

#[tokio::test]
async fn layers_go_on_behind_what_was_deleted_before_they_took_it() {
    let pipeline = pipeline().await;
    post(&pipeline, 0..4).await;
    pipeline.land().await;
    pipeline.run_speed().await.unwrap();
    pipeline.run_batch().await;
    counts(&pipeline, 0..4, "before").await;
    post(&pipeline, 4..6).await;
    counts(&pipeline, 0..6, "seen before they are deleted").await;
    delete_untaken(&pipeline).await;
    post(&pipeline, 6..9).await;
    let kept = || (0..4).chain(6..9);
    counts(&pipeline, kept(), "in the tail").await;

    let report = pipeline.run_speed().await.unwrap();
    assert_eq!((report.get("n_records_gone"), report.get("n_records")), (2, 3));
    assert!(report.notices[0].starts_with("a.pin-0: the records [4, 6) were gone"), "{:?}", report.notices);
    assert_eq!(pipeline.run_speed().await.unwrap(), Report::default(), "it is told once");
    counts(&pipeline, kept(), "in real-time").await;

    let report = land(&pipeline).await;
    assert_eq!((report.get("n_records_gone"), report.get("n_records"), report.did_work), (2, 3, true));
    assert!(report.notices[0].starts_with("a.pin-0: the records [4, 6) were deleted"), "{:?}", report.notices);
    assert_eq!(land(&pipeline).await.notices, Vec::<String>::new(), "it is told once");
    counts(&pipeline, kept(), "landed").await;
    pipeline.run_batch().await;
    counts(&pipeline, kept(), "in batch").await;
    pipeline.trim().await;
    counts(&pipeline, kept(), "trimmed").await;

    // A second hole, and a run over both.
    post(&pipeline, 9..10).await;
    delete_untaken(&pipeline).await;
    assert_eq!(land(&pipeline).await.get("n_records_gone"), 1, "also before anything new comes");
    post(&pipeline, 10..12).await;
    let kept = || kept().chain(10..12);
    for step in ["in the tail", "in batch", "in a whole run", "in real-time"] {
        match step {
            "in batch" => {
                assert_eq!(land(&pipeline).await.get("n_records_gone"), 0);
                pipeline.run_batch().await;
            }
            "in a whole run" => drop(whole_batch(&pipeline).await),
            "in real-time" => drop(pipeline.run_speed().await.unwrap()),
            _ => {}
        }
        counts(&pipeline, kept(), step).await;
    }
}

/// What the tables do not have leaves the views with its topic, and comes back with the next batch
/// run if it was landed.
#[tokio::test]
async fn what_was_landed_of_a_deleted_topic_comes_with_the_next_batch_run() {
    let pipeline = pipeline().await;
    post(&pipeline, 0..4).await;
    pipeline.run_speed().await.unwrap();
    post(&pipeline, 4..6).await;
    pipeline.land().await;
    counts(&pipeline, 0..6, "before").await;
    change(&pipeline, TopicChange::Delete).await;
    counts(&pipeline, 0..4, "deleted").await;
    pipeline.run_batch().await;
    counts(&pipeline, 0..6, "in batch").await;
    pipeline.trim().await;
    counts(&pipeline, 0..6, "trimmed").await;
}

/// Views that began behind a hole, which a batch run fills.
#[tokio::test]
async fn what_was_landed_before_a_topic_was_created_again_comes_with_the_next_batch_run() {
    let pipeline = pipeline().await;
    post(&pipeline, 0..4).await;
    pipeline.land().await;
    pipeline.run_batch().await;
    counts(&pipeline, 0..4, "before").await;
    post(&pipeline, 4..6).await;
    pipeline.land().await;
    delete_untaken(&pipeline).await;
    post(&pipeline, 6..9).await;
    counts(&pipeline, (0..4).chain(6..9), "created again").await;
    pipeline.run_batch().await;
    counts(&pipeline, 0..9, "in batch").await;
}

/// As after a start with the speed layer, where there was none before.
#[tokio::test]
async fn a_speed_layer_that_begins_behind_a_deletion_leaves_answers_possible() {
    let pipeline = pipeline().await;
    post(&pipeline, 0..4).await;
    pipeline.land().await;
    pipeline.run_batch().await;
    post(&pipeline, 4..6).await;
    pipeline.land().await;
    delete_untaken(&pipeline).await;
    post(&pipeline, 6..9).await;
    pipeline.run_speed().await.unwrap();
    counts(&pipeline, (0..4).chain(6..9), "in real-time").await;
    pipeline.run_batch().await;
    counts(&pipeline, 0..9, "in batch").await;
    pipeline.trim().await;
    counts(&pipeline, 0..9, "trimmed").await;
}

#[tokio::test]
async fn under_another_definition_deleted_topics_need_a_batch_run() {
    let mut pipeline = pipeline().await;
    post(&pipeline, 0..2).await;
    pipeline.land().await;
    pipeline.run_batch().await;
    post(&pipeline, 2..4).await;
    pipeline.delete(TOPIC).await;
    change(&pipeline, TopicChange::Create { n_partitions: 1 }).await;
    post(&pipeline, 4..5).await;
    let edit = ("streams/pin.sql", "  category\nFROM", "  'changed' AS category\nFROM");
    pipeline.definitions = pipeline::definitions(&[DEDUP_OFF, edit]).await;
    for step in ["at once", "after a micro-batch"] {
        if step == "after a micro-batch" {
            pipeline.run_speed().await.unwrap();
        }
        let refused = pipeline::rows(&pipeline.serving(), "positions", Scope::Merged).await;
        assert!(matches!(&refused, Err(QueryError::Unavailable(_))), "{step}: {refused:?}");
    }
    pipeline.run_batch().await;
    assert_eq!(pipeline.offsets("positions", Scope::Merged, 0).await, [0, 1, 2, 3, 4]);
    let expected = json!([{"category": "changed", "number_posts": 5}]);
    assert_eq!(pipeline.ask("posts_per_category", Scope::Merged).await, expected);
}
