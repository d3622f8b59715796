//! The folders of partitions: made before `meta.json` names their topic, removed after it has
//! forgotten it. What a crash left in between is nobody's and goes at the next start.
//!
//! Nothing is removed on the word of a missing name alone: a `meta.json` out of a backup does not
//! know of what was made since.

use std::{io, path::Path};

use model::{Offset, TopicPartition};

use crate::{
    fs::FileSystem,
    mark,
    meta::Meta,
    segment::{self, LOG_EXTENSION},
};

/// Makes the partition's folder, empty; its name is on stable storage once the log's folder is
/// synced.
pub(crate) fn make(fs: &dyn FileSystem, log_dir: &Path, id: &TopicPartition, meta: &Meta) -> io::Result<()> {
    let dir = log_dir.join(id.to_string());
    fs.create_dir(&dir)?;
    match meta.ended(id) {
        Some(ended) if reach(fs, &dir)? <= ended => empty(fs, &dir),
        // No other topic's folder has this name: what is in it belongs to nobody, or to a topic
        // that `meta.json` forgot.
        _ if fs.list(&dir)?.is_empty() => Ok(()),
        _ => Err(io::Error::other(format!("{} is not empty", dir.display()))),
    }
}

/// Removes the folder of a partition that was deleted.
pub(crate) fn remove(fs: &dyn FileSystem, log_dir: &Path, id: &TopicPartition) -> io::Result<()> {
    let dir = log_dir.join(id.to_string());
    empty(fs, &dir)?;
    fs.remove_dir(&dir)
}

/// Removes what an interrupted creation or deletion left. That a folder stays is no reason not to
/// start: it is emptied before it is used again.
pub(crate) fn sweep(fs: &dyn FileSystem, log_dir: &Path, meta: &Meta) -> io::Result<()> {
    for entry in fs.list(log_dir)? {
        let Ok(id) = entry.name.parse::<TopicPartition>() else { continue };
        if meta.holds(&id) {
            continue;
        }
        let dir = log_dir.join(&entry.name);
        let swept = fs.list(&dir).and_then(|content| match meta.ended(&id) {
            _ if content.is_empty() => fs.remove_dir(&dir),
            Some(ended) if reach(fs, &dir)? <= ended => remove(fs, log_dir, &id),
            _ => Err(io::Error::other("it holds records of no topic in meta.json")),
        });
        if let Err(e) = swept {
            tracing::warn!(partition = %id, "{} is left as it is: {e}", dir.display());
        }
    }
    Ok(())
}

/// The highest offset that something in the folder speaks of.
fn reach(fs: &dyn FileSystem, dir: &Path) -> io::Result<Offset> {
    let marked = mark::read(fs, dir)?.map(|(_, mark)| mark.end).unwrap_or_default();
    let bases = fs.list(dir)?.into_iter().filter_map(|entry| segment::base_of(&entry.name, LOG_EXTENSION));
    Ok(bases.fold(marked, Offset::max))
}

fn empty(fs: &dyn FileSystem, dir: &Path) -> io::Result<()> {
    for entry in fs.list(dir)? {
        fs.unlink(&dir.join(entry.name))?;
    }
    // Otherwise a power cut could bring them back into what is made there next.
    fs.sync_dir(dir)
}
