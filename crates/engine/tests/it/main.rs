//! The engine at its boundaries.

mod landing;
mod store;
