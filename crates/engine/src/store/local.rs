//! `DurableLocal`: a folder as an object store whose writes are on stable storage when they
//! return. `object_store`'s own local store never syncs, so that a power cut may take away
//! what was acknowledged; reads go through it all the same.
//!
//! An object is written to a temporary file beside it, synced, named by link or rename, and
//! its folder synced. Nothing follows symbolic links below the root.

use std::{
    collections::{BTreeSet, HashSet},
    fmt, fs,
    io::{self, ErrorKind},
    ops::Range,
    path::{Path as FsPath, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use object_store::{
    Attributes, CopyMode, CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, RenameTargetMode,
    Result, UploadPart, local::LocalFileSystem, path::Path,
};
use tokio::runtime::Handle;

use super::{
    durable_fs::{self, Temp},
    walk::{self, Walk},
};

/// Objects listed, or deleted, per visit to a blocking thread.
const LIST_CHUNK: usize = 1024;
const DELETE_CHUNK: usize = 128;
/// Folders known to be durable; when there are more, all are asked for again.
const MAX_KNOWN_FOLDERS: usize = 65_536;

/// A folder as a durable object store. Clones share what they know of it.
#[derive(Clone, Debug)]
pub struct DurableLocal {
    folder: Arc<Folder>,
    reads: LocalFileSystem,
}

#[derive(Debug)]
struct Folder {
    root: PathBuf,
    /// Folders whose own name this process made durable; only their content needs syncing.
    durable: Mutex<HashSet<PathBuf>>,
}

impl DurableLocal {
    /// Opens `root`, and creates it, durably, if it is missing.
    pub fn open(root: &FsPath) -> Result<Self> {
        make_root(root).map_err(|e| failed("cannot create the folder", root, e))?;
        let root = fs::canonicalize(root).map_err(|e| failed("cannot open the folder", root, e))?;
        let reads = LocalFileSystem::new_with_prefix(&root)?;
        Ok(Self { folder: Arc::new(Folder { root, durable: Mutex::default() }), reads })
    }

    pub fn root(&self) -> &FsPath {
        &self.folder.root
    }

    /// Removes the temporary files that crashes left, and makes durable what a killed process
    /// named but had no time to sync. Files that are being written are left alone. Returns
    /// the number of files removed.
    pub async fn sweep(&self) -> Result<u64> {
        let folder = Arc::clone(&self.folder);
        blocking(move || {
            let mut n_removed = 0;
            let mut sweep = |path: &FsPath| {
                for entry in fs::read_dir(path)? {
                    let entry = entry?;
                    if entry.file_name().to_str().is_some_and(durable_fs::is_temp) && entry.file_type()?.is_file() {
                        n_removed += u64::from(durable_fs::remove_abandoned(&entry.path())?);
                    }
                }
                durable_fs::sync_folder(path)
            };
            walk::folders(&folder.root, "", &mut sweep).map_err(|e| failed("cannot sweep", &folder.root, e))?;
            Ok(n_removed)
        })
        .await
    }

    /// Makes durable every name that is visible in these folders: what another process wrote
    /// may be seen before that process has synced the folder.
    pub async fn settle(&self, folders: BTreeSet<Path>) -> Result<()> {
        let folder = Arc::clone(&self.folder);
        blocking(move || {
            for path in folders.iter().map(|path| folder.root.join(path.as_ref())) {
                match durable_fs::sync_folder(&path) {
                    Err(e) if e.kind() != ErrorKind::NotFound => return Err(failed("cannot sync", &path, e)),
                    _ => {}
                }
            }
            Ok(())
        })
        .await
    }

    /// The keys of all objects below `prefix`, in their order. The objects themselves are not looked
    /// at, which is most of what a list costs.
    pub fn keys(&self, prefix: &Path) -> BoxStream<'static, Result<Path>> {
        self.walk(Some(prefix), None, |_, key| Path::parse(key).map(Some).map_err(io::Error::other))
    }
}

impl fmt::Display for DurableLocal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DurableLocal({})", self.folder.root.display())
    }
}

