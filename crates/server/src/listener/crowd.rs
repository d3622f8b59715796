//! The connections that are open, at most so many. When all places are taken, the connection that
//! has waited for a request the longest gives way to a new one: a crowd that only waits would
//! otherwise keep everybody out. Whoever is being answered keeps the place.

use std::{cmp::Reverse, collections::HashMap, future::Future, sync::Arc};

use tokio::{
    task::{Id, JoinError, JoinSet},
    time::Instant,
};

use super::activity::Activity;

pub(super) struct Crowd {
    max_connections: usize,
    tasks: JoinSet<()>,
    activities: HashMap<Id, Arc<Activity>>,
    /// Found expendable at the last look, and since when; the longest last. Who becomes expendable after
    /// that is so for a shorter time, so that the next look is due when these are gone, and each newcomer
    /// of a flood does not cost a look of its own.
    expendable: Vec<(Instant, Id)>,
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
        while let Some((since, id)) = self.expendable.pop() {
            // It may have ended or served a request since it was found.
            if let Some(activity) = self.activities.get(&id)
                && activity.expendable_since() == Some(since)
            {
                activity.ask_to_give_way();
                return true;
            }
        }
        false
    }

    fn find_expendable(&mut self) {
        self.expendable.extend(self.activities.iter().filter_map(|(id, it)| Some((it.expendable_since()?, *id))));
        self.expendable.sort_unstable_by_key(|(since, _)| Reverse(*since));
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
