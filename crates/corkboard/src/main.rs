//! `corkboard`: see `cli`.

use std::process::ExitCode;

/// Threads that hand batches to each other leave glibc's allocator with half as much memory again,
/// which it takes from the kernel and gives back all the time.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    corkboard::cli::main()
}
