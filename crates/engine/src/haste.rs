//! Topics that layers are to take at once, without waiting for more of them: somebody wants to delete
//! them. It is a wish and carries no data (I2): a layer that does not hear of it comes to the same
//! place, later.

use std::sync::{Arc, PoisonError, RwLock};

use model::TopicName;

/// Shared by who wishes and by the layers of one process.
#[derive(Clone, Debug, Default)]
pub struct Haste(Arc<RwLock<Vec<TopicName>>>);

/// One wish; it holds as long as this lives.
#[derive(Debug)]
pub struct Hurried {
    haste: Haste,
    topic: TopicName,
}

impl Haste {
    pub fn with(&self, topic: &TopicName) -> Hurried {
        self.0.write().unwrap_or_else(PoisonError::into_inner).push(topic.clone());
        Hurried { haste: self.clone(), topic: topic.clone() }
    }

    /// Whether somebody waits for the topic.
    pub fn is_with(&self, topic: &TopicName) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(topic)
    }
}

impl Drop for Hurried {
    fn drop(&mut self) {
        let mut topics = self.haste.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = topics.iter().position(|topic| *topic == self.topic) {
            topics.swap_remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn haste_lasts_as_long_as_anybody_waits() {
        let haste = Haste::default();
        let topic: TopicName = "t".parse().expect("a valid name");
        let wishes = [haste.with(&topic), haste.clone().with(&topic)];
        for wish in wishes {
            assert!(haste.is_with(&topic));
            assert!(!haste.is_with(&"u".parse().expect("a valid name")));
            drop(wish);
        }
        assert!(!haste.is_with(&topic));
    }
}
