//! What the pipeline is: streams and views. A default pipeline is compiled in; a folder with
//! `streams/` and `views/` takes its place.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use anyhow::{Context, Result, bail, ensure};
use model::{StreamDef, TopicPartition, ViewDef};
use sha2::{Digest, Sha256};

use crate::cleaning::Cleaning;

macro_rules! files {
    ($folder:literal: $($name:literal),+ $(,)?) => {
        [$(($name, include_str!(concat!("../../../", $folder, "/", $name)))),+]
    };
}

const STREAM_FILES: [(&str, &str); 6] =
    files!["streams": "pin.toml", "pin.sql", "geo.toml", "geo.sql", "user.toml", "user.sql"];

/// In the order in which people should see them.
const VIEW_FILES: [(&str, &str); 13] = files!["views":
    "most_popular_category_per_country.sql",
    "frequency_of_posts_per_category_per_year.sql",
    "most_popular_category_per_year.sql",
    "user_with_most_followers_per_country.sql",
    "country_of_user_with_most_followers.sql",
    "most_popular_category_per_age_group.sql",
    "median_follower_count_per_age_group.sql",
    "new_users_per_year.sql",
    "posts_of_users_joined_per_year.sql",
    "median_follower_count_per_joining_year.sql",
    "median_follower_count_per_joining_year_and_age_group.sql",
    "median_follower_count_per_post_year_and_age_group.sql",
    "posts_per_category.sql",
];

/// How the hash of a definition is written down.
pub(crate) fn in_hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Streams, planned and checked, and views.
pub struct Definitions {
    pub streams: Vec<Arc<Cleaning>>,
    pub views: Vec<ViewDef>,
    /// Names of the columns that each view mentions.
    columns: BTreeMap<String, BTreeSet<String>>,
}

impl Definitions {
    /// The pipeline that is compiled in.
    pub async fn default_pipeline() -> Result<Self> {
        Self::from_files(&STREAM_FILES, &VIEW_FILES).await
    }

    /// The files of the default pipeline, by path below a definitions folder.
    pub fn default_files() -> impl Iterator<Item = (String, &'static str)> {
        let streams = STREAM_FILES.iter().map(|(name, text)| (format!("streams/{name}"), *text));
        streams.chain(VIEW_FILES.iter().map(|(name, text)| (format!("views/{name}"), *text)))
    }

    /// Reads and checks `streams/*.toml`, `streams/*.sql` and `views/*.sql` of a folder.
    pub async fn read(folder: &Path) -> Result<Self> {
        let read = |name: &str| -> Result<Vec<(String, String)>> {
            let folder = folder.join(name);
            let entries = std::fs::read_dir(&folder).with_context(|| {
                format!("{} cannot be read; `corkboard init` writes one to start from", folder.display())
            })?;
            let mut files = Vec::new();
            for entry in entries {
                let path = entry?.path();
                if let Some(name) = path.file_name().and_then(|n| n.to_str()).filter(|n| !n.starts_with('.')) {
                    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
                    files.push((name.to_owned(), text));
                }
            }
            files.sort();
            Ok(files)
        };
        let (streams, views) = (read("streams")?, read("views")?);
        let streams: Vec<(&str, &str)> = streams.iter().map(|(n, t)| (n.as_str(), t.as_str())).collect();
        let views: Vec<(&str, &str)> = views.iter().map(|(n, t)| (n.as_str(), t.as_str())).collect();
        Self::from_files(&streams, &views).await
    }

    async fn from_files(stream_files: &[(&str, &str)], view_files: &[(&str, &str)]) -> Result<Self> {
        let mut streams = Vec::new();
        for (file, toml) in stream_files {
            let Some(name) = file.strip_suffix(".toml") else { continue };
            let sql_file = format!("{name}.sql");
            let sql = stream_files.iter().find(|(f, _)| *f == sql_file);
            let (_, sql) = sql.with_context(|| format!("streams/{sql_file} is missing beside {file}"))?;
            streams.push(Arc::new(Cleaning::plan(&StreamDef::parse(name, toml, sql)?).await?));
        }
        ensure!(!streams.is_empty(), "there is no stream: streams/ has no .toml file");
        refuse_overlap(&streams)?;
        let mut views = Vec::new();
        for (file, sql) in view_files {
            if let Some(name) = file.strip_suffix(".sql") {
                views.push(ViewDef::parse(name, sql)?);
            }
        }
        let columns = crate::relation::check_views(&streams, &views).await?;
        Ok(Self { streams, views, columns })
    }

