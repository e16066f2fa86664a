//! Calls counted, and calls that fail on demand.

use std::io;

use rustix::io::Errno;

/// Kind of a call to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// `Disk::open` of an existing file.
    Open,
    /// `Disk::open` with `OpenMode::CreateNew`.
    Create,
    /// `Disk::list`.
    List,
    /// `Disk::create_dir`.
    CreateDir,
    /// `Disk::rename`.
    Rename,
    /// `Disk::remove_file` and `Disk::remove_dir`.
    Remove,
    /// `Disk::sync_dir`.
    SyncDir,
    /// `DiskFile::allocate`.
    Allocate,
    /// `DiskFile::write_at`.
    Write,
    /// `DiskFile::read_at`.
    Read,
    /// `DiskFile::sync`.
    Sync,
    /// `DiskFile::set_len`.
    SetLen,
}

/// How many kinds of calls there are.
const CALL_KINDS: usize = Call::SetLen as usize + 1;

impl Call {
    /// Whether the call can change what a power loss leaves.
    fn is_step(self) -> bool {
        !matches!(self, Call::Open | Call::List | Call::Read)
    }
}

/// What a failing call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultError {
    /// `EIO`: the device failed.
    Io,
    /// `ENOSPC`: no space is left.
    NoSpace,
    /// `EROFS`: the file system was mounted anew for reading only, as after an error of its device.
    ReadOnly,
    /// It panics, as a bug of ours in the caller would.
    Panic,
}

impl From<FaultError> for io::Error {
    fn from(error: FaultError) -> io::Error {
        match error {
            FaultError::Io => Errno::IO.into(),
            FaultError::NoSpace => Errno::NOSPC.into(),
            FaultError::ReadOnly => Errno::ROFS.into(),
            FaultError::Panic => panic!("a test asked for this panic"),
        }
    }
}

/// A call that will fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which kind of call.
    pub call: Call,
    /// Which one of them, counted from now; 1 is the next.
    pub nth: u64,
    /// What it does instead.
    pub error: FaultError,
    /// Whether every later call of the kind fails as well.
    pub lasting: bool,
}

/// Counters and planned faults of one disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    counts: [u64; CALL_KINDS],
    /// Calls that can change the medium.
    steps: u64,
    /// The step at which the power goes.
    power_cut_at: Option<u64>,
    /// Planned faults, `nth` made absolute.
    planned: Vec<Fault>,
}

/// What the disk does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Go,
    Fail(FaultError),
    PowerCut,
}

impl Faults {
    pub(super) fn plan(&mut self, fault: Fault) {
        let nth = self.counts[fault.call as usize] + fault.nth;
        self.planned.push(Fault { nth, ..fault });
    }

    pub(super) fn clear(&mut self) {
        self.planned.clear();
    }

    pub(super) fn cut_power_at(&mut self, step: u64) {
        self.power_cut_at = Some(self.steps + step);
    }

    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    pub(super) fn count(&self, call: Call) -> u64 {
        self.counts[call as usize]
    }

    /// Counts a call and says what becomes of it.
    pub(super) fn enter(&mut self, call: Call) -> Verdict {
        self.counts[call as usize] += 1;
        self.steps += u64::from(call.is_step());
        if self.power_cut_at.is_some_and(|step| self.steps >= step) {
            return Verdict::PowerCut;
        }
        let count = self.counts[call as usize];
        let hits = |fault: &&Fault| {
            fault.call == call && (count == fault.nth || (fault.lasting && count > fault.nth))
        };
        self.planned.iter().find(hits).map_or(Verdict::Go, |fault| Verdict::Fail(fault.error))
    }
}
