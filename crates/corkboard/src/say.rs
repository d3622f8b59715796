//! Standard output: the result, for people and for the next program. When nobody reads it any more
//! (`… | head`), the command ends, quietly.

use std::{
    fmt,
    io::{self, Write},
};

use anyhow::Result;

/// Not a failure: whoever asked has seen enough.
#[derive(Debug)]
pub struct NobodyReads;

impl fmt::Display for NobodyReads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nobody reads standard output any more")
    }
}

impl std::error::Error for NobodyReads {}

/// A line, as `println!` has it.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::say::text(&format!("{}\n", format_args!($($text)*)))
    };
}

pub(crate) use say;

pub fn text(text: &str) -> Result<()> {
    bytes(text.as_bytes())
}

pub fn bytes(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Err(NobodyReads.into()),
        written => Ok(written?),
    }
}
