//! What a run of tests says of the code: read from the lines that Rust's test harness writes.

use std::process::ExitStatus;

use anyhow::{Result, bail};

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Passed {
        n_tests: usize,
    },
    /// The first test that failed.
    Failed(String),
}

/// What `timeout` ends with when time is up.
const TIMED_OUT: i32 = 124;

impl Verdict {
    pub(super) fn read(said: &str, status: ExitStatus) -> Result<Self> {
        if status.code() == Some(TIMED_OUT) {
            bail!("its tests do not end");
        }
        let failed = said.lines().find_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"));
        match failed {
            Some(test) => Ok(Self::Failed(test.to_owned())),
            None if status.success() => Ok(Self::Passed { n_tests: said.lines().filter_map(n_passed).sum() }),
            None => bail!("its tests end with {status}, and none is said to have failed:\n{said}"),
        }
    }
}

fn n_passed(line: &str) -> Option<usize> {
    line.strip_prefix("test result: ok. ")?.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn the_harness_is_understood() {
        let status = |code: i32| ExitStatus::from_raw(code << 8);
        let ok = "test result: ok. 2 passed; 0 failed\n\ntest result: ok. 0 passed; 0 failed\n";
        assert_eq!(Verdict::read(ok, status(0)).expect("it ended"), Verdict::Passed { n_tests: 2 });
        let failed = "test a::b ... ok\ntest a::c ... FAILED\ntest d ... FAILED\ntest result: FAILED. 1 passed\n";
        assert_eq!(Verdict::read(failed, status(101)).expect("it ended"), Verdict::Failed("a::c".to_owned()));
        assert!(Verdict::read("test a ... ", status(101)).is_err());
        assert!(Verdict::read(ok, status(TIMED_OUT)).is_err());
    }
}
