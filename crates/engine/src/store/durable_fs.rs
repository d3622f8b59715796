//! The system calls by which a folder of objects changes, and what makes each of them durable.
//!
//! Nothing else in `store` writes. A file system that forgets what was not synced can be put
//! under the store by replacing this module.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, ErrorKind},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// Temporary files are `tmp#<digits>`: `#` and digits at the end are what
/// `object_store::local::LocalFileSystem` hides and refuses as an object's name, so that
/// its readers and ours agree on what is an object.
const TEMP_STEM: &str = "tmp";

/// Whether a file of this name is a temporary one, ours or `LocalFileSystem`'s.
pub(super) fn is_temp(name: &str) -> bool {
    name.split_once('#').is_some_and(|(_, n)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

/// A file on its way to become an object. It is removed when dropped, and locked while it
/// lives, so that a sweep tells it from what a crash left behind.
#[derive(Debug)]
pub(super) struct Temp {
    file: File,
    path: PathBuf,
    renamed: bool,
}

impl Temp {
    pub(super) fn create(folder: &Path) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let n = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = folder.join(format!("{TEMP_STEM}#{}{n:06}", std::process::id()));
            let file = match OpenOptions::new().write(true).create_new(true).open(&path) {
                Err(e) if e.kind() == ErrorKind::AlreadyExists => continue,
                file => file?,
            };
            let temp = Self { file, path, renamed: false };
            match temp.file.try_lock() {
                // A file system without locks: a sweep there leaves such files alone.
                Err(TryLockError::Error(e)) if e.kind() == ErrorKind::Unsupported => return Ok(temp),
                Err(TryLockError::Error(e)) => return Err(e),
                // A sweep came between creating and locking and takes the file away.
                Err(TryLockError::WouldBlock) => continue,
                Ok(()) if temp.file.metadata()?.nlink() == 0 => continue,
                Ok(()) => return Ok(temp),
            }
        }
    }

    pub(super) fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        journal::note("write", &self.path)?;
        self.file.write_all_at(bytes, position)
    }

    /// After an error nobody knows which pages reached the disk: drop the file, never retry.
    pub(super) fn sync(&self) -> io::Result<fs::Metadata> {
        journal::note("sync file", &self.path)?;
        self.file.sync_data()?;
        self.file.metadata()
    }

    /// Gives the file its name; `AlreadyExists` if something has that name.
    pub(super) fn link_as(self, name: &Path) -> io::Result<()> {
        journal::note("link", name)?;
        fs::hard_link(&self.path, name)
    }

    /// Gives the file its name, in place of what had it.
    pub(super) fn rename_to(mut self, name: &Path) -> io::Result<()> {
        journal::note("rename", name)?;
        fs::rename(&self.path, name)?;
        self.renamed = true;
        Ok(())
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if !self.renamed {
            // What cannot be removed now is hidden, and removed by the next sweep.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Makes the names in `folder` durable: what was linked, renamed and unlinked.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    journal::note("sync folder", folder)?;
    File::open(folder)?.sync_all()
}

/// Makes the bytes of a file that others may have written durable.
pub(super) fn sync_file(path: &Path) -> io::Result<()> {
    journal::note("sync file", path)?;
    File::open(path)?.sync_data()
}

/// A second name for a file; `AlreadyExists` if something has it.
pub(super) fn link(from: &Path, to: &Path) -> io::Result<()> {
    journal::note("link", to)?;
    fs::hard_link(from, to)
}

/// A second name for a file, in place of what had it.
pub(super) fn link_over(from: &Path, to: &Path) -> io::Result<()> {
    journal::note("rename", to)?;
    let folder = to.parent().ok_or(ErrorKind::InvalidInput)?;
    // Only the reserved name is wanted: linking needs it free.
    let reserved = Temp::create(folder)?;
    fs::remove_file(&reserved.path)?;
    fs::hard_link(from, &reserved.path)?;
    // Two names of one file: rename would do nothing and leave both, so the drop of
    // `reserved` removes what is left of it.
    fs::rename(&reserved.path, to)
}

pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    journal::note("rename", to)?;
    fs::rename(from, to)
}

