//! The state machine of all groups: what it holds, and the commands that change it. Deterministic:
//! times come from the commands, and so do limits and lengths of leases, which are settings of a
//! process. What a command does within a group is `group`.

use std::collections::{BTreeMap, BTreeSet};

use model::{Offset, Timestamp, TopicName, TopicPartition};
use serde::{Deserialize, Serialize};

use crate::replicated::StateMachine;

#[derive(Default, Serialize, Deserialize)]
pub(in crate::ingest) struct Consumers {
    pub(in crate::ingest) groups: BTreeMap<String, Group>,
}

#[derive(Default, Serialize, Deserialize)]
pub(in crate::ingest) struct Group {
    pub(in crate::ingest) instances: BTreeMap<String, Instance>,
    /// Grows whenever partitions change hands.
    pub(in crate::ingest) generation: u64,
    /// Who may read a partition; others wait until it was given up.
    pub(in crate::ingest) owners: BTreeMap<TopicPartition, String>,
    /// Who is to read it.
    pub(in crate::ingest) targets: BTreeMap<TopicPartition, String>,
    pub(in crate::ingest) committed: BTreeMap<TopicPartition, Committed>,
    pub(super) touched_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::ingest) struct Committed {
    /// The next one to read.
    pub(in crate::ingest) offset: Offset,
    pub(in crate::ingest) metadata: String,
}

#[derive(Serialize, Deserialize)]
pub(in crate::ingest) struct Instance {
    pub(in crate::ingest) settings: Settings,
    pub(in crate::ingest) interest: Interest,
    /// The topics that a subscription means, and their partitions, as last looked up.
    pub(in crate::ingest) topics: BTreeMap<TopicName, u32>,
    pub(in crate::ingest) lease_until_ms: i64,
    /// Its lease ended while it had partitions: it has to ask for records before it may commit.
    pub(in crate::ingest) is_fenced: bool,
    /// The next offset to return; where there is none, reading begins at what is committed.
    pub(super) positions: BTreeMap<TopicPartition, Offset>,
    /// The last answer: where it began, and in which epoch of the log it was made.
    pub(super) last_answer: BTreeMap<TopicPartition, Offset>,
    pub(super) last_epoch: u32,
    /// How often positions changed other than by reading on.
    pub(in crate::ingest) turns: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::ingest) struct Settings {
    pub(in crate::ingest) format: Format,
    pub(in crate::ingest) reset: Reset,
    pub(in crate::ingest) auto_commit: bool,
    /// 0: whatever there is.
    pub(in crate::ingest) min_bytes: usize,
    pub(in crate::ingest) timeout_ms: u64,
}

/// How keys and values are returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::ingest) enum Format {
    Binary,
    Json,
}

/// Where a reader begins that finds nothing committed, or whose place was trimmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::ingest) enum Reset {
    Earliest,
    Latest,
    None,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::ingest) enum Interest {
    #[default]
    Nothing,
    Topics(BTreeSet<TopicName>),
    Pattern(String),
    /// Chosen by the client itself, and shared with nobody.
    Partitions(BTreeSet<TopicPartition>),
}

impl Interest {
    pub(in crate::ingest) fn is_subscription(&self) -> bool {
        matches!(self, Self::Topics(_) | Self::Pattern(_))
    }
}

#[derive(Serialize, Deserialize)]
pub(in crate::ingest) struct Command {
    pub(in crate::ingest) group: String,
    pub(in crate::ingest) instance: String,
    /// Of the log: answers of an earlier one may be lost.
    pub(in crate::ingest) epoch: u32,
    pub(in crate::ingest) lease_ms: u64,
    /// Partitions of which the group may have committed an offset.
    #[serde(default = "unlimited")]
    pub(in crate::ingest) max_offsets: usize,
    pub(in crate::ingest) act: Act,
}

/// As it was before commands said it.
fn unlimited() -> usize {
    usize::MAX
}

#[derive(Serialize, Deserialize)]
pub(in crate::ingest) enum Act {
    Create {
        settings: Settings,
        limits: Limits,
    },
    Delete,
    /// Replaces a subscription or an assignment by another of its kind.
    Follow {
        interest: Interest,
        topics: BTreeMap<TopicName, u32>,
    },
    /// Ends both.
    Unsubscribe,
    /// Asks for records: renews the lease, takes part again, gives up what others are to read.
    Join {
        topics: BTreeMap<TopicName, u32>,
        /// Topics that are there no more: what was committed of them is forgotten.
        #[serde(default)]
        gone: BTreeSet<TopicName>,
    },
    Renew,
    Seek {
        positions: BTreeMap<TopicPartition, Offset>,
    },
    Send {
        moves: Vec<Move>,
    },
    /// The answer of these moves did not leave the machine whole. `turns` as it was before it.
    Unsend {
        moves: Vec<Move>,
        turns: u64,
    },
    /// None: all that was returned.
    Commit {
        offsets: Option<BTreeMap<TopicPartition, Committed>>,
    },
}

