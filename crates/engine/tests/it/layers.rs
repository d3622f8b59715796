//! The layers together: adjacent ranges, the first row per key wherever it lies, definitions
//! that change, and what may be forgotten.

use std::sync::Arc;

use engine::{
    maintain::{Compact, Vacuum},
    store::Store,
};
use futures::TryStreamExt;
use model::{EventLog, Offset, QueryError, Scope, Stop, Task};
use object_store::ObjectStoreExt;
use serde_json::{Value, json};

use crate::{
    flaky::{Fate, Flaky},
    pipeline::{self, Pipeline, pin},
};

const DEDUP_OFF: (&str, &str, &str) = ("streams/pin.toml", "dedup = \"key\"", "dedup = \"off\"");

fn pins(range: std::ops::Range<u64>, category: &str) -> Vec<String> {
    range.map(|n| pin(n, category)).collect()
}

/// Batch through 4, real-time from 0 through 8, tail through 10.
async fn three_layers(definitions: &[(&str, &str, &str)]) -> Pipeline {
    let mut pipeline = Pipeline::new(&Store::in_memory(), 1).await;
    pipeline.definitions = pipeline::definitions(definitions).await;
    pipeline.post(0, pins(0..4, "batch")).await;
    pipeline.land().await;
    pipeline.run_batch().await;
    pipeline.post(0, pins(4..8, "realtime")).await;
    pipeline.run_speed().await.unwrap();
    pipeline.post(0, pins(8..10, "tail")).await;
    pipeline
}

#[tokio::test]
async fn adjacent_ranges_count_every_row_once() {
    let pipeline = three_layers(&[DEDUP_OFF]).await;
    let mut n_posted = 10;
    for step in ["three layers", "real-time rows forgotten", "all in real-time", "batch ahead of real-time"] {
        match step {
            "real-time rows forgotten" => drop(pipeline.trim().await),
            "all in real-time" => drop(pipeline.run_speed().await.unwrap()),
            "batch ahead of real-time" => {
                pipeline.post(0, pins(10..13, "batch")).await;
                n_posted = 13;
                pipeline.land().await;
                pipeline.run_batch().await;
            }
            _ => {}
        }
        let offsets = pipeline.offsets("positions", Scope::Merged, 0).await;
        assert_eq!(offsets, (0..n_posted).collect::<Vec<_>>(), "{step}");
    }
}

#[tokio::test]
async fn the_boundary_tells_where_the_ranges_meet() {
    let pipeline = three_layers(&[]).await;
    let serving = pipeline.serving();
    let ask = |scope| model::query::Ask { view: "positions".to_owned(), scope, format: model::query::RowFormat::Json };
    let boundary = model::Query::query(&serving, &ask(Scope::Merged)).await.unwrap().boundary;
    let partition = Pipeline::partition(0);
    let ends = [&boundary.batch_through, &boundary.realtime_through, &boundary.tail_through];
    assert_eq!(ends.map(|through| through[&partition]), [4, 8, 10].map(Offset));
    assert!(boundary.complete);
    // What the real-time scope leaves to the batch tables, those have.
    assert_eq!(pipeline.offsets("positions", Scope::Realtime, 0).await, [4, 5, 6, 7, 8, 9]);
    assert_eq!(pipeline.offsets("positions", Scope::Batch, 0).await, [0, 1, 2, 3]);
}

#[tokio::test]
async fn the_first_row_of_a_key_counts_wherever_the_others_lie() {
    let pipeline = three_layers(&[]).await;
    // Each again, and later than all.
    pipeline.post(0, [pin(3, "again"), pin(4, "again"), pin(9, "again")]).await;
    let expected = json!([
        {"category": "batch", "number_posts": 4},
        {"category": "realtime", "number_posts": 4},
        {"category": "tail", "number_posts": 2}
    ]);
    for step in ["in the tail", "in real-time", "in batch"] {
        match step {
            "in real-time" => drop(pipeline.run_speed().await.unwrap()),
            "in batch" => {
                pipeline.land().await;
                pipeline.run_batch().await;
            }
            _ => {}
        }
        assert_eq!(pipeline.ask("posts_per_category", Scope::Merged).await, expected, "{step}");
    }
    assert_eq!(pipeline.ask("posts_per_category", Scope::Batch).await, expected);
}

