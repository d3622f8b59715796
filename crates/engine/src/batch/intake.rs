//! What a run reads: landing objects in order, cleaned in bounded pieces, on as many threads
//! as there are cores, without changing the order. A piece holds part of a large object, or many
//! small ones, which are read ahead: an object of three records costs little more than its records.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque, vec_deque},
    iter::Peekable,
    sync::Arc,
};

use anyhow::{Context, Result};
use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesOrdered};
use model::{Checkpoint, Offset, OffsetRange, TopicPartition};
use object_store::ObjectStore;
use tokio::task::JoinHandle;

use crate::{
    cleaning::{Cleaned, Cleaning},
    decode::Decoder,
    landing::{
        marker::Marker,
        objects::{self, Block, LandingObject, Lines, ReadError, TornObject},
    },
};

/// Bytes of lines cleaned at a time, whatever the number of rows.
const PIECE_BYTES: usize = 16 << 20;

/// Objects looked through at a time, and their bytes: reading many small ones one after the other
/// is mostly waiting.
const READ_AHEAD: usize = 32;
const READ_AHEAD_BYTES: u64 = 4 << 20;

/// The objects of a stream that a run takes in.
pub struct Plan {
    objects: VecDeque<Planned>,
    source: Source,
}

/// Whose landing folder it is.
pub enum Source {
    /// Ours: the ranges are adjacent, and a partition with a hole waits there, since the log
    /// and the real-time tables still have what is missing. The marker knows of holes that nothing
    /// will ever fill.
    Own(Marker),
    /// Another program's: holes are told, and passed over.
    Foreign,
}

struct Planned {
    object: LandingObject,
    /// Where the partition's table goes on; None where it has none of it.
    next: Option<Offset>,
    /// The start of the object after it: its end if it turns out to be torn.
    follower: Option<Offset>,
}

/// Cleaned records, in the order of their objects.
pub struct Piece {
    pub cleaned: Cleaned,
    pub n_records: u64,
    /// Bytes of objects read so far.
    pub done_bytes: u64,
}

/// What was taken in.
#[derive(Default)]
pub struct Taken {
    pub ranges: Vec<OffsetRange>,
    pub n_objects: u64,
    pub notices: Vec<String>,
}

impl Plan {
    /// The objects that hold anything at or beyond the checkpoint.
    pub fn of(objects: &BTreeMap<TopicPartition, Vec<LandingObject>>, from: &Checkpoint, source: Source) -> Self {
        let mut planned = VecDeque::new();
        for (partition, objects) in objects {
            let next = from.next.get(partition).copied();
            let first = next.map_or(0, |next| {
                let first = objects.partition_point(|o| o.start < next);
                // Nothing starts just there: the object before may reach beyond.
                let is_split = objects.get(first).is_some_and(|o| o.start != next);
                if is_split { first.saturating_sub(1) } else { first }
            });
            for (i, object) in objects.iter().enumerate().skip(first) {
                let follower = objects.get(i + 1).map(|o| o.start);
                planned.push_back(Planned { object: object.clone(), next, follower });
            }
        }
        Self { objects: planned, source }
    }

    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    pub fn is_own(&self) -> bool {
        matches!(self.source, Source::Own(_))
    }

    pub fn size_bytes(&self) -> u64 {
        self.objects.iter().map(|p| p.object.size_bytes).sum()
    }
}

pub struct Intake<'a> {
    store: Arc<dyn ObjectStore>,
    cleaning: Arc<Cleaning>,
    chunk_rows: usize,
    plan: &'a Plan,
    waiting: Peekable<vec_deque::Iter<'a, Planned>>,
    ahead: FuturesOrdered<BoxFuture<'a, Looked<'a>>>,
    ahead_bytes: u64,
    /// Partitions that go on no further in this run.
    held: BTreeSet<TopicPartition>,
    open: Option<Open<'a>>,
    /// Pieces being cleaned, in order.
    running: VecDeque<JoinHandle<Result<Piece>>>,
    n_threads: usize,
    taken: BTreeMap<TopicPartition, OffsetRange>,
    n_objects: u64,
    notices: Vec<String>,
    done_bytes: u64,
}

