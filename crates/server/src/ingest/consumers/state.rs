//! The state machine: what each command does to a group. Deterministic; times come from the
//! commands, and so do limits and lengths of leases, which are settings of a process.

use std::collections::{BTreeMap, BTreeSet};

use model::{Offset, Timestamp, TopicName, TopicPartition};
use serde::{Deserialize, Serialize};

use super::balance;
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
    touched_ms: i64,
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
    positions: BTreeMap<TopicPartition, Offset>,
    /// The last answer: where it began, and in which epoch of the log it was made.
    last_answer: BTreeMap<TopicPartition, Offset>,
    last_epoch: u32,
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
    pub(in crate::ingest) act: Act,
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
        max_offsets: usize,
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

/// Why a command changed nothing.
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
        let Command { group, instance, epoch, lease_ms, act } = command;
        if let Act::Create { settings, limits } = act {
            return self.create(&group, instance, settings, &limits, at, lease_ms);
        }
        let group = self.groups.get_mut(&group).ok_or(Refusal::UnknownInstance)?;
        group.touched_ms = at.0;
        group.expire(at);
        let outcome = group.act(&instance, epoch, act, lease_until(at, lease_ms));
        group.balance();
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
            group.instances.retain(|_, instance| instance.lease_until_ms >= instances_before);
        }
        self.groups.retain(|_, group| !group.instances.is_empty() || group.touched_ms >= offsets_before);
    }
}

impl Instance {
    fn new(settings: Settings, lease_until_ms: i64) -> Self {
        Self {
            settings,
            interest: Interest::Nothing,
            topics: BTreeMap::new(),
            lease_until_ms,
            is_fenced: false,
            positions: BTreeMap::new(),
            last_answer: BTreeMap::new(),
            last_epoch: 0,
            turns: 0,
        }
    }

    pub(in crate::ingest) fn is_live(&self, at: Timestamp) -> bool {
        at.0 <= self.lease_until_ms
    }

    /// Whether the lease is worth a command.
    pub(in crate::ingest) fn needs_renewal(&self, at: Timestamp, lease_ms: u64) -> bool {
        self.lease_until_ms < at.0.saturating_add_unsigned(lease_ms)
    }

    /// Where to go on reading. Answers of an earlier epoch may not have left the machine.
    pub(in crate::ingest) fn position(&self, partition: &TopicPartition, epoch: u32) -> Option<Offset> {
        let lost = self.last_answer.get(partition).filter(|_| self.last_epoch != epoch);
        lost.or_else(|| self.positions.get(partition)).copied()
    }

    /// What was returned and not given back.
    fn returned(&self, epoch: u32) -> impl Iterator<Item = (&TopicPartition, Offset)> {
        self.positions.iter().map(move |(p, offset)| (p, self.position(p, epoch).unwrap_or(*offset)))
    }

    fn forget(&mut self, which: impl Fn(&TopicPartition) -> bool) {
        self.positions.retain(|partition, _| !which(partition));
        self.last_answer.retain(|partition, _| !which(partition));
        self.turns += 1;
    }
}

impl Group {
    pub(in crate::ingest) fn owned_by<'g>(&'g self, instance: &'g str) -> impl Iterator<Item = &'g TopicPartition> {
        self.owners.iter().filter(move |(_, owner)| *owner == instance).map(|(partition, _)| partition)
    }

    pub(in crate::ingest) fn may_read(&self, instance: &str, partition: &TopicPartition) -> bool {
        match self.instances.get(instance).map(|i| &i.interest) {
            Some(Interest::Partitions(chosen)) => chosen.contains(partition),
            _ => self.owners.get(partition).is_some_and(|owner| owner == instance),
        }
    }

    /// What an instance reads now.
    pub(in crate::ingest) fn assignment(&self, name: &str) -> Vec<TopicPartition> {
        match self.instances.get(name).map(|i| &i.interest) {
            Some(Interest::Partitions(chosen)) => chosen.iter().cloned().collect(),
            _ => self.owned_by(name).cloned().collect(),
        }
    }

    /// Whether a member has partitions that others are to read.
    pub(in crate::ingest) fn has_to_give_up(&self, name: &str) -> bool {
        self.owned_by(name).any(|partition| self.targets.get(partition).is_none_or(|target| target != name))
    }

