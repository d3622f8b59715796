//! Open files, at most `max_open_files` of them kept; the one unused for longest goes first.
//!
//! Everything written was synced before its append returned, so a file may close at any time.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::fs::{Access, File, FileSystem, Lock};

pub(crate) struct Files {
    pub(crate) fs: Arc<dyn FileSystem>,
    access: Access,
    max_open: usize,
    open: Mutex<Open>,
    /// The log's. It is kept here so that it outlives every writer that may still be at work.
    lock: Mutex<Option<Box<dyn Lock>>>,
}

#[derive(Default)]
struct Open {
    files: HashMap<PathBuf, (Arc<dyn File>, u64)>,
    n_uses: u64,
}

impl Files {
    pub(crate) fn new(fs: Arc<dyn FileSystem>, access: Access, max_open: usize) -> Self {
        Self { fs, access, max_open: max_open.max(1), open: Mutex::default(), lock: Mutex::default() }
    }

    /// Keeps the log's lock as long as these files are in use, or until it is released.
    pub(crate) fn hold(&self, lock: Box<dyn Lock>) {
        *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = Some(lock);
    }

    /// Gives the log's lock up; the writers have stopped.
    pub(crate) fn release(&self) {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    pub(crate) fn get(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        {
            let open = &mut *self.opened();
            open.n_uses += 1;
            if let Some((file, used)) = open.files.get_mut(path) {
                *used = open.n_uses;
                return Ok(Arc::clone(file));
            }
        }
        let file = self.fs.open(path, self.access)?;
        self.keep(path, &file);
        Ok(file)
    }

    /// Opens the file, making it if need be.
    pub(crate) fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = self.fs.open(path, Access::Create)?;
        self.keep(path, &file);
        Ok(file)
    }

    /// The next `get` opens the file anew.
    pub(crate) fn forget(&self, path: &Path) {
        self.opened().files.remove(path);
    }

    /// None in this folder stays open.
    pub(crate) fn forget_in(&self, dir: &Path) {
        self.opened().files.retain(|path, _| path.parent() != Some(dir));
    }

    fn keep(&self, path: &Path, file: &Arc<dyn File>) {
        let open = &mut *self.opened();
        if open.files.len() >= self.max_open {
            let oldest = open.files.iter().min_by_key(|(_, (_, used))| *used).map(|(path, _)| path.clone());
            oldest.map(|path| open.files.remove(&path));
        }
        open.n_uses += 1;
        open.files.insert(path.to_owned(), (Arc::clone(file), open.n_uses));
    }

    fn opened(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::fs::Disk;

    #[test]
    fn no_more_files_stay_open_than_allowed_and_the_least_used_goes() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::new(Arc::new(Disk), Access::Write, 2);
        let path = |name: &str| dir.path().join(name);
        for name in ["a", "b"] {
            files.create(&path(name)).unwrap();
        }
        files.get(&path("a")).unwrap();
        files.create(&path("c")).unwrap();
        let mut kept: Vec<_> = files.opened().files.keys().map(|p| p.file_name().unwrap().to_owned()).collect();
        kept.sort();
        assert_eq!(kept, ["a", "c"]);
    }
}
