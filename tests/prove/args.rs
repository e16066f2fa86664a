//! The command line of the harnesses.

use std::time::Duration;

use crate::harness::{HARNESSES, Size};

/// What was asked for.
pub(crate) struct Arguments {
    /// Harnesses by name; empty means all of them.
    names: Vec<String>,
    pub(crate) size: Size,
}

impl Arguments {
    /// Whether a harness is to run.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|one| one == name)
    }
}

/// Reads the words after the program's name.
pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut arguments = Arguments {
        names: Vec::new(),
        size: Size { count: None, seed: 1, time: None, full: false },
    };
    let mut words = words;
    while let Some(word) = words.next() {
        let mut number = |flag: &str| {
            let text = words.next().ok_or_else(|| format!("`{flag}` wants a number"))?;
            text.parse::<u64>().map_err(|_| format!("`{flag}` wants a whole number, not `{text}`"))
        };
        match word.as_str() {
            "--count" => arguments.size.count = Some(number("--count")?),
            "--seed" => arguments.size.seed = number("--seed")?,
            "--minutes" => {
                arguments.size.time =
                    Some(Duration::from_secs(number("--minutes")?.saturating_mul(60)));
            }
            "--full" => arguments.size.full = true,
            name if HARNESSES.iter().any(|harness| harness.name == name) => {
                arguments.names.push(word);
            }
            other => return Err(format!("no harness and no option is called `{other}`")),
        }
    }
    Ok(arguments)
}

/// How it is called.
pub(crate) fn usage() -> String {
    let mut text = String::from(
        "usage: cargo xtask prove [HARNESS...] [--count N] [--seed S] [--minutes M] [--full]\n\nharnesses:\n",
    );
    for harness in HARNESSES {
        text.push_str(&format!("  {:<9} {}\n", harness.name, harness.what));
    }
    text
}