impl Folder {
    fn path_of(&self, location: &Path) -> Result<PathBuf> {
        let named = location.filename().is_some_and(|name| !durable_fs::is_temp(name));
        if !named || location.parts().any(|part| matches!(part.as_ref(), "." | "..")) {
            let reason = format!("{location:?} cannot name an object: it is empty or ends in '#' and digits");
            return Err(Error::Generic { store: "DurableLocal", source: reason.into() });
        }
        Ok(self.root.join(location.as_ref()))
    }

    /// Creates the folder that `path` lies in and those above it, durably.
    fn make_parents(&self, path: &FsPath) -> io::Result<PathBuf> {
        let parent = path.parent().ok_or(ErrorKind::InvalidInput)?;
        self.make_durable(parent)?;
        Ok(parent.to_owned())
    }

    fn make_durable(&self, folder: &FsPath) -> io::Result<()> {
        if folder == self.root || self.durable.lock().unwrap_or_else(PoisonError::into_inner).contains(folder) {
            return Ok(());
        }
        self.make_durable(folder.parent().ok_or(ErrorKind::InvalidInput)?)?;
        durable_fs::make_folder(folder)?;
        let mut durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        if durable.len() >= MAX_KNOWN_FOLDERS {
            durable.clear();
        }
        durable.insert(folder.to_owned());
        Ok(())
    }

    /// A temporary file in the folder of `path`.
    fn temp_beside(&self, path: &FsPath) -> io::Result<Temp> {
        match Temp::create(&self.make_parents(path)?) {
            // Someone removed a folder that this process had made.
            Err(e) if e.kind() == ErrorKind::NotFound => {
                self.durable.lock().unwrap_or_else(PoisonError::into_inner).clear();
                Temp::create(&self.make_parents(path)?)
            }
            temp => temp,
        }
    }

    /// `AlreadyExists` promises that the object is there after a power cut too, though whoever
    /// wrote it may not have come to sync its folder.
    fn settle_existing(&self, path: &FsPath, exists: io::Error) -> io::Error {
        if exists.kind() != ErrorKind::AlreadyExists {
            return exists;
        }
        let settled = durable_fs::sync_file(path).and_then(|()| sync_parent(path));
        settled.err().unwrap_or(exists)
    }

    /// Names the synced temporary file, and makes the name durable.
    fn publish(&self, temp: Temp, path: &FsPath, create: bool) -> Result<PutResult> {
        let metadata = temp.sync().map_err(|e| failed("cannot sync", path, e))?;
        let named = if create { temp.link_as(path) } else { temp.rename_to(path) };
        named
            .map_err(|e| self.settle_existing(path, e))
            .and_then(|()| sync_parent(path))
            .map_err(|e| failed("cannot write", path, e))?;
        Ok(PutResult { e_tag: Some(walk::e_tag(&metadata)), version: None })
    }

    fn put(&self, path: &FsPath, payload: &PutPayload, create: bool) -> Result<PutResult> {
        let temp = self.temp_beside(path).map_err(|e| failed("cannot write", path, e))?;
        let mut position = 0;
        for part in payload {
            temp.write_at(part, position).map_err(|e| failed("cannot write", path, e))?;
            position += part.len() as u64;
        }
        self.publish(temp, path, create)
    }

    fn copy(&self, from: &FsPath, to: &FsPath, create: bool) -> Result<()> {
        self.refuse_links(from)?;
        durable_fs::sync_file(from).map_err(|e| failed("cannot copy", from, e))?;
        self.make_parents(to).map_err(|e| failed("cannot write", to, e))?;
        let named = if create { durable_fs::link(from, to) } else { durable_fs::link_over(from, to) };
        named
            .map_err(|e| self.settle_existing(to, e))
            .and_then(|()| sync_parent(to))
            .map_err(|e| failed("cannot copy to", to, e))
    }

