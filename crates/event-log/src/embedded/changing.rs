//! Topics that are created, grow and are deleted, each as one step: writing `meta.json` is what
//! does it. Before it, all that the new state needs is on stable storage; after it, what only the
//! old one had goes.
//!
//! All calls block, and one is under way at a time.

use std::{io, ops::Range};

use model::{LogError, Offset, TopicChange, TopicName, TopicPartition};

use super::{Inner, Open};
use crate::{
    folders,
    mailbox::Refusal,
    meta::Meta,
    topics::{Planned, check_ends, plan},
    writer::Writer,
};

const HALF_DELETED: &str =
    "the deletion of its topic began and its outcome is unknown; delete it again, or restart the process";

impl Inner {
    pub(super) fn change_topic(&self, meta: &mut Meta, topic: &TopicName, change: TopicChange) -> Result<(), LogError> {
        match plan(topic, change, meta.topics.get(topic).copied())? {
            Planned::Nothing => return Ok(()),
            Planned::Add(numbers) => self.add_partitions(meta, topic, numbers)?,
            Planned::Delete { sum_of_ends } => self.delete_topic(meta, topic, sum_of_ends)?,
        }
        self.moved.send_modify(|n| *n += 1);
        Ok(())
    }

    /// The folders first, the name last: all partitions are there or none.
    fn add_partitions(&self, meta: &mut Meta, topic: &TopicName, numbers: Range<u32>) -> Result<(), LogError> {
        let after = meta.with_topic(topic, numbers.end);
        let failed = |e: io::Error| LogError::Unavailable {
            reason: format!("cannot make the partitions of topic {topic}: {e}"),
            outcome_unknown: true,
        };
        let opened = self.make_partitions(&after, topic, numbers).map_err(failed)?;
        after.write(&*self.files.fs, &self.dir).map_err(failed)?;
        *meta = after;
        self.change_shown().topics.entry(topic.clone()).or_default().extend(opened);
        Ok(())
    }

    fn make_partitions(&self, meta: &Meta, topic: &TopicName, numbers: Range<u32>) -> io::Result<Vec<Open>> {
        let ids = || numbers.clone().map(|p| TopicPartition::new(topic.clone(), p));
        for id in ids() {
            folders::make(&*self.files.fs, &self.dir, &id, meta)?;
        }
        self.files.fs.sync_dir(&self.dir)?;
        ids().map(|id| self.open_partition(id.clone(), meta.begin(&id)).map_err(|e| e.source)).collect()
    }

    /// The writers stop, so that it is settled where the offsets end; the name goes; the folders
    /// go. While it is not known whether the name went, nothing is appended.
    fn delete_topic(&self, meta: &mut Meta, topic: &TopicName, sum_of_ends: Option<u64>) -> Result<(), LogError> {
        let partitions = self.shown().topics.get(topic).cloned().unwrap_or_default();
        // Asked all at once, so that they finish side by side what they have.
        let leaving: Vec<_> = partitions.iter().map(|open| open.mailbox.take_writer()).collect();
        let writers: Vec<_> = leaving.into_iter().map(|left| left.blocking_recv().ok()).collect();
        let ends: Vec<Offset> = partitions.iter().map(|open| open.partition.end()).collect();
        let forgotten = check_ends(topic, &ends, sum_of_ends).and_then(|()| self.forget_topic(meta, topic, &ends));
        match forgotten {
            Ok(()) => {}
            Err(e @ LogError::Unavailable { outcome_unknown: true, .. }) => {
                refuse(&partitions, &Refusal::Unavailable(HALF_DELETED));
                return Err(e);
            }
            Err(e) => {
                give_back(&partitions, writers);
                return Err(e);
            }
        }
        let mut shown = self.change_shown();
        shown.topics.remove(topic);
        shown.ended = meta.ended.clone();
        drop(shown);
        for open in &partitions {
            open.partition.end_with_topic();
        }
        refuse(&partitions, &Refusal::Deleted(topic.clone()));
        drop(writers);
        self.remove_folders(topic, &partitions);
        Ok(())
    }

    /// Takes the topic out of `meta.json`.
    fn forget_topic(&self, meta: &mut Meta, topic: &TopicName, ends: &[Offset]) -> Result<(), LogError> {
        let fs = &*self.files.fs;
        let after = meta.without_topic(topic, ends)?;
        let failed = |e: io::Error, outcome_unknown| LogError::Unavailable {
            reason: format!("cannot delete topic {topic}: {e}"),
            outcome_unknown,
        };
        after.write_beside(fs, &self.dir).map_err(|e| failed(e, false))?;
        if let Err(e) = Meta::put_in_place(fs, &self.dir) {
            // Either may stand there now; what was before is made to.
            let is_restored = meta.write(fs, &self.dir).is_ok();
            return Err(failed(e, !is_restored));
        }
        *meta = after;
        Ok(())
    }

    /// What cannot be removed goes at the next start, or when the topic is created again.
    fn remove_folders(&self, topic: &TopicName, partitions: &[Open]) {
        let fs = &*self.files.fs;
        let mut removed = Ok(());
        for open in partitions {
            removed = removed.and(folders::remove(fs, &self.dir, &open.partition.id));
            self.files.forget_in(&open.partition.dir);
        }
        if let Err(e) = removed.and_then(|()| fs.sync_dir(&self.dir)) {
            tracing::warn!(%topic, "topic {topic} is deleted, but its files are not all removed: {e}");
        }
    }
}

fn refuse(partitions: &[Open], refusal: &Refusal) {
    for open in partitions {
        open.mailbox.end(refusal.clone());
    }
}

fn give_back(partitions: &[Open], writers: Vec<Option<Box<Writer>>>) {
    for (open, writer) in partitions.iter().zip(writers) {
        if let Some(writer) = writer {
            open.mailbox.give_back(writer);
        }
    }
}
