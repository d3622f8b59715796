//! Where things lie: the workspace, cargo's output, the cache, the real rows.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::process;

/// The folder of the workspace's `Cargo.toml`.
///
/// Asked of the cargo that runs this: checkouts that share a target folder share this binary.
pub(crate) fn root() -> PathBuf {
    let of_xtask = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&of_xtask).parent().expect("xtask is a folder of the workspace").to_owned()
}

/// `cargo` as the one that runs this, in the workspace's folder.
///
/// What the outer cargo tells of xtask is taken away: build scripts of dependencies ask for
/// these variables, and with other values most of the workspace would be built a second time.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        let is_of_xtask = |name: &str| {
            name.starts_with("CARGO_PKG_")
                || matches!(name, "CARGO_MANIFEST_DIR" | "CARGO_MANIFEST_PATH" | "CARGO_PRIMARY_PACKAGE")
                || matches!(name, "CARGO_BIN_NAME" | "CARGO_CRATE_NAME" | "OUT_DIR")
        };
        if name.to_str().is_some_and(is_of_xtask) {
            cargo.env_remove(name);
        }
    }
    cargo.current_dir(root());
    cargo
}

/// Where cargo puts what it builds.
pub(crate) fn target_folder() -> Result<PathBuf> {
    let metadata = process::output(cargo().args(["metadata", "--no-deps", "--format-version=1"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata).context("read cargo's metadata")?;
    let folder = metadata["target_directory"].as_str().context("cargo's metadata names no target_directory")?;
    Ok(folder.into())
}

/// What may be deleted at any time and is made again.
pub(crate) fn cache_folder() -> Result<PathBuf> {
    let cache = match env::var_os("XDG_CACHE_HOME").filter(|folder| !folder.is_empty()) {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?).join(".cache"),
    };
    Ok(cache.join("corkboard"))
}

/// Rows of the source database, which are other people's and therefore not part of the
/// project: where CORKBOARD_REAL_ROWS says.
pub(crate) fn real_rows() -> Option<PathBuf> {
    // Tests run in the folders of their crates, so that a relative path would mislead them.
    let folder = PathBuf::from(env::var_os("CORKBOARD_REAL_ROWS")?).canonicalize().ok()?;
    folder.join("pin.jsonl").is_file().then_some(folder)
}
