//! Any calls of Kafka REST v2 to a group of consumers; see `src/consumers.rs`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| corkboard_fuzz::consumers::check(data));
