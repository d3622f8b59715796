//! The default streams: each rule of cleaning, and that it is record-wise (I4).

use bytes::Bytes;
use datafusion::arrow::{array::RecordBatch, compute::concat_batches};
use engine::{
    cleaning::{Cleaned, Cleaning},
    decode::Decoder,
    definitions::Definitions,
};
use model::{Offset, TopicPartition, query::RowFormat};
use proptest::prelude::*;
use serde_json::{Value, json};

fn definitions() -> Definitions {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(Definitions::default_pipeline()).unwrap()
}

fn clean(cleaning: &Cleaning, first: u64, lines: &[String]) -> Cleaned {
    let partition: TopicPartition = format!("{}-0", cleaning.stream().name).parse().unwrap();
    let mut decoder = Decoder::new(cleaning.stream());
    for (i, line) in lines.iter().enumerate() {
        decoder.push(&partition, Offset(first).plus(i), &Bytes::from(line.clone()));
    }
    cleaning.apply(decoder.finish()).unwrap()
}

fn rows(rows: &RecordBatch) -> Vec<Value> {
    let json = engine::rows::encode(RowFormat::Json, &rows.schema(), std::slice::from_ref(rows)).unwrap();
    serde_json::from_slice(&json).unwrap()
}

fn clean_one(topic: &str, raw: &Value) -> (Value, Vec<(String, u64)>) {
    let definitions = definitions();
    let cleaning = definitions.stream_of(topic).unwrap();
    let cleaned = clean(cleaning, 7, &[raw.to_string()]);
    assert!(cleaned.rejects.is_empty(), "{:?}", cleaned.rejects);
    (rows(&cleaned.rows).remove(0), cleaned.lost)
}

#[test]
fn a_pin_is_cleaned_by_the_rules() {
    let raw = json!({
        "index": 7528, "unique_id": "fbe53c66-3442-4773-b19e-d3ec6f54dddf", "title": "No Title Data Available",
        "description": "No description available Story format", "poster_name": "User Info Error",
        "follower_count": "User Info Error", "tag_list": "N,o, ,T,a,g,s, ,A,v,a,i,l,a,b,l,e",
        "is_image_or_video": "multi-video(story page format)", "image_src": "Image src error.", "downloaded": 0,
        "save_location": "Local save in /data/mens-fashion", "category": "mens-fashion"
    });
    let (row, lost) = clean_one("0a3.pin", &raw);
    let expected = json!({
        "ind": 7528, "unique_id": "fbe53c66-3442-4773-b19e-d3ec6f54dddf", "title": null, "description": null,
        "follower_count": null, "poster_name": null, "tag_list": null,
        "is_image_or_video": "multi-video(story page format)", "image_src": null,
        "save_location": "/data/mens-fashion", "category": "mens-fashion",
        "_topic": "pin", "_partition": 0, "_offset": 7, "_nth": 0
    });
    assert_eq!(row, expected);
    // A placeholder is no value, so nothing was lost.
    assert_eq!(lost, vec![]);
}

#[test]
fn texts_are_kept_as_posted_and_what_cannot_be_read_is_counted() {
    let raw =
        json!({"index": "3", "unique_id": "u", "title": " Art. ", "follower_count": "many", "save_location": "x"});
    let (row, lost) = clean_one("pin", &raw);
    assert_eq!((&row["ind"], &row["title"], &row["save_location"]), (&json!(3), &json!(" Art. "), &json!("x")));
    assert_eq!(row["follower_count"], Value::Null);
    assert_eq!(lost, vec![("follower_count".to_owned(), 1)]);
}

#[test]
fn a_place_and_a_user_are_cleaned_by_the_rules() {
    let geo = json!({"ind": 1, "timestamp": "2020:08:28 03:52:47", "latitude": -89.9787, "longitude": "-173.293",
        "country": "Cote d'Ivoire"});
    let (row, _) = clean_one("geo", &geo);
    assert_eq!(row["coordinates"], json!([-89.9787, -173.293]));
    assert_eq!(row["timestamp"], json!("2020-08-28T03:52:47"));
    let user =
        json!({"ind": 1, "first_name": " Ana ", "last_name": null, "age": 21, "date_joined": "2016-01-02T03:04:05"});
    let (row, _) = clean_one("streaming-0a3-user", &user);
    assert_eq!((&row["user_name"], &row["age"]), (&json!("Ana"), &json!(21)));
}

#[test]
fn a_row_of_another_table_is_a_reject() {
    let definitions = definitions();
    let cleaning = definitions.stream_of("user").unwrap();
    let cleaned = clean(cleaning, 0, &[json!({"index": 1, "unique_id": "u", "category": "art"}).to_string()]);
    assert_eq!(cleaned.rows.num_rows(), 0);
    assert_eq!(cleaned.rejects.len(), 1);
    assert!(cleaned.rejects[0].reason.contains("ind"), "{:?}", cleaned.rejects);
    assert!(cleaned.rejects[0].raw.contains("\"category\":\"art\""), "{:?}", cleaned.rejects);
}

/// Lines of every kind that may come: rows, wrapped rows, damaged rows, rows of another table.
fn lines() -> impl Strategy<Value = Vec<String>> {
    let text = prop_oneof![Just(String::new()), "[a-z0-9kM. ]{0,8}", Just("User Info Error".to_owned()), "\\PC{0,6}"];
    let row = (any::<Option<u16>>(), text.clone(), text).prop_map(|(index, count, title)| {
        json!({"index": index, "unique_id": format!("u{}", index.unwrap_or(0) % 50), "follower_count": count, "title": title})
            .to_string()
    });
    let line = prop_oneof![
        6 => row.clone(),
        1 => row.clone().prop_map(|r| format!("[{r},{r}]")),
        1 => row.clone().prop_map(|r| format!("{{\"value\":{r}}}")),
        1 => row.prop_map(|r| r[..r.len() / 2].to_owned()),
        1 => Just("null".to_owned()),
        1 => Just("{\"ind\":1}".to_owned()),
    ];
    proptest::collection::vec(line, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_split_cleans_to_the_same_rows(lines in lines(), cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..5)) {
        let definitions = definitions();
        let cleaning = definitions.stream_of("pin").unwrap();
        let whole = clean(cleaning, 0, &lines);
        let mut cuts: Vec<usize> = cuts.iter().map(|c| c.index(lines.len() + 1)).collect();
        cuts.extend([0, lines.len()]);
        cuts.sort_unstable();
        let parts: Vec<Cleaned> =
            cuts.windows(2).map(|w| clean(cleaning, w[0] as u64, &lines[w[0]..w[1]])).collect();
        let joined = concat_batches(cleaning.schema(), parts.iter().map(|p| &p.rows)).unwrap();
        prop_assert_eq!(rows(&joined), rows(&whole.rows));
        let key = |r: &engine::decode::Reject| (r.offset, r.nth, r.reason.clone(), r.raw.clone());
        let mut rejects: Vec<_> = parts.iter().flat_map(|p| &p.rejects).map(key).collect();
        let mut expected: Vec<_> = whole.rejects.iter().map(key).collect();
        rejects.sort();
        expected.sort();
        prop_assert_eq!(rejects, expected);
    }
}
