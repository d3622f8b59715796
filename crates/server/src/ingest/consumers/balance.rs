//! Who is to read which partition: everyone about as many, each partition one member that asked for
//! its topic, and as few of them as possible moved.

use std::collections::BTreeMap;

use model::{TopicName, TopicPartition};

/// For every partition that a member asks for, who is to read it. `owners` is how it is now.
pub(super) fn balance<'m>(
    members: impl Iterator<Item = (&'m str, &'m BTreeMap<TopicName, u32>)>,
    owners: &BTreeMap<TopicPartition, String>,
) -> BTreeMap<TopicPartition, String> {
    let members: Vec<_> = members.collect();
    // Who asks for a topic, and how many partitions the one of them who looked last has seen.
    let mut topics: BTreeMap<&TopicName, (u32, Vec<usize>)> = BTreeMap::new();
    for (i, (_, asked)) in members.iter().enumerate() {
        for (topic, n_partitions) in *asked {
            let (most, readers) = topics.entry(topic).or_default();
            *most = (*most).max(*n_partitions);
            readers.push(i);
        }
    }
    let place = |name: &String| members.iter().position(|(member, _)| member == name);
    let mut shares: Vec<Vec<TopicPartition>> = vec![Vec::new(); members.len()];
    let mut homeless = Vec::new();
    for (topic, (n_partitions, readers)) in &topics {
        for p in 0..*n_partitions {
            let partition = TopicPartition::new((*topic).clone(), p);
            match owners.get(&partition).and_then(place).filter(|owner| readers.contains(owner)) {
                Some(owner) => shares[owner].push(partition),
                None => homeless.push(partition),
            }
        }
    }
    for partition in homeless {
        let (_, readers) = &topics[&partition.topic];
        let lightest = readers.iter().min_by_key(|i| shares[**i].len());
        shares[*lightest.expect("a topic is here because someone asks for it")].push(partition);
    }
    while let Some((from, at, to)) = improvement(&shares, &topics) {
        let partition = shares[from].remove(at);
        shares[to].push(partition);
    }
    let named = members
        .iter()
        .zip(shares)
        .flat_map(|((name, _), share)| share.into_iter().map(move |partition| (partition, (*name).to_owned())));
    named.collect()
}

/// A partition that someone with at least two less may read, of the one who has the most.
fn improvement(
    shares: &[Vec<TopicPartition>],
    topics: &BTreeMap<&TopicName, (u32, Vec<usize>)>,
) -> Option<(usize, usize, usize)> {
    let mut heaviest: Vec<usize> = (0..shares.len()).collect();
    heaviest.sort_by_key(|i| std::cmp::Reverse(shares[*i].len()));
    for from in heaviest {
        // The last ones first: members keep the beginning of what they have.
        for (at, partition) in shares[from].iter().enumerate().rev() {
            let (_, readers) = &topics[&partition.topic];
            let lightest = readers.iter().min_by_key(|i| shares[**i].len()).copied()?;
            if shares[lightest].len() + 2 <= shares[from].len() {
                return Some((from, at, lightest));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn topics(asked: &[(&str, u32)]) -> BTreeMap<TopicName, u32> {
        asked.iter().map(|(topic, n)| (topic.parse().expect("a topic name"), *n)).collect()
    }

    fn shares(targets: &BTreeMap<TopicPartition, String>) -> BTreeMap<&str, usize> {
        let mut shares = BTreeMap::new();
        for name in targets.values() {
            *shares.entry(name.as_str()).or_default() += 1;
        }
        shares
    }

    proptest! {
        #[test]
        fn members_with_one_interest_share_evenly_and_little_moves(n_partitions in 0..40_u32, n_members in 1..8_usize) {
            let asked = topics(&[("a", n_partitions), ("b", 3)]);
            let names: Vec<String> = (0..=n_members).map(|i| format!("m{i}")).collect();
            let of = |n: usize, owners: &BTreeMap<_, _>| balance(names[..n].iter().map(|name| (name.as_str(), &asked)), owners);
            let before = of(n_members, &BTreeMap::new());
            prop_assert_eq!(before.len(), n_partitions as usize + 3);
            prop_assert_eq!(&of(n_members, &before), &before);
            let after = of(n_members + 1, &before);
            let moved = before.iter().filter(|(partition, owner)| after[*partition] != **owner).count();
            prop_assert!(moved <= before.len() / (n_members + 1) + 1, "{} moved", moved);
            let sizes: Vec<usize> = names.iter().map(|n| shares(&after).get(n.as_str()).copied().unwrap_or(0)).collect();
            prop_assert!(sizes.iter().max().unwrap_or(&0) - sizes.iter().min().unwrap_or(&0) <= 1, "{:?}", sizes);
        }
    }

    #[test]
    fn only_who_asks_for_a_topic_gets_its_partitions() {
        let (a, ab) = (topics(&[("a", 4)]), topics(&[("a", 4), ("b", 4)]));
        let targets = balance([("x", &a), ("y", &ab)].into_iter(), &BTreeMap::new());
        assert!(targets.iter().all(|(partition, name)| partition.topic.as_str() == "a" || name == "y"));
        assert_eq!(shares(&targets), BTreeMap::from([("x", 4), ("y", 4)]));
        assert!(balance(std::iter::empty(), &targets).is_empty());
    }
}
