//! Landing objects: their names, their lists, their lines. What is written here can be read
//! by everything that reads the Confluent S3 sink's objects, and the other way round: the
//! offset in a name may be padded to any width, and between objects offsets may be missing.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    fmt,
    fs::File,
    io::{self, Read},
    mem,
};

use anyhow::Context;
use bytes::Bytes;
use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use memchr::{memchr_iter, memrchr};
use model::{Checkpoint, Offset, TopicName, TopicPartition};
use object_store::{GetResultPayload, ObjectStore, ObjectStoreExt, path::Path};

/// The folder of all topics, as Confluent's `topics.dir` has it by default.
pub const TOPICS_DIR: &str = "topics";

/// Says at the root of a landing folder which log it belongs to.
pub(super) const MARKER: &str = "corkboard.json";
/// What landing notes beside it.
pub(super) const AFTER_DELETION: &str = "after_deletion";

const EXTENSION: &str = ".json";
/// Digits of an offset in a name, at least.
const OFFSET_WIDTH: usize = 10;
/// Bytes read from a local object at a time.
const READ_BYTES: usize = 1 << 18;
/// A line longer than this is no record of ours: records are limited far below.
const MAX_LINE_BYTES: usize = 1 << 27;
/// Objects that are looked at for their size at a time.
const LOOKS_AT_ONCE: usize = 64;
/// Foreign names kept for a person to see.
const MAX_FOREIGN: usize = 100;

/// An object that holds the records of `partition` from `start` on, one per line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LandingObject {
    pub partition: TopicPartition,
    pub start: Offset,
    pub key: Path,
    pub size_bytes: u64,
}

/// An object in the landing folder that is no landing object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    pub key: Path,
    pub reason: String,
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is no landing object and was passed over: {}", self.key, self.reason)
    }
}

/// What a landing folder holds: objects in the order of partition and start offset.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    pub objects: Vec<LandingObject>,
    /// The first of the foreign names, and how many there are in all.
    pub foreign: Vec<Foreign>,
    pub n_foreign: usize,
}

/// A store of landing objects as lists see it: by name first, since few who ask want to know more of
/// what was landed long ago.
pub trait Listed: Sync {
    fn objects(&self) -> &dyn ObjectStore;

    /// The names of the objects below a prefix, in their order, and their sizes where those come for
    /// nothing.
    fn names(&self, prefix: &Path) -> BoxStream<'static, object_store::Result<(Path, Option<u64>)>>;
}

impl<S: ObjectStore> Listed for S {
    fn objects(&self) -> &dyn ObjectStore {
        self
    }

    fn names(&self, prefix: &Path) -> BoxStream<'static, object_store::Result<(Path, Option<u64>)>> {
        self.list(Some(prefix)).map_ok(|meta| (meta.location, Some(meta.size))).boxed()
    }
}

/// The folder of a partition's objects.
pub fn folder_of(partition: &TopicPartition) -> Path {
    let parts = [TOPICS_DIR.to_owned(), partition.topic.to_string(), format!("partition={}", partition.partition)];
    Path::from_iter(parts)
}

/// The same, and those that it lies in.
pub fn folders_of(partition: &TopicPartition) -> [Path; 3] {
    let topics = Path::from(TOPICS_DIR);
    [folder_of(partition), topics.clone().join(partition.topic.as_str()), topics]
}

/// The name of the object of `partition` that starts at `start`.
pub fn key_of(partition: &TopicPartition, start: Offset) -> Path {
    let name = format!("{}+{}+{:0OFFSET_WIDTH$}{EXTENSION}", partition.topic, partition.partition, start.0);
    folder_of(partition).join(name)
}

