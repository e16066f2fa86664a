//! How read commands answer: aligned columns for people, JSON for programs.
//!
//! Columns are plain text with two spaces between them, so that `awk` and `cut` work on them too.
//! Nothing is coloured or drawn when standard output is no terminal; nothing is ever truncated.

use std::io::Write;

use clap::ValueEnum;
use serde_json::Value;

use crate::failure::Stop;

/// Chosen with `--output`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Aligned columns
    #[default]
    Table,
    /// One JSON document
    Json,
}

/// Adds `--output` to a command.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct OutputArgs {
    /// Form of the answer
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORM")]
    pub(crate) output: Output,
}

/// Rows under a heading. Columns that hold numbers are set to the right.
#[derive(Debug)]
pub(crate) struct Table {
    heading: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(heading: &[&'static str]) -> Table {
        Table { heading: heading.to_vec(), rows: Vec::new() }
    }

    /// Adds a row with as many cells as the heading has.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.heading.len(), "cells of a row");
        self.rows.push(cells);
    }

    /// The table as text, each line ended, without trailing blanks.
    pub(crate) fn render(&self) -> String {
        use comfy_table::{CellAlignment, ContentArrangement, presets};
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(self.heading.clone());
        for row in &self.rows {
            table.add_row(row);
        }
        for (index, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, 2));
            if self.rows.iter().all(|row| is_number(&row[index])) && !self.rows.is_empty() {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let mut text = String::new();
        for line in table.lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Two lines of names and values, one column per entry: upper name and value, lower name and value.
pub(crate) fn two_lines(columns: &[(&str, String, &str, String)]) -> String {
    let mut lines = [String::new(), String::new()];
    for (upper_name, upper, lower_name, lower) in columns {
        let name_width = upper_name.len().max(lower_name.len());
        let width = upper.chars().count().max(lower.chars().count());
        lines[0].push_str(&format!("{upper_name:name_width$}  {upper:width$}    "));
        lines[1].push_str(&format!("{lower_name:name_width$}  {lower:width$}    "));
    }
    lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn is_number(cell: &str) -> bool {
    cell == "-" || cell.starts_with(|c: char| c.is_ascii_digit())
}

/// Prints text to standard output.
pub(crate) fn print(text: &str) -> Result<(), Stop> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Stop::from_stdout(&error))
}

/// Prints a JSON document.
pub(crate) fn print_json(value: &Value) -> Result<(), Stop> {
    print(&format!("{value:#}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right_and_lines_end_clean() {
        let mut table = Table::new(&["TOPIC", "LAG", "HOST"]);
        table.row(vec!["orders".into(), "1,284".into(), "10.0.0.4".into()]);
        table.row(vec!["a".into(), "-".into(), String::new()]);
        let expected = "TOPIC     LAG  HOST\norders  1,284  10.0.0.4\na           -\n";
        assert_eq!(table.render(), expected);
    }

    #[test]
    fn long_cells_are_never_cut() {
        let long = "x".repeat(500);
        let mut table = Table::new(&["A", "B"]);
        table.row(vec![long.clone(), "b".into()]);
        assert!(table.render().contains(&format!("{long}  b\n")));
    }
}