    /// Names of the columns that the views mention.
    pub fn columns_of<'a>(&self, views: impl IntoIterator<Item = &'a ViewDef>) -> BTreeSet<String> {
        views.into_iter().filter_map(|view| self.columns.get(&view.name)).flatten().cloned().collect()
    }

    /// The stream that takes a topic.
    pub fn stream_of(&self, topic: &str) -> Option<&Arc<Cleaning>> {
        self.streams.iter().find(|c| c.stream().takes(topic))
    }

    /// That a stream has its topics for itself: records that two streams clean would be counted by the
    /// progress of one of them. Patterns may overlap in names that no topic has, so each layer asks
    /// before it takes anything.
    pub fn refuse_shared<'p>(
        &self,
        stream: &StreamDef,
        partitions: impl IntoIterator<Item = &'p TopicPartition>,
    ) -> Result<()> {
        let others = || self.streams.iter().map(|c| c.stream()).filter(|other| other.name != stream.name);
        for TopicPartition { topic, .. } in partitions {
            if let Some(other) = others().find(|other| other.takes(topic.as_str())) {
                bail!(shared(stream, other, topic.as_str()));
            }
        }
        Ok(())
    }
}

/// Refuses streams of which one takes all that another's pattern stands for: whatever topic comes,
/// both would take it.
fn refuse_overlap(streams: &[Arc<Cleaning>]) -> Result<()> {
    for (nth, one) in streams.iter().enumerate() {
        for other in &streams[nth + 1..] {
            let (one, other) = (one.stream(), other.stream());
            // A `*` stands for a `*` as well: what takes a pattern's text takes what that pattern does.
            let both = one.topics.iter().find(|pattern| other.takes(pattern));
            if let Some(topic) = both.or_else(|| other.topics.iter().find(|pattern| one.takes(pattern))) {
                bail!(shared(one, other, topic));
            }
        }
    }
    Ok(())
}

fn shared(one: &StreamDef, other: &StreamDef, topic: &str) -> String {
    let [one, other] = [one.name.as_str().min(&other.name), one.name.as_str().max(&other.name)];
    format!(
        "topic {topic} is taken by the streams {one} and {other}, and a topic belongs to one stream: narrow the `topics` \
         of streams/{one}.toml or streams/{other}.toml"
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// The default pipeline, with other topics for the stream of places.
    async fn with_topics(topics: &str) -> Result<Definitions> {
        let toml = STREAM_FILES[2].1.replace("topics = [\"geo\", \"*.geo\", \"streaming-*-geo\"]", topics);
        assert_ne!(toml, STREAM_FILES[2].1);
        let mut files = STREAM_FILES;
        files[2].1 = &toml;
        Definitions::from_files(&files, &VIEW_FILES).await
    }

    #[tokio::test]
    async fn streams_that_take_the_same_topics_are_refused_by_name() {
        for (topics, topic) in [
            (r#"topics = ["geo", "pin"]"#, "pin"),
            (r#"topics = ["*.pin"]"#, "*.pin"),
            (r#"topics = ["*"]"#, "pin"),
            (r#"topics = ["geo", "0a3.pin"]"#, "0a3.pin"),
            (r#"topics = ["*-pin"]"#, "streaming-*-pin"),
        ] {
            let error = with_topics(topics).await.err().unwrap_or_else(|| panic!("{topics} was accepted")).to_string();
            assert!(error.starts_with(&format!("topic {topic} is taken by the streams geo and pin,")), "{error}");
        }
    }

    #[tokio::test]
    async fn patterns_may_overlap_in_names_that_no_topic_has() {
        let definitions = with_topics(r#"topics = ["geo", "places-*"]"#).await.unwrap();
        let of = |topic: &str| [TopicPartition::new(topic.parse().unwrap(), 0)];
        for stream in ["pin", "geo"] {
            let stream = definitions.streams.iter().map(|c| c.stream()).find(|s| s.name == stream).unwrap();
            let error = definitions.refuse_shared(stream, &of("places-7.pin")).unwrap_err().to_string();
            assert!(error.starts_with("topic places-7.pin is taken by the streams geo and pin,"), "{error}");
        }
        let pin = definitions.stream_of("pin").unwrap().stream();
        definitions.refuse_shared(pin, &of("7.pin")).unwrap();
        definitions.refuse_shared(pin, &[]).unwrap();
    }
}
