//! The README's table of promises: rows of `docs/guarantees.md`, chosen by their numbers, so that the two never say different things.
//!
//! ```text
//! <!-- promises: 16 1 3 -->      the numbers, in the order of the table
//! | Promise | Shown by |         written by `cargo xtask docs`
//! <!-- end of promises -->
//! ```

use std::{fs, path::Path};

/// Where the rows come from and where they go.
const FROM: &str = "docs/guarantees.md";
const TO: &str = "README.md";
/// What stands around the table.
const BEGIN: &str = "<!-- promises:";
const END: &str = "<!-- end of promises -->";

/// Writes the table anew.
pub(crate) fn write(root: &Path) -> Result<(), String> {
    let (_, drawn) = both(root)?;
    fs::write(root.join(TO), drawn).map_err(|error| format!("cannot write `{TO}`: {error}"))?;
    println!("wrote the promises in {TO}");
    Ok(())
}

/// Fails when the table is not what the page says.
pub(crate) fn check(root: &Path) -> Result<(), String> {
    let (kept, drawn) = both(root)?;
    if kept != drawn {
        return Err(format!("the promises in `{TO}` are stale; run `cargo xtask docs`"));
    }
    println!("the promises in {TO} are those of {FROM}");
    Ok(())
}

/// The README as it is, and as it should be.
fn both(root: &Path) -> Result<(String, String), String> {
    let read = |path: &str| {
        fs::read_to_string(root.join(path))
            .map_err(|error| format!("cannot read `{path}`: {error}"))
    };
    let kept = read(TO)?;
    let drawn = draw(&kept, &read(FROM)?)?;
    Ok((kept, drawn))
}

/// `readme` with its table drawn from `page`.
fn draw(readme: &str, page: &str) -> Result<String, String> {
    let parts = readme.split_once(BEGIN).and_then(|(before, rest)| {
        let (numbers, rest) = rest.split_once("-->")?;
        let (_, after) = rest.split_once(END)?;
        Some((before, numbers, after))
    });
    let (before, numbers, after) = parts.ok_or(format!("`{TO}` has no `{BEGIN} … -->` table"))?;
    let mut table = String::from("\n| Promise | Shown by |\n| --- | --- |\n");
    for number in numbers.split_whitespace() {
        let row = page.lines().find_map(|line| line.strip_prefix(&format!("| {number} | ")));
        let row = row.ok_or(format!("`{FROM}` has no promise {number}"))?;
        table.push_str(&format!("| {}\n", row.replace("](", "](docs/")));
    }
    Ok(format!("{before}{BEGIN}{numbers}-->{table}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::draw;

    #[test]
    fn rows_come_in_the_order_of_their_numbers_and_one_that_is_not_there_is_an_error() {
        let page = "| # | Promise | Shown by |\n| 1 | a | `x` |\n| 2 | b ([c](d.md)) | `y` |\n";
        let readme = "before\n<!-- promises: 2 1 -->\nold\n<!-- end of promises -->\nafter\n";
        let table =
            "| Promise | Shown by |\n| --- | --- |\n| b ([c](docs/d.md)) | `y` |\n| a | `x` |\n";
        let drawn =
            format!("before\n<!-- promises: 2 1 -->\n{table}<!-- end of promises -->\nafter\n");
        assert_eq!(draw(readme, page), Ok(drawn.clone()));
        assert_eq!(draw(&drawn, page), Ok(drawn), "drawn again it stays");
        assert!(draw(&readme.replace("2 1", "3"), page).is_err());
        assert!(draw("no table", page).is_err());
    }
}
