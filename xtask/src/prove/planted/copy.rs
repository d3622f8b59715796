//! A copy of the workspace's tracked files as they are in the checkout, into which bugs are
//! planted one at a time.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::Bug;
use crate::{process, workspace};

pub(super) struct Copy {
    pub(super) root: PathBuf,
    /// Held as long as this: another run would change the same files.
    _lock: File,
}

impl Copy {
    /// At the same place each time, so that cargo knows it again.
    pub(super) fn make(root: &Path) -> Result<Self> {
        let above = root.parent().context("the copy lies in a folder")?;
        fs::create_dir_all(above).with_context(|| format!("create {}", above.display()))?;
        let lock = File::create(above.join("lock")).context("open the lock of the copy")?;
        lock.lock().context("wait for another run to end")?;
        if root.exists() {
            fs::remove_dir_all(root).with_context(|| format!("remove {}", root.display()))?;
        }
        let of_checkout = workspace::root();
        let tracked = process::output(Command::new("git").args(["ls-files", "-z"]).current_dir(&of_checkout))?;
        for path in tracked.split_terminator('\0') {
            let (from, to) = (of_checkout.join(path), root.join(path));
            // A file that was deleted and not yet committed is still tracked.
            if from.is_file() {
                let folder = to.parent().context("a tracked file lies in a folder")?;
                fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
                fs::copy(&from, &to).with_context(|| format!("copy {}", from.display()))?;
            }
        }
        Ok(Self { root: root.to_owned(), _lock: lock })
    }

    /// The bug is in the copy until what this gives is dropped.
    pub(super) fn plant<'a>(&'a self, bug: &'a Bug) -> Result<Planted<'a>> {
        apply(&self.root, &bug.patch, &[])?;
        Ok(Planted { copy: self, bug })
    }
}

/// Changes the files below `root`, and all of them or none.
pub(super) fn apply(root: &Path, patch: &Path, options: &[&str]) -> Result<()> {
    let mut git = Command::new("git");
    // In a folder of another checkout git would pass over the patch in silence.
    git.env("GIT_CEILING_DIRECTORIES", root.parent().unwrap_or(root)).current_dir(root);
    process::output(git.arg("apply").args(options).arg(patch)).context("its patch does not apply").map(drop)
}

pub(super) struct Planted<'a> {
    copy: &'a Copy,
    bug: &'a Bug,
}

impl Drop for Planted<'_> {
    fn drop(&mut self) {
        apply(&self.copy.root, &self.bug.patch, &["--reverse"]).expect("what was applied can be taken back");
    }
}