/// Reads `<topic>/partition=<p>/<topic>+<p>+<offset>.json`, what stands below the topics
/// folder; the error is the reason why it is not that.
fn parse_key(below_topics: &str) -> Result<(TopicPartition, Offset), String> {
    let [topic, folder, name] = below_topics.split('/').collect::<Vec<_>>()[..] else {
        return Err("objects lie in <topic>/partition=<number>/".to_owned());
    };
    let partition = folder.strip_prefix("partition=").and_then(number);
    let partition = partition.ok_or_else(|| format!("the folder {folder:?} is not partition=<number>"))?;
    let partition = u32::try_from(partition).map_err(|_| format!("{partition} is too large for a partition"))?;
    let topic: TopicName = topic.parse().map_err(|e| format!("{e}"))?;
    let not_named = || format!("the name is not {topic}+{partition}+<offset>{EXTENSION}");
    let stem = name.strip_suffix(EXTENSION).ok_or_else(not_named)?;
    let mut parts = stem.rsplitn(3, '+');
    let (offset, p, t) = (parts.next(), parts.next(), parts.next());
    if t != Some(topic.as_str()) || p.and_then(number) != Some(partition.into()) {
        return Err(not_named());
    }
    let offset = offset.and_then(number).ok_or_else(not_named)?;
    Ok((TopicPartition::new(topic, partition), Offset(offset)))
}

fn number(digits: &str) -> Option<u64> {
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok())?
}

/// The objects of `topics` (all topics if `None`) that may hold records at or after `from`:
/// those that start there or later and, unless one starts just there, the last one before. Of the
/// others the names are read, and nothing else.
pub async fn list(
    store: &impl Listed,
    topics: Option<&BTreeSet<TopicName>>,
    from: &Checkpoint,
) -> anyhow::Result<Listing> {
    let topics_dir = find_topics_dir(store.objects()).await?;
    let mut found = Found::default();
    let roots: Vec<Path> = match topics {
        Some(topics) => topics.iter().map(|t| topics_dir.clone().join(t.as_str())).collect(),
        None => vec![topics_dir.clone()],
    };
    for root in roots {
        found.read(store, &topics_dir, &root, |partition| from.next_of(partition)).await?;
    }
    found.listing(store.objects()).await
}

/// The same for one partition.
pub async fn list_from(store: &impl Listed, partition: &TopicPartition, next: Offset) -> anyhow::Result<Listing> {
    let mut found = Found::default();
    found.read(store, &Path::from(TOPICS_DIR), &folder_of(partition), |_| next).await?;
    found.listing(store.objects()).await
}

/// The last object of each partition.
pub async fn last_of_each(store: &impl Listed) -> anyhow::Result<Vec<LandingObject>> {
    Ok(find_last_of_each(store, &Path::from(TOPICS_DIR)).await?.listing(store.objects()).await?.objects)
}

/// Where the last object of each partition starts.
pub async fn last_starts(store: &impl Listed) -> anyhow::Result<BTreeMap<TopicPartition, Offset>> {
    let found = find_last_of_each(store, &Path::from(TOPICS_DIR)).await?;
    Ok(found.objects.into_keys().collect())
}

/// The partitions that there are objects of, whichever folder holds the topics.
pub async fn partitions(store: &impl Listed) -> anyhow::Result<Vec<TopicPartition>> {
    let found = find_last_of_each(store, &find_topics_dir(store.objects()).await?).await?;
    Ok(found.objects.into_keys().map(|(partition, _)| partition).collect())
}

async fn find_last_of_each(store: &impl Listed, topics_dir: &Path) -> anyhow::Result<Found> {
    let mut found = Found::default();
    found.read(store, topics_dir, topics_dir, |_| Offset(u64::MAX)).await?;
    Ok(found)
}

/// `topics` where it exists; else the given folder holds the topics itself, as with an empty
/// `topics.dir`, or as when someone names the topics folder.
async fn find_topics_dir(store: &dyn ObjectStore) -> anyhow::Result<Path> {
    let listed = store.list_with_delimiter(None).await.context("the landing folder cannot be listed")?;
    let topics_dir = Path::from(TOPICS_DIR);
    Ok(if listed.common_prefixes.contains(&topics_dir) { topics_dir } else { Path::default() })
}

#[derive(Default)]
struct Found {
    objects: BTreeMap<(TopicPartition, Offset), Named>,
    foreign: Vec<Foreign>,
    n_foreign: usize,
}