struct Open<'a> {
    planned: &'a Planned,
    content: Content,
    /// The offset after the last line that was read.
    end: Offset,
}

/// An object that is known to be whole.
struct Content {
    blocks: VecDeque<Block>,
    /// What was not kept of it; None where nothing is left.
    rest: Option<Lines>,
}

/// An object that was looked through.
type Looked<'a> = (&'a Planned, Result<Content, ReadError>);

/// Lines on their way to be cleaned, by the partition of their objects.
#[derive(Default)]
struct Chunk {
    parts: Vec<(TopicPartition, Vec<(Offset, Bytes)>)>,
    n_lines: usize,
    n_bytes: usize,
}

impl<'a> Intake<'a> {
    pub fn begin(
        store: Arc<dyn ObjectStore>,
        cleaning: Arc<Cleaning>,
        plan: &'a Plan,
        chunk_rows: usize,
        n_threads: usize,
    ) -> Self {
        Self {
            store,
            cleaning,
            chunk_rows,
            plan,
            waiting: plan.objects.iter().peekable(),
            ahead: FuturesOrdered::new(),
            ahead_bytes: 0,
            held: BTreeSet::new(),
            open: None,
            running: VecDeque::new(),
            n_threads,
            taken: BTreeMap::new(),
            n_objects: 0,
            notices: Vec::new(),
            done_bytes: 0,
        }
    }

    /// The next cleaned piece, in the order of the objects and their lines.
    pub async fn next(&mut self) -> Result<Option<Piece>> {
        // One more than there are threads: it waits while the others are at work.
        while self.running.len() <= self.n_threads {
            let Some(chunk) = self.read().await? else { break };
            let (cleaning, done_bytes) = (self.cleaning.clone(), self.done_bytes);
            self.running.push_back(tokio::task::spawn_blocking(move || {
                let cleaned = clean(&cleaning, &chunk)?;
                Ok(Piece { cleaned, n_records: chunk.n_lines as u64, done_bytes })
            }));
        }
        match self.running.pop_front() {
            Some(piece) => piece.await.context("cleaning was ended")?.map(Some),
            None => Ok(None),
        }
    }

    pub fn finish(self) -> Taken {
        Taken { ranges: self.taken.into_values().collect(), n_objects: self.n_objects, notices: self.notices }
    }

    /// As many lines as are cleaned at a time; None when all are read.
    async fn read(&mut self) -> Result<Option<Chunk>> {
        let mut chunk = Chunk::default();
        while chunk.n_lines < self.chunk_rows && chunk.n_bytes < PIECE_BYTES {
            let Some(open) = &mut self.open else {
                if self.open_next().await? {
                    continue;
                }
                break;
            };
            let Some(block) = open.content.next_block().await? else {
                self.close();
                continue;
            };
            let partition = &open.planned.object.partition;
            let next = self.taken.get(partition).map(|r| r.end).or(open.planned.next);
            open.end = block.end();
            // What an earlier object had already is not taken twice.
            chunk.push(partition, &block, next.unwrap_or_default());
        }
        Ok((chunk.n_lines > 0).then_some(chunk))
    }