    fn rename(&self, from: &FsPath, to: &FsPath, create: bool) -> Result<()> {
        let leave = |e| failed("cannot rename", from, e);
        if create {
            self.copy(from, to, true)?;
            return durable_fs::unlink(from).and_then(|()| sync_parent(from)).map_err(leave);
        }
        self.refuse_links(from)?;
        durable_fs::sync_file(from).map_err(leave)?;
        if from == to {
            return Ok(());
        }
        self.make_parents(to).map_err(|e| failed("cannot write", to, e))?;
        durable_fs::rename(from, to).map_err(|e| failed("cannot rename to", to, e))?;
        sync_parent(to).map_err(leave)?;
        // Where both were names of one file, a rename has done nothing.
        match durable_fs::unlink(from) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(leave(e)),
            _ => {}
        }
        sync_parent(from).map_err(leave)
    }

    /// Deletes all, then syncs each folder once.
    fn delete(&self, locations: Vec<Result<Path>>) -> Vec<Result<Path>> {
        let mut results: Vec<Result<Path>> = locations.into_iter().map(|l| self.unlink(l?)).collect();
        let parent = |location: &Path| self.root.join(location.as_ref()).parent().map(FsPath::to_owned);
        let touched: HashSet<PathBuf> = results.iter().flatten().filter_map(parent).collect();
        for folder in touched {
            let Err(error) = durable_fs::sync_folder(&folder) else { continue };
            if error.kind() == ErrorKind::NotFound {
                continue;
            }
            for result in &mut results {
                if result.as_ref().is_ok_and(|l| parent(l).as_deref() == Some(&folder)) {
                    let error = io::Error::new(error.kind(), error.to_string());
                    *result = Err(failed("cannot sync", &folder, error));
                }
            }
        }
        results
    }

    fn unlink(&self, location: Path) -> Result<Path> {
        let path = self.path_of(&location)?;
        self.refuse_links(path.parent().unwrap_or(&self.root))?;
        match durable_fs::unlink(&path) {
            // Someone else has deleted it, as when two writers clean up after the same commits.
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(location),
            Err(e) => Err(failed("cannot delete", &path, e)),
            Ok(()) => Ok(location),
        }
    }

    /// A symbolic link could lead out of the root, and out of what can be made durable.
    fn refuse_links(&self, path: &FsPath) -> Result<()> {
        for path in path.ancestors().take_while(|p| *p != self.root) {
            if fs::symlink_metadata(path).is_ok_and(|m| m.is_symlink()) {
                let reason = "it is a symbolic link, and links below a store's folder are not followed";
                return Err(failed("cannot use", path, io::Error::other(reason)));
            }
        }
        Ok(())
    }
}

fn sync_parent(path: &FsPath) -> io::Result<()> {
    durable_fs::sync_folder(path.parent().ok_or(ErrorKind::InvalidInput)?)
}

/// Creates the root and what is missing above it. The name of a root that is there already is
/// synced as well, where that is allowed: whoever made it may have been killed.
fn make_root(root: &FsPath) -> io::Result<()> {
    let root = std::path::absolute(root)?;
    let Some(parent) = root.parent() else { return Ok(()) };
    if root.is_dir() {
        return match durable_fs::sync_folder(parent) {
            Err(e) if e.kind() == ErrorKind::PermissionDenied => Ok(()),
            synced => synced,
        };
    }
    make_root(parent)?;
    durable_fs::make_folder(&root)
}

fn failed(what: &str, path: &FsPath, e: io::Error) -> Error {
    let kind = e.kind();
    let source = Box::new(io::Error::new(kind, format!("{what} {}: {e}", path.display())));
    match kind {
        ErrorKind::NotFound => Error::NotFound { path: path.display().to_string(), source },
        ErrorKind::AlreadyExists => Error::AlreadyExists { path: path.display().to_string(), source },
        _ => Error::Generic { store: "DurableLocal", source },
    }
}

