//! A view: one question, one file, one `SELECT` over the streams' tables.

use serde::{Deserialize, Serialize};

/// `views/<name>.sql`: a head comment with `title:`, `question:` and `chart:` lines, then one
/// `SELECT`. The same text is asked in every scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ViewDef {
    pub name: String,
    pub title: String,
    pub question: String,
    /// How to draw it: `bar <label column> <value column>`, `line …`, or `table`.
    pub chart: String,
    pub sql: String,
    /// Whether batch runs write it to `tables/views/<name>`.
    pub materialised: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("view {view}: {problem}")]
pub struct InvalidView {
    pub view: String,
    pub problem: String,
}

impl ViewDef {
    pub fn parse(name: &str, text: &str) -> Result<Self, InvalidView> {
        let invalid = |problem: String| InvalidView { view: name.to_owned(), problem };
        let head = |field: &str| {
            let line = text
                .lines()
                .take_while(|l| l.starts_with("--"))
                .find_map(|l| l.trim_start_matches('-').trim_start().strip_prefix(field)?.strip_prefix(':'));
            line.map(|l| l.trim().to_owned()).filter(|l| !l.is_empty())
        };
        let required =
            |field: &str| head(field).ok_or_else(|| invalid(format!("the head comment has no line `-- {field}: …`")));
        let is_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if name.is_empty() || name.len() > 128 || !name.bytes().all(is_name) {
            return Err(invalid("a view's name is made of a-z, 0-9 and _".to_owned()));
        }
        Ok(Self {
            name: name.to_owned(),
            title: required("title")?,
            question: required("question")?,
            chart: head("chart").unwrap_or_else(|| "table".to_owned()),
            sql: text.to_owned(),
            materialised: true,
        })
    }
}

/// Which layers answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Everything acknowledged: batch tables, real-time tables and the tail of the log.
    #[default]
    Merged,
    /// What the last batch run wrote.
    Batch,
    /// What came since: real-time tables and tail.
    Realtime,
}

impl std::str::FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "merged" => Ok(Self::Merged),
            "batch" => Ok(Self::Batch),
            "realtime" => Ok(Self::Realtime),
            other => Err(format!("scope {other:?} is unknown: use merged, batch or realtime")),
        }
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Merged => "merged",
            Self::Batch => "batch",
            Self::Realtime => "realtime",
        })
    }
}
