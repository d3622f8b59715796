//! The engine at its boundaries.

#![allow(clippy::unwrap_used)]

mod cleaning;
mod landing;
mod sink;
mod store;