/// File work belongs on a blocking thread; without a runtime it is done here.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match Handle::try_current() {
        Ok(runtime) => runtime.spawn_blocking(work).await?,
        Err(_) => work(),
    }
}

fn unsupported(what: &str) -> Error {
    Error::NotImplemented { operation: what.to_owned(), implementer: "DurableLocal".to_owned() }
}

fn refuse_attributes(attributes: &Attributes) -> Result<()> {
    if attributes.is_empty() { Ok(()) } else { Err(unsupported("attributes of objects")) }
}

#[async_trait]
impl ObjectStore for DurableLocal {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        refuse_attributes(&opts.attributes)?;
        let create = match opts.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => return Err(unsupported("`put_opts` with `PutMode::Update`")),
        };
        let folder = Arc::clone(&self.folder);
        let path = folder.path_of(location)?;
        blocking(move || folder.put(&path, &payload, create)).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        refuse_attributes(&opts.attributes)?;
        let folder = Arc::clone(&self.folder);
        let path = folder.path_of(location)?;
        blocking(move || {
            let temp = folder.temp_beside(&path).map_err(|e| failed("cannot write", &path, e))?;
            let state = UploadState { folder, path, temp: Mutex::new(Some(temp)), written_bytes: AtomicU64::new(0) };
            Ok(Box::new(Upload { state: Arc::new(state), size_bytes: 0 }) as Box<dyn MultipartUpload>)
        })
        .await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let folder = Arc::clone(&self.folder);
        let path = folder.path_of(location)?;
        blocking(move || folder.refuse_links(&path)).await?;
        self.reads.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let folder = Arc::clone(&self.folder);
        let path = folder.path_of(location)?;
        blocking(move || folder.refuse_links(&path)).await?;
        self.reads.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let folder = Arc::clone(&self.folder);
        locations
            .ready_chunks(DELETE_CHUNK)
            .then(move |chunk| {
                let folder = Arc::clone(&folder);
                blocking(move || Ok(folder.delete(chunk)))
            })
            .flat_map(|deleted| stream::iter(deleted.unwrap_or_else(|e| vec![Err(e)])))
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.walk(prefix, None, walk::meta)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.walk(prefix, Some(offset), walk::meta)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let folder = Arc::clone(&self.folder);
        let prefix = prefix.filter(|p| !p.as_ref().is_empty()).map(|p| format!("{p}/")).unwrap_or_default();
        blocking(move || {
            folder.refuse_links(&folder.root.join(&prefix))?;
            let list = || {
                let mut listed = ListResult { common_prefixes: Vec::new(), objects: Vec::new() };
                for entry in walk::entries(&folder.root, &prefix)? {
                    if entry.is_folder() {
                        listed.common_prefixes.extend(Path::parse(&entry.key).ok());
                    } else {
                        listed.objects.extend(walk::meta(&folder.root, &entry.key)?);
                    }
                }
                Ok(listed)
            };
            list().map_err(|e| failed("cannot list", &folder.root.join(&prefix), e))
        })
        .await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let folder = Arc::clone(&self.folder);
        let (from, to) = (folder.path_of(from)?, folder.path_of(to)?);
        blocking(move || folder.copy(&from, &to, options.mode == CopyMode::Create)).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        let folder = Arc::clone(&self.folder);
        let (from, to) = (folder.path_of(from)?, folder.path_of(to)?);
        blocking(move || folder.rename(&from, &to, options.target_mode == RenameTargetMode::Create)).await
    }
}

