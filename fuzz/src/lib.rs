//! What the fuzz targets of the doors do with their input. The targets themselves are a line each; the
//! tests of `server` compile this file too (`crates/server/tests/it/fuzz.rs`) and play the seeds in
//! every test run, so that neither can rot.
//!
//! Every input begins at the same state, in a log in memory, and goes through the whole router: what a
//! fuzzer finds is found again from its bytes alone.

mod cbor;
mod door;

pub mod consumers;
pub mod kinesis;
pub mod mapped;
pub mod marks;
pub mod produce;
pub mod signature;
pub mod v3;
