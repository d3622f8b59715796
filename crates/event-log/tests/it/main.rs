//! The log from outside: the contract, crashes, failures, damage.

#![allow(clippy::unwrap_used)]

mod conformance;
mod support;
