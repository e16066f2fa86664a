//! `riverrun config`: checks a settings file without starting anything, and shows what is in force.

mod metrics;

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use clap::Subcommand;
use riverrun_broker::config::{Config, ConfigError};

use crate::{
    failure::{Failure, Stop},
    output::{self, Output, OutputArgs},
    serve::traces,
};

/// What to do with settings.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check the settings in a file as `serve` does; directories, addresses and the disk are not looked at
    Check {
        /// The file, TOML
        file: PathBuf,
    },
    /// Show every setting with its value in force: as a settings file (TOML), or as JSON
    Show {
        /// Settings file; without one, the defaults
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Print the reference of all settings as Markdown
    #[command(hide = true)]
    Reference,
    /// Print the reference of all metrics as Markdown
    #[command(hide = true)]
    Metrics,
}

/// Runs the command.
pub(crate) fn run(command: &ConfigCommand) -> Result<(), Stop> {
    match command {
        ConfigCommand::Check { file } => {
            checked(read(file)?)?;
            output::print(&format!("`{}` is in order\n", file.display()))
        }
        ConfigCommand::Show { config, output } => {
            let settings = config.as_deref().map_or_else(|| Ok(Config::default()), read)?;
            match output.output {
                Output::Table => output::print(&settings.to_toml()),
                Output::Json => output::print_json(&settings.to_json()),
            }
        }
        ConfigCommand::Reference => output::print(&markdown()),
        ConfigCommand::Metrics => output::print(&metrics::markdown()),
    }
}

/// Reads a settings file.
pub(crate) fn read(file: &Path) -> Result<Config, Failure> {
    Config::from_file(file).map_err(|error| refused(&error))
}

/// Checks what no single key can, and what this program can do.
pub(crate) fn checked(settings: Config) -> Result<Config, Failure> {
    settings.check().map_err(|error| refused(&error))?;
    traces::check(&settings)?;
    Ok(settings)
}

/// Settings that are refused are wrong usage.
pub(crate) fn refused(error: &ConfigError) -> Failure {
    match error {
        ConfigError::Unreadable { .. } => Failure::other(error.to_string()),
        ConfigError::Syntax { .. }
        | ConfigError::UnknownKey { .. }
        | ConfigError::InvalidValue { .. }
        | ConfigError::NotLoopback { .. }
        | ConfigError::Certificates { .. }
        | ConfigError::NotBuilt { .. }
        | ConfigError::Contradiction { .. } => Failure::usage(error.to_string()),
    }
}

fn markdown() -> String {
    let mut text = String::from(
        "# Configuration\n\nGenerated from the binary by `cargo xtask docs`; edit the table in `broker/src/config`, not this page.\n\n\
         `riverrun serve --config FILE` reads TOML. No file is needed: every key has a default. A key that is unknown,\n\
         has the wrong type or lies outside its bounds is refused with its line; none is ever ignored. Sizes are written\n\
         `64KiB`, `256MiB`, `1GiB`, durations `50ms`, `30s`, `12h`, `7d`. `riverrun config check FILE` tells the same\n\
         without starting. Settings of a topic are not here: see `riverrun topic create --help`.\n",
    );
    let mut table = None;
    for key in Config::reference() {
        let (group, name) = key.key.split_once('.').unwrap_or(("", key.key));
        if table != Some(group) {
            let heading =
                if group.is_empty() { "top level".to_owned() } else { format!("[{group}]") };
            let _ = write!(
                text,
                "\n## {heading}\n\n| Key | Default | Bounds | Meaning |\n| --- | --- | --- | --- |\n"
            );
            table = Some(group);
        }
        let _ =
            writeln!(text, "| `{name}` | `{}` | {} | {} |", key.default, key.bounds, key.meaning);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_has_a_row_for_every_key() {
        let text = markdown();
        let rows = text.lines().filter(|line| line.starts_with("| `")).count();
        assert_eq!(rows, Config::reference().len());
        assert!(text.contains("| `data_dir` | `"), "{text}");
    }
}