    /// When the next lease ends under which partitions are held.
    pub(in crate::ingest) fn next_expiry_ms(&self) -> Option<i64> {
        let held: BTreeSet<&String> = self.owners.values().collect();
        held.into_iter().filter_map(|name| Some(self.instances.get(name)?.lease_until_ms)).min()
    }

    /// Takes the partitions from those whose lease has ended.
    fn expire(&mut self, at: Timestamp) {
        let mut any = false;
        for (name, instance) in &mut self.instances {
            if !instance.is_live(at) && !instance.is_fenced && self.owners.values().any(|owner| owner == name) {
                instance.is_fenced = true;
                instance.forget(|_| true);
                self.owners.retain(|_, owner| owner != name);
                any = true;
            }
        }
        if any {
            self.generation += 1;
            self.balance();
        }
    }

    /// Decides who is to read what, and hands out what nobody reads.
    fn balance(&mut self) {
        let members = self.instances.iter().filter(|(_, i)| i.interest.is_subscription() && !i.is_fenced);
        self.targets = balance::balance(members.map(|(name, i)| (name.as_str(), &i.topics)), &self.owners);
        let is_member =
            |name: &String| self.instances.get(name).is_some_and(|i| i.interest.is_subscription() && !i.is_fenced);
        // What is no longer there, or was held by someone who left.
        let ends = |(partition, owner): &(&TopicPartition, &String)| {
            !is_member(owner) || !self.targets.contains_key(*partition)
        };
        let ended: Vec<_> = self.owners.iter().filter(ends).map(|(p, owner)| (p.clone(), owner.clone())).collect();
        let mut changed = !ended.is_empty();
        for (partition, owner) in ended {
            self.owners.remove(&partition);
            if let Some(instance) = self.instances.get_mut(&owner) {
                instance.forget(|p| *p == partition);
            }
        }
        for (partition, target) in &self.targets {
            if !self.owners.contains_key(partition) {
                self.owners.insert(partition.clone(), target.clone());
                changed = true;
            }
        }
        self.generation += u64::from(changed);
    }

    fn act(&mut self, name: &str, epoch: u32, act: Act, lease_until_ms: i64) -> Result<(), Refusal> {
        let instance = self.instances.get_mut(name).ok_or(Refusal::UnknownInstance)?;
        let rejoins = matches!(act, Act::Join { .. } | Act::Follow { .. } | Act::Unsubscribe);
        if rejoins || !instance.is_fenced {
            instance.lease_until_ms = instance.lease_until_ms.max(lease_until_ms);
        }
        instance.is_fenced &= !rejoins;
        match act {
            Act::Create { .. } => unreachable!("a group is made before anything is done in it"),
            Act::Renew => {}
            Act::Delete => {
                self.auto_commit(name, epoch);
                self.give_up(name, |_| true);
                self.instances.remove(name);
            }
            Act::Unsubscribe => {
                self.auto_commit(name, epoch);
                self.give_up(name, |_| true);
                self.follow(name, Interest::Nothing, BTreeMap::new());
            }
            Act::Follow { interest, topics } => {
                let held = &instance.interest;
                let same_kind = std::mem::discriminant(held) == std::mem::discriminant(&interest);
                if *held != Interest::Nothing && !same_kind {
                    return Err(Refusal::OtherInterest);
                }
                self.follow(name, interest, topics);
            }
            Act::Join { topics } => {
                if instance.interest.is_subscription() {
                    instance.topics = topics;
                }
                self.auto_commit(name, epoch);
                self.balance();
                let targets = std::mem::take(&mut self.targets);
                self.give_up(name, |partition| targets.get(partition).is_none_or(|target| target != name));
            }
            Act::Seek { positions } => return self.seek(name, positions),
            Act::Send { moves } => return self.send(name, epoch, moves),
            Act::Unsend { moves, turns } => return self.unsend(name, moves, turns),
            Act::Commit { offsets, max_offsets } => return self.commit(name, epoch, offsets, max_offsets),
        }
        Ok(())
    }

    fn follow(&mut self, name: &str, interest: Interest, topics: BTreeMap<TopicName, u32>) {
        let Some(instance) = self.instances.get_mut(name) else { return };
        match &interest {
            Interest::Partitions(chosen) => instance.forget(|partition| !chosen.contains(partition)),
            // What a member reads no more is given up when it asks again.
            Interest::Topics(_) | Interest::Pattern(_) => {}
            Interest::Nothing => instance.forget(|_| true),
        }
        (instance.interest, instance.topics) = (interest, topics);
    }

