//! The engine at its boundaries. `flaky`, `pipeline` and `random` are what the tests are written
//! with.

#![allow(clippy::unwrap_used)]

mod flaky;
mod pipeline;
mod random;

mod cleaning;
mod deleted;
mod exactly_once;
mod landing;
mod layers;
mod session;
mod shared;
mod sink;
mod standing;
mod store;
