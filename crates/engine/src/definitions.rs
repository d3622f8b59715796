//! What the pipeline is: streams and views. A default pipeline is compiled in; a folder with
//! `streams/` and `views/` takes its place.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use model::{StreamDef, ViewDef};

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
}
