//! The binary's integration tests: the program as its users start it, over its command line
//! and its sockets, and the emulator against a server of its own.
//!
//! `http`, `process`, `pipeline`, `answers`, `posts` and `random` are what the tests are written with.

#![allow(clippy::unwrap_used)]

mod http;

mod process;

mod pipeline;

mod answers;

mod posts;

mod random;

mod bad_input;

mod command_line;

mod deleted;

mod delta;

mod emulate;

mod exposure;

mod generated;

mod golden;

mod kill_loop;

mod merged;
