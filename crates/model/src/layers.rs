//! What whoever deletes a topic asks of the layers that take it.

use std::time::Duration;

use async_trait::async_trait;

use crate::position::TopicName;

/// The layers that take records out of the log in this process.
#[async_trait]
pub trait Layers: Send + Sync {
    /// Has them take what a topic holds without waiting for more of it, and returns once all of it is
    /// in places that outlive the topic: with the sum of the ends up to which that is so. A topic that
    /// is not there has nothing to be taken.
    async fn take(&self, topic: &TopicName, patience: Duration) -> Result<u64, Behind>;
}

/// They did not come to its end in that time.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Behind(pub String);
