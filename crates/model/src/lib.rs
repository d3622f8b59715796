//! The vocabulary of Corkboard: records, positions, definitions, settings and the traits
//! through which the other crates meet. No I/O happens here.
//!
//! The order of the modules is the order of floors: a module names only those above it.

pub mod record;

pub mod position;

pub mod partitioner;

pub mod stream;

pub mod view;

pub mod log;

pub mod layers;

pub mod task;

pub mod query;

pub mod config;

pub use layers::{Behind, Layers};
pub use log::{Ended, EventLog, LogDescription, LogError, TopicChange};
pub use position::{Bounds, Checkpoint, LogId, Offset, OffsetRange, TopicName, TopicPartition};
pub use query::{Answer, Query, QueryError};
pub use record::{Header, Record, StoredRecord, Timestamp};
pub use stream::{Dedup, StreamDef};
pub use task::{Report, Stop, Task};
pub use view::{Scope, ViewDef};
