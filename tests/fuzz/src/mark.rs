//! The mark page and the state file of a log. Whatever they say, nothing is read that was not written.
//!
//! The first byte: bit 0 puts checksums right, bit 1 takes the log of a killed process instead of a closed one. The first 1,024 bytes
//! behind it are the mark page; what follows is the state file, when anything does.

use std::sync::LazyLock;

use riverrun_storage::RecoveryVerdict;

use crate::{
    Taken, layout,
    log::{self, Files, Read},
};

pub(crate) const MEND: u8 = 1;
pub(crate) const KILLED: u8 = 2;
/// Bytes of the page.
const PAGE_BYTES: usize = 1_024;

/// Files of a closed and of a killed log, and all that was written.
static FIXTURES: LazyLock<([Files; 2], Read)> = LazyLock::new(|| {
    let files = [log::made(true), log::made(false)];
    let opened = log::open(&log::disk_of(&files[0])).expect("a closed log");
    let read = log::read(&opened.reader);
    (files, read)
});

pub(crate) fn run(input: &[u8]) -> Taken {
    let Some((flags, bytes)) = input.split_first() else { return Taken::Refused };
    let (page, state) = bytes.split_at(bytes.len().min(PAGE_BYTES));
    let (mut page, mut state) = (page.to_vec(), state.to_vec());
    if flags & MEND != 0 {
        layout::mend_mark(&mut page, None);
        layout::mend_side(&mut state, layout::STATE.0, layout::STATE.1);
    }
    let (files, written) = &*FIXTURES;
    let mut files = files[usize::from(flags & KILLED != 0)].clone();
    files.insert("mark".into(), page);
    if !state.is_empty() {
        files.insert("state".into(), state);
    }
    let disk = log::disk_of(&files);
    let opened = match log::open(&disk) {
        Ok(opened) => opened,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return Taken::Refused;
        }
    };
    let read = log::read(&opened.reader);
    let same = |(offset, value)| written.records.get(offset) == Some(value);
    assert!(read.records.iter().all(same), "never written: {read:?}");
    if opened.report.verdict == RecoveryVerdict::Damaged {
        drop(opened);
        assert_eq!(log::files_of(&disk), files, "a damaged log is left as it was");
        return Taken::Refused;
    }
    drop(opened);
    let again = log::open(&log::crashed(&disk)).expect("it opened before the power went");
    assert_eq!(log::read(&again.reader), read, "the power took what had been served");
    Taken::Accepted
}

/// Pages and state as a broker wrote them.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let (files, _) = &*FIXTURES;
    let of =
        |(flags, files): (u8, &Files)| [&[flags], &files["mark"][..], &files["state"]].concat();
    [0, MEND]
        .into_iter()
        .flat_map(|mend| [(mend, &files[0]), (mend | KILLED, &files[1])])
        .map(of)
        .collect()
}
