//! The log from outside: the contract, crashes, failures, damage.

#![allow(clippy::unwrap_used)]

mod beside;
mod conformance;
mod damage;
mod faults;
mod kill;
mod lifecycle;
mod power;
mod sim;
mod support;
