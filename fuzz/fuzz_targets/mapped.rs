//! Any request to a gateway's mapping templates, and any pin; see `src/mapped.rs`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| corkboard_fuzz::mapped::check(data));