    /// Opens the next object that is whole and where its partition goes on. A torn one is
    /// told and passed over: the records of an object are taken together or not at all.
    async fn open_next(&mut self) -> Result<bool> {
        loop {
            self.read_ahead();
            let Some((planned, looked)) = self.ahead.next().await else { return Ok(false) };
            let object = &planned.object;
            self.ahead_bytes -= object.size_bytes;
            if self.held.contains(&object.partition) || !self.is_adjacent(planned) {
                self.done_bytes += object.size_bytes;
                continue;
            }
            match looked {
                Ok(content) => {
                    self.open = Some(Open { planned, content, end: object.start });
                    return Ok(true);
                }
                Err(ReadError::Torn(torn)) => self.pass_over(planned, &torn),
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Begins to look through small objects; a large one alone.
    fn read_ahead(&mut self) {
        while self.ahead.len() < READ_AHEAD {
            let (is_first, bytes) = (self.ahead.is_empty(), self.ahead_bytes);
            let fits = |next: &&Planned| is_first || bytes + next.object.size_bytes <= READ_AHEAD_BYTES;
            let Some(planned) = self.waiting.next_if(fits) else { return };
            if self.held.contains(&planned.object.partition) {
                self.done_bytes += planned.object.size_bytes;
                continue;
            }
            self.ahead_bytes += planned.object.size_bytes;
            let store = self.store.clone();
            let look = async move { (planned, look_through(store.as_ref(), &planned.object).await) };
            self.ahead.push_back(look.boxed());
        }
    }

    /// Looks for a hole before an object; tells it, and holds a partition of ours there.
    fn is_adjacent(&mut self, planned: &Planned) -> bool {
        let LandingObject { partition, start, .. } = &planned.object;
        let next = self.taken.get(partition).map(|r| r.end).or(planned.next);
        let Some(next) = next.filter(|next| next < start) else { return true };
        let hole = format!("{partition}: the records [{next}, {start}) are in no landing object");
        match &self.plan.source {
            Source::Own(marker) if !marker.knows_hole_before(partition, *start) => {
                self.notices.push(format!("{hole}; the partition waits until they are restored"));
                self.held.insert(partition.clone());
                false
            }
            _ => {
                self.notices.push(hole);
                true
            }
        }
    }

    fn pass_over(&mut self, planned: &Planned, torn: &TornObject) {
        let object = &planned.object;
        self.done_bytes += object.size_bytes;
        if self.plan.is_own() {
            self.notices.push(format!("{torn}; the partition waits until then"));
            self.held.insert(object.partition.clone());
            return;
        }
        self.notices.push(format!("{torn}; it was passed over, `corkboard batch run --whole` takes it in later"));
        if let Some(end) = planned.follower {
            self.take(object.partition.clone(), planned.next.unwrap_or(object.start), end);
        }
    }

    fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        let object = &open.planned.object;
        self.n_objects += 1;
        self.done_bytes += object.size_bytes;
        self.take(object.partition.clone(), open.planned.next.unwrap_or(object.start), open.end);
    }

    fn take(&mut self, partition: TopicPartition, start: Offset, end: Offset) {
        let fresh = OffsetRange { partition: partition.clone(), start, end };
        let range = self.taken.entry(partition).or_insert(fresh);
        range.end = range.end.max(end);
    }
}

/// Makes sure that an object is whole. One that is not large is kept as it was read; a
/// larger one is read twice.
async fn look_through(store: &dyn ObjectStore, object: &LandingObject) -> Result<Content, ReadError> {
    let mut lines = objects::lines(store, object).await?;
    let mut blocks = VecDeque::new();
    if object.size_bytes > PIECE_BYTES as u64 {
        objects::count_lines(store, object).await?;
        return Ok(Content { blocks, rest: Some(lines) });
    }
    while let Some(block) = lines.next_block().await? {
        blocks.push_back(block);
    }
    Ok(Content { blocks, rest: None })
}

impl Content {
    async fn next_block(&mut self) -> Result<Option<Block>, ReadError> {
        match (self.blocks.pop_front(), &mut self.rest) {
            (None, Some(lines)) => lines.next_block().await,
            (block, _) => Ok(block),
        }
    }
}

impl Chunk {
    /// Takes the lines of a block from `next` on.
    fn push(&mut self, partition: &TopicPartition, block: &Block, next: Offset) {
        if self.parts.last().is_none_or(|(last, _)| last != partition) {
            self.parts.push((partition.clone(), Vec::new()));
        }
        let Some((_, lines)) = self.parts.last_mut() else { return };
        for (offset, line) in block.lines().filter(|(offset, _)| *offset >= next) {
            self.n_bytes += line.len();
            self.n_lines += 1;
            lines.push((offset, block.text.slice_ref(line)));
        }
    }
}

fn clean(cleaning: &Cleaning, chunk: &Chunk) -> Result<Cleaned> {
    let mut decoder = Decoder::new(cleaning.stream());
    for (partition, lines) in &chunk.parts {
        for (offset, line) in lines {
            decoder.push(partition, *offset, line);
        }
    }
    cleaning.apply(decoder.finish())
}
