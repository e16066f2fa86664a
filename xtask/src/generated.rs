//! Documentation made by the binary itself: the references of commands, settings and metrics.
//!
//! Beside them the README's table of promises ([`promises`]). The pages are committed, so that they can be read without building; the check fails when they no
//! longer say what the binary says.

use std::{fs, path::Path};

use crate::{check::cargo_command, promises};

/// Each page and the hidden command that prints it.
const PAGES: [(&str, &[&str]); 3] = [
    ("docs/cli.md", &["markdown-help"]),
    ("docs/configuration.md", &["config", "reference"]),
    ("docs/metrics.md", &["config", "metrics"]),
];

/// Writes the pages anew.
pub(crate) fn write(root: &Path) -> Result<(), String> {
    for (path, command) in PAGES {
        let text = print(root, command)?;
        fs::write(root.join(path), text)
            .map_err(|error| format!("cannot write `{path}`: {error}"))?;
        println!("wrote {path}");
    }
    promises::write(root)
}

/// Fails when a page differs from what the binary prints.
pub(crate) fn check(root: &Path) -> Result<(), String> {
    for (path, command) in PAGES {
        let kept = fs::read_to_string(root.join(path)).unwrap_or_default();
        if let Some(line) = first_difference(&kept, &print(root, command)?) {
            return Err(format!("`{path}` is stale from line {line} on; run `cargo xtask docs`"));
        }
        println!("{path} is up to date");
    }
    promises::check(root)
}

/// Line, from 1, of the first difference.
fn first_difference(kept: &str, printed: &str) -> Option<usize> {
    if kept == printed {
        return None;
    }
    let same = kept.lines().zip(printed.lines()).take_while(|(a, b)| a == b).count();
    Some(same + 1)
}

/// What the binary prints, built first if need be.
fn print(root: &Path, command: &[&str]) -> Result<String, String> {
    let output = cargo_command()
        .args(["run", "--quiet", "--locked", "--package", "riverrun-cli", "--"])
        .args(command)
        .current_dir(root)
        .output()
        .map_err(|error| format!("cannot start cargo: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    String::from_utf8(output.stdout)
        .map_err(|_| "the binary printed bytes that are no text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_page_is_found_at_its_first_difference() {
        assert_eq!(first_difference("a\nb\n", "a\nb\n"), None);
        assert_eq!(first_difference("a\nb\n", "a\nc\n"), Some(2));
        assert_eq!(first_difference("a\n", "a\nb\n"), Some(2));
        assert_eq!(first_difference("", "a\n"), Some(1));
        assert_eq!(first_difference("a\n", "a"), Some(2));
    }
}
