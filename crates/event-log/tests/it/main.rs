//! The log from outside: the contract, crashes, failures, damage.

#![allow(clippy::unwrap_used)]

mod beside;
mod conformance;
mod damage;
mod faults;
mod kill;
mod ledger;
mod lifecycle;
mod model_based;
mod power;
mod power_cut;
mod rot;
mod sim;
mod support;
mod topics;
mod volume;
