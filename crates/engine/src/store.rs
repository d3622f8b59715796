//! Where objects are kept: landing objects, tables. A URL chooses the store.
//!
//! Every store is an `object_store::ObjectStore`; a local one is durable when a write
//! returns ([`DurableLocal`]). Conditional puts are what the layers build exactly-once on.

mod durable_fs;
mod local;
mod walk;

use std::{collections::BTreeSet, fmt, path::Path as FsPath, sync::Arc};

use anyhow::{Context, bail};
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{ObjectStore, memory::InMemory, path::Path, prefix::PrefixStore};
use url::Url;

#[cfg(test)]
pub(crate) use durable_fs::journal;
pub use local::DurableLocal;

/// An open object store and the URL that it was opened by.
#[derive(Clone, Debug)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    url: Url,
    local: Option<DurableLocal>,
}

impl Store {
    /// A store in memory, empty and shared by its clones.
    pub fn in_memory() -> Self {
        let url = Url::parse("memory:///").expect("the text is a URL");
        Self { objects: Arc::new(InMemory::new()), url, local: None }
    }

    /// A store of another kind, under the URL that people know it by.
    pub fn new(objects: Arc<dyn ObjectStore>, url: Url) -> Self {
        Self { objects, url, local: None }
    }

    fn local(folder: &FsPath) -> anyhow::Result<Self> {
        let local = DurableLocal::open(folder)?;
        let url = Url::from_directory_path(local.root())
            .ok()
            .with_context(|| format!("{} cannot be written as a URL", local.root().display()))?;
        Ok(Self { objects: Arc::new(local.clone()), url, local: Some(local) })
    }

    /// The objects, keys relative to this store's URL.
    pub fn objects(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.objects)
    }

    /// Ends with `/`.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The folder of a local store.
    pub fn folder(&self) -> Option<&FsPath> {
        self.local.as_ref().map(DurableLocal::root)
    }

    /// The part of this store below `prefix`, a relative path such as `tables/pin`.
    pub fn under(&self, prefix: &str) -> anyhow::Result<Self> {
        let path = Path::parse(prefix).with_context(|| format!("{prefix:?} is not a path in a store"))?;
        if let Some(local) = &self.local {
            return Self::local(&local.root().join(path.as_ref()));
        }
        let mut url = self.url.clone();
        url.path_segments_mut()
            .ok()
            .with_context(|| format!("{} has no paths below it", self.url))?
            .pop_if_empty()
            .extend(path.parts().map(|part| part.as_ref().to_owned()))
            .push("");
        Ok(Self { objects: Arc::new(PrefixStore::new(Arc::clone(&self.objects), path)), url, local: None })
    }

    /// The names of the objects below `prefix`, in their order, and their sizes where those come for
    /// nothing.
    pub fn names(&self, prefix: &Path) -> BoxStream<'static, object_store::Result<(Path, Option<u64>)>> {
        match &self.local {
            Some(local) => local.keys(prefix).map_ok(|key| (key, None)).boxed(),
            None => self.objects.list(Some(prefix)).map_ok(|meta| (meta.location, Some(meta.size))).boxed(),
        }
    }

    /// Clears away what crashes left; to be called when a process starts. Returns the number
    /// of files removed.
    pub async fn sweep(&self) -> anyhow::Result<u64> {
        match &self.local {
            Some(local) => local.sweep().await.with_context(|| format!("{self} cannot be swept")),
            None => Ok(0),
        }
    }

    /// After it returns, every object seen in these folders before the call is there after a
    /// power cut too, even if its writer was killed before it could say so.
    pub async fn settle(&self, folders: BTreeSet<Path>) -> anyhow::Result<()> {
        match &self.local {
            Some(local) => local.settle(folders).await.with_context(|| format!("{self} cannot be synced")),
            None => Ok(()),
        }
    }
}

impl AsRef<dyn ObjectStore> for Store {
    fn as_ref(&self) -> &(dyn ObjectStore + 'static) {
        &*self.objects
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.folder() {
            Some(folder) => folder.display().fmt(f),
            None => self.url.fmt(f),
        }
    }
}

/// Opens the store that a setting names: `file:///folder` or a plain path (created if
/// missing), or `memory:`.
pub fn open(url_or_path: &str) -> anyhow::Result<Store> {
    if url_or_path.is_empty() {
        bail!("an empty text names no store: give a folder or a URL");
    }
    // `C:` and the like are no concern here: a scheme has at least two letters.
    let scheme = url_or_path.split_once(':').map(|(scheme, _)| scheme);
    let is_scheme =
        |s: &str| s.len() > 1 && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    match scheme.filter(|s| is_scheme(s)) {
        None => Store::local(FsPath::new(url_or_path)),
        Some("memory") => Ok(Store::in_memory()),
        Some("file") => {
            let folder = Url::parse(url_or_path).ok().and_then(|url| url.to_file_path().ok());
            Store::local(&folder.with_context(|| format!("{url_or_path:?} is not file:///folder"))?)
        }
        Some(other) => {
            bail!("{url_or_path:?} cannot be opened: {other}: is not supported, use file:///folder, a path, or memory:")
        }
    }
}
