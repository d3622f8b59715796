//! Listing a folder of objects in the order of their keys, as S3 does: lazily, so that memory
//! is bounded by the largest folder, not by the store. Symbolic links and temporary files are
//! no objects.

use std::{
    fs::{self, Metadata},
    io::{self, ErrorKind},
    path::{Path as FsPath, PathBuf},
    time::SystemTime,
    vec::IntoIter,
};

use object_store::{ObjectMeta, path::Path};

use super::durable_fs::{is_temp, journal};

/// A name in a folder. `key` has a `/` at its end for a folder, which puts it where the keys
/// below it belong in the order of all keys.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
}

impl Entry {
    pub(super) fn is_folder(&self) -> bool {
        self.key.ends_with('/')
    }
}

/// The entries of the folder `key` (empty, or with `/` at its end) below `root`, in order;
/// none if there is no such folder.
pub(super) fn entries(root: &FsPath, key: &str) -> io::Result<Vec<Entry>> {
    let folder = match fs::read_dir(root.join(key)) {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(Vec::new()),
        folder => folder?,
    };
    let mut entries = Vec::new();
    for entry in folder {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let kind = entry.file_type()?;
        if kind.is_dir() {
            entries.push(Entry { key: format!("{key}{name}/") });
        } else if kind.is_file() && !is_temp(name) && Path::parse(name).is_ok() {
            entries.push(Entry { key: format!("{key}{name}") });
        }
    }
    entries.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    Ok(entries)
}

/// The object `key`; `None` if it went away since it was listed.
pub(super) fn meta(root: &FsPath, key: &str) -> io::Result<Option<ObjectMeta>> {
    let location = Path::parse(key).map_err(io::Error::other)?;
    let path = root.join(key);
    journal::note("look at", &path)?;
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        metadata => Ok(Some(meta_of(location, &metadata?))),
    }
}

fn meta_of(location: Path, metadata: &Metadata) -> ObjectMeta {
    let last_modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH).into();
    ObjectMeta { location, last_modified, size: metadata.len(), e_tag: Some(e_tag(metadata)), version: None }
}

/// The same tag that `LocalFileSystem` gives: inode, modification time, size.
pub(super) fn e_tag(metadata: &Metadata) -> String {
    let modified = metadata.modified().ok().and_then(|t| t.duration_since(SystemTime::UNIX_EPOCH).ok());
    let inode = std::os::unix::fs::MetadataExt::ino(metadata);
    format!("{inode:x}-{:x}-{:x}", modified.unwrap_or_default().as_micros(), metadata.len())
}

/// All objects below a folder, after `offset`, in the order of their keys.
#[derive(Debug)]
pub(super) struct Walk {
    root: PathBuf,
    offset: Option<String>,
    /// Folders not opened yet hold their key; opened ones the entries still to come.
    levels: Vec<IntoIter<Entry>>,
}

impl Walk {
    pub(super) fn new(root: PathBuf, prefix: Option<&Path>, offset: Option<&Path>) -> Self {
        let below = match prefix {
            Some(prefix) if !prefix.as_ref().is_empty() => format!("{prefix}/"),
            _ => String::new(),
        };
        let top = vec![Entry { key: below }].into_iter();
        Self { root, offset: offset.map(ToString::to_string), levels: vec![top] }
    }

    /// The keys of the next objects, at most `n`; empty at the end.
    pub(super) fn next_keys(&mut self, n: usize) -> io::Result<Vec<String>> {
        let mut keys = Vec::new();
        while keys.len() < n {
            let Some(level) = self.levels.last_mut() else { break };
            let Some(entry) = level.next() else {
                self.levels.pop();
                continue;
            };
            if self.is_before_offset(&entry.key) {
                continue;
            }
            if entry.key.is_empty() || entry.is_folder() {
                self.levels.push(entries(&self.root, &entry.key)?.into_iter());
            } else {
                keys.push(entry.key);
            }
        }
        Ok(keys)
    }

    /// Whether the object, or everything in the folder, comes before or at the offset.
    fn is_before_offset(&self, key: &str) -> bool {
        let Some(offset) = &self.offset else { return false };
        if key.ends_with('/') {
            key < offset.as_str() && !offset.starts_with(key)
        } else {
            key <= offset.as_str() && !key.is_empty()
        }
    }
}

/// Calls `visit` for the folder `prefix` of `root` and every folder below, deepest first.
pub(super) fn folders(root: &FsPath, prefix: &str, visit: &mut dyn FnMut(&FsPath) -> io::Result<()>) -> io::Result<()> {
    for entry in entries(root, prefix)?.iter().filter(|e| e.is_folder()) {
        folders(root, &entry.key, visit)?;
    }
    match visit(&root.join(prefix)) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}
