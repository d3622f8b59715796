//! Starts tasks by period, cron, log signal and `after`; keeps their status and history.
//!
//! A wake-up carries no data (I2): it says "look again", and the task asks the stores what
//! there is to do. So wake-ups may coalesce, and a lost process loses none of the work.

mod history;
mod schedule;

mod driver;

pub use driver::{Driver, Handle, RunNowError};
pub(crate) use history::is_level;
pub use history::{Outcome, Run, State, TaskStatus, Wake};
pub use schedule::check;
