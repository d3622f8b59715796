//! Folders for one run: on the disk that the build lies on (one in memory would sync for nothing),
//! gone with the run.

use std::{
    fs,
    ops::Deref,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::workspace;

pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Result<Self> {
        let folder = workspace::target_folder()?.join(format!("scratch-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Deref for Scratch {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays behind lies in cargo's folder, which people clean.
        let _ = fs::remove_dir_all(&self.0);
    }
}
