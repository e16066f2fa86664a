//! Why a command ended without success: one line for the user, and the exit code of its class.
//!
//! Exit codes are an interface: scripts branch on them. The list stands in [`Class`] and is printed in
//! `riverrun --help` and the generated reference.

use std::{fmt, io};

/// Classes of failure, each with its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Anything without a class of its own: a file that cannot be read.
    Other = 1,
    /// The command line is wrong; nothing was tried.
    Usage = 2,
    /// The broker could not be reached, or did not answer in time.
    Unreachable = 3,
    /// The broker answered and refused.
    Refused = 4,
    /// Stored data is damaged.
    Corrupt = 5,
}

/// What `--help` says about exit codes.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed for another reason, for instance an unreadable file
  2  wrong usage
  3  the broker could not be reached, or did not answer in time
  4  the broker refused
  5  stored data is damaged";

/// Ends a command.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Chooses the exit code.
    pub(crate) class: Class,
    /// One line: what happened, and what to do about it.
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(class: Class, message: impl Into<String>) -> Failure {
        Failure { class, message: message.into() }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Class::Usage, message)
    }

    pub(crate) fn other(message: impl Into<String>) -> Failure {
        Failure::new(Class::Other, message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Why a command ends before it is done.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The reader of standard output went away: no error of ours. The program ends with success and without a word.
    PipeClosed,
    /// A failure to report.
    Failed(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        Stop::Failed(failure)
    }
}

impl Stop {
    /// From a failed write to standard output.
    pub(crate) fn from_stdout(error: &io::Error) -> Stop {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Stop::PipeClosed;
        }
        Stop::Failed(Failure::other(format!("cannot write to standard output: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_pipe_is_quiet_and_a_full_disk_is_not() {
        let closed = io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(matches!(Stop::from_stdout(&closed), Stop::PipeClosed));
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert!(matches!(Stop::from_stdout(&full), Stop::Failed(f) if f.class == Class::Other));
    }

    #[test]
    fn help_lists_every_exit_code() {
        for class in
            [Class::Other, Class::Usage, Class::Unreachable, Class::Refused, Class::Corrupt]
        {
            assert!(EXIT_CODES.contains(&format!("\n  {}  ", class as u8)), "{class:?}");
        }
    }
}
