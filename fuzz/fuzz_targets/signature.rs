//! Any signed request; see `src/signature.rs`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| corkboard_fuzz::signature::check(data));