/// The name of an object, and its size if that came with it.
struct Named {
    key: Path,
    size_bytes: Option<u64>,
}

/// The objects of a partition before those that are asked for.
#[derive(Default)]
struct Before {
    starts: BTreeSet<Offset>,
    last: Option<Named>,
}

impl Found {
    async fn read(
        &mut self,
        store: &impl Listed,
        topics_dir: &Path,
        root: &Path,
        next_of: impl Fn(&TopicPartition) -> Offset,
    ) -> anyhow::Result<()> {
        let notes = Path::from(AFTER_DELETION);
        let mut before: BTreeMap<TopicPartition, Before> = BTreeMap::new();
        let mut names = store.names(root);
        while let Some((key, size_bytes)) =
            names.try_next().await.with_context(|| format!("{root} cannot be listed"))?
        {
            if key.as_ref() == MARKER {
                continue;
            }
            let below = key.as_ref().strip_prefix(topics_dir.as_ref()).unwrap_or_default();
            let (partition, start) = match parse_key(below.trim_start_matches('/')) {
                Ok(parsed) => parsed,
                Err(_) if key.prefix_matches(&notes) => continue,
                Err(reason) => {
                    self.pass_over(key, reason);
                    continue;
                }
            };
            let twin = || format!("another object of {partition} starts at offset {start} as well");
            if start >= next_of(&partition) {
                match self.objects.entry((partition.clone(), start)) {
                    Entry::Vacant(free) => drop(free.insert(Named { key, size_bytes })),
                    Entry::Occupied(_) => self.pass_over(key, twin()),
                }
                continue;
            }
            let earlier = before.entry(partition.clone()).or_default();
            if !earlier.starts.insert(start) {
                self.pass_over(key, twin());
            } else if earlier.starts.last() == Some(&start) {
                earlier.last = Some(Named { key, size_bytes });
            }
        }
        for (partition, Before { starts, last }) in before {
            // Where an object starts at `next` itself, the one before ends there.
            let next = next_of(&partition);
            if let (Some(start), Some(last)) = (starts.last(), last)
                && !self.objects.contains_key(&(partition.clone(), next))
            {
                self.objects.insert((partition, *start), last);
            }
        }
        Ok(())
    }

    fn pass_over(&mut self, key: Path, reason: String) {
        self.n_foreign += 1;
        if self.foreign.len() < MAX_FOREIGN {
            self.foreign.push(Foreign { key, reason });
        }
    }

    /// Those that were found, and are still there, with their sizes.
    async fn listing(self, store: &dyn ObjectStore) -> anyhow::Result<Listing> {
        let sized = |((partition, start), Named { key, size_bytes })| async move {
            let size_bytes = match size_bytes {
                Some(size_bytes) => size_bytes,
                None => match store.head(&key).await {
                    Err(object_store::Error::NotFound { .. }) => return Ok(None),
                    head => head.with_context(|| format!("landing object {key} cannot be looked at"))?.size,
                },
            };
            anyhow::Ok(Some(LandingObject { partition, start, key, size_bytes }))
        };
        let objects = stream::iter(self.objects).map(sized).buffered(LOOKS_AT_ONCE);
        let objects = objects.try_filter_map(|object| async move { Ok(object) }).try_collect().await?;
        Ok(Listing { objects, foreign: self.foreign, n_foreign: self.n_foreign })
    }
}