impl DurableLocal {
    /// What there is to tell of each object below a folder, in the order of their keys.
    fn walk<T: Send + 'static>(
        &self,
        prefix: Option<&Path>,
        offset: Option<&Path>,
        tell: fn(&FsPath, &str) -> io::Result<Option<T>>,
    ) -> BoxStream<'static, Result<T>> {
        let folder = Arc::clone(&self.folder);
        let below = prefix.map_or_else(|| folder.root.clone(), |p| folder.root.join(p.as_ref()));
        let walk = Walk::new(folder.root.clone(), prefix, offset);
        let links = Arc::clone(&folder);
        let checked = stream::once(blocking(move || links.refuse_links(&below)));
        let chunks = stream::try_unfold(walk, move |mut walk| {
            let folder = Arc::clone(&folder);
            blocking(move || {
                let mut chunk = || {
                    let keys = walk.next_keys(LIST_CHUNK)?;
                    let told = keys.iter().filter_map(|key| tell(&folder.root, key).transpose());
                    let told = told.collect::<io::Result<Vec<T>>>()?;
                    Ok((!keys.is_empty()).then_some(told))
                };
                let told = chunk().map_err(|e| failed("cannot list", &folder.root, e))?;
                Ok(told.map(|told| (told, walk)))
            })
        });
        let told = chunks.map_ok(|told| stream::iter(told.into_iter().map(Ok))).try_flatten();
        // The check yields no item, only its error.
        checked.try_filter_map(|()| async { Ok(None) }).chain(told).boxed()
    }
}

/// A multipart upload: parts go to their positions in one temporary file as they come.
#[derive(Debug)]
struct Upload {
    state: Arc<UploadState>,
    size_bytes: u64,
}

#[derive(Debug)]
struct UploadState {
    folder: Arc<Folder>,
    path: PathBuf,
    /// `None` once completed or aborted.
    temp: Mutex<Option<Temp>>,
    written_bytes: AtomicU64,
}

impl UploadState {
    fn take(&self) -> Result<Temp> {
        let temp = self.temp.lock().unwrap_or_else(PoisonError::into_inner).take();
        temp.ok_or_else(|| self.error("the upload was completed or aborted before"))
    }

    fn error(&self, reason: &str) -> Error {
        failed("cannot write", &self.path, io::Error::other(reason.to_owned()))
    }