#[tokio::test]
async fn rejects_are_counted_once_in_every_layer() {
    let pipeline = three_layers(&[]).await;
    pipeline.post(0, ["[]", "7", "{\"index\":1}"].map(str::to_owned)).await;
    pipeline.post(0, [pin(13, "tail")]).await;
    pipeline.post(0, ["{".to_owned()]).await;
    for step in ["in the tail", "in real-time", "in batch", "forgotten by real-time"] {
        match step {
            "in real-time" => drop(pipeline.run_speed().await.unwrap()),
            "in batch" => {
                pipeline.land().await;
                pipeline.run_batch().await;
            }
            "forgotten by real-time" => drop(pipeline.trim().await),
            _ => {}
        }
        assert_eq!(pipeline.offsets("rejects", Scope::Merged, 0).await, [10, 11, 12, 14], "{step}");
        let rows = pipeline.offsets("positions", Scope::Merged, 0).await;
        assert_eq!(rows, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 13], "{step}");
    }
}

/// Values that are no plain row: no JSON, JSON over several lines, rows within, nothing at all.
#[tokio::test]
async fn a_record_is_cleaned_alike_in_every_layer() {
    let pipeline = Pipeline::new(&Store::in_memory(), 1).await;
    let spread = pin(1, "art").replace(',', ",\n  ");
    let odd = ["{", "\u{1}", &spread, "[[1],\r\n{}]", "", "{\"index\": 5, \"unique_id\": \"e\", \"title\": \" a \"}"];
    pipeline.post(0, odd.map(str::to_owned)).await;
    let mut seen: Vec<(&str, [Value; 2])> = Vec::new();
    for step in ["in the tail", "in real-time", "in batch"] {
        match step {
            "in real-time" => drop(pipeline.run_speed().await.unwrap()),
            "in batch" => {
                pipeline.land().await;
                pipeline.run_batch().await;
                pipeline.trim().await;
            }
            _ => {}
        }
        let rejects = pipeline.ask("pin_rejected", Scope::Merged).await;
        let rows = pipeline.ask("whole_pins", Scope::Merged).await;
        assert_eq!((rejects.as_array().unwrap().len(), rows.as_array().unwrap().len()), (5, 2), "{rejects} {rows}");
        seen.push((step, [rejects, rows]));
    }
    for (step, answers) in &seen[1..] {
        assert_eq!(answers, &seen[0].1, "{step}");
    }
}

/// A definition that gives the pins of every layer another category and a column more.
async fn changed(pipeline: &mut Pipeline) {
    let edits = [
        ("streams/pin.sql", "  category\nFROM", "  'changed' AS category,\n  downloaded\nFROM"),
        ("views/posts_per_category.sql", "FROM pin", "FROM pin\nWHERE downloaded IS NULL"),
    ];
    pipeline.definitions = pipeline::definitions(&edits).await;
}

#[tokio::test]
async fn after_a_change_of_definitions_no_answer_mixes_the_two() {
    let mut pipeline = three_layers(&[]).await;
    changed(&mut pipeline).await;
    let expected = json!([{"category": "changed", "number_posts": 10}]);
    for step in ["at once", "after a micro-batch", "after a batch run"] {
        match step {
            "after a micro-batch" => drop(pipeline.run_speed().await.unwrap()),
            "after a batch run" => {
                pipeline.run_batch().await;
            }
            _ => {}
        }
        assert_eq!(pipeline.ask("posts_per_category", Scope::Merged).await, expected, "{step}");
        assert_eq!(pipeline.offsets("positions", Scope::Merged, 0).await.len(), 10, "{step}");
    }
    assert_eq!(pipeline.ask("posts_per_category", Scope::Batch).await[0]["number_posts"], 4);
}

#[tokio::test]
async fn what_only_tables_of_another_definition_have_is_refused_until_a_batch_run() {
    let mut pipeline = three_layers(&[]).await;
    changed(&mut pipeline).await;
    pipeline.log.trim(&Pipeline::partition(0), Offset(2)).await.unwrap();
    for step in ["at once", "after a micro-batch"] {
        if step == "after a micro-batch" {
            pipeline.run_speed().await.unwrap();
        }
        for scope in [Scope::Merged, Scope::Batch] {
            let refused = pipeline::rows(&pipeline.serving(), "pin_rejected", scope).await;
            let Err(QueryError::Unavailable(reason)) = refused else { panic!("{step}, {scope}: {refused:?}") };
            assert!(reason.contains("stream pin") && reason.contains("run `corkboard batch run`"), "{reason}");
        }
    }
    pipeline.run_batch().await;
    let expected = json!([{"category": "changed", "number_posts": 10}]);
    assert_eq!(pipeline.ask("posts_per_category", Scope::Merged).await, expected);
}