/// An object whose content is not whole lines of UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("landing object {key} is torn at line {line}: {reason}; restore it from a backup, or move it away")]
pub struct TornObject {
    pub key: Path,
    /// Counted from 1; the lines before it are whole.
    pub line: u64,
    pub reason: &'static str,
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Torn(#[from] TornObject),
    #[error("landing object {key} cannot be read: {source}")]
    Unreadable { key: Path, source: object_store::Error },
}

/// Opens an object to read its lines in blocks, so that memory does not depend on its size.
pub async fn lines(store: &dyn ObjectStore, object: &LandingObject) -> Result<Lines, ReadError> {
    let unreadable = |source| ReadError::Unreadable { key: object.key.clone(), source };
    let got = store.get(&object.key).await.map_err(unreadable)?;
    let bytes = match got.payload {
        GetResultPayload::File(file, _) => Source::File(Some(file)),
        GetResultPayload::Stream(stream) => Source::Stream(stream),
    };
    let (next, left_bytes) = (object.start, object.size_bytes);
    Ok(Lines { key: object.key.clone(), next, start: object.start, rest: Vec::new(), bytes, left_bytes })
}

/// Reads the whole object and counts its lines.
pub async fn count_lines(store: &dyn ObjectStore, object: &LandingObject) -> Result<u64, ReadError> {
    let mut lines = lines(store, object).await?;
    while lines.next_block().await?.is_some() {}
    Ok(lines.next.0 - object.start.0)
}

/// The lines of one object, in order.
pub struct Lines {
    key: Path,
    start: Offset,
    next: Offset,
    /// The begin of a line whose end was not read yet.
    rest: Vec<u8>,
    bytes: Source,
    /// What the object is expected to hold beyond what was read: blocks take no more memory than that.
    left_bytes: u64,
}

enum Source {
    /// None once it is read to its end, or failed.
    File(Option<File>),
    Stream(BoxStream<'static, object_store::Result<Bytes>>),
}

/// Some whole lines of an object.
#[derive(Clone, Debug)]
pub struct Block {
    /// The offset of the first line.
    pub first: Offset,
    pub n_lines: usize,
    /// Valid UTF-8; every line ends with `\n`.
    pub text: Bytes,
}

impl Block {
    /// The offset after the last line.
    pub fn end(&self) -> Offset {
        self.first.plus(self.n_lines)
    }

    /// Each line, without its end, and its offset.
    pub fn lines(&self) -> impl Iterator<Item = (Offset, &[u8])> {
        let mut start = 0;
        memchr_iter(b'\n', &self.text).enumerate().map(move |(n, end)| {
            let line = &self.text[start..end];
            start = end + 1;
            (self.first.plus(n), line)
        })
    }
}

impl Lines {
    /// The next lines, at least one; `None` at the end of an object that is whole.
    pub async fn next_block(&mut self) -> Result<Option<Block>, ReadError> {
        loop {
            // No line ends in what is left of the last read, which is looked through once.
            let n_before = self.rest.len();
            let Some(bytes) = self.read().await? else { return self.end() };
            match memrchr(b'\n', &bytes[n_before..]) {
                Some(last) => {
                    let end = n_before + last + 1;
                    self.rest = bytes[end..].to_vec();
                    return self.block(bytes.slice(..end)).map(Some);
                }
                None if bytes.len() > MAX_LINE_BYTES => {
                    return Err(self.torn(self.next, "the line is longer than any record"));
                }
                None => self.rest = bytes.into(),
            }
        }
    }

    fn block(&mut self, text: Bytes) -> Result<Block, ReadError> {
        let count = |text: &[u8]| memchr_iter(b'\n', text).count();
        if let Err(e) = std::str::from_utf8(&text) {
            let line = self.next.plus(count(&text[..e.valid_up_to()]));
            return Err(self.torn(line, "it is not UTF-8"));
        }
        let first = self.next;
        let n_lines = count(&text);
        self.next = first.plus(n_lines);
        Ok(Block { first, n_lines, text })
    }

    fn end(&self) -> Result<Option<Block>, ReadError> {
        if !self.rest.is_empty() {
            return Err(self.torn(self.next, "its last line has no end"));
        }
        if self.next == self.start {
            return Err(self.torn(self.next, "it is empty"));
        }
        Ok(None)
    }

    fn torn(&self, at: Offset, reason: &'static str) -> ReadError {
        TornObject { key: self.key.clone(), line: at.0 - self.start.0 + 1, reason }.into()
    }