/// The records of one partition in one answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::ingest) struct Move {
    pub(in crate::ingest) partition: TopicPartition,
    /// The position that the reader saw.
    pub(in crate::ingest) seen: Option<Offset>,
    pub(in crate::ingest) from: Offset,
    pub(in crate::ingest) until: Offset,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(in crate::ingest) struct Limits {
    pub(in crate::ingest) groups: usize,
    pub(in crate::ingest) instances: usize,
    pub(in crate::ingest) instance_retention_ms: u64,
    pub(in crate::ingest) offset_retention_ms: u64,
}

/// Why a command did not do what it was for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ingest) enum Refusal {
    UnknownInstance,
    Exists,
    TooManyGroups,
    TooManyInstances,
    TooManyOffsets,
    /// A subscription by names, one by pattern and an assignment exclude each other.
    OtherInterest,
    NotAssigned(TopicPartition),
    /// Another member reads it, or this one was away for too long.
    Fenced,
    /// Someone else moved the position meanwhile.
    Stale,
}

impl StateMachine for Consumers {
    type Command = Command;
    type Outcome = Result<(), Refusal>;
    const TOPIC: &'static str = "__consumers";

    fn apply(&mut self, command: Command, at: Timestamp) -> Self::Outcome {
        let Command { group, instance, epoch, lease_ms, max_offsets, act } = command;
        if let Act::Create { settings, limits } = act {
            return self.create(&group, instance, settings, &limits, at, lease_ms);
        }
        let group = self.groups.get_mut(&group).ok_or(Refusal::UnknownInstance)?;
        group.touched_ms = at.0;
        group.expire(at);
        let moves_members = matches!(act, Act::Delete | Act::Follow { .. } | Act::Unsubscribe | Act::Join { .. });
        let outcome = group.act(&instance, epoch, act, lease_until(at, lease_ms), max_offsets);
        if moves_members {
            group.balance();
        }
        outcome
    }
}

/// A reader has at least `lease_ms` after it was heard of; what is added saves renewals.
fn lease_until(at: Timestamp, lease_ms: u64) -> i64 {
    let lease_ms = lease_ms.saturating_add(lease_ms / LEASE_SLACK);
    at.0.saturating_add_unsigned(lease_ms)
}

/// A lease is renewed when it was not for this part of its length.
const LEASE_SLACK: u64 = 4;

impl Consumers {
    pub(in crate::ingest) fn instance(&self, group: &str, instance: &str) -> Option<(&Group, &Instance)> {
        let group = self.groups.get(group)?;
        Some((group, group.instances.get(instance)?))
    }

    fn create(
        &mut self,
        group: &str,
        name: String,
        settings: Settings,
        limits: &Limits,
        at: Timestamp,
        lease_ms: u64,
    ) -> Result<(), Refusal> {
        self.forget_the_past(limits, at);
        if !self.groups.contains_key(group) && self.groups.len() >= limits.groups {
            return Err(Refusal::TooManyGroups);
        }
        let group = self.groups.entry(group.to_owned()).or_default();
        group.touched_ms = at.0;
        group.expire(at);
        match group.instances.get(&name) {
            Some(held) if held.is_live(at) => return Err(Refusal::Exists),
            None if group.instances.len() >= limits.instances => return Err(Refusal::TooManyInstances),
            _ => {}
        }
        group.instances.insert(name, Instance::new(settings, lease_until(at, lease_ms)));
        group.balance();
        Ok(())
    }

    /// Only when something new comes: state does not shrink by itself.
    fn forget_the_past(&mut self, limits: &Limits, at: Timestamp) {
        let before = |retention_ms: u64| at.0.saturating_sub_unsigned(retention_ms);
        let (instances_before, offsets_before) =
            (before(limits.instance_retention_ms), before(limits.offset_retention_ms));
        for group in self.groups.values_mut() {
            group.expire(at);
            let n_instances = group.instances.len();
            group.instances.retain(|_, instance| instance.lease_until_ms >= instances_before);
            if group.instances.len() < n_instances {
                group.balance();
            }
        }
        self.groups.retain(|_, group| !group.instances.is_empty() || group.touched_ms >= offsets_before);
    }
}
