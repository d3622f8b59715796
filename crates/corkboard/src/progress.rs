//! How far something is: a bar on a terminal, now and then a plain line elsewhere. Always on
//! standard error, so that standard output stays the result.

use std::{
    io::IsTerminal,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Bars are redrawn at most so often, whatever the caller does.
const REDRAWS_PER_SECOND: u8 = 10;
/// Plain lines come at most so often.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

pub struct Progress(Shown);

enum Shown {
    Bar(ProgressBar),
    Lines(Mutex<Lines>),
}

impl Progress {
    /// `what` is being done to `total` of `unit` (a plural: `posts`); None: nobody knows how many.
    pub fn start(what: &str, unit: &str, total: Option<u64>) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(Shown::Lines(Mutex::new(Lines::start(what, unit, total, Instant::now()))));
        }
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(REDRAWS_PER_SECOND));
        let template = match total {
            Some(_) => "{prefix} {wide_bar} {human_pos}/{human_len} {msg} {per_sec:>14} eta {eta}",
            None => "{prefix} {spinner} {human_pos} {msg} {per_sec} for {elapsed}",
        };
        let style = ProgressStyle::with_template(template).expect("the templates above are valid");
        bar.set_style(style);
        bar.set_prefix(what.to_owned());
        bar.set_message(unit.to_owned());
        Self(Shown::Bar(bar))
    }

    /// `done` of the total are done.
    pub fn set(&self, done: u64) {
        match &self.0 {
            Shown::Bar(bar) => bar.set_position(done),
            Shown::Lines(lines) => {
                let line = lines.lock().unwrap_or_else(PoisonError::into_inner).at(Instant::now(), done);
                if let Some(line) = line {
                    eprintln!("{line}");
                }
            }
        }
    }

    /// A line that stays, above the bar.
    pub fn say(&self, line: &str) {
        match &self.0 {
            // While a bar is hidden (a terminal without size) its own println prints nothing.
            Shown::Bar(bar) => bar.suspend(|| eprintln!("{line}")),
            Shown::Lines(_) => eprintln!("{line}"),
        }
    }

    /// Takes the bar away; the caller says how it ended.
    pub fn finish(self) {
        if let Shown::Bar(bar) = self.0 {
            bar.finish_and_clear();
        }
    }
}

/// When to print which line.
struct Lines {
    what: String,
    unit: String,
    total: Option<u64>,
    last: Instant,
    done_at_last: u64,
}

impl Lines {
    fn start(what: &str, unit: &str, total: Option<u64>, now: Instant) -> Self {
        Self { what: what.to_owned(), unit: unit.to_owned(), total, last: now, done_at_last: 0 }
    }

    /// The line to print now, if it is time for one.
    fn at(&mut self, now: Instant, done: u64) -> Option<String> {
        let elapsed = now.duration_since(self.last);
        if elapsed < LINE_INTERVAL {
            return None;
        }
        let per_second = done.saturating_sub(self.done_at_last) as f64 / elapsed.as_secs_f64();
        self.last = now;
        self.done_at_last = done;
        let Self { what, unit, .. } = self;
        Some(match self.total {
            Some(total) => {
                let percent = (done * 100).checked_div(total).unwrap_or(100);
                format!("{what}: {done} of {total} {unit} ({percent} %), {per_second:.0}/s")
            }
            None => format!("{what}: {done} {unit}, {per_second:.0}/s"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_lines_are_far_between() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut lines = Lines::start("emulate", "posts", Some(1_000), start);
        assert_eq!(lines.at(at(0), 1), None);
        assert_eq!(lines.at(at(4), 100), None);
        assert_eq!(lines.at(at(5), 150).as_deref(), Some("emulate: 150 of 1000 posts (15 %), 30/s"));
        assert_eq!(lines.at(at(9), 400), None);
        assert_eq!(lines.at(at(15), 450).as_deref(), Some("emulate: 450 of 1000 posts (45 %), 30/s"));
        let mut endless = Lines::start("batch", "records", None, start);
        assert_eq!(endless.at(at(10), 50).as_deref(), Some("batch: 50 records, 5/s"));
        let mut nothing = Lines::start("batch", "records", Some(0), start);
        assert_eq!(nothing.at(at(10), 0).as_deref(), Some("batch: 0 of 0 records (100 %), 0/s"));
    }
}
