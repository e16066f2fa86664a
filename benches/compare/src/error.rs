//! Why something could not be measured.

use std::{fmt::Display, io, path::PathBuf};

/// A measurement or the reason there is none.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Why something could not be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Something of the operating system.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A job or an outcome could not be read.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// A file that must be there is not.
    #[error("`{path}` does not exist: {remedy}")]
    Missing {
        /// Which.
        path: PathBuf,
        /// What makes it.
        remedy: &'static str,
    },
    /// Memory is no disk.
    #[error("`{dir}` lies on `{kind}`: name a directory on a real disk with --dir")]
    NotADisk {
        /// Where.
        dir: PathBuf,
        /// File system.
        kind: String,
    },
    /// A program that was started failed.
    #[error("`{program}` {how}")]
    Program {
        /// Its name.
        program: String,
        /// How it ended and what it said last.
        how: String,
    },
    /// This peer, or this way of running it, cannot be had here. No fault: the summary gives the reason.
    #[error("{0}")]
    Skipped(String),
    /// The client library of a peer failed.
    #[error("{0}")]
    Peer(String),
    /// What came back is not what went in.
    #[error("{0}")]
    Wrong(String),
}

impl Error {
    /// A failure of a peer's client.
    pub(crate) fn peer(error: impl Display) -> Error {
        // Alternate form, because some clients hide the cause behind it.
        Error::Peer(format!("{error:#}"))
    }
}
