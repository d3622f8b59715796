//! `cargo xtask bench <name>`: figures of the release binary as a person would run it, on this
//! machine and its disk. A bench is one line in `BENCHES` and one module below.

use anyhow::{Context, Result};
use clap::Args;
use serde_json::Value;

mod http;

mod ingest;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Which bench to run; none lists them.
    name: Option<String>,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// A fraction or a multiple of the usual amount of work.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Run this binary instead of building one.
    #[arg(long)]
    binary: Option<std::path::PathBuf>,
}

struct Bench {
    name: &'static str,
    about: &'static str,
    run: fn(&Arguments) -> Result<Figures>,
}

const BENCHES: [Bench; 1] = [Bench {
    name: "ingest",
    about: "posts by `corkboard emulate` over HTTP until they are durable, beside requests that do nothing",
    run: ingest::run,
}];

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let Some(name) = &arguments.name else {
        for bench in BENCHES {
            println!("{:10} {}", bench.name, bench.about);
        }
        return Ok(());
    };
    let bench = BENCHES.iter().find(|bench| bench.name == name);
    let bench = bench.with_context(|| format!("there is no bench {name:?}; `cargo xtask bench` lists them"))?;
    let figures = (bench.run)(arguments)?;
    if arguments.json {
        println!("{}", figures.to_json(bench.name));
    } else {
        print!("{}", figures.to_table());
    }
    Ok(())
}

/// What a bench found: named columns, one row per setting.
struct Figures {
    columns: Vec<&'static str>,
    rows: Vec<Vec<Value>>,
}

impl Figures {
    fn to_json(&self, bench: &str) -> Value {
        let row = |row: &Vec<Value>| -> Value {
            self.columns.iter().map(|column| (*column).to_owned()).zip(row.iter().cloned()).collect()
        };
        serde_json::json!({ "bench": bench, "rows": self.rows.iter().map(row).collect::<Vec<_>>() })
    }

    fn to_table(&self) -> String {
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            Value::Null => "-".to_owned(),
            Value::Number(number) if number.is_f64() => format!("{:.2}", number.as_f64().unwrap_or_default()),
            other => other.to_string(),
        };
        let head = self.columns.iter().map(|column| (*column).to_owned()).collect();
        let lines: Vec<Vec<String>> =
            std::iter::once(head).chain(self.rows.iter().map(|row| row.iter().map(text).collect())).collect();
        let width_of = |at: usize| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or_default();
        let widths: Vec<usize> = (0..self.columns.len()).map(width_of).collect();
        let mut table = String::new();
        for line in &lines {
            let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}")).collect();
            table.push_str(&cells.join("  "));
            table.push('\n');
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Figures;

    #[test]
    fn figures_are_shown_in_columns_and_as_json() {
        let figures = Figures {
            columns: vec!["what", "n_requests", "p99_ms"],
            rows: vec![vec![json!("append"), json!(1000), json!(1.234)], vec![json!("x"), json!(7), json!(null)]],
        };
        assert_eq!(
            figures.to_table(),
            "  what  n_requests  p99_ms\nappend        1000    1.23\n     x           7       -\n"
        );
        let expected = json!({ "bench": "b", "rows": [
            { "what": "append", "n_requests": 1000, "p99_ms": 1.234 },
            { "what": "x", "n_requests": 7, "p99_ms": null },
        ]});
        assert_eq!(figures.to_json("b"), expected);
    }
}