    fn write(&self, payload: &PutPayload, mut position: u64) -> Result<()> {
        let temp = self.temp.lock().unwrap_or_else(PoisonError::into_inner);
        let temp = temp.as_ref().ok_or_else(|| self.error("the upload was completed or aborted before"))?;
        for part in payload {
            temp.write_at(part, position).map_err(|e| failed("cannot write", &self.path, e))?;
            position += part.len() as u64;
        }
        self.written_bytes.fetch_add(payload.content_length() as u64, Ordering::SeqCst);
        Ok(())
    }
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let position = self.size_bytes;
        self.size_bytes += data.content_length() as u64;
        let state = Arc::clone(&self.state);
        Box::pin(blocking(move || state.write(&data, position)))
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let (state, size_bytes) = (Arc::clone(&self.state), self.size_bytes);
        blocking(move || {
            let temp = state.take()?;
            // A part that failed or was never awaited would be a hole full of zeros.
            if state.written_bytes.load(Ordering::SeqCst) != size_bytes {
                return Err(state.error("a part of the upload is missing"));
            }
            state.folder.publish(temp, &state.path, false)
        })
        .await
    }

    async fn abort(&mut self) -> Result<()> {
        let state = Arc::clone(&self.state);
        blocking(move || state.take().map(drop)).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use futures::executor::block_on;
    use object_store::ObjectStoreExt;

    use super::{durable_fs::journal, *};

    // Without a runtime all work is done on the test's own thread, whose calls are noted.

    fn create(objects: &DurableLocal, key: &str, text: &'static str) -> Result<PutResult> {
        block_on(objects.put_opts(&Path::from(key), text.into(), PutMode::Create.into()))
    }

    #[test]
    fn every_name_is_synced_after_it_was_given_and_never_before_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let objects = DurableLocal::open(&folder.path().join("root")).unwrap();
        let [a, b, c] = ["f/g/a", "f/g/b", "h/c"].map(Path::from);
        journal::take();
        let call = |calls: &mut dyn FnMut()| {
            calls();
            journal::take()
        };
        for (claim, calls, expected) in [
            (
                "the first object of a folder",
                call(&mut || drop(create(&objects, "f/g/a", "A").unwrap())),
                &[
                    "make folder f",
                    "sync folder root",
                    "make folder g",
                    "sync folder f",
                    "write tmp",
                    "sync file tmp",
                    "link a",
                    "sync folder g",
                ][..],
            ),
            (
                "a further one, over what is there",
                call(&mut || drop(block_on(objects.put(&b, "B".into())).unwrap())),
                &["write tmp", "sync file tmp", "rename b", "sync folder g"],
            ),
            (
                "what exists already is made durable before that is told",
                call(&mut || assert!(matches!(create(&objects, "f/g/a", "x"), Err(Error::AlreadyExists { .. })))),
                &["write tmp", "sync file tmp", "link a", "sync file a", "sync folder g"],
            ),
            (
                "a rename between folders, the new name first",
                call(&mut || block_on(objects.rename_if_not_exists(&a, &c)).unwrap()),
                &[
                    "sync file a",
                    "make folder h",
                    "sync folder root",
                    "link c",
                    "sync folder h",
                    "unlink a",
                    "sync folder g",
                ],
            ),
            (
                "a copy over what is there",
                call(&mut || block_on(objects.copy(&c, &b)).unwrap()),
                &["sync file c", "rename b", "sync folder g"],
            ),
            ("a deletion", call(&mut || block_on(objects.delete(&b)).unwrap()), &["unlink b", "sync folder g"]),
            (
                "a multipart upload",
                call(&mut || {
                    let mut upload = block_on(objects.put_multipart(&b)).unwrap();
                    block_on(upload.put_part("1".into())).unwrap();
                    block_on(upload.put_part("2".into())).unwrap();
                    block_on(upload.complete()).unwrap();
                }),
                &["write tmp", "write tmp", "sync file tmp", "rename b", "sync folder g"],
            ),
        ] {
            assert_eq!(calls, expected, "{claim}");
        }
    }

    #[test]
    fn what_could_not_be_synced_is_not_told_as_written() {
        let folder = tempfile::tempdir().unwrap();
        let objects = DurableLocal::open(folder.path()).unwrap();
        create(&objects, "f/before", "").unwrap();
        for (n, failing) in ["make folder", "write", "sync file", "link", "sync folder"].into_iter().enumerate() {
            let key = if failing == "make folder" { "new/x".to_owned() } else { format!("f/{n}") };
            journal::fail(failing);
            let error = create(&objects, &key, "text").unwrap_err();
            assert!(error.to_string().contains("the disk is broken"), "{error}");
            journal::fail("");
            // Only its folder was not synced: then the object may be there, and whoever tries
            // again learns of it once it is durable.
            let again = create(&objects, &key, "text");
            match failing {
                "sync folder" => assert!(matches!(again, Err(Error::AlreadyExists { .. }))),
                _ => drop(again.unwrap()),
            }
        }
        let names = fs::read_dir(folder.path().join("f")).unwrap();
        assert!(names.flatten().all(|entry| !durable_fs::is_temp(entry.file_name().to_str().unwrap())));

        let mut upload = block_on(objects.put_multipart(&Path::from("f/upload"))).unwrap();
        block_on(upload.put_part("1".into())).unwrap();
        journal::fail("sync file");
        assert!(block_on(upload.complete()).is_err());
        journal::fail("");
        assert!(matches!(block_on(objects.head(&Path::from("f/upload"))), Err(Error::NotFound { .. })));
    }

    #[test]
    fn a_folder_whose_name_could_not_be_synced_is_synced_before_the_next_object() {
        let folder = tempfile::tempdir().unwrap();
        let objects = DurableLocal::open(folder.path()).unwrap();
        journal::fail("sync folder");
        assert!(create(&objects, "f/x", "").is_err());
        journal::fail("");
        journal::take();
        create(&objects, "f/x", "").unwrap();
        assert_eq!(journal::take()[0], "make folder f");
        assert!(journal::take().is_empty());
    }
}
