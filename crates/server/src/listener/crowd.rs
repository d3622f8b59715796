//! The connections that are open, at most so many. When all places are taken, the connection that
//! has waited for a request the longest gives way to a new one: a crowd that only waits would
//! otherwise keep everybody out. Whoever is being answered keeps the place.

use std::{collections::HashMap, future::Future, sync::Arc};

use tokio::{
    task::{Id, JoinError, JoinSet},
    time::Instant,
};

use super::activity::Activity;

/// One look at all connections finds so many that may give way, so that each newcomer of a flood
/// does not cost a look of its own.
const FOUND_AT_ONCE: usize = 64;

pub(super) struct Crowd {
    max_connections: usize,
    tasks: JoinSet<()>,
    activities: HashMap<Id, Arc<Activity>>,
    /// Found expendable, and since when; the longest last.
    expendable: Vec<(Instant, Arc<Activity>)>,
}

impl Crowd {
    pub(super) fn new(max_connections: usize) -> Self {
        Self { max_connections, tasks: JoinSet::new(), activities: HashMap::new(), expendable: Vec::new() }
    }

    pub(super) fn is_full(&self) -> bool {
        self.tasks.len() >= self.max_connections
    }

    /// There must be a place.
    pub(super) fn admit(&mut self, activity: Arc<Activity>, connection: impl Future<Output = ()> + Send + 'static) {
        debug_assert!(!self.is_full(), "connections are admitted to free places");
        let task = self.tasks.spawn(connection);
        self.activities.insert(task.id(), activity);
    }

    /// Asks one connection to give way, if there is any that can be spared.
    pub(super) fn make_room(&mut self) {
        if self.ask_found() {
            return;
        }
        self.find_expendable();
        self.ask_found();
    }

    fn ask_found(&mut self) -> bool {
        while let Some((since, activity)) = self.expendable.pop() {
            // It may have served a request since it was found.
            if activity.expendable_since() == Some(since) {
                activity.ask_to_give_way();
                return true;
            }
        }
        false
    }

    fn find_expendable(&mut self) {
        let with_time = |activity: &Arc<Activity>| Some((activity.expendable_since()?, activity.clone()));
        self.expendable = self.activities.values().filter_map(with_time).collect();
        self.expendable.sort_unstable_by(|(a, _), (b, _)| b.cmp(a));
        let n_others = self.expendable.len().saturating_sub(FOUND_AT_ONCE);
        self.expendable.drain(..n_others);
    }

    /// The next connection that ended; None when there is none.
    pub(super) async fn ended(&mut self) -> Option<Result<(), JoinError>> {
        let ended = self.tasks.join_next_with_id().await?;
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, ())| *id);
        self.activities.remove(&id);
        Some(ended.map(|_| ()))
    }

    pub(super) fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Cuts all of them off.
    pub(super) async fn shutdown(&mut self) {
        self.tasks.shutdown().await;
    }
}
