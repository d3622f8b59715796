//! Any text as a settings file, and as the value of a variable: read or refused with a reason.

#![no_main]

use libfuzzer_sys::fuzz_target;
use model::config::Config;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let (file, variable) = text.split_once('\0').unwrap_or((&text, ""));
    let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
    let environment = [(format!("CORKBOARD__{name}"), value.to_owned())];
    match Config::load(Some(("fuzzed.toml", file)), environment.into_iter()) {
        Ok(config) => config.check("fuzzed.toml").expect("what was loaded was checked"),
        Err(refusal) => assert!(!refusal.problem.is_empty()),
    }
});