    /// What is read next, with the rest before it.
    async fn read(&mut self) -> Result<Option<Bytes>, ReadError> {
        let n_before = self.rest.len();
        let read = match &mut self.bytes {
            Source::Stream(stream) => match stream.next().await.transpose() {
                Ok(Some(bytes)) if n_before > 0 => {
                    self.rest.extend_from_slice(&bytes);
                    Ok(Some(mem::take(&mut self.rest).into()))
                }
                read => read,
            },
            Source::File(file) => read_file(file, &mut self.rest, self.left_bytes).await,
        };
        let read = read.map_err(|source| ReadError::Unreadable { key: self.key.clone(), source })?;
        let n_bytes = read.as_ref().map_or(0, |bytes| bytes.len() - n_before);
        self.left_bytes = self.left_bytes.saturating_sub(n_bytes as u64);
        Ok(read)
    }
}

/// Takes the next bytes of a file behind those that are given, on a blocking thread; at its end it takes none.
async fn read_file(
    slot: &mut Option<File>,
    before: &mut Vec<u8>,
    left_bytes: u64,
) -> object_store::Result<Option<Bytes>> {
    let Some(mut file) = slot.take() else { return Ok(None) };
    let mut bytes = mem::take(before);
    let read = tokio::task::spawn_blocking(move || {
        // One more, so that the end shows without more room.
        bytes.reserve(usize::try_from(left_bytes).map_or(READ_BYTES, |left| READ_BYTES.min(left + 1)));
        let n_bytes = (&mut file).take(READ_BYTES as u64).read_to_end(&mut bytes)?;
        Ok((file, n_bytes, bytes))
    });
    let generic = |e: io::Error| object_store::Error::Generic { store: "DurableLocal", source: Box::new(e) };
    let (file, n_bytes, bytes) = read.await?.map_err(generic)?;
    if n_bytes == READ_BYTES {
        *slot = Some(file);
    }
    if n_bytes == 0 {
        *before = bytes;
        return Ok(None);
    }
    Ok(Some(bytes.into()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_key_reads_back_as_written() {
        for (partition, start, key) in [
            ("0a3.pin-0", 42, "topics/0a3.pin/partition=0/0a3.pin+0+0000000042.json"),
            ("a-b_c-12", 12_345_678_901, "topics/a-b_c/partition=12/a-b_c+12+12345678901.json"),
        ] {
            let partition: TopicPartition = partition.parse().unwrap();
            assert_eq!(key_of(&partition, Offset(start)).as_ref(), key);
            assert_eq!(parse_key(&key["topics/".len()..]).unwrap(), (partition, Offset(start)));
        }
    }

    #[test]
    fn names_of_other_widths_are_read_and_foreign_ones_refused_with_a_reason() {
        for (key, start) in
            [("pin/partition=0/pin+0+7.json", 7), ("pin/partition=0/pin+0+00000000000000000007.json", 7)]
        {
            assert_eq!(parse_key(key).unwrap().1, Offset(start), "{key}");
        }
        for (key, reason) in [
            ("pin/pin+0+7.json", "objects lie in"),
            ("pin/year=2026/month=01/pin+0+7.json", "objects lie in"),
            ("pin/p=0/pin+0+7.json", "partition=<number>"),
            ("pin/partition=-1/pin+0+7.json", "partition=<number>"),
            ("pin/partition=4294967296/pin+4294967296+7.json", "too large"),
            ("p n/partition=0/p n+0+7.json", "not allowed"),
            ("pin/partition=0/geo+0+7.json", "the name is not pin+0+"),
            ("pin/partition=0/pin+1+7.json", "the name is not pin+0+"),
            ("pin/partition=0/pin+0+7.json.gz", "the name is not"),
            ("pin/partition=0/pin+0+.json", "the name is not"),
            ("pin/partition=0/pin+0+99999999999999999999.json", "the name is not"),
            ("pin/partition=0/pin+0+7.keys.json", "the name is not"),
        ] {
            let error = parse_key(key).unwrap_err();
            assert!(error.contains(reason), "{key}: {error}");
        }
    }
}
