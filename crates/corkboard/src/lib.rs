//! The binary's parts: commands, wiring, the emulator. Only here do the concrete log, engine
//! and server meet (I7).
//!
//! The order of the modules is the order of floors.

mod allocator;

mod say;

pub mod progress;

pub mod shutdown;

pub mod telemetry;

mod background;

pub mod data;

pub mod emulate;

pub mod show;

pub mod inspect;

pub mod keys;

pub mod init;

pub mod app;

pub mod demo;

pub mod cli;
