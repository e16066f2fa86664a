//! What can be wrong with settings.

use std::{io, path::PathBuf};

use thiserror::Error;

use super::origins::Said;

/// Settings that are refused.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read `{path}`: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{path}:{line}: not valid TOML: {reason}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What the parser says.
        reason: String,
    },
    /// A key that does not exist.
    #[error("{path}:{line}: unknown key `{key}`{}", suggestion(.nearest.as_deref()))]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// The key, with its table.
        key: String,
        /// The valid key most like it, when one is near.
        nearest: Option<String>,
    },
    /// A value of the wrong type or outside its bounds.
    #[error("{path}:{line}: `{key}` must be {expected}, found `{found}`")]
    InvalidValue {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// The key, with its table.
        key: String,
        /// What is allowed.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// A door to the outside without protection.
    #[error(
        "{listen}, which is not a loopback address, and connections are neither \
         encrypted nor authenticated; set `insecure = true`, or start with --insecure, to accept that"
    )]
    NotLoopback {
        /// The setting and the address.
        listen: Said,
    },
    /// A file that should hold certificates.
    #[error("`{path}`, named by `webhooks.ca_files`, is no PEM file of certificates: {reason}")]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A key that nobody here does anything about.
    #[error(
        "`{key}` is set, and this program is built without the feature `{feature}` that does it"
    )]
    NotBuilt {
        /// The setting.
        key: &'static str,
        /// The feature of the package `riverrun-cli`.
        feature: &'static str,
    },
    /// Two keys that do not fit together.
    #[error("{small}, and must not be less than another: {large}")]
    Contradiction {
        /// The one that is too small.
        small: Box<Said>,
        /// The one it must not be under.
        large: Box<Said>,
    },
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map(|key| format!("; did you mean `{key}`?")).unwrap_or_default()
}
