//! The engine: cleaning, landing, the batch, speed and serving layers, and their tables.
//! Only here are DataFusion and Delta named (I7).
//!
//! The order of the modules is the order of floors.

pub mod store;

pub mod haste;

pub mod landing;

pub mod functions;

pub mod decode;

pub mod cleaning;

pub mod session;

pub mod identity;

mod filter;

pub mod counted;

pub mod relation;

pub mod definitions;

pub mod table;

pub mod split;

pub mod fold;

pub mod mergeable;

mod standing;

pub mod sink;

pub mod rows;

pub mod batch;

pub mod serving;

pub mod speed;

pub mod taken;

pub mod maintain;
