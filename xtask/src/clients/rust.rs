//! AWS's SDK for Rust, which takes minutes to build.

use anyhow::Result;

use super::entrance::Entrance;
use crate::{process, workspace};

pub(super) fn run(entrance: &Entrance) -> Result<()> {
    let mut cargo = workspace::cargo();
    cargo.args(["run", "--locked", "--quiet", "--manifest-path", "tests/clients/rust/Cargo.toml", "--", &entrance.url]);
    // Apart from the product's: it is another workspace, with dependencies in other versions.
    process::run(entrance.let_in(&mut cargo).env("CARGO_TARGET_DIR", workspace::cache_folder()?.join("clients-rust")))
}
