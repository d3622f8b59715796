//! The engine at its boundaries. `flaky` and `pipeline` are what the tests are written with.

#![allow(clippy::unwrap_used)]

mod flaky;
mod pipeline;

mod cleaning;
mod landing;
mod layers;
mod sink;
mod store;
