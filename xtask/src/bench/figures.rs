//! What a bench found, for people and for machines: named columns, one row per setting, and
//! plainly whether a goal was met.

use serde_json::{Value, json};

/// The column that `goal` and `goals` fill.
pub(super) const GOAL: &str = "goal";

#[derive(Debug, Default, PartialEq)]
pub(super) struct Figures {
    pub(super) columns: Vec<&'static str>,
    pub(super) rows: Vec<Vec<Value>>,
}

/// A cell that says whether one goal was met. A figure that is not a number meets none.
pub(super) fn goal(goal: impl Into<String>, is_met: bool) -> Value {
    json!([{ "goal": goal.into(), "met": is_met }])
}

/// Several such cells as one.
pub(super) fn goals(cells: impl IntoIterator<Item = Value>) -> Value {
    let of_cell = |cell: Value| match cell {
        Value::Array(goals) => goals,
        _ => Vec::new(),
    };
    match cells.into_iter().flat_map(of_cell).collect::<Vec<_>>() {
        none if none.is_empty() => Value::Null,
        some => Value::Array(some),
    }
}

impl Figures {
    pub(super) fn new(columns: &[&'static str]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// A row needs a cell for each column.
    pub(super) fn push(&mut self, row: impl Into<Vec<Value>>) {
        let row = row.into();
        assert_eq!(row.len(), self.columns.len(), "a row has a cell for each column: {row:?}");
        self.rows.push(row);
    }

    pub(super) fn to_json(&self, bench: &str) -> Value {
        let row = |row: &Vec<Value>| -> Value {
            self.columns.iter().map(|column| (*column).to_owned()).zip(row.iter().cloned()).collect()
        };
        json!({ "bench": bench, "rows": self.rows.iter().map(row).collect::<Vec<_>>() })
    }

    pub(super) fn to_table(&self) -> String {
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

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        Value::Number(number) if number.is_f64() => number_text(number.as_f64().unwrap_or_default()),
        Value::Array(goals) => goals.iter().map(goal_text).collect::<Vec<_>>().join("; "),
        other => other.to_string(),
    }
}

/// Two decimals, and none where nobody would read them.
fn number_text(number: f64) -> String {
    if number.abs() < 10_000.0 { format!("{number:.2}") } else { format!("{number:.0}") }
}

fn goal_text(goal: &Value) -> String {
    let word = if goal["met"] == true { "met" } else { "MISSED" };
    format!("{word} {}", goal["goal"].as_str().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_shown_in_columns_and_as_json() {
        let mut figures = Figures::new(&["what", "n_requests", "p99_ms", GOAL]);
        figures.push([json!("append"), json!(1000), json!(1.234), goal("≤ 2 ms", true)]);
        figures.push([json!("x"), json!(7), json!(null), goals([goal("≤ 1", false), Value::Null, goal("≥ 3", true)])]);
        figures.push([json!("y"), json!(1), json!(123_456.7), goals([Value::Null])]);
        assert_eq!(
            figures.to_table(),
            "  what  n_requests  p99_ms                 goal\n\
             append        1000    1.23           met ≤ 2 ms\n\
             \x20    x           7       -  MISSED ≤ 1; met ≥ 3\n\
             \x20    y           1  123457                    -\n"
        );
        let expected = json!({ "bench": "b", "rows": [
            { "what": "append", "n_requests": 1000, "p99_ms": 1.234, "goal": [{ "goal": "≤ 2 ms", "met": true }] },
            { "what": "x", "n_requests": 7, "p99_ms": null,
              "goal": [{ "goal": "≤ 1", "met": false }, { "goal": "≥ 3", "met": true }] },
            { "what": "y", "n_requests": 1, "p99_ms": 123_456.7, "goal": null },
        ]});
        assert_eq!(figures.to_json("b"), expected);
    }

    #[test]
    #[should_panic(expected = "a cell for each column")]
    fn a_row_that_lacks_a_cell_is_a_mistake() {
        Figures::new(&["what", GOAL]).push([json!("append")]);
    }
}
