//! What waits for a partition's writer, bounded in bytes, and the writer itself while it rests.
//!
//! Whoever posts to a resting writer sends it to work on a blocking thread; it takes groups
//! until nothing waits and lies down again. An idle partition costs no thread.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use model::{LogError, Offset, Timestamp, TopicName};
use tokio::{sync::oneshot, task::spawn_blocking};

use crate::{
    turns::Turns,
    writer::{Append, Retained, Writer},
};

/// After so many groups the writer queues up again for a thread, so that more busy partitions
/// than threads all get on.
const GROUPS_PER_SHIFT: usize = 64;

type Reply<T> = oneshot::Sender<Result<T, LogError>>;

pub(crate) enum Message {
    Append(Append),
    Trim {
        before: Offset,
        reply: Reply<Retained>,
    },
    Retain {
        floor: Offset,
        now: Timestamp,
        reply: Reply<Retained>,
    },
    /// Nothing is taken after it.
    Close {
        reply: Reply<()>,
    },
    /// The writer leaves, and what comes later waits for it to come back.
    Leave {
        reply: oneshot::Sender<Box<Writer>>,
    },
}

/// Why nothing is taken any more.
#[derive(Clone, Debug)]
pub(crate) enum Refusal {
    Unavailable(&'static str),
    Deleted(TopicName),
}

impl Refusal {
    fn error(&self) -> LogError {
        match self {
            Self::Unavailable(reason) => LogError::unavailable(*reason),
            Self::Deleted(topic) => LogError::UnknownTopic(topic.clone()),
        }
    }
}

pub(crate) struct Mailbox {
    max_queue_bytes: usize,
    max_group_bytes: usize,
    /// Of all partitions of the log.
    turns: Arc<Turns>,
    state: Mutex<State>,
}

struct State {
    waiting: VecDeque<Message>,
    /// Of appends that wait or are being written.
    bytes: usize,
    resting: Option<Box<Writer>>,
    closed: Option<Refusal>,
}

/// What the writer does next.
enum Work {
    Group(Vec<Append>),
    Other(Message),
}

impl Mailbox {
    pub(crate) fn new(writer: Writer, max_queue_bytes: usize, max_group_bytes: usize, turns: Arc<Turns>) -> Self {
        let state = State { waiting: VecDeque::new(), bytes: 0, resting: Some(Box::new(writer)), closed: None };
        Self { max_queue_bytes, max_group_bytes, turns, state: Mutex::new(state) }
    }

    /// Refuses what there is no room for, before anything of it is accepted.
    pub(crate) fn post(self: &Arc<Self>, message: Message) -> Result<(), LogError> {
        let mut state = self.lock();
        if let Some(refusal) = &state.closed {
            return Err(refusal.error());
        }
        if let Message::Append(append) = &message {
            if state.bytes + append.size_bytes > self.max_queue_bytes {
                return Err(LogError::unavailable(format!("{} bytes wait to be written already", state.bytes)));
            }
            state.bytes += append.size_bytes;
        }
        if matches!(message, Message::Close { .. }) {
            state.closed = Some(Refusal::Unavailable("the log is closed"));
        }
        state.waiting.push_back(message);
        if let Some(writer) = state.resting.take() {
            drop(state);
            Shift { mailbox: Arc::clone(self), writer: Some(writer) }.begin();
        }
        Ok(())
    }

    /// Takes the writer away once it has done what came before; nothing comes if it was lost.
    pub(crate) fn take_writer(self: &Arc<Self>) -> oneshot::Receiver<Box<Writer>> {
        let (reply, left) = oneshot::channel();
        // Where nothing is taken any more, no writer is at work.
        let _ = self.post(Message::Leave { reply });
        left
    }

    /// The writer goes on with what came meanwhile.
    pub(crate) fn give_back(self: &Arc<Self>, writer: Box<Writer>) {
        let mut state = self.lock();
        if state.waiting.is_empty() {
            state.resting = Some(writer);
            return;
        }
        drop(state);
        Shift { mailbox: Arc::clone(self), writer: Some(writer) }.begin();
    }

    /// Refuses what came since the writer was taken away, and all that comes.
    pub(crate) fn end(&self, refusal: Refusal) {
        let mut state = self.lock();
        let refused = std::mem::take(&mut state.waiting);
        state.bytes = 0;
        state.closed = Some(refusal.clone());
        drop(state);
        for message in refused {
            message.refuse(refusal.error());
        }
    }

