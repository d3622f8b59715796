//! One group: what each command does to its instances, their positions and its partitions.

use std::collections::{BTreeMap, BTreeSet};

use model::{Offset, Timestamp, TopicName, TopicPartition};

use super::{
    balance,
    state::{Act, Committed, Group, Instance, Interest, Move, Refusal, Settings},
};

impl Instance {
    pub(super) fn new(settings: Settings, lease_until_ms: i64) -> Self {
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
    pub(super) fn expire(&mut self, at: Timestamp) {
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
    pub(super) fn balance(&mut self) {
        let members = self.instances.iter().filter(|(_, i)| i.interest.is_subscription() && !i.is_fenced);
        self.targets = balance::balance(members.map(|(name, i)| (name.as_str(), &i.topics)), &self.owners);
        let is_member =
            |name: &String| self.instances.get(name).is_some_and(|i| i.interest.is_subscription() && !i.is_fenced);
        // Members give up themselves what they are not to read any more, even what is gone.
        let ended: Vec<_> = self.owners.iter().filter(|(_, owner)| !is_member(owner)).map(|(p, _)| p.clone()).collect();
        let mut changed = !ended.is_empty();
        for partition in ended {
            if let Some(instance) = self.owners.remove(&partition).and_then(|owner| self.instances.get_mut(&owner)) {
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

    pub(super) fn act(
        &mut self,
        name: &str,
        epoch: u32,
        act: Act,
        lease_until_ms: i64,
        max_offsets: usize,
    ) -> Result<(), Refusal> {
        let instance = self.instances.get_mut(name).ok_or(Refusal::UnknownInstance)?;
        let rejoins = matches!(act, Act::Join { .. } | Act::Follow { .. } | Act::Unsubscribe);
        if rejoins || !instance.is_fenced {
            instance.lease_until_ms = instance.lease_until_ms.max(lease_until_ms);
        }
        instance.is_fenced &= !rejoins;
        match act {
            Act::Create { .. } => unreachable!("a group is made before anything is done in it"),
            Act::Renew => {}
            // Whoever leaves does so, even if there is no room for what was returned last.
            Act::Delete => {
                let _ = self.auto_commit(name, epoch, max_offsets);
                self.give_up(name, |_| true);
                self.instances.remove(name);
            }
            Act::Unsubscribe => {
                let _ = self.auto_commit(name, epoch, max_offsets);
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
            Act::Join { topics, gone } => {
                if instance.interest.is_subscription() {
                    instance.topics = topics;
                }
                self.committed.retain(|partition, _| !gone.contains(&partition.topic));
                self.auto_commit(name, epoch, max_offsets)?;
                self.balance();
                let targets = std::mem::take(&mut self.targets);
                self.give_up(name, |partition| targets.get(partition).is_none_or(|target| target != name));
            }
            Act::Seek { positions } => return self.seek(name, positions),
            Act::Send { moves } => return self.send(name, epoch, moves, max_offsets),
            Act::Unsend { moves, turns } => return self.unsend(name, moves, turns),
            Act::Commit { offsets } => return self.commit(name, epoch, offsets, max_offsets),
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

    fn send(&mut self, name: &str, epoch: u32, moves: Vec<Move>, max_offsets: usize) -> Result<(), Refusal> {
        let instance = self.instances.get(name).ok_or(Refusal::UnknownInstance)?;
        let goes_on = |m: &Move| self.may_read(name, &m.partition) && instance.position(&m.partition, epoch) == m.seen;
        if !moves.iter().all(goes_on) {
            return Err(Refusal::Stale);
        }
        self.auto_commit(name, epoch, max_offsets)?;
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
    fn auto_commit(&mut self, name: &str, epoch: u32, max_offsets: usize) -> Result<(), Refusal> {
        let Some(instance) = self.instances.get(name).filter(|i| i.settings.auto_commit) else { return Ok(()) };
        let owned = instance.returned(epoch).filter(|(partition, _)| self.may_commit(name, partition));
        let committed = |offset| Committed { offset, metadata: String::new() };
        let offsets = owned.map(|(partition, offset)| (partition.clone(), committed(offset))).collect();
        self.take_over(offsets, max_offsets)
    }

    /// All of them, or none if there is no room.
    fn take_over(&mut self, offsets: BTreeMap<TopicPartition, Committed>, max_offsets: usize) -> Result<(), Refusal> {
        let n_new = offsets.keys().filter(|partition| !self.committed.contains_key(*partition)).count();
        if n_new > 0 && self.committed.len() + n_new > max_offsets {
            return Err(Refusal::TooManyOffsets);
        }
        self.committed.extend(offsets);
        Ok(())
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
        self.take_over(offsets, max_offsets)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        ingest::consumers::state::{Command, Consumers, Format, Limits, Reset},
        replicated::StateMachine,
    };

    const LEASE_MS: u64 = 100;

    #[derive(Default)]
    struct Played {
        consumers: Consumers,
        now_ms: i64,
        /// Where it is set, members commit by themselves.
        max_offsets: Option<usize>,
        /// Who has records of a partition in work, and until when they have a lease at most.
        in_work: BTreeMap<TopicPartition, String>,
    }

    impl Played {
        fn submit(&mut self, instance: &str, act: Act) -> Result<(), Refusal> {
            let (group, instance) = ("g".to_owned(), instance.to_owned());
            let max_offsets = self.max_offsets.unwrap_or(usize::MAX);
            let command = Command { group, instance, epoch: 0, lease_ms: LEASE_MS, max_offsets, act };
            // What a snapshot keeps is all that there is.
            let text = serde_json::to_string(&self.consumers).expect("state is JSON");
            self.consumers = serde_json::from_str(&text).expect("and read again");
            let outcome = self.consumers.apply(command, Timestamp(self.now_ms));
            for group in self.consumers.groups.values_mut() {
                let before = (group.owners.clone(), group.targets.clone(), group.generation);
                group.balance();
                let after = (group.owners.clone(), group.targets.clone(), group.generation);
                assert_eq!(before, after, "it was in balance");
            }
            outcome
        }

        fn create(&mut self, instance: &str) -> Result<(), Refusal> {
            let settings = Settings {
                format: Format::Json,
                reset: Reset::Earliest,
                auto_commit: self.max_offsets.is_some(),
                min_bytes: 0,
                timeout_ms: 0,
            };
            let limits = Limits { groups: 1, instances: 3, instance_retention_ms: 1000, offset_retention_ms: 1000 };
            self.submit(instance, Act::Create { settings, limits })
        }

        fn is_live(&self, name: &str) -> bool {
            let found = self.consumers.instance("g", name);
            found.is_some_and(|(_, instance)| !instance.is_fenced && instance.is_live(Timestamp(self.now_ms)))
        }

        /// Whether someone else, who still has a lease, has records of it in work.
        fn is_of_another(&self, name: &str, partition: &TopicPartition) -> bool {
            self.in_work.get(partition).is_some_and(|holder| holder != name && self.is_live(holder))
        }
    }

    fn topics(n_partitions: u32) -> BTreeMap<TopicName, u32> {
        BTreeMap::from([("a".parse().expect("a topic name"), n_partitions)])
    }

    #[test]
    fn instances_and_offsets_are_forgotten_when_nobody_asks_for_long() {
        let mut played = Played::default();
        played.create("c").expect("room");
        assert_eq!(played.create("c"), Err(Refusal::Exists));
        let partition = TopicPartition::new("a".parse().expect("a topic name"), 0);
        let committed = Committed { offset: Offset(1), metadata: String::new() };
        let offsets = Some(BTreeMap::from([(partition.clone(), committed)]));
        played.submit("c", Act::Commit { offsets }).expect("room");
        // Its lease has ended: the name is free.
        played.now_ms = 126;
        played.create("c").expect("the place of the one before");
        played.now_ms = 126 + 125 + 1000;
        played.create("d").expect("room");
        assert!(played.consumers.instance("g", "c").is_some());
        played.now_ms += 1;
        played.create("e").expect("room");
        assert!(played.consumers.instance("g", "c").is_none());
        assert!(played.consumers.groups["g"].committed.contains_key(&partition));
        played.now_ms += 2126;
        played.create("f").expect("room");
        assert!(!played.consumers.groups["g"].committed.contains_key(&partition));
    }

    #[test]
    fn what_is_committed_by_itself_has_the_limit_that_is_asked_for_and_leaves_with_its_topic() {
        let mut played = Played { max_offsets: Some(2), ..Played::default() };
        played.create("c").expect("room");
        let interest = Interest::Topics(topics(2).into_keys().chain(["b".parse().expect("a topic name")]).collect());
        let both =
            || topics(2).into_iter().chain([("b".parse().expect("a topic name"), 1)]).collect::<BTreeMap<_, _>>();
        played.submit("c", Act::Follow { interest, topics: both() }).expect("nobody else is there");
        let read = |played: &mut Played, topic: &str, n: u64| {
            let of = |p| Move {
                partition: TopicPartition::new(topic.parse().expect("a topic name"), p),
                seen: (n > 0).then_some(Offset(n)),
                from: Offset(n),
                until: Offset(n + 1),
            };
            let moves = if topic == "a" { vec![of(0), of(1)] } else { vec![of(0)] };
            played.submit("c", Act::Send { moves })
        };
        let committed = |played: &Played| {
            played.consumers.groups["g"].committed.keys().map(ToString::to_string).collect::<Vec<_>>()
        };
        read(&mut played, "a", 0).expect("nothing is committed yet");
        read(&mut played, "b", 0).expect("room for the two");
        assert_eq!(committed(&played), ["a-0", "a-1"]);
        assert_eq!(read(&mut played, "a", 1), Err(Refusal::TooManyOffsets));
        let join = |gone: &[&str]| Act::Join {
            topics: both(),
            gone: gone.iter().map(|topic| topic.parse().expect("a topic name")).collect(),
        };
        assert_eq!(played.submit("c", join(&[])), Err(Refusal::TooManyOffsets));
        assert_eq!(committed(&played), ["a-0", "a-1"]);
        played.submit("c", Act::Delete).expect("it may leave");
        played.create("c").expect("room");
        let interest = Interest::Topics(["b".parse().expect("a topic name")].into());
        played.submit("c", Act::Follow { interest, topics: both() }).expect("nobody else is there");
        played.submit("c", join(&["a"])).expect("room again");
        assert!(committed(&played).is_empty());
    }

    /// Leases hold for a while, and end now and then.
    fn later() -> impl Strategy<Value = i64> {
        prop_oneof![20 => 0..5_i64, 1 => 0..300_i64]
    }

    proptest! {
        /// Three members do what they like; nobody reads or commits what another has in work.
        #[test]
        fn no_two_live_members_have_a_partition_in_work(
            steps in prop::collection::vec((0..3_usize, 0..8_u8, later(), 1..6_u32), 1..120),
        ) {
            let mut played = Played::default();
            for (member, what, later_ms, n) in steps {
                played.now_ms += later_ms;
                let name = ["x", "y", "z"][member];
                let stop = |played: &mut Played| played.in_work.retain(|_, holder| holder != name);
                match what {
                    0 => {
                        if played.create(name).is_ok() {
                            stop(&mut played);
                        }
                    }
                    1 => {
                        let interest = Interest::Topics(topics(n).into_keys().collect());
                        if played.submit(name, Act::Follow { interest, topics: topics(n) }).is_ok() {
                            stop(&mut played);
                        }
                    }
                    2 => {
                        if played.submit(name, Act::Delete).is_ok() {
                            stop(&mut played);
                        }
                    }
                    3 => {
                        if played.submit(name, Act::Join { topics: topics(n), gone: BTreeSet::new() }).is_ok() {
                            stop(&mut played);
                        }
                    }
                    4 => {
                        let _ = played.submit(name, Act::Commit { offsets: None });
                    }
                    5 => {
                        let partition = TopicPartition::new("a".parse().expect("a topic name"), n - 1);
                        let of_another = played.is_of_another(name, &partition);
                        let committed = Committed { offset: Offset(1), metadata: String::new() };
                        let offsets = Some(BTreeMap::from([(partition, committed)]));
                        let outcome = played.submit(name, Act::Commit { offsets });
                        prop_assert!(!(of_another && outcome.is_ok()), "{} commits what another reads", name);
                    }
                    _ => {
                        // Mostly what it reads, and sometimes what it does not.
                        let found = played.consumers.instance("g", name);
                        let mut asked = found.map(|(group, _)| group.assignment(name)).unwrap_or_default();
                        if later_ms == 0 {
                            asked.push(TopicPartition::new("a".parse().expect("a topic name"), n - 1));
                        }
                        let moves: Vec<Move> = asked
                            .into_iter()
                            .map(|partition| {
                                let seen = found.and_then(|(_, instance)| instance.position(&partition, 0));
                                let from = seen.unwrap_or_default();
                                Move { partition, seen, from, until: from.plus(1) }
                            })
                            .collect();
                        let of_others = moves.iter().filter(|m| played.is_of_another(name, &m.partition)).count();
                        if played.submit(name, Act::Send { moves: moves.clone() }).is_ok() {
                            prop_assert_eq!(of_others, 0, "{} reads beside another", name);
                            stop(&mut played);
                            played.in_work.extend(moves.into_iter().map(|m| (m.partition, name.to_owned())));
                        }
                    }
                }
                let Some(group) = played.consumers.groups.get("g") else { continue };
                let asked: BTreeSet<_> = group
                    .instances
                    .values()
                    .filter(|i| i.interest.is_subscription() && !i.is_fenced)
                    .flat_map(|i| i.topics.iter())
                    .flat_map(|(topic, n)| (0..*n).map(|p| TopicPartition::new(topic.clone(), p)))
                    .collect();
                prop_assert!(asked.iter().all(|partition| group.owners.contains_key(partition)), "all are read");
                prop_assert_eq!(group.targets.keys().cloned().collect::<BTreeSet<_>>(), asked);
            }
        }
    }
}
