//! Texts made from the command tree: completions, man pages, the Markdown reference.

use std::{fmt::Write as _, path::Path};

use clap::{Arg, Command};
use clap_complete::Shell;

use crate::{
    args,
    failure::{Failure, Stop},
    output,
};

/// Prints the completion script for `shell`.
pub(crate) fn completions(shell: Shell) -> Result<(), Stop> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut args::command(), "riverrun", &mut script);
    output::print(&String::from_utf8_lossy(&script))
}

/// Writes one man page per command into `dir`.
#[expect(clippy::disallowed_methods, reason = "writes where the user says")]
pub(crate) fn man(dir: &Path) -> Result<(), Stop> {
    let failed =
        |error| Failure::other(format!("cannot write man pages to `{}`: {error}", dir.display()));
    std::fs::create_dir_all(dir).map_err(failed)?;
    clap_mangen::generate_to(args::command(), dir).map_err(failed)?;
    output::print(&format!(
        "man pages written; read them with `man {}/riverrun.1`\n",
        dir.display()
    ))
}

/// Prints the reference of every command as Markdown.
pub(crate) fn markdown() -> Result<(), Stop> {
    output::print(&markdown_text())
}

fn markdown_text() -> String {
    let mut root = args::command();
    root.build();
    let mut text = String::from(
        "# Command line\n\nGenerated from the binary by `cargo xtask docs`; edit the help texts in `cli/src`, not this page.\n",
    );
    describe(&root, "riverrun", &mut text);
    text
}

fn describe(command: &Command, path: &str, text: &mut String) {
    let _ = write!(text, "\n## {path}\n");
    if let Some(about) = command.get_long_about().or_else(|| command.get_about()) {
        let _ = write!(text, "\n{about}\n");
    }
    let usage = command.clone().render_usage().to_string();
    let _ = write!(text, "\n```\n{}\n```\n", usage.trim_start_matches("Usage: ").trim());
    let subcommands: Vec<&Command> = command
        .get_subcommands()
        .filter(|sub| !sub.is_hide_set() && sub.get_name() != "help")
        .collect();
    if subcommands.is_empty() {
        arguments(command, text);
        if let Some(more) = command.get_after_long_help() {
            let _ = write!(text, "\n```\n{more}\n```\n");
        }
    } else {
        let _ = write!(text, "\n| Command | What it does |\n| --- | --- |\n");
        for sub in &subcommands {
            let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
            let name = format!("{path} {}", sub.get_name());
            let _ = writeln!(text, "| [`{name}`](#{}) | {about} |", name.replace(' ', "-"));
        }
    }
    if path == "riverrun" {
        arguments(command, text);
        let _ = write!(text, "\n```\n{}\n```\n", crate::failure::EXIT_CODES);
    }
    for sub in subcommands {
        describe(sub, &format!("{path} {}", sub.get_name()), text);
    }
}

/// The table of arguments; those that every command has stand with the program only.
fn arguments(command: &Command, text: &mut String) {
    let top = command.get_name() == "riverrun";
    let shown = |arg: &&Arg| {
        let general = arg.is_global_set() || ["help", "version"].contains(&arg.get_id().as_str());
        !arg.is_hide_set() && (top || !general)
    };
    let mut arguments = command.get_arguments().filter(shown).peekable();
    if arguments.peek().is_none() {
        return;
    }
    let _ = write!(text, "\n| Argument | Meaning |\n| --- | --- |\n");
    for arg in arguments {
        let _ = writeln!(text, "| {} | {} |", cell(&spelling(arg)), cell(&meaning(arg)));
    }
}

/// `-o, --output <FORM>` in code type.
fn spelling(arg: &Arg) -> String {
    let short = arg.get_short().map(|short| format!("-{short}"));
    let long = arg.get_long().map(|long| format!("--{long}"));
    let names: Vec<String> = [short, long].into_iter().flatten().collect();
    let values: Vec<&str> =
        arg.get_value_names().unwrap_or_default().iter().map(|name| name.as_str()).collect();
    let takes_value = arg.get_action().takes_values();
    let value = if takes_value { format!("<{}>", values.join("> <")) } else { String::new() };
    format!("`{}`", [names.join(", "), value].join(" ").trim())
}

/// Help, possible values, default and environment variable.
fn meaning(arg: &Arg) -> String {
    let mut meaning =
        arg.get_long_help().or_else(|| arg.get_help()).map(ToString::to_string).unwrap_or_default();
    if !arg.get_action().takes_values() {
        return meaning;
    }
    let values: Vec<String> = arg
        .get_possible_values()
        .iter()
        .filter(|value| !value.is_hide_set())
        .map(|value| format!("`{}`", value.get_name()))
        .collect();
    if !values.is_empty() {
        let _ = write!(meaning, "; one of {}", values.join(", "));
    }
    let defaults: Vec<_> =
        arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    if !defaults.is_empty() {
        let _ = write!(meaning, "; default `{}`", defaults.join(" "));
    }
    if let Some(variable) = arg.get_env() {
        let _ = write!(meaning, "; or `{}` in the environment", variable.to_string_lossy());
    }
    meaning
}

/// Text that fits into a cell of a Markdown table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_tree_is_sound() {
        args::command().debug_assert();
    }

    #[test]
    fn the_reference_names_every_command_and_hides_what_is_hidden() {
        let text = markdown_text();
        for part in ["## riverrun group reset\n", "RIVERRUN_SERVER", "`--max <N>`"] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        assert!(!text.contains("markdown-help"));
    }
}
