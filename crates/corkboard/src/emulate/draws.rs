//! Which row is posted next, and how long before it the poster sleeps: the orders in which the
//! scripts that Corkboard's users come from draw them.

use std::time::Duration;

use clap::ValueEnum;

use crate::emulate::{
    mt19937::{Random, Seed},
    tables::N_POSTS,
};

/// The scripts draw rows up to this one, inclusive; the last rows of the tables are drawn only
/// in sequence.
pub const LAST_DRAWN_ROW: u64 = 11_000;

const SEQUENTIAL_SLEEP: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum DrawOrder {
    /// 0 or 1 s of sleep is drawn, then the row.
    #[default]
    Default,
    /// The row is drawn, then 0 or 1 s of sleep.
    S0,
    /// 0 to 2 s of sleep is drawn with fractions, then the row.
    Uniform,
    /// Every row once, in key order, half a second apart; the seed is not used.
    Sequential,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    pub sleep: Duration,
    pub row: usize,
}

/// Endless, except in sequence.
pub struct Draws {
    order: DrawOrder,
    random: Random,
    n_drawn: usize,
}

impl Draws {
    pub fn new(order: DrawOrder, seed: impl Into<Seed>) -> Self {
        Self { order, random: Random::new(seed), n_drawn: 0 }
    }

    fn sleep(&mut self) -> Duration {
        Duration::from_secs(self.random.randrange(0, 2))
    }

    fn row(&mut self) -> usize {
        self.random.randint(0, LAST_DRAWN_ROW) as usize
    }
}

impl Iterator for Draws {
    type Item = Draw;

    fn next(&mut self) -> Option<Draw> {
        let draw = match self.order {
            DrawOrder::Default => {
                let sleep = self.sleep();
                Draw { sleep, row: self.row() }
            }
            DrawOrder::S0 => {
                let row = self.row();
                Draw { sleep: self.sleep(), row }
            }
            DrawOrder::Uniform => {
                let sleep = Duration::from_secs_f64(self.random.uniform(0.0, 2.0));
                Draw { sleep, row: self.row() }
            }
            DrawOrder::Sequential if self.n_drawn == N_POSTS => return None,
            DrawOrder::Sequential => Draw { sleep: SEQUENTIAL_SLEEP, row: self.n_drawn },
        };
        self.n_drawn += 1;
        Some(draw)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn first(order: DrawOrder, n: usize) -> Vec<(u64, usize)> {
        Draws::new(order, 100).take(n).map(|d| (d.sleep.as_secs(), d.row)).collect()
    }

    #[test]
    fn seed_100_gives_the_published_draws() {
        assert_eq!(
            first(DrawOrder::Default, 20),
            [
                (0, 7528),
                (1, 2863),
                (1, 5730),
                (1, 8304),
                (0, 8731),
                (0, 1313),
                (1, 4315),
                (0, 10794),
                (0, 5494),
                (0, 5069),
                (0, 2923),
                (0, 3089),
                (1, 6063),
                (1, 3454),
                (1, 7554),
                (1, 6145),
                (0, 10625),
                (0, 2959),
                (0, 9875),
                (1, 2418),
            ]
        );
        assert_eq!(first(DrawOrder::S0, 6), [(1, 2386), (0, 7453), (1, 6439), (0, 7102), (0, 8731), (1, 1313)]);
        let rows: Vec<usize> = first(DrawOrder::Uniform, 5).into_iter().map(|(_, row)| row).collect();
        assert_eq!(rows, [7453, 2863, 5730, 1801, 1313]);
    }

    #[test]
    fn a_thousand_draws_hit_963_rows() {
        let rows: std::collections::BTreeSet<usize> =
            Draws::new(DrawOrder::Default, 100).take(1_000).map(|d| d.row).collect();
        assert_eq!(rows.len(), 963);
    }

    #[test]
    fn real_rows_five_thousand_recorded_draws_agree() {
        let folder =
            std::env::var_os("CORKBOARD_REAL_ROWS").expect("CORKBOARD_REAL_ROWS names the folder with the rows");
        let text = std::fs::read_to_string(std::path::Path::new(&folder).join("draws_seed100.json")).unwrap();
        let recorded: serde_json::Value = serde_json::from_str(&text).unwrap();
        let recorded: Vec<(u64, usize)> =
            serde_json::from_value(recorded["default_order_sleep_then_row"].clone()).unwrap();
        assert_eq!(first(DrawOrder::Default, recorded.len()), recorded);
    }

    #[test]
    fn in_sequence_every_row_comes_once() {
        let rows: Vec<usize> = Draws::new(DrawOrder::Sequential, 100).map(|d| d.row).collect();
        assert_eq!(rows, (0..N_POSTS).collect::<Vec<_>>());
    }
}
