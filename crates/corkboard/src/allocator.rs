//! How long the allocator keeps memory that is free, where it should differ from what is compiled in
//! (`.cargo/config.toml`).

use tikv_jemalloc_ctl::{Access, AsName, arenas};

const KEPT_MS: isize = 5000;

/// For a process that does one piece of work and ends: what it frees, it needs again in a moment. Given back
/// to the system in between, it costs a batch run a fifth more time in the kernel.
pub fn keep_free_memory() {
    let narenas = arenas::narenas::read().unwrap_or(0);
    let those_there_are = (0..narenas).map(|i| format!("arena.{i}.dirty_decay_ms\0"));
    for name in those_there_are.chain(["arenas.dirty_decay_ms\0".to_owned()]) {
        // An arena that nobody has used yet cannot be set, and begins as the last of these says.
        if let Err(e) = name.name().write(KEPT_MS) {
            tracing::debug!("the allocator does not take {}: {e}", name.trim_end_matches('\0'));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_arena_keeps_its_free_memory_for_longer() {
        keep_free_memory();
        let kept: isize = "arenas.dirty_decay_ms\0".name().read().expect("jemalloc is linked");
        assert_eq!(kept, KEPT_MS);
        let n = arenas::narenas::read().expect("jemalloc is linked");
        let those_in_use = (0..n).filter_map(|i| format!("arena.{i}.dirty_decay_ms\0").name().read().ok());
        let kept: Vec<isize> = those_in_use.collect();
        assert!(!kept.is_empty() && kept.iter().all(|ms| *ms == KEPT_MS), "{kept:?}");
    }
}
