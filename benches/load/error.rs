//! Why a workload could not be measured.

use std::{io, path::PathBuf};

/// A measurement or the reason there is none.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Why a workload could not be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Something of the operating system.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The client failed.
    #[error(transparent)]
    Client(#[from] riverrun_client::Error),
    /// A bare call failed.
    #[error("call failed: {0}")]
    Call(Box<tonic::Status>),
    /// A bare connection failed.
    #[error(transparent)]
    Connect(#[from] tonic::transport::Error),
    /// The broker's binary is not there.
    #[error("`{0}` does not exist: cargo build --release -p riverrun-cli")]
    NoBinary(PathBuf),
    /// Memory is no disk.
    #[error("`{dir}` lies on `{kind}`: name a directory on a real disk with --dir")]
    NotADisk {
        /// Where.
        dir: PathBuf,
        /// File system.
        kind: String,
    },
    /// The broker ended or did not get ready.
    #[error("the broker did not get ready: {0}")]
    NotReady(String),
    /// What came back is not what went in.
    #[error("{0}")]
    Wrong(String),
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Error {
        Error::Call(Box::new(status))
    }
}