#[tokio::test]
async fn a_crash_between_rejects_and_rows_doubles_neither() {
    let (flaky, store) = Flaky::store();
    let pipeline = Pipeline::new(&store, 1).await;
    let posted = || [pin(0, "art"), "[]".to_owned(), pin(2, "art"), "{".to_owned()];
    pipeline.post(0, posted()).await;
    for layer in ["realtime", "batch"] {
        let rows = format!("{layer}/pin/_delta_log");
        // The table may be created, but no commit goes through.
        let is_commit = move |at: &object_store::path::Path| {
            at.as_ref().starts_with(&rows) && !at.filename().unwrap().starts_with("00000000000000000000.")
        };
        flaky.decide(move |at| if is_commit(at) { Fate::FailsBefore } else { Fate::Succeeds });
        pipeline.land().await;
        let run = async {
            match layer {
                "realtime" => pipeline.run_speed().await.map(drop),
                _ => pipeline.try_batch().await.map(drop),
            }
        };
        run.await.expect_err("the rows could not be committed");
        // More comes before the next try.
        pipeline.post(0, posted()).await;
        pipeline.land().await;
        flaky.decide(|_| Fate::Succeeds);
        match layer {
            "realtime" => drop(pipeline.run_speed().await.unwrap()),
            _ => drop(pipeline.run_batch().await),
        }
        let n_posted = if layer == "realtime" { 8 } else { 12 };
        let scope = if layer == "realtime" { Scope::Merged } else { Scope::Batch };
        let odd: Vec<u64> = (0..n_posted).filter(|n| n % 2 == 1).collect();
        assert_eq!(pipeline.offsets("rejects", scope, 0).await, odd, "{layer}");
        // The same two keys each time.
        assert_eq!(pipeline.offsets("positions", scope, 0).await, [0, 2], "{layer}");
    }
}

#[tokio::test]
async fn trim_goes_no_further_than_the_layer_that_is_furthest_behind() {
    let pipeline = Pipeline::new(&Store::in_memory(), 1).await;
    let floor = async || {
        let report = pipeline.trim().await;
        let floor = pipeline.retained.lock().unwrap()[&Pipeline::partition(0)];
        (floor.0, report.get("n_rows_forgotten"))
    };
    pipeline.post(0, pins(0..3, "a")).await;
    assert_eq!(floor().await, (0, 0), "nothing has any of it");
    pipeline.land().await;
    assert_eq!(floor().await, (0, 0), "landing alone has it");
    pipeline.run_speed().await.unwrap();
    pipeline.post(0, pins(3..5, "a")).await;
    pipeline.land().await;
    assert_eq!(floor().await, (0, 0), "the batch layer has nothing");
    pipeline.run_batch().await;
    // Real-time is at 3, batch at 5, the last landing object begins at 3.
    assert_eq!(floor().await, (3, 3), "the real-time layer is behind");
    pipeline.run_speed().await.unwrap();
    pipeline.post(0, pins(5..9, "a")).await;
    pipeline.run_speed().await.unwrap();
    // Rows [5, 9) are in real-time alone, and stay.
    assert_eq!(floor().await, (3, 2), "landing and batch are behind");
    assert_eq!(pipeline.offsets("positions", Scope::Merged, 0).await, (0..9).collect::<Vec<_>>());
}

/// A batch table set back, as after a restore of an old copy: what real-time has forgotten is
/// nowhere, and no answer pretends otherwise.
#[tokio::test]
async fn a_gap_between_the_layers_is_an_error_and_no_answer() {
    let pipeline = three_layers(&[]).await;
    pipeline.trim().await;
    let objects = pipeline.tables.objects("batch/").unwrap();
    let all: Vec<_> = objects.list(None).map_ok(|o| o.location).try_collect().await.unwrap();
    for location in all {
        objects.delete(&location).await.unwrap();
    }
    let refused = pipeline::rows(&pipeline.serving(), "posts_per_category", Scope::Merged).await;
    let error = refused.expect_err("the rows below 4 are in no table").to_string();
    assert!(error.contains("not adjacent"), "{error}");
}

