//! How long a newcomer waits: the release build into an empty folder, with dependencies already
//! downloaded; and the build after an edit in `server`.

use std::{fs, process::Command};

use anyhow::{Context, Result};
use serde_json::json;

use super::{
    Arguments,
    figures::{Figures, GOAL, goal},
    scratch::Scratch,
    usage::{self, Usage},
};
use crate::{process, workspace};

/// What the edit touches.
const EDITED: &str = "crates/server/src/lib.rs";

pub(super) fn run(_: &Arguments) -> Result<Figures> {
    process::run(workspace::cargo().args(["fetch", "--locked"]))?;
    let scratch = Scratch::new("build")?;
    let build = || {
        let mut cargo: Command = workspace::cargo();
        cargo.args(["build", "--release", "--locked", "--target-dir"]).arg(&*scratch);
        Ok::<_, anyhow::Error>(usage::of(&mut cargo)?.0)
    };
    let cold = build()?;
    let edited = workspace::root().join(EDITED);
    let text = fs::read(&edited).with_context(|| format!("read {EDITED}"))?;
    // Cargo looks at the time of a file's last change alone.
    fs::write(&edited, text).with_context(|| format!("touch {EDITED}"))?;
    let again = build()?;

    let mut figures = Figures::new(&["what", "seconds", "cpu_seconds", GOAL]);
    for (what, Usage { seconds, cpu_seconds, .. }, name, most) in
        [("cold", cold, "≤ 20 min", 1200.0), ("after an edit in server", again, "≤ 60 s", 60.0)]
    {
        figures.push([json!(what), json!(seconds), json!(cpu_seconds), goal(name, seconds <= most)]);
    }
    Ok(figures)
}
