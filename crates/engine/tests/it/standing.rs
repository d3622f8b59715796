//! Views that stand: the same answers as from all rows, whatever came when, and no look at the
//! history.

use std::collections::{BTreeMap, BTreeSet};

use engine::{serving::Serving, store::Store};
use futures::TryStreamExt;
use model::{EventLog, Record, Scope, TopicChange, TopicPartition};
use object_store::ObjectStoreExt;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::pipeline::{self, Pipeline, pin, rows};

const N_PARTITIONS: u32 = 2;
const COUNTRIES: [&str; 3] = ["Albania", "Bolivia", "Chad"];
const CATEGORIES: [&str; 3] = ["art", "diy", "travel"];
const VIEWS: [&str; 3] =
    ["posts_per_category", "frequency_of_posts_per_category_per_year", "country_of_user_with_most_followers"];

/// A row of a pin or of a geo, made from a few small numbers so that keys meet.
#[derive(Clone, Copy, Debug)]
enum Row {
    Pin { id: u64, ind: u64, category: usize, followers: u64 },
    Geo { ind: u64, country: usize, year: u64 },
}

#[derive(Clone, Debug)]
enum Step {
    Post {
        partition: u32,
        rows: Vec<Row>,
    },
    Batch,
    /// By another process, so that what this one knew is outdated.
    BatchElsewhere,
    Speed,
    Trim,
    /// Both topics, which go on with the next post.
    Delete,
    Ask,
}

fn row() -> impl Strategy<Value = Row> {
    // What a key says mostly follows from it, as with replays; now and then it does not.
    let said = prop_oneof![9 => Just(0_u64), 1 => 0..3_u64];
    prop_oneof![
        (0..12_u64, said.clone()).prop_map(|(id, said)| Row::Pin {
            id,
            ind: (id + said) % 8,
            category: ((id + said) % 3) as usize,
            followers: (id * 7 + said) % 5,
        }),
        (0..8_u64, said).prop_map(|(ind, said)| Row::Geo {
            ind,
            country: ((ind + said) % 3) as usize,
            year: 2018 + (ind + said) % 2,
        }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..N_PARTITIONS, prop::collection::vec(row(), 1..6))
            .prop_map(|(partition, rows)| Step::Post { partition, rows }),
        2 => Just(Step::Batch),
        1 => Just(Step::BatchElsewhere),
        1 => Just(Step::Speed),
        1 => Just(Step::Trim),
        1 => Just(Step::Delete),
        4 => Just(Step::Ask),
    ]
}

impl Row {
    fn topic(self) -> &'static str {
        match self {
            Self::Pin { .. } => "a.pin",
            Self::Geo { .. } => "a.geo",
        }
    }

    fn value(self) -> Value {
        match self {
            Self::Pin { id, ind, category, followers } => json!({"index": ind, "unique_id": format!("u{id}"),
                "category": CATEGORIES[category], "follower_count": followers.to_string()}),
            Self::Geo { ind, country, year } => json!({"ind": ind, "country": COUNTRIES[country],
                "timestamp": format!("{year}-02-03T04:05:06")}),
        }
    }
}

