//! Python environments: made once per list of requirements, outside the checkout. That of
//! `tests/reference` is used by every test that wants a second opinion.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{cache, process};

const REQUIREMENTS: &str = "tests/reference/requirements.txt";

/// The interpreter with the requirements installed: CORKBOARD_PYTHON if it is set.
pub(crate) fn interpreter() -> Result<PathBuf> {
    match env::var_os("CORKBOARD_PYTHON") {
        Some(python) => Ok(python.into()),
        None => Ok(python_of(&environment(REQUIREMENTS)?)),
    }
}

/// The folder of an environment with these requirements installed; its programs are in `bin`.
pub(crate) fn environment(requirements: &str) -> Result<PathBuf> {
    cache::prepared("venv", requirements, make)
}

fn make(folder: &Path, requirements: &Path) -> Result<()> {
    process::run(Command::new("python3").args(["-m", "venv"]).arg(folder))
        .context("the tests need Python: install python3 with its venv module")?;
    process::run(
        Command::new(python_of(folder))
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"])
            .arg(requirements),
    )
}

pub(crate) fn python_of(folder: &Path) -> PathBuf {
    folder.join("bin").join("python")
}
