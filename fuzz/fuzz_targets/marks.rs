//! Any marks of requests with a key in the log; see `src/marks.rs`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| corkboard_fuzz::marks::check(data));
