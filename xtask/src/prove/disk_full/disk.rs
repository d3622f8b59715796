//! A small ext4 in a file, mounted until it is dropped. Takes root.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::process;

pub(super) struct Disk {
    folder: PathBuf,
    pub(super) mount_point: PathBuf,
}

impl Disk {
    pub(super) fn make(folder: &Path, size_bytes: u64) -> Result<Self> {
        let (image, mount_point) = (folder.join("image"), folder.join("mounted"));
        fs::create_dir_all(&mount_point).with_context(|| format!("create {}", mount_point.display()))?;
        let disk = Self { folder: folder.to_owned(), mount_point };
        File::create(&image)?.set_len(size_bytes).with_context(|| format!("make {}", image.display()))?;
        // No blocks are kept back for root, who is the one that fills it.
        process::run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image))?;
        let mut mount = Command::new("mount");
        process::run(mount.args(["-o", "loop"]).arg(&image).arg(&disk.mount_point))
            .context("this proof mounts a disk of its own, which takes root and loop devices")?;
        Ok(disk)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // It is not mounted if that is what failed.
        let _ = Command::new("umount").arg(&self.mount_point).status();
        let _ = fs::remove_file(self.folder.join("image"));
        let _ = fs::remove_dir(&self.mount_point);
        let _ = fs::remove_dir(&self.folder);
    }
}
