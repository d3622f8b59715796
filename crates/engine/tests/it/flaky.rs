//! A store in memory whose puts fail: before they happened, after it, or so that they happen
//! later, when nobody waits for them any more. It counts what it is asked for.

use std::{
    fmt, mem,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use engine::store::Store;
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, path::Path,
};

/// What becomes of a put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Succeeds,
    /// Nothing is written, and an error is told.
    FailsBefore,
    /// It is written, and an error is told all the same.
    FailsAfter,
    /// It is written; a retry below the store then finds the object, and says so.
    SaysThatItExists,
    /// An error is told, and it is written when the store is next written to.
    HappensLater,
}

type Decide = Box<dyn Fn(&Path) -> Fate + Send + Sync>;

pub(crate) struct Flaky {
    objects: Arc<dyn ObjectStore>,
    decide: Mutex<Decide>,
    late: Mutex<Vec<(Path, PutPayload, PutOptions)>>,
    n_calls: AtomicU64,
    n_failures: AtomicU64,
    gets_under_way: AtomicUsize,
    most_gets_at_once: AtomicUsize,
}

impl Flaky {
    pub(crate) fn store() -> (Arc<Self>, Store) {
        let flaky = Arc::new(Self {
            objects: Store::in_memory().objects(),
            decide: Mutex::new(Box::new(|_| Fate::Succeeds)),
            late: Mutex::default(),
            n_calls: AtomicU64::new(0),
            n_failures: AtomicU64::new(0),
            gets_under_way: AtomicUsize::new(0),
            most_gets_at_once: AtomicUsize::new(0),
        });
        let url = "memory:///".parse().unwrap();
        (Arc::clone(&flaky), Store::new(flaky, url))
    }

    /// From now on, puts have these fates.
    pub(crate) fn decide(&self, decide: impl Fn(&Path) -> Fate + Send + Sync + 'static) {
        *self.decide.lock().unwrap() = Box::new(decide);
    }

    pub(crate) fn n_calls(&self) -> u64 {
        self.n_calls.load(Ordering::SeqCst)
    }

    /// Puts that an error was told of.
    pub(crate) fn n_failures(&self) -> u64 {
        self.n_failures.load(Ordering::SeqCst)
    }

    /// Since this was asked for last.
    pub(crate) fn most_gets_at_once(&self) -> usize {
        self.most_gets_at_once.swap(0, Ordering::SeqCst)
    }

    fn count(&self) -> &dyn ObjectStore {
        self.n_calls.fetch_add(1, Ordering::SeqCst);
        &*self.objects
    }

    fn failed(&self) -> Error {
        Error::Generic { store: "Flaky", source: "the connection broke".into() }
    }
}

impl fmt::Debug for Flaky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Flaky")
    }
}

impl fmt::Display for Flaky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Flaky")
    }
}

#[async_trait]
impl ObjectStore for Flaky {
    async fn put_opts(&self, at: &Path, payload: PutPayload, opts: PutOptions) -> object_store::Result<PutResult> {
        let late = mem::take(&mut *self.late.lock().unwrap());
        for (at, payload, opts) in late {
            // Whether it was still wanted nobody asks any more.
            let _ = self.objects.put_opts(&at, payload, opts).await;
        }
        let fate = (self.decide.lock().unwrap())(at);
        if fate != Fate::Succeeds {
            self.n_failures.fetch_add(1, Ordering::SeqCst);
        }
        match fate {
            Fate::Succeeds => self.count().put_opts(at, payload, opts).await,
            Fate::FailsBefore => Err(self.failed()),
            Fate::FailsAfter => {
                self.count().put_opts(at, payload, opts).await?;
                Err(self.failed())
            }
            Fate::SaysThatItExists => {
                self.count().put_opts(at, payload, opts).await?;
                Err(Error::AlreadyExists { path: at.to_string(), source: "a try before this one".into() })
            }
            Fate::HappensLater => {
                self.late.lock().unwrap().push((at.clone(), payload, opts));
                Err(self.failed())
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        opts: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.count().put_multipart_opts(at, opts).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        let under_way = self.gets_under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_gets_at_once.fetch_max(under_way, Ordering::SeqCst);
        tokio::task::yield_now().await; // others begin meanwhile
        let got = self.count().get_opts(at, options).await;
        self.gets_under_way.fetch_sub(1, Ordering::SeqCst);
        got
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.count().delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.count().list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.count().list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.count().copy_opts(from, to, options).await
    }
}
