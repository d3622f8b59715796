//! Files on the disk, and not in the kernel's cache of it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// Every file below a folder.
pub(super) fn below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() { &mut folders } else { &mut files }.push(entry.path());
        }
    }
    Ok(files)
}

pub(super) fn n_bytes_below(folder: &Path) -> Result<u64> {
    below(folder)?.iter().map(|file| Ok(fs::metadata(file)?.len())).sum()
}

/// Makes the next read of each file below come from the disk, as after a start of the machine.
pub(super) fn forget(folder: &Path) -> Result<()> {
    for file in below(folder)? {
        // Written pages can only be dropped once they are on the disk.
        fs::File::open(&file)?.sync_all().with_context(|| format!("sync {}", file.display()))?;
        let mut dd = Command::new("dd");
        dd.arg(format!("if={}", file.display())).args(["iflag=nocache", "count=0", "status=none"]);
        let output = dd.output().context("start dd")?;
        ensure!(output.status.success(), "dd: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_at_any_depth_and_stay_as_they_are() {
        let folder = std::env::temp_dir().join(format!("corkboard-files-{}", std::process::id()));
        fs::create_dir_all(folder.join("a/b")).expect("the temporary folder takes files");
        for (path, text) in [("x", "12345"), ("a/y", "123"), ("a/b/z", "")] {
            fs::write(folder.join(path), text).expect("the temporary folder takes files");
        }
        forget(&folder).expect("dd is part of every system");
        let (files, n_bytes) = (below(&folder), n_bytes_below(&folder));
        let text = fs::read_to_string(folder.join("x"));
        fs::remove_dir_all(&folder).expect("it was just made");
        assert_eq!((files.expect("it is a folder").len(), n_bytes.expect("it is a folder")), (3, 8));
        assert_eq!(text.expect("it is still there"), "12345");
    }
}