/// Parquet files of a table, whether or not a commit still names them.
async fn n_files(pipeline: &Pipeline, table: &str) -> usize {
    let objects = pipeline.tables.objects(&format!("{table}/")).unwrap();
    let all: Vec<_> = objects.list(None).try_collect().await.unwrap();
    all.iter().filter(|o| o.location.as_ref().ends_with(".parquet") && !o.location.as_ref().contains("_log")).count()
}

#[tokio::test]
async fn vacuum_deletes_what_compaction_replaced_once_its_retention_is_over() {
    let mut pipeline = Pipeline::new(&Store::in_memory(), 1).await;
    pipeline.config.maintain.compact_min_files = 2;
    for n in 0..5 {
        pipeline.post(0, [pin(n, "a")]).await;
        pipeline.run_speed().await.unwrap();
    }
    let mut compact = Compact {
        tables: pipeline.tables.clone(),
        definitions: Arc::clone(&pipeline.definitions),
        config: pipeline.config.maintain.clone(),
        batch: pipeline.config.batch.clone(),
        spill: pipeline.scratch().to_owned(),
    };
    assert_eq!(compact.run(&Stop::new()).await.unwrap().get("n_files_removed"), 5);
    assert_eq!(n_files(&pipeline, "realtime/pin").await, 6);
    for (retention_ms, expected) in [(3_600_000, 6), (0, 1)] {
        let config = model::config::MaintainConfig { vacuum_retention_ms: retention_ms, ..compact.config.clone() };
        let definitions = Arc::clone(&pipeline.definitions);
        let mut vacuum = Vacuum { tables: pipeline.tables.clone(), definitions, config };
        let report = vacuum.run(&Stop::new()).await.unwrap();
        assert_eq!(n_files(&pipeline, "realtime/pin").await, expected, "{report:?}");
        let counted: Value = pipeline.ask("posts_per_category", Scope::Merged).await;
        assert_eq!(counted, json!([{"category": "a", "number_posts": 5}]));
    }
}

#[tokio::test]
async fn later_batch_runs_tell_what_stands_among_objects_that_they_have() {
    let pipeline = Pipeline::new(&Store::in_memory(), 1).await;
    for (from, to) in [(0, 4), (4, 6), (6, 8)] {
        pipeline.post(0, pins(from..to, "art")).await;
        pipeline.land().await;
        pipeline.run_batch().await;
    }
    for key in [
        "a.pin/partition=0/_SUCCESS",
        "a.pin/partition=0/a.pin+0+4.json",
        "a.pin/partition=0/a.pin+0+0000000020.json",
        "likes/partition=0/likes+0+0000000000.json",
    ] {
        let key = object_store::path::Path::from(format!("topics/{key}"));
        pipeline.landing.objects().put(&key, format!("{}\n", pin(9, "music")).into()).await.unwrap();
    }
    for _ in 0..2 {
        let report = pipeline.run_batch().await;
        for words in [
            "_SUCCESS is no landing object",
            "a.pin+0+4.json is no landing object and was passed over: another object of a.pin-0 starts at offset 4",
            "the records [8, 20) are in no landing object; the partition waits",
            "topic likes belongs to no stream",
        ] {
            assert!(report.notices.iter().any(|notice| notice.contains(words)), "{words}: {:?}", report.notices);
        }
        assert_eq!(pipeline.offsets("positions", Scope::Merged, 0).await, (0..8).collect::<Vec<_>>());
    }
}

/// Waiting for one small object after the other would be most of a run.
#[tokio::test]
async fn small_objects_are_read_ahead_as_far_as_their_number_and_their_bytes_allow() {
    for (n_objects, n_bytes, most) in [(200, 10, 17..=32), (8, 900_000, 2..=4)] {
        let (flaky, landing) = Flaky::store();
        let mut pipeline = Pipeline::new(&Store::in_memory(), 1).await;
        pipeline.landing = landing;
        pipeline.config.landing.flush_size = 1;
        let category = "a".repeat(n_bytes);
        for n in 0..n_objects {
            pipeline.post(0, [pin(n, &category)]).await;
        }
        pipeline.land().await;
        flaky.most_gets_at_once();
        pipeline.run_batch().await;
        let most_at_once = flaky.most_gets_at_once();
        assert!(most.contains(&most_at_once), "{n_objects} objects: {most_at_once} at once, not {most:?}");
        assert_eq!(pipeline.offsets("positions", Scope::Batch, 0).await, (0..n_objects).collect::<Vec<_>>());
    }
}
