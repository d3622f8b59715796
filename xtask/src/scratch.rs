//! Folders for one run: on the disk that the build lies on (one in memory would sync for nothing),
//! gone with the run, or with the next one if it was killed: they may hold many gigabytes.

use std::{
    fs::{self, File},
    ops::Deref,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::workspace;

const PREFIX: &str = "scratch-";
const LOCK: &str = "lock";

pub(crate) struct Scratch {
    folder: PathBuf,
    /// Locks the file beside the folder for as long as the folder is in use.
    _lock: File,
}

impl Scratch {
    pub(crate) fn new(name: &str) -> Result<Self> {
        Self::new_in(&workspace::target_folder()?, name)
    }

    fn new_in(target: &Path, name: &str) -> Result<Self> {
        remove_leftovers(target)?;
        let folder = target.join(format!("{PREFIX}{name}-{}", std::process::id()));
        let lock = folder.with_extension(LOCK);
        let lock = File::create(&lock).with_context(|| format!("create {}", lock.display()))?;
        lock.lock().with_context(|| format!("lock {}", folder.display()))?;
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        Ok(Self { folder, _lock: lock })
    }
}

impl Deref for Scratch {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays behind goes with the next run.
        let _ = remove(&self.folder);
    }
}

fn remove(folder: &Path) -> std::io::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::remove_file(folder.with_extension(LOCK))
}

/// The folders whose locks nobody holds.
fn remove_leftovers(target: &Path) -> Result<()> {
    for entry in fs::read_dir(target).with_context(|| format!("list {}", target.display()))? {
        let path = entry?.path();
        let is_ours = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
        if !is_ours || path.extension().is_none_or(|extension| extension != LOCK) {
            continue;
        }
        // Another run may just have removed it.
        let Ok(lock) = File::open(&path) else { continue };
        if lock.try_lock().is_ok() {
            let folder = path.with_extension("");
            eprintln!("removing {}, whose run was ended before it could", folder.display());
            // A server that the run left behind may still write there, which is no reason not to go on.
            if let Err(e) = remove(&folder) {
                eprintln!("it cannot be removed now: {e}");
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_run_left_goes_and_what_is_in_use_stays() {
        let target = std::env::temp_dir().join(format!("corkboard-scratch-{}", std::process::id()));
        let left = target.join("scratch-batch-1");
        fs::create_dir_all(left.join("landing")).expect("made");
        fs::write(left.with_extension(LOCK), "").expect("written");
        fs::create_dir(target.join("scratch-foreign")).expect("made");
        let first = Scratch::new_in(&target, "first").expect("made");
        assert!(!left.exists() && !left.with_extension(LOCK).exists());
        let second = Scratch::new_in(&target, "second").expect("made");
        assert!(first.is_dir() && second.is_dir());
        drop((first, second));
        let names = fs::read_dir(&target).expect("listed").map(|entry| entry.expect("listed").file_name());
        assert_eq!(names.collect::<Vec<_>>(), ["scratch-foreign"]);
        fs::remove_dir_all(&target).expect("removed");
    }
}
