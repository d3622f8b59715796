//! The thirteen views with their columns, and their rows in the order of these columns.

use std::{collections::BTreeMap, path::Path};

use serde_json::Value;

use crate::{http::Client, process};

/// What outside readers may rely on: names, and columns in this order.
pub(crate) const VIEWS: [(&str, &[&str]); 13] = [
    ("most_popular_category_per_country", &["country", "category", "category_count"]),
    ("frequency_of_posts_per_category_per_year", &["post_year", "category", "category_count"]),
    ("most_popular_category_per_year", &["post_year", "category", "category_count"]),
    ("user_with_most_followers_per_country", &["country", "poster_name", "follower_count"]),
    ("country_of_user_with_most_followers", &["country", "follower_count"]),
    ("most_popular_category_per_age_group", &["age_group", "category", "category_count"]),
    ("median_follower_count_per_age_group", &["age_group", "median_follower_count"]),
    ("new_users_per_year", &["joining_year", "number_users_joined"]),
    ("posts_of_users_joined_per_year", &["joining_year", "number_posts"]),
    ("median_follower_count_per_joining_year", &["joining_year", "median_follower_count"]),
    ("median_follower_count_per_joining_year_and_age_group", &["age_group", "joining_year", "median_follower_count"]),
    ("median_follower_count_per_post_year_and_age_group", &["age_group", "post_year", "median_follower_count"]),
    ("posts_per_category", &["category", "number_posts"]),
];

/// Rows by view, each row an array.
pub(crate) type Answers = BTreeMap<String, Value>;

/// The answers of a running server.
pub(crate) fn over_http(client: &mut Client, scope: &str) -> Answers {
    all(|view| client.json(&format!("/api/views/{view}?scope={scope}"))["rows"].clone())
}

/// The answers of `corkboard view`.
pub(crate) fn on_the_command_line(words: &str, paths: &process::Paths<'_>) -> Answers {
    all(|view| {
        let printed = process::run(&format!("view {view} --format json {words}"), paths).succeeded();
        serde_json::from_str(&printed).unwrap_or_else(|e| panic!("{view}: {e}: {printed}"))
    })
}

/// The answers of a tables folder alone.
pub(crate) fn over_tables(tables: &Path) -> Answers {
    on_the_command_line("", &[("--tables", tables)])
}

fn all(mut ask: impl FnMut(&str) -> Value) -> Answers {
    VIEWS.iter().map(|(view, columns)| ((*view).to_owned(), rows(view, columns, &ask(view)))).collect()
}

/// A view's rows, which are objects with these columns, as arrays.
pub(crate) fn rows(view: &str, columns: &[&str], objects: &Value) -> Value {
    let row = |object: &Value| {
        let object = object.as_object().unwrap();
        assert_eq!(object.len(), columns.len(), "{view}: {object:?}");
        columns.iter().map(|c| object.get(*c).unwrap_or_else(|| panic!("{view} has no {c}")).clone()).collect()
    };
    Value::Array(objects.as_array().unwrap().iter().map(row).collect())
}

/// Every expected view has exactly these rows, in this order.
pub(crate) fn assert_equal(what: &str, actual: &Answers, expected: &Answers) {
    for (view, expected) in expected {
        let (expected, actual) = (expected.as_array().unwrap(), actual[view].as_array().unwrap());
        if expected != actual {
            let without = |left: &[Value], right: &[Value]| -> Vec<String> {
                left.iter().filter(|row| !right.contains(row)).take(5).map(Value::to_string).collect()
            };
            panic!(
                "{what}: {view} has {} rows, {} expected; missing {:?}, extra {:?}; if neither, the order is wrong",
                actual.len(),
                expected.len(),
                without(expected, actual),
                without(actual, expected),
            );
        }
    }
}
