//! What a run reads: landing objects in order, cleaned in bounded pieces, on as many threads
//! as there are cores, without changing the order.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use anyhow::{Context, Result};
use bytes::Bytes;
use model::{Checkpoint, Offset, OffsetRange, TopicPartition, config::BatchConfig};
use object_store::ObjectStore;
use tokio::task::JoinHandle;

use crate::{
    cleaning::{Cleaned, Cleaning},
    decode::Decoder,
    landing::objects::{self, LandingObject, Lines, ReadError},
};

/// Bytes of lines cleaned at a time, whatever the number of rows.
const PIECE_BYTES: usize = 16 << 20;

/// The objects of a stream that a run takes in.
#[derive(Default)]
pub struct Plan {
    objects: VecDeque<Planned>,
}

struct Planned {
    object: LandingObject,
    /// Where the partition goes on when this object is reached; None where it begins with it.
    next: Option<Offset>,
    /// The start of the object after it: its end if it turns out to be torn.
    follower: Option<Offset>,
}

/// Cleaned records of one partition.
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
    /// The objects at or beyond the checkpoint. In a landing folder of our own the ranges are
    /// adjacent, and a partition with a hole waits there; elsewhere a hole is only told.
    pub fn of(
        objects: &BTreeMap<TopicPartition, Vec<LandingObject>>,
        from: &Checkpoint,
        is_own: bool,
        skipped: &mut Vec<String>,
    ) -> Self {
        let mut plan = Self::default();
        for (partition, objects) in objects {
            let mut next = from.next.get(partition).copied();
            let new = objects.iter().enumerate().filter(|(_, o)| next.is_none_or(|next| o.start >= next));
            for (i, object) in new.collect::<Vec<_>>() {
                // The objects' ends are not known before they are read, so only the first of
                // them can show a hole here; the others do when they are reached.
                if let Some(hole) = next.take().filter(|next| *next < object.start) {
                    skipped.push(format!(
                        "{partition}: the records [{hole}, {}) are in no landing object{}",
                        object.start,
                        if is_own { "; the partition waits until they are restored" } else { "" }
                    ));
                    if is_own {
                        break;
                    }
                }
                plan.objects.push_back(Planned {
                    object: object.clone(),
                    next: from.next.get(partition).copied(),
                    follower: objects.get(i + 1).map(|o| o.start),
                });
            }
        }
        plan
    }

    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    pub fn size_bytes(&self) -> u64 {
        self.objects.iter().map(|p| p.object.size_bytes).sum()
    }
}

pub struct Intake<'a> {
    store: Arc<dyn ObjectStore>,
    cleaning: Arc<Cleaning>,
    chunk_rows: usize,
    waiting: std::collections::vec_deque::Iter<'a, Planned>,
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
    lines: Lines,
    /// The offset after the last line that was read.
    end: Offset,
}

/// Lines on their way to be cleaned.
struct Chunk {
    partition: TopicPartition,
    lines: Vec<(Offset, Bytes)>,
    done_bytes: u64,
}

impl<'a> Intake<'a> {
    pub fn begin(store: Arc<dyn ObjectStore>, cleaning: Arc<Cleaning>, plan: &'a Plan, config: &BatchConfig) -> Self {
        Self {
            store,
            cleaning,
            chunk_rows: config.chunk_rows,
            waiting: plan.objects.iter(),
            open: None,
            running: VecDeque::new(),
            n_threads: std::thread::available_parallelism().map_or(1, usize::from),
            taken: BTreeMap::new(),
            n_objects: 0,
            notices: Vec::new(),
            done_bytes: 0,
        }
    }

    /// The next cleaned piece, in the order of the objects and their lines.
    pub async fn next(&mut self) -> Result<Option<Piece>> {
        while self.running.len() < self.n_threads {
            let Some(chunk) = self.read().await? else { break };
            let cleaning = self.cleaning.clone();
            self.running.push_back(tokio::task::spawn_blocking(move || clean(&cleaning, &chunk)));
        }
        match self.running.pop_front() {
            Some(piece) => piece.await.context("cleaning was ended")?.map(Some),
            None => Ok(None),
        }
    }

    pub fn finish(self) -> Taken {
        Taken { ranges: self.taken.into_values().collect(), n_objects: self.n_objects, notices: self.notices }
    }

    /// Lines of one object, as many as are cleaned at a time; None when all are read.
    async fn read(&mut self) -> Result<Option<Chunk>> {
        loop {
            if self.open.is_none() && !self.open_next().await? {
                return Ok(None);
            }
            let Some(open) = self.open.as_mut() else { continue };
            let partition = open.planned.object.partition.clone();
            let next = self.taken.get(&partition).map(|r| r.end).or(open.planned.next);
            let mut chunk = Chunk { partition, lines: Vec::new(), done_bytes: self.done_bytes };
            let mut n_bytes = 0;
            let mut is_read = false;
            while chunk.lines.len() < self.chunk_rows && n_bytes < PIECE_BYTES {
                let Some(block) = open.lines.next_block().await? else {
                    is_read = true;
                    break;
                };
                for (offset, line) in block.lines() {
                    open.end = offset.plus(1);
                    // What an earlier object had already is not taken twice.
                    if next.is_none_or(|next| offset >= next) {
                        n_bytes += line.len();
                        chunk.lines.push((offset, block.text.slice_ref(line)));
                    }
                }
            }
            if is_read {
                self.close();
                chunk.done_bytes = self.done_bytes;
            }
            if !chunk.lines.is_empty() {
                return Ok(Some(chunk));
            }
        }
    }

    /// Opens the next object that is whole. A torn one is told and passed over: the records
    /// of an object are taken together or not at all.
    async fn open_next(&mut self) -> Result<bool> {
        while let Some(planned) = self.waiting.next() {
            let object = &planned.object;
            match objects::count_lines(self.store.as_ref(), object).await {
                Ok(_) => {
                    let lines = objects::lines(self.store.as_ref(), object).await?;
                    self.open = Some(Open { planned, lines, end: object.start });
                    return Ok(true);
                }
                Err(ReadError::Torn(torn)) => {
                    self.notices.push(torn.to_string());
                    self.done_bytes += object.size_bytes;
                    if let Some(end) = planned.follower {
                        self.take(object.partition.clone(), planned.next.unwrap_or(object.start), end);
                    }
                }
                Err(e) => return Err(e.into()),
            }
        }
        Ok(false)
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

fn clean(cleaning: &Cleaning, chunk: &Chunk) -> Result<Piece> {
    let mut decoder = Decoder::new(cleaning.stream());
    for (offset, line) in &chunk.lines {
        decoder.push(&chunk.partition, *offset, line);
    }
    let cleaned = cleaning.apply(decoder.finish())?;
    Ok(Piece { cleaned, n_records: chunk.lines.len() as u64, done_bytes: chunk.done_bytes })
}
