//! Asks before something is lost.

use std::io::{self, BufRead, IsTerminal, Write};

use crate::failure::Failure;

/// Goes on with `--yes` or when the user types y; without a terminal `--yes` is required.
pub(crate) fn ask(yes: bool, question: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(format!(
            "{question} Say --yes: there is no terminal to ask on"
        )));
    }
    let mut err = io::stderr().lock();
    let asked = write!(err, "{question} [y/N] ").and_then(|()| err.flush());
    let mut answer = String::new();
    let read = asked.and_then(|()| io::stdin().lock().read_line(&mut answer));
    read.map_err(|error| Failure::other(format!("cannot ask: {error}")))?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::other("nothing was changed")),
    }
}