    /// The next work, or `None` after the writer was laid to rest.
    fn next(&self, writer: &mut Option<Box<Writer>>) -> Option<Work> {
        let mut state = self.lock();
        let mut group = Vec::new();
        let mut group_bytes = 0;
        while let Some(Message::Append(append)) = state.waiting.front() {
            if !group.is_empty() && group_bytes + append.size_bytes > self.max_group_bytes {
                break;
            }
            group_bytes += append.size_bytes;
            let Some(Message::Append(append)) = state.waiting.pop_front() else { break };
            group.push(append);
        }
        if !group.is_empty() {
            return Some(Work::Group(group));
        }
        let other = state.waiting.pop_front();
        if other.is_none() {
            state.resting = writer.take();
        }
        other.map(Work::Other)
    }

    /// Frees the room of what was written, and lays the writer to rest if nothing waits.
    fn settle(&self, n_bytes: usize, writer: &mut Option<Box<Writer>>) -> bool {
        let mut state = self.lock();
        state.bytes -= n_bytes;
        if state.waiting.is_empty() {
            state.resting = writer.take();
        }
        writer.is_none()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A writer at work.
struct Shift {
    mailbox: Arc<Mailbox>,
    writer: Option<Box<Writer>>,
}

impl Shift {
    fn begin(self) {
        spawn_blocking(move || self.work());
    }

    fn work(mut self) {
        let turns = Arc::clone(&self.mailbox.turns);
        for _ in 0..GROUPS_PER_SHIFT {
            // Before the group is taken: what comes meanwhile is part of it.
            let turn = turns.wait();
            let Some(work) = self.mailbox.next(&mut self.writer) else { return };
            let turn = matches!(work, Work::Group(_)).then_some(turn);
            let work = match work {
                Work::Other(Message::Leave { reply }) => return self.leave(reply),
                work => work,
            };
            let writer = self.writer.as_mut().expect("a shift that has work has its writer");
            let (n_bytes, answer) = work.perform(writer);
            drop(turn);
            // First the room is free and the writer at rest if nothing waits, then the answers
            // go out: who hears of an append may count on both.
            let is_done = self.mailbox.settle(n_bytes, &mut self.writer);
            if is_done {
                drop(self);
                return answer();
            }
            answer();
        }
        self.begin();
    }

    fn leave(mut self, reply: oneshot::Sender<Box<Writer>>) {
        let writer = self.writer.take().expect("a shift that has work has its writer");
        let mailbox = Arc::downgrade(&self.mailbox);
        // Who has the writer may count on nothing here holding the folder any more.
        drop(self);
        if let Err(writer) = reply.send(writer)
            && let Some(mailbox) = mailbox.upgrade()
        {
            mailbox.give_back(writer);
        }
    }
}

impl Message {
    fn refuse(self, error: LogError) {
        // A caller that no longer waits need not hear of it.
        match self {
            Self::Append(append) => drop(append.reply.send(Err(error))),
            Self::Trim { reply, .. } | Self::Retain { reply, .. } => drop(reply.send(Err(error))),
            Self::Close { reply } => drop(reply.send(Err(error))),
            Self::Leave { reply } => drop(reply),
        }
    }
}

impl Work {
    /// Gives the bytes that were written, and what tells the callers.
    fn perform(self, writer: &mut Writer) -> (usize, Box<dyn FnOnce()>) {
        fn answer<T: 'static>(reply: Reply<T>, result: Result<T, LogError>) -> (usize, Box<dyn FnOnce()>) {
            (0, Box::new(move || drop(reply.send(result))))
        }
        match self {
            Self::Group(group) => {
                let n_bytes = group.iter().map(|a| a.size_bytes).sum();
                let replies = writer.append(group);
                (n_bytes, Box::new(move || replies.send()))
            }
            Self::Other(Message::Trim { before, reply }) => answer(reply, writer.trim(before)),
            Self::Other(Message::Retain { floor, now, reply }) => answer(reply, writer.retain(floor, now)),
            Self::Other(Message::Close { reply }) => answer(reply, writer.close()),
            Self::Other(Message::Append(_) | Message::Leave { .. }) => {
                unreachable!("appends come in groups, and who leaves is not at work")
            }
        }
    }
}

impl Drop for Shift {
    /// A writer that did not come to rest was lost to a panic or to the end of the runtime:
    /// what it had half done is unknown, so nothing more is taken until the next start.
    fn drop(&mut self) {
        if self.writer.is_some() {
            let mut state = self.mailbox.lock();
            state.closed = Some(Refusal::Unavailable("the partition's writer was lost; restart the process"));
            state.waiting.clear(); // who waits sees the reply dropped
        }
    }
}
