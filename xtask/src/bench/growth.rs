//! How the batch job's time grows with the number of posts: a hundred times as many, in two steps,
//! and the exponent of the power law that fits.

use std::fs;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{
    Arguments, batch,
    figures::{Figures, GOAL, goal},
    posts::{Posts, landing::Landed},
    scratch::Scratch,
    spread::exponent,
    usage,
};
use crate::server;

/// The most posts; the others are a tenth and a hundredth of it.
const POSTS: u64 = 10_000_000;
const PARTS: [u64; 3] = [100, 10, 1];
const REPEATS: usize = 3;

pub(super) fn run(arguments: &Arguments) -> Result<Figures> {
    let binary = server::binary(arguments.binary.as_deref())?;
    let posts = Posts::from_emulator(&binary)?;
    let scratch = Scratch::new("growth")?;
    let n_repeats = arguments.repeats(REPEATS);
    let mut figures = Figures::new(&["posts", "n_runs", "seconds", "cpu_seconds", "peak_mib", GOAL]);
    let (mut landed, mut n_landed) = (Landed::default(), 0);
    let (mut seconds, mut cpu_seconds) = (Vec::new(), Vec::new());
    for part in PARTS {
        let n_posts = (arguments.posts(POSTS) / part).max(1);
        landed.land(&posts, n_landed..n_posts, &scratch.join("landing"))?;
        n_landed = n_posts;
        let mut runs = Vec::new();
        // The longest run is long enough by itself.
        for _ in 0..if part == 1 { 1 } else { n_repeats } {
            runs.push(batch::batch_run(&binary, &scratch)?);
            fs::remove_dir_all(scratch.join("tables")).context("remove the tables of a run")?;
        }
        let middle = usage::middle(&runs);
        seconds.push((n_posts as f64, middle.seconds));
        cpu_seconds.push((n_posts as f64, middle.cpu_seconds));
        let took = [middle.seconds, middle.cpu_seconds, middle.peak_mib].map(Value::from);
        figures.push([vec![json!(n_posts), json!(runs.len())], took.into(), vec![Value::Null]].concat());
    }
    let (of_seconds, of_cpu) = (exponent(&seconds), exponent(&cpu_seconds));
    let met = goal("≤ 1.05", of_seconds <= 1.05);
    figures.push([json!("exponent"), Value::Null, json!(of_seconds), json!(of_cpu), Value::Null, met]);
    Ok(figures)
}
