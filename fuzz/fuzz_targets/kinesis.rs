//! Any calls of the Kinesis protocol, in JSON and CBOR; see `src/kinesis.rs`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| corkboard_fuzz::kinesis::check(data));
