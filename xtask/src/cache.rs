//! What is fetched or made once per list that asks for it, outside the checkout, and kept.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::workspace;

/// Written last, so that a folder whose making was interrupted is made again.
const COMPLETE: &str = "complete";

/// The folder called after `name` and the content of `list` (a path in the workspace), made by
/// `make` if it is not there yet.
pub(crate) fn prepared(name: &str, list: &str, make: impl FnOnce(&Path, &Path) -> Result<()>) -> Result<PathBuf> {
    let list = workspace::root().join(list);
    let listed = fs::read(&list).with_context(|| format!("read {}", list.display()))?;
    let cache = workspace::cache_folder()?;
    fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;

    let lock = cache.join(format!("{name}.lock"));
    let lock = File::create(&lock).with_context(|| format!("open {}", lock.display()))?;
    lock.lock().with_context(|| format!("wait for another run that prepares {name}"))?;
    let folder = cache.join(format!("{name}-{:016x}", fnv1a(&listed)));
    if !folder.join(COMPLETE).is_file() {
        eprintln!("preparing {} from {} (once)", folder.display(), list.display());
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
        }
        make(&folder, &list)?;
        fs::write(folder.join(COMPLETE), "").with_context(|| format!("mark {} as complete", folder.display()))?;
    }
    Ok(folder)
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