/// Everything posted, by topic, partition and offset.
type Posted = BTreeMap<(&'static str, u32, usize), Row>;

/// A pipeline with partitions enough for posts.
async fn pipeline() -> Pipeline {
    let pipeline = Pipeline::new(&Store::in_memory(), N_PARTITIONS).await;
    for topic in ["a.geo", "a.user"] {
        let create = TopicChange::Create { n_partitions: N_PARTITIONS };
        pipeline.log.change_topic(&topic.parse().unwrap(), create).await.unwrap();
    }
    pipeline
}

async fn post(pipeline: &Pipeline, posted: &mut Posted, partition: u32, rows: impl IntoIterator<Item = Row>) {
    let mut by_topic: BTreeMap<&str, Vec<Row>> = BTreeMap::new();
    for row in rows {
        by_topic.entry(row.topic()).or_default().push(row);
    }
    for (topic, rows) in by_topic {
        let at = TopicPartition::new(topic.parse().unwrap(), partition);
        if !pipeline.log.describe().await.unwrap().topics.contains_key(&at.topic) {
            let create = TopicChange::Create { n_partitions: N_PARTITIONS };
            pipeline.log.change_topic(&at.topic, create).await.unwrap();
        }
        let records = rows.iter().map(|row| Record::of_value(row.value().to_string())).collect();
        let first = pipeline.log.append(&at, records).await.unwrap().start.0 as usize;
        posted.extend(rows.into_iter().enumerate().map(|(i, row)| ((row.topic(), partition, first + i), row)));
    }
}

/// The three views over the first row of each key.
fn expected(posted: &Posted) -> [Value; 3] {
    let (mut ids, mut inds) = (BTreeSet::new(), BTreeSet::new());
    let (mut pins, mut geos) = (Vec::new(), BTreeMap::new());
    for row in posted.values() {
        match *row {
            Row::Pin { id, ind, category, followers } if ids.insert(id) => pins.push((ind, category, followers)),
            Row::Geo { ind, country, year } if inds.insert(ind) => drop(geos.insert(ind, (country, year))),
            _ => {}
        }
    }
    let (mut per_category, mut per_year, mut most) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for (ind, category, followers) in pins {
        *per_category.entry(category).or_insert(0) += 1;
        if let Some((country, year)) = geos.get(&ind) {
            *per_year.entry((*year, category)).or_insert(0) += 1;
            let most = most.entry(*country).or_insert(followers);
            *most = followers.max(*most);
        }
    }
    let mut per_category: Vec<(usize, i32)> = per_category.into_iter().collect();
    per_category.sort_by_key(|(category, n)| (-n, *category));
    let mut per_year: Vec<((u64, usize), i32)> = per_year.into_iter().collect();
    per_year.sort_by_key(|((year, category), n)| (*year, -n, *category));
    let top = most.values().max().copied();
    [
        per_category.iter().map(|(c, n)| json!({"category": CATEGORIES[*c], "number_posts": n})).collect(),
        per_year
            .iter()
            .map(|((y, c), n)| json!({"post_year": y, "category": CATEGORIES[*c], "category_count": n}))
            .collect(),
        most.iter()
            .filter(|(_, n)| Some(**n) == top)
            .map(|(c, n)| json!({"country": COUNTRIES[*c], "follower_count": n}))
            .collect(),
    ]
}

async fn answers(serving: &Serving, scope: Scope) -> [Value; 3] {
    let [a, b, c] = VIEWS.map(|view| rows(serving, view, scope));
    [a.await.unwrap(), b.await.unwrap(), c.await.unwrap()]
}

async fn all_steps_answer_as_expected(steps: Vec<Step>, max_recent_bytes: usize) {
    let mut pipeline = pipeline().await;
    pipeline.config.serving.max_recent_bytes = max_recent_bytes;
    let serving = pipeline.serving();
    let mut posted = Posted::new();
    for step in steps {
        match step {
            Step::Post { partition, rows } => post(&pipeline, &mut posted, partition, rows).await,
            Step::Batch | Step::BatchElsewhere => {
                pipeline.land().await;
                match step {
                    Step::Batch => pipeline.run_batch().await,
                    _ => pipeline.run_batch_elsewhere().await,
                };
                if !posted.is_empty() {
                    assert_eq!(answers(&serving, Scope::Batch).await, expected(&posted));
                }
            }
            Step::Speed => drop(pipeline.run_speed().await.unwrap()),
            Step::Trim => drop(pipeline.trim().await),
            Step::Delete => {
                for topic in ["a.pin", "a.geo"] {
                    if pipeline.log.describe().await.unwrap().topics.contains_key(topic) {
                        pipeline.delete(topic).await;
                    }
                }
            }
            Step::Ask => assert_eq!(answers(&serving, Scope::Merged).await, expected(&posted)),
        }
    }
    assert_eq!(answers(&serving, Scope::Merged).await, expected(&posted));
    assert_eq!(answers(&pipeline.serving(), Scope::Merged).await, expected(&posted));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whether rows stay in memory or are left to the tables as soon as these have them.
    #[test]
    fn no_order_of_posts_batch_runs_and_questions_changes_an_answer(
        steps in prop::collection::vec(step(), 1..24),
        max_recent_bytes in prop_oneof![2 => Just(0), 1 => Just(1 << 26)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(all_steps_answer_as_expected(steps, max_recent_bytes));
    }
}

/// More than little memory holds at a time, with replays, and with parts of posts on both sides of the
/// last run's end.
#[tokio::test]
async fn many_new_rows_are_taken_up_bit_by_bit() {
    let mut pipeline = pipeline().await;
    pipeline.config.batch.memory_bytes = 32 << 20;
    let mut posted = Posted::new();
    let pin = |n: u64| Row::Pin { id: n, ind: n, category: (n % 3) as usize, followers: n * 7 % 1000 };
    let geo = |n: u64| Row::Geo { ind: n, country: (n / 5 % 3) as usize, year: 2018 + n % 4 };
    for (pins, geos) in [(0..30_000, 0..29_000), (20_000..48_000, 24_000..52_000)] {
        for partition in 0..N_PARTITIONS {
            let own = |n: &u64| n / 7 % u64::from(N_PARTITIONS) == u64::from(partition);
            let pins = pins.clone().filter(own).map(pin);
            post(&pipeline, &mut posted, partition, pins.chain(geos.clone().filter(own).map(geo))).await;
        }
        pipeline.land().await;
        pipeline.run_batch().await;
        assert_eq!(answers(&pipeline.serving(), Scope::Batch).await, expected(&posted));
    }
}

#[tokio::test]
async fn a_view_that_stands_does_not_read_the_history() {
    let store = Store::in_memory();
    let pipeline = Pipeline::new(&store, 1).await;
    pipeline.post(0, (0..100).map(|n| pin(n, "art"))).await;
    pipeline.land().await;
    pipeline.run_batch().await;
    let serving = pipeline.serving();
    let expected = |n: u64| json!([{"category": "art", "number_posts": n}]);
    assert_eq!(rows(&serving, "posts_per_category", Scope::Merged).await.unwrap(), expected(100));

    let files: Vec<_> = store.objects().list(None).try_collect().await.unwrap();
    let of_pins = |path: &str| path.contains("batch/pin/") && path.ends_with(".parquet");
    for file in files.iter().filter(|f| of_pins(f.location.as_ref())) {
        store.objects().delete(&file.location).await.unwrap();
    }
    pipeline.post(0, (100..130).map(|n| pin(n, "art"))).await;
    assert_eq!(rows(&serving, "posts_per_category", Scope::Merged).await.unwrap(), expected(130));
    // Another serving layer has to read it, and says that it cannot.
    assert!(rows(&pipeline.serving(), "posts_per_category", Scope::Merged).await.is_err());
}

#[tokio::test]
async fn a_batch_run_goes_on_from_the_groups_of_the_last_one() {
    let store = Store::in_memory();
    let mut pipeline = Pipeline::new(&store, 1).await;
    pipeline.definitions = pipeline::definitions(&[]).await;
    for (n_before, n_after) in [(0, 50), (50, 80), (70, 90)] {
        pipeline.post(0, (n_before..n_after).map(|n| pin(n, "art"))).await;
        pipeline.land().await;
        pipeline.run_batch().await;
        let rows = pipeline.ask("posts_per_category", Scope::Batch).await;
        assert_eq!(rows, json!([{"category": "art", "number_posts": n_after}]));
    }
}

/// A run knows the names of the last one of its process, and that these are not all.
#[tokio::test]
async fn what_another_process_took_in_meanwhile_is_known() {
    let pipeline = Pipeline::new(&Store::in_memory(), 1).await;
    for (posted, is_elsewhere) in [(0..50, false), (50..60, false), (60..70, true), (65..75, false)] {
        let n_posts = posted.end;
        pipeline.post(0, posted.map(|n| pin(n, "art"))).await;
        pipeline.land().await;
        match is_elsewhere {
            true => pipeline.run_batch_elsewhere().await,
            false => pipeline.run_batch().await,
        };
        let rows = pipeline.ask("posts_per_category", Scope::Batch).await;
        assert_eq!(rows, json!([{"category": "art", "number_posts": n_posts}]));
    }
}

/// Of a key that was asked for, rows come later too, and are left to the tables in their turn.
#[tokio::test]
async fn what_was_left_to_the_tables_is_joined_with_what_comes_later() {
    let mut pipeline = pipeline().await;
    pipeline.config.serving.max_recent_bytes = 0;
    let serving = pipeline.serving();
    let view = "median_follower_count_per_age_group";
    let pin = |id: u64, followers: u64| Row::Pin { id, ind: 5, category: 0, followers }.value();
    let user =
        json!({"ind": 5, "first_name": "Ana", "last_name": "Bay", "age": 20, "date_joined": "2016-01-02T03:04:05"});
    let geo = Row::Geo { ind: 5, country: 0, year: 2018 }.value();
    for (topic, value) in [("a.pin", pin(1, 9)), ("a.geo", geo), ("a.pin", pin(2, 1)), ("a.user", user)] {
        let at = TopicPartition::new(topic.parse().unwrap(), 0);
        pipeline.log.append(&at, vec![Record::of_value(value.to_string())]).await.unwrap();
        rows(&serving, view, Scope::Merged).await.unwrap();
        pipeline.run_speed().await.unwrap();
        rows(&serving, view, Scope::Merged).await.unwrap();
    }
    // The lower one.
    let expected = json!([{"age_group": "18-24", "median_follower_count": 1}]);
    assert_eq!(rows(&serving, view, Scope::Merged).await.unwrap(), expected);
    assert_eq!(rows(&pipeline.serving(), view, Scope::Merged).await.unwrap(), expected);
}

/// Objects may be brought along from elsewhere, under topics that the log does not have.
#[tokio::test]
async fn landed_topics_that_the_log_does_not_have_are_counted_once() {
    let pipeline = Pipeline::new(&Store::in_memory(), 1).await;
    pipeline.post(0, [pin(0, "art")]).await;
    pipeline.land().await;
    let lines = (1..50).map(|n| pin(n, "art") + "\n").collect::<String>();
    let key = object_store::path::Path::from("topics/b.pin/partition=0/b.pin+0+0000000000.json");
    pipeline.landing.objects().put(&key, lines.into()).await.unwrap();
    pipeline.run_batch().await;
    let serving = pipeline.serving();
    for n in 50..53 {
        assert_eq!(
            rows(&serving, "posts_per_category", Scope::Merged).await.unwrap(),
            json!([{"category": "art", "number_posts": n}])
        );
        pipeline.post(0, [pin(n, "art")]).await;
    }
}

/// Clients go away, and questions take too long: a question may end at any of its waits.
#[tokio::test]
async fn a_question_that_is_given_up_changes_no_later_answer() {
    let pipeline = Pipeline::new(&Store::in_memory(), 1).await;
    let serving = pipeline.serving();
    let mut n_posts = 0;
    for n_polls in 0..150 {
        // Another view is asked in between, so that this one has more than one epoch to take up.
        for _ in 0..3 {
            pipeline.post(0, [pin(n_posts, "art")]).await;
            n_posts += 1;
            rows(&serving, "new_users_per_year", Scope::Merged).await.unwrap();
        }
        {
            let mut asked = std::pin::pin!(rows(&serving, "posts_per_category", Scope::Merged));
            for _ in 0..n_polls {
                if futures::poll!(asked.as_mut()).is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(
            rows(&serving, "posts_per_category", Scope::Merged).await.unwrap(),
            json!([{"category": "art", "number_posts": n_posts}]),
            "given up after {n_polls} polls"
        );
    }
}
