//! Any body of a produce request, in each format; see `src/produce.rs`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| corkboard_fuzz::produce::check(data));