    /// What the member was returned of it is committed already, or is not at all.
    fn give_up(&mut self, name: &str, which: impl Fn(&TopicPartition) -> bool) {
        let Some(instance) = self.instances.get_mut(name) else { return };
        let owners = &mut self.owners;
        instance.forget(|partition| owners.get(partition).is_some_and(|owner| owner == name) && which(partition));
        owners.retain(|partition, owner| owner != name || !which(partition));
    }

    fn seek(&mut self, name: &str, positions: BTreeMap<TopicPartition, Offset>) -> Result<(), Refusal> {
        if let Some(partition) = positions.keys().find(|partition| !self.may_read(name, partition)) {
            return Err(Refusal::NotAssigned(partition.clone()));
        }
        let instance = self.instances.get_mut(name).ok_or(Refusal::UnknownInstance)?;
        instance.turns += 1;
        for (partition, offset) in positions {
            instance.last_answer.remove(&partition);
            instance.positions.insert(partition, offset);
        }
        Ok(())
    }

    fn send(&mut self, name: &str, epoch: u32, moves: Vec<Move>) -> Result<(), Refusal> {
        let instance = self.instances.get(name).ok_or(Refusal::UnknownInstance)?;
        let goes_on = |m: &Move| self.may_read(name, &m.partition) && instance.position(&m.partition, epoch) == m.seen;
        if !moves.iter().all(goes_on) {
            return Err(Refusal::Stale);
        }
        self.auto_commit(name, epoch);
        let instance = self.instances.get_mut(name).ok_or(Refusal::UnknownInstance)?;
        if instance.last_epoch != epoch {
            let lost = std::mem::take(&mut instance.last_answer);
            instance.positions.extend(lost);
        }
        instance.last_epoch = epoch;
        instance.last_answer = moves.iter().map(|m| (m.partition.clone(), m.from)).collect();
        instance.positions.extend(moves.into_iter().map(|m| (m.partition, m.until)));
        Ok(())
    }

    /// Goes back, even if the reader has gone on meanwhile: better twice than never.
    fn unsend(&mut self, name: &str, moves: Vec<Move>, turns: u64) -> Result<(), Refusal> {
        let instance = self.instances.get_mut(name).ok_or(Refusal::UnknownInstance)?;
        for m in moves {
            let position = instance.positions.get(&m.partition);
            if instance.turns == turns && position.is_some_and(|position| *position >= m.until) {
                instance.last_answer.remove(&m.partition);
                instance.positions.insert(m.partition, m.from);
            }
        }
        Ok(())
    }

    /// Who asks again has what was returned before.
    fn auto_commit(&mut self, name: &str, epoch: u32) {
        let Some(instance) = self.instances.get(name).filter(|i| i.settings.auto_commit) else { return };
        let owned = instance.returned(epoch).filter(|(partition, _)| self.may_commit(name, partition));
        let committed: Vec<_> = owned.map(|(partition, offset)| (partition.clone(), offset)).collect();
        for (partition, offset) in committed {
            self.committed.insert(partition, Committed { offset, metadata: String::new() });
        }
    }

    /// Not what another member reads.
    pub(in crate::ingest) fn may_commit(&self, name: &str, partition: &TopicPartition) -> bool {
        self.owners.get(partition).is_none_or(|owner| owner == name)
    }

    fn commit(
        &mut self,
        name: &str,
        epoch: u32,
        offsets: Option<BTreeMap<TopicPartition, Committed>>,
        max_offsets: usize,
    ) -> Result<(), Refusal> {
        let instance = self.instances.get(name).ok_or(Refusal::UnknownInstance)?;
        let returned = || {
            let committed = |offset| Committed { offset, metadata: String::new() };
            instance.returned(epoch).map(|(partition, offset)| (partition.clone(), committed(offset))).collect()
        };
        let is_fenced = instance.is_fenced;
        let offsets = offsets.unwrap_or_else(returned);
        if is_fenced || !offsets.keys().all(|partition| self.may_commit(name, partition)) {
            return Err(Refusal::Fenced);
        }
        let n_new = offsets.keys().filter(|partition| !self.committed.contains_key(*partition)).count();
        if n_new > 0 && self.committed.len() + n_new > max_offsets {
            return Err(Refusal::TooManyOffsets);
        }
        self.committed.extend(offsets);
        Ok(())
    }
}
