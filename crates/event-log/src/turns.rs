//! Whose turn it is to commit. Where much is under way and a disk syncs quickly, partitions that
//! commit all at once only take each other's processors: one after the other, each has more to write
//! by the time it may.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

/// Nobody waits longer for the others: slow disks sync many files in the time that they take for one,
/// and one slow file must not hold up the rest.
const PATIENCE: Duration = Duration::from_micros(500);
/// From so many appends on, waiting makes groups larger.
const MANY: usize = 16;

#[derive(Default)]
pub(crate) struct Turns {
    /// Each append of any partition that is waited for has one, beside this.
    under_way: UnderWay,
    state: Mutex<State>,
}

/// Counts for as long as it lives.
pub(crate) type UnderWay = Arc<()>;

#[derive(Default)]
struct State {
    is_taken: bool,
    /// Who came first is called first.
    waiting: VecDeque<Arc<Waiter>>,
}

struct Waiter {
    thread: Thread,
    is_called: AtomicBool,
}

impl Waiter {
    fn is_called(&self) -> bool {
        self.is_called.load(Ordering::Acquire)
    }
}

/// Passed on to the next who waits when it is dropped, unless its owner went without one.
pub(crate) struct Turn<'t>(Option<&'t Turns>);

impl Turns {
    pub(crate) fn under_way(&self) -> UnderWay {
        Arc::clone(&self.under_way)
    }

    /// Blocks until the others before have had their turns, or for as long as anybody is waited for.
    pub(crate) fn wait(&self) -> Turn<'_> {
        if Arc::strong_count(&self.under_way) - 1 < MANY {
            return Turn(None);
        }
        self.wait_in_line()
    }

    fn wait_in_line(&self) -> Turn<'_> {
        let mut state = self.lock();
        if !state.is_taken {
            state.is_taken = true;
            return Turn(Some(self));
        }
        let waiter = Arc::new(Waiter { thread: thread::current(), is_called: AtomicBool::new(false) });
        state.waiting.push_back(Arc::clone(&waiter));
        drop(state);
        let begin = Instant::now();
        while !waiter.is_called() {
            let Some(left) = PATIENCE.checked_sub(begin.elapsed()) else {
                let mut state = self.lock();
                if waiter.is_called() {
                    break; // just now
                }
                state.waiting.retain(|other| !Arc::ptr_eq(other, &waiter));
                return Turn(None);
            };
            thread::park_timeout(left);
        }
        Turn(Some(self))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let Some(turns) = self.0 else { return };
        let mut state = turns.lock();
        match state.waiting.pop_front() {
            Some(next) => {
                next.is_called.store(true, Ordering::Release);
                drop(state);
                next.thread.unpark();
            }
            None => state.is_taken = false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn nobody_waits_while_few_appends_are_under_way() {
        let turns = Turns::default();
        let _held = turns.wait_in_line();
        let mut appends: Vec<_> = (1..MANY).map(|_| turns.under_way()).collect();
        let waited = |turns: &Turns| {
            let begin = Instant::now();
            drop(turns.wait());
            begin.elapsed() >= PATIENCE
        };
        // Being slow by chance looks like waiting, but hardly every time.
        assert!((0..20).any(|_| !waited(&turns)));
        appends.push(turns.under_way());
        assert!((0..20).all(|_| waited(&turns)));
        appends.pop();
        assert!((0..20).any(|_| !waited(&turns)));
    }

    #[test]
    fn who_waits_is_called_in_order() {
        let turns = Turns::default();
        let first = turns.wait_in_line();
        // As if two had come; the thread that is called is this one.
        let waiters = [0, 1].map(|_| {
            let waiter = Arc::new(Waiter { thread: thread::current(), is_called: AtomicBool::new(false) });
            turns.lock().waiting.push_back(Arc::clone(&waiter));
            waiter
        });
        drop(first);
        assert_eq!(waiters.each_ref().map(|w| w.is_called()), [true, false]);
        drop(Turn(Some(&turns)));
        assert_eq!(waiters.each_ref().map(|w| w.is_called()), [true, true]);
        drop(Turn(Some(&turns)));
        assert!(!turns.lock().is_taken, "the last turn was given back");
    }

    #[test]
    fn two_never_have_the_turn_at_once_and_everybody_gets_on() {
        const N_TURNS: usize = 500;
        let turns = Turns::default();
        let is_held = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..N_TURNS {
                        let turn = turns.wait_in_line();
                        if turn.0.is_some() {
                            assert!(!is_held.swap(true, Ordering::SeqCst), "somebody else has the turn");
                            thread::yield_now();
                            is_held.store(false, Ordering::SeqCst);
                        }
                    }
                });
            }
        });
        let state = turns.lock();
        assert!(!state.is_taken && state.waiting.is_empty());
    }

    #[test]
    fn a_turn_that_takes_long_is_not_waited_for() {
        let turns = Turns::default();
        let slow = turns.wait_in_line();
        let (went, waits) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| went.send(turns.wait_in_line().0.is_none()));
            assert_eq!(waits.recv_timeout(Duration::from_secs(60)), Ok(true), "it goes without a turn");
        });
        assert!(turns.lock().waiting.is_empty(), "nobody calls who has left");
        drop(slow);
        assert!(turns.wait_in_line().0.is_some());
    }
}
