//! Any body of Kafka REST v3, in pieces of any size; see `src/v3.rs`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| corkboard_fuzz::v3::check(data));
