//! The durable partitioned log: in a folder of this machine in Kafka's own on-disk format, in
//! memory, and read-only beside a running writer. `conformance` is the suite they all pass.
//!
//! Only this crate knows a log format (I7). The order of the modules is the order of floors.

pub mod fs;

mod files;
mod format;

mod mark;
mod quarantine;
mod segment;
mod turns;
mod walk;

mod partition;

mod writer;

mod mailbox;
mod recovery;

mod topics;

mod meta;

mod folders;

mod embedded;

mod read_only;

mod memory;

pub mod conformance;
pub mod inspect;

pub use embedded::{EmbeddedLog, OpenError};
pub use mark::Mark;
pub use memory::MemoryLog;
pub use quarantine::Quarantined;
pub use read_only::{ReadOnlyLog, open_read_only};
pub use writer::Retained;
