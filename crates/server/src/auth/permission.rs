//! What a key may do: actions, each on the names that a pattern takes.

use std::{fmt, str::FromStr};

use model::stream::matches;
use serde::{Deserialize, Serialize};

/// What can be asked of a name: of a topic, but for the last two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Append records.
    Produce,
    /// Read records.
    Consume,
    /// See that it is there, and how far it goes.
    Describe,
    /// Create, change, delete.
    Admin,
    /// Ask a view; the name is the view's.
    Views,
    /// See tasks and start them; the name is the task's.
    Tasks,
}

impl Action {
    pub const ALL: [Self; 6] = [Self::Produce, Self::Consume, Self::Describe, Self::Admin, Self::Views, Self::Tasks];

    /// What an action of the Kinesis API is here; everything that is not listed changes streams.
    pub fn of_kinesis(action: &str) -> Self {
        match action {
            "PutRecord" | "PutRecords" => Self::Produce,
            "GetRecords" | "GetShardIterator" | "SubscribeToShard" => Self::Consume,
            _ if action.starts_with("Describe") || action.starts_with("List") => Self::Describe,
            _ => Self::Admin,
        }
    }

    /// Whether it may change anything.
    pub fn changes(self) -> bool {
        matches!(self, Self::Produce | Self::Admin | Self::Tasks)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Produce => "produce",
            Self::Consume => "consume",
            Self::Describe => "describe",
            Self::Admin => "admin",
            Self::Views => "views",
            Self::Tasks => "tasks",
        })
    }
}

impl FromStr for Action {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|action| action.to_string() == text).ok_or_else(|| {
            format!("there is no action {text:?}; there are produce, consume, describe, admin, views, tasks")
        })
    }
}

/// Some actions on some names; `*` in a name stands for any run of characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Permission {
    pub actions: Vec<Action>,
    pub names: Vec<String>,
}

impl Permission {
    pub fn covers(&self, action: Action, name: &str) -> bool {
        self.actions.contains(&action) && self.names.iter().any(|pattern| matches(pattern, name))
    }
}

/// `produce,describe:0a3.*,0b4.*`, as the command line has it.
impl FromStr for Permission {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (actions, names) = text.split_once(':').ok_or_else(|| {
            format!("{text:?} is no permission: write actions, a colon and names, such as produce,describe:0a3.*")
        })?;
        let actions = actions.split(',').map(str::parse).collect::<Result<_, _>>()?;
        let names: Vec<String> = names.split(',').map(str::to_owned).collect();
        check_names(&names)?;
        Ok(Self { actions, names })
    }
}

/// Names are those of topics, views or tasks, and `*`.
pub(super) fn check_names(names: &[String]) -> Result<(), String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'*');
    match names.iter().find(|name| name.is_empty() || !name.bytes().all(allowed)) {
        Some(name) => Err(format!("{name:?} is no name: letters, digits, `.`, `_`, `-`, and `*` for any of them")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permission_covers_its_actions_on_its_names_alone() {
        let permission: Permission = "produce,describe:0a3.*,other".parse().expect("a permission");
        for (action, name, covered) in [
            (Action::Produce, "0a3.pin", true),
            (Action::Describe, "other", true),
            (Action::Produce, "0a3", false),
            (Action::Produce, "x0a3.pin", false),
            (Action::Produce, "other2", false),
            (Action::Consume, "0a3.pin", false),
            (Action::Admin, "0a3.pin", false),
        ] {
            assert_eq!(permission.covers(action, name), covered, "{action} {name}");
        }
    }

    #[test]
    fn what_kinesis_calls_its_actions_is_known() {
        for (name, action, changes) in [
            ("PutRecords", Action::Produce, true),
            ("GetShardIterator", Action::Consume, false),
            ("DescribeStreamSummary", Action::Describe, false),
            ("ListStreams", Action::Describe, false),
            ("SplitShard", Action::Admin, true),
            ("AddTagsToStream", Action::Admin, true),
            ("NeverHeardOf", Action::Admin, true),
        ] {
            assert_eq!((Action::of_kinesis(name), Action::of_kinesis(name).changes()), (action, changes), "{name}");
        }
    }

    #[test]
    fn what_is_no_permission_is_named() {
        for (text, words) in [
            ("produce", "colon"),
            ("prodce:a", "prodce"),
            ("produce:", "no name"),
            ("views:a b", "a b"),
            (":a", "\"\""),
        ] {
            let error = text.parse::<Permission>().expect_err(text);
            assert!(error.contains(words), "{error}");
        }
    }
}
