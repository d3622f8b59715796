//! The file system as the log needs it: a narrow seam, so that one that fails, fills up or
//! forgets can be put below the log in tests.
//!
//! Calls block; whoever makes them is not on the async runtime. Written for Linux.

use std::{
    fs::{self, OpenOptions},
    io::{self, ErrorKind, IoSlice},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::UNIX_EPOCH,
};

use model::Timestamp;
use rustix::{
    fs::{Advice, FallocateFlags, FlockOperation, fadvise, fallocate, flock},
    io::{Errno, pwritev},
};

/// As many slices as Linux takes in one `pwritev`.
const MAX_SLICES: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    /// Read and write; the file exists.
    Write,
    /// Read and write; made if it is not there.
    Create,
}

/// A file or folder in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub size_bytes: u64,
}

/// Held until dropped.
pub trait Lock: Send + Sync {}

pub trait FileSystem: Send + Sync + 'static {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>>;

    /// Makes the folder in one that exists; it may exist already itself.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>>;

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    fn unlink(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty folder.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// When it returns, the names in this folder are on stable storage.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Locks the file against every other process; `None` if another one holds it.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>>;
}

pub trait File: Send + Sync {
    fn size(&self) -> io::Result<u64>;

    /// When it was written last, by the wall clock.
    fn modified(&self) -> io::Result<Timestamp>;

    /// Reads as much as there is; fewer bytes than asked for only at the file's end.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;

    /// Writes all parts, one after the other.
    fn write_at(&self, parts: &mut [IoSlice<'_>], position: u64) -> io::Result<()>;

    /// When it returns, content and size are on stable storage.
    fn sync_data(&self) -> io::Result<()>;

    fn truncate(&self, size: u64) -> io::Result<()>;

    /// Makes the file at least so long, with its blocks allocated and zero; where the file
    /// system cannot, nothing happens.
    fn allocate(&self, size: u64) -> io::Result<()>;

    /// Asks that later reads come from the device and not from memory, but for what is still
    /// to be written.
    fn forget_cache(&self) -> io::Result<()>;
}

/// The machine's own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl FileSystem for Disk {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        let mut options = OpenOptions::new();
        options.read(true).write(access != Access::Read).create(access == Access::Create);
        Ok(Arc::new(DiskFile(options.open(path)?)))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        match fs::create_dir(path) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            created => created,
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            match entry.metadata() {
                Ok(metadata) => entries.push(Entry { name, size_bytes: metadata.len() }),
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(entries)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Box::new(DiskLock(file)))),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}

struct DiskLock(fs::File);

impl Lock for DiskLock {}

impl Drop for DiskLock {
    /// Closing alone would leave the lock to a child process that is just being started and
    /// still has a copy of the descriptor.
    fn drop(&mut self) {
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

struct DiskFile(fs::File);

impl File for DiskFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn modified(&self) -> io::Result<Timestamp> {
        let since_epoch = self.0.metadata()?.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Timestamp(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)))
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let mut n_read = 0;
        while n_read < buffer.len() {
            match self.0.read_at(&mut buffer[n_read..], position + n_read as u64) {
                Ok(0) => break,
                Ok(n) => n_read += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(n_read)
    }

    fn write_at(&self, mut parts: &mut [IoSlice<'_>], mut position: u64) -> io::Result<()> {
        IoSlice::advance_slices(&mut parts, 0); // drops empty parts
        while !parts.is_empty() {
            match pwritev(&self.0, &parts[..parts.len().min(MAX_SLICES)], position) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => {
                    position += n as u64;
                    IoSlice::advance_slices(&mut parts, n);
                }
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        self.0.set_len(size)
    }

    fn allocate(&self, size: u64) -> io::Result<()> {
        match fallocate(&self.0, FallocateFlags::empty(), 0, size) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    fn forget_cache(&self) -> io::Result<()> {
        Ok(fadvise(&self.0, 0, None, Advice::DontNeed)?)
    }
}

/// Makes the folder and those above it that are missing; when it returns they are on stable
/// storage.
pub(crate) fn create_dir_all(fs: &dyn FileSystem, dir: &Path) -> io::Result<()> {
    let Some(parent) = dir.parent() else { return Ok(()) };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    match fs.create_dir(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            create_dir_all(fs, parent)?;
            fs.create_dir(dir)?;
        }
        created => created?,
    }
    fs.sync_dir(parent)
}

/// Replaces the file at `path` as one step: the old content or the new one, whatever happens.
pub(crate) fn write_atomically(fs: &dyn FileSystem, path: &Path, content: &[u8]) -> io::Result<()> {
    write_beside(fs, path, content)?;
    put_in_place(fs, path)
}

/// The first half of it: if this fails, the old content stands.
pub(crate) fn write_beside(fs: &dyn FileSystem, path: &Path, content: &[u8]) -> io::Result<()> {
    let file = fs.open(&beside(path), Access::Create)?;
    file.truncate(0)?;
    file.write_at(&mut [IoSlice::new(content)], 0)?;
    file.sync_data()
}

/// The second half: if this fails, either content may stand.
pub(crate) fn put_in_place(fs: &dyn FileSystem, path: &Path) -> io::Result<()> {
    let dir = path.parent().ok_or(ErrorKind::InvalidInput)?;
    fs.rename(&beside(path), path)?;
    fs.sync_dir(dir)
}

fn beside(path: &Path) -> PathBuf {
    path.with_extension("tmp")
}

/// The file's content, or `None` if there is no such file.
pub(crate) fn read(fs: &dyn FileSystem, path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match fs.open(path, Access::Read) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut content = vec![0; usize::try_from(file.size()?).map_err(|_| ErrorKind::OutOfMemory)?];
    let n_read = file.read_at(&mut content, 0)?;
    content.truncate(n_read);
    Ok(Some(content))
}