pub(super) fn unlink(path: &Path) -> io::Result<()> {
    journal::note("unlink", path)?;
    fs::remove_file(path)
}

/// Creates `folder` if it is missing and makes its name durable. Its parent must be there. The
/// name of a folder that is there is synced as well, since whoever made it may have been
/// killed; unless its parent may not be read: then it is none of ours.
pub(super) fn make_folder(folder: &Path) -> io::Result<()> {
    journal::note("make folder", folder)?;
    let is_new = match fs::create_dir(folder) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists && !folder.is_dir() => return Err(e),
        created => created.is_ok(),
    };
    if !fs::symlink_metadata(folder)?.is_dir() {
        return Err(io::Error::new(ErrorKind::NotADirectory, "not a folder, or a symbolic link to one"));
    }
    match sync_folder(folder.parent().ok_or(ErrorKind::InvalidInput)?) {
        Err(e) if e.kind() == ErrorKind::PermissionDenied && !is_new => Ok(()),
        synced => synced,
    }
}

/// Removes a temporary file that no living process holds.
pub(super) fn remove_abandoned(path: &Path) -> io::Result<bool> {
    let gone = |e: io::Error| if e.kind() == ErrorKind::NotFound { Ok(false) } else { Err(e) };
    let file = match OpenOptions::new().write(true).open(path) {
        Err(e) => return gone(e),
        Ok(file) => file,
    };
    match file.try_lock() {
        Ok(()) => fs::remove_file(path).map(|()| true).or_else(gone),
        Err(_) => Ok(false),
    }
}

/// Outside of tests, nothing is written down.
#[cfg(not(test))]
pub(super) mod journal {
    pub(in crate::store) fn note(_: &str, _: &std::path::Path) -> std::io::Result<()> {
        Ok(())
    }
}

/// In tests: the calls of this thread in their order, and the one that is to fail.
#[cfg(test)]
pub(crate) mod journal {
    use std::{
        cell::{Cell, RefCell},
        io,
        path::Path,
    };

    thread_local! {
        static CALLS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
        static FAILING: Cell<&'static str> = const { Cell::new("") };
    }

    pub(in crate::store) fn note(call: &str, path: &Path) -> io::Result<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = if super::is_temp(&name) { "tmp".into() } else { name };
        CALLS.with_borrow_mut(|calls| calls.push(format!("{call} {name}")));
        if FAILING.get() == call { Err(io::Error::other("the disk is broken")) } else { Ok(()) }
    }

    /// The calls since the last time.
    pub(crate) fn take() -> Vec<String> {
        CALLS.take()
    }

    /// Makes every such call fail from now on; none, if empty.
    pub(in crate::store) fn fail(call: &'static str) {
        FAILING.set(call);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn only_abandoned_temporary_files_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let living = Temp::create(folder.path()).unwrap();
        let abandoned = folder.path().join("tmp#17");
        fs::write(&abandoned, "half an obj").unwrap();

        assert!(!remove_abandoned(&living.path).unwrap());
        assert!(remove_abandoned(&abandoned).unwrap());
        assert!(!remove_abandoned(&abandoned).unwrap());
        living.write_at(b"whole", 0).unwrap();
        living.sync().unwrap();
        living.link_as(&folder.path().join("object")).unwrap();
        let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["object"]);
    }

    #[test]
    fn a_temporary_name_is_told_from_an_objects() {
        for (name, temp) in [("tmp#1", true), ("a.json#12", true), ("a#b", false), ("a#", false), ("a1", false)] {
            assert_eq!(is_temp(name), temp, "{name}");
        }
    }

    #[test]
    fn linking_over_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|n| folder.path().join(n));
        fs::write(&a, "1").unwrap();
        fs::write(&b, "2").unwrap();
        for _ in 0..2 {
            link_over(&a, &b).unwrap();
            assert_eq!(fs::read(&b).unwrap(), b"1");
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        }
    }
}
