//! The Python environment of `tests/reference`: made once per list of requirements, outside
//! the checkout, and used by every test that wants a second opinion.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{process, workspace};

const REQUIREMENTS: &str = "tests/reference/requirements.txt";

/// Written last, so that an environment whose making was interrupted is made again.
const COMPLETE: &str = "complete";

/// The interpreter with the requirements installed: CORKBOARD_PYTHON if it is set.
pub(crate) fn interpreter() -> Result<PathBuf> {
    if let Some(python) = env::var_os("CORKBOARD_PYTHON") {
        return Ok(python.into());
    }
    let requirements = workspace::root().join(REQUIREMENTS);
    let listed = fs::read(&requirements).with_context(|| format!("read {}", requirements.display()))?;
    let cache = workspace::cache_folder()?;
    fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;

    let lock = cache.join("venv.lock");
    let lock = File::create(&lock).with_context(|| format!("open {}", lock.display()))?;
    lock.lock().context("wait for another run that prepares the Python environment")?;
    let folder = cache.join(format!("venv-{:016x}", fnv1a(&listed)));
    if !folder.join(COMPLETE).is_file() {
        make(&folder, &requirements)?;
    }
    Ok(python_of(&folder))
}

fn make(folder: &Path, requirements: &Path) -> Result<()> {
    println!("preparing the Python packages of {REQUIREMENTS} in {} (once)", folder.display());
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    process::run(Command::new("python3").args(["-m", "venv"]).arg(folder))
        .context("the tests compare with DuckDB in Python: install python3 with its venv module")?;
    process::run(
        Command::new(python_of(folder))
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"])
            .arg(requirements),
    )?;
    fs::write(folder.join(COMPLETE), "").context("mark the Python environment as complete")
}

fn python_of(folder: &Path) -> PathBuf {
    folder.join("bin").join("python")
}

/// FNV-1a: the same on every machine and with every compiler, which std's hasher is not.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::fnv1a;

    #[test]
    fn the_hash_is_fnv1a() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
