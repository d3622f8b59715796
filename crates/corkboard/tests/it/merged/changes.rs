//! The pipeline's definitions and how they change between two starts. Each change is written
//! twice: as a user edits files, and as DuckDB says the same.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::{pipeline, random::Random};

/// Views beside the thirteen, with their columns and the same question for DuckDB.
pub(super) const OWN_VIEWS: [OwnView; 3] = [
    // Every row that counts, with its place in the log.
    OwnView {
        name: "positions",
        columns: &["_topic", "_partition", "_offset", "_nth", "unique_id"],
        sql: "-- title: Positions
-- question: Where does each pin stand in the log?
SELECT _topic, _partition, _offset, _nth, unique_id FROM pin ORDER BY _topic, _partition, _offset, _nth
",
        question: "SELECT _topic, _partition, _offset, _nth, unique_id FROM pin ORDER BY ALL",
    },
    OwnView {
        name: "rejects",
        columns: &["_topic", "_partition", "_offset", "_nth"],
        sql: "-- title: Rejects
-- question: Which pins could not be cleaned?
SELECT _topic, _partition, _offset, _nth FROM pin_rejected ORDER BY _topic, _partition, _offset, _nth
",
        question: "SELECT _topic, _partition, _offset, _nth FROM pin_rejected ORDER BY ALL",
    },
    OwnView {
        name: "kinds",
        columns: &["category", "n_posts"],
        sql: "-- title: Kinds
-- question: How many posts of one kind does each category have?
SELECT category, COUNT(*) AS n_posts FROM pin GROUP BY category ORDER BY category
",
        question: "SELECT category, count(*) FROM pin GROUP BY category ORDER BY category",
    },
];

pub(super) struct OwnView {
    pub(super) name: &'static str,
    pub(super) columns: &'static [&'static str],
    sql: &'static str,
    question: &'static str,
}

struct Change {
    /// File, what stands there, and what stands there afterwards.
    edits: &'static [(&'static str, &'static str, &'static str)],
    /// Stream and a `SELECT … FROM clean`, where cleaning changes.
    rule: Option<(&'static str, &'static str)>,
    /// View and question, where a view changes.
    question: Option<(&'static str, &'static str)>,
}

const CHANGES: [Change; 6] = [
    // A cleaning rule.
    Change {
        edits: &[("streams/pin.sql", "  category\nFROM", "  upper(category) AS category\nFROM")],
        rule: Some(("pin", "SELECT * REPLACE (upper(category) AS category) FROM clean")),
        question: None,
    },
    Change {
        edits: &[("streams/user.sql", "parse_integer(age) AS age", "parse_integer(age) + 1 AS age")],
        rule: Some(("user", "SELECT * REPLACE (age + 1 AS age) FROM clean")),
        question: None,
    },
    Change {
        edits: &[("streams/geo.sql", "  country,\n", "  upper(country) AS country,\n")],
        rule: Some(("geo", "SELECT * REPLACE (upper(country) AS country) FROM clean")),
        question: None,
    },
    // What is a reject.
    Change {
        edits: &[(
            "streams/pin.toml",
            "required = [\"ind\", \"unique_id\"]",
            "required = [\"ind\", \"unique_id\", \"follower_count\"]",
        )],
        rule: Some(("pin", "SELECT * FROM clean WHERE follower_count IS NOT NULL")),
        question: None,
    },
    // A column more, and a view that needs it.
    Change {
        edits: &[
            ("streams/pin.sql", "  tag_list,\n", "  is_image_or_video = 'video' AS is_video,\n  tag_list,\n"),
            ("views/kinds.sql", "FROM pin GROUP BY", "FROM pin WHERE is_video GROUP BY"),
        ],
        rule: Some(("pin", "SELECT *, is_image_or_video = 'video' AS is_video FROM clean")),
        question: Some((
            "kinds",
            "SELECT category, count(*) FROM pin WHERE is_video GROUP BY category ORDER BY category",
        )),
    },
    // A view's text.
    Change {
        edits: &[("views/posts_per_category.sql", "  category\nORDER BY", "  category\nHAVING COUNT(*) > 3\nORDER BY")],
        rule: None,
        question: Some((
            "posts_per_category",
            "SELECT category, count(*) AS n FROM pin GROUP BY category HAVING n > 3 ORDER BY n DESC, category",
        )),
    },
];

const MODES: [&str; 3] = ["key", "exact", "off"];

/// A folder of definitions, and which changes stand in it now.
pub(super) struct Definitions {
    folder: PathBuf,
    /// For `--config`.
    pub(super) config: PathBuf,
    dedup: &'static str,
    is_made: [bool; CHANGES.len()],
}

impl Definitions {
    pub(super) fn write(folder: &Path, settings: &str) -> Self {
        let config = pipeline::definitions(folder, MODES[0], settings);
        for view in OWN_VIEWS {
            fs::write(folder.join("views").join(view.name).with_extension("sql"), view.sql).unwrap();
        }
        Self { folder: folder.to_owned(), config, dedup: MODES[0], is_made: [false; CHANGES.len()] }
    }

    /// Makes one change, or takes one back.
    pub(super) fn change(&mut self, random: &mut Random) {
        let n = random.below(CHANGES.len() as u64 + 1) as usize;
        if n < CHANGES.len() { self.toggle(n) } else { self.deduplicate(random) }
    }

    fn deduplicate(&mut self, random: &mut Random) {
        let others: Vec<&'static str> = MODES.into_iter().filter(|m| *m != self.dedup).collect();
        let next = *random.pick(&others);
        for stream in ["pin", "geo", "user"] {
            let file = self.folder.join(format!("streams/{stream}.toml"));
            pipeline::edit(&file, &format!("dedup = \"{}\"", self.dedup), &format!("dedup = \"{next}\""));
        }
        self.dedup = next;
    }

    fn toggle(&mut self, n: usize) {
        for (file, before, after) in CHANGES[n].edits {
            let (from, to) = if self.is_made[n] { (after, before) } else { (before, after) };
            pipeline::edit(&self.folder.join(file), from, to);
        }
        self.is_made[n] = !self.is_made[n];
    }

    /// What DuckDB has to know beside the records.
    pub(super) fn for_duckdb(&self) -> Value {
        let made = || CHANGES.iter().zip(self.is_made).filter(|(_, is_made)| *is_made).map(|(change, _)| change);
        let mut questions: Value = OWN_VIEWS.iter().map(|v| (v.name, v.question)).collect();
        for (view, question) in made().filter_map(|c| c.question) {
            questions[view] = question.into();
        }
        let rules: Vec<_> = made().filter_map(|c| c.rule).collect();
        json!({"dedup": self.dedup, "rules": rules, "questions": questions})
    }
}
