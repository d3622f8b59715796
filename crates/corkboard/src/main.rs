//! `corkboard`: see `cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    corkboard::cli::main()
}
