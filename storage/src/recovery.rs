//! From a directory to a log: what is found, what it means, what is done. docs/storage-format.md says why.
//!
//! A start is *trusted* when the newest mark is clean and everything fits it: nothing is changed or scanned.
//! Any other start is *unclean*. Let `M` be the highest offset known durable (mark page, `durable_upto` of
//! header blocks and entries, log start, start of the newest epoch) and `p` the first place where the chain of entries breaks.
//!
//! ```text
//! row | at p and after                             | offset(p) | verdict
//!  1  | zeros                                      | >= M      | clean end
//!  2  | other bytes                                | >= M      | torn tail
//!  4  | other bytes with entries that prove nothing| >= M      | torn tail
//!  3  | anything                                   | <  M      | damaged
//!  5  | below M: a seal, link, header or file wrong |           | damaged
//!  5a | an entry of an epoch that nothing else knows, or no further epoch     | damaged
//!  8  | a header block invalid, base >= M          |           | as 1, 2 or 4 of the segment before
//!  9  | a segment of a lower epoch after one that holds its records, or set aside | superseded: removed
//! 10  | a segment of a lower epoch after one of a higher, not as 9                 | damaged
//! ```
//!
//! What follows a clean end and a torn tail is the same: `[M, p)` is copied to a new segment, made durable,
//! and takes the place of everything at or past `M`; the epoch rises. Whether the bytes of `[M, p)` are on
//! disk cannot be known from reading them (the page cache may say so after a failed write), so they are never
//! adopted in place. What follows damage is nothing: the directory stays as it is and the log refuses writes.
//!
//! Opened for reading only, a log that is not trusted ends at `M`, and nothing is changed either.
//!
//! Every step may be cut short by another crash: the new segment is durable before it has a name, the
//! name is durable before what it replaces is removed, and a start that finds both removes the rest (row 9).

mod leftovers;
mod links;
mod producers;
pub(crate) mod repair;
mod report;
mod rewrite;
mod survey;
#[cfg(test)]
mod tests;
mod trusted;
mod unwritten;
mod walk;

use std::{collections::VecDeque, path::Path, sync::Arc};

use riverrun_proto::Offset;

pub use self::report::{RecoveryReport, RecoveryVerdict};
use crate::{
    Damage, LogOffsets, LogOptions, StorageError, Timestamp,
    disk::Disk,
    failpoint::{Place, passes},
    log::shared::Tail,
    mark::MarkPage,
    paths,
    producers::Producers,
    segment::Segment,
    segment_writer::SegmentWriter,
    state::{self, LogState},
};

/// A log as recovery hands it over.
#[derive(Debug)]
pub(crate) struct Recovered {
    /// What was found and done.
    pub(crate) report: RecoveryReport,
    /// Damaged ranges; with any the log refuses writes.
    pub(crate) damages: Vec<Damage>,
    /// Where the watermarks stand.
    pub(crate) offsets: LogOffsets,
    /// All segments, oldest first.
    pub(crate) segments: Vec<Arc<Segment>>,
    /// The writing end of the last one, unless the log is damaged.
    pub(crate) active: Option<SegmentWriter>,
    /// Where the next entry goes.
    pub(crate) tail: Tail,
    /// The mark page.
    pub(crate) mark: MarkPage,
    /// Log start and epochs.
    pub(crate) state: LogState,
    /// The producers, and the offsets of their snapshots on disk.
    pub(crate) producers: (Producers, VecDeque<Offset>),
}

/// Where and how a log is opened.
#[derive(Clone, Copy, Debug)]
struct Site<'a> {
    /// The disk.
    disk: &'a dyn Disk,
    /// The directory.
    dir: &'a Path,
    /// Limits of the log.
    options: &'a LogOptions,
    /// Now.
    now: Timestamp,
}

/// What the first break of the chain looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AtBreak {
    /// Nothing but zeros, and no segment after it.
    Zeros,
    /// Anything else.
    Bytes,
}

/// How the break lies to the highest offset known durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AgainstMark {
    /// `offset(p) >= M`: everything known durable is there.
    AtOrAbove,
    /// `offset(p) < M`: something known durable is not.
    Below,
}

/// The decision table. Rows 4 and 2 have one verdict: debris that proves nothing is torn.
const VERDICTS: [(AtBreak, AgainstMark, RecoveryVerdict); 4] = [
    (AtBreak::Zeros, AgainstMark::AtOrAbove, RecoveryVerdict::CleanEnd),
    (AtBreak::Bytes, AgainstMark::AtOrAbove, RecoveryVerdict::TornTail),
    (AtBreak::Zeros, AgainstMark::Below, RecoveryVerdict::Damaged),
    (AtBreak::Bytes, AgainstMark::Below, RecoveryVerdict::Damaged),
];

/// The verdict on a break.
fn verdict(at_break: AtBreak, against_mark: AgainstMark) -> RecoveryVerdict {
    let row = VERDICTS.iter().find(|row| (row.0, row.1) == (at_break, against_mark));
    row.expect("the table is complete").2
}

/// What is known about a log whose newest mark cannot be trusted.
enum Judged {
    /// Its damages, and what its entries prove durable.
    Damaged(Vec<Damage>, Offset),
    /// Everything known durable is there.
    Sound(LogState, walk::Walked, RecoveryVerdict),
}

/// Opens the log in `dir`, which exists.
pub(crate) fn recover(
    disk: &dyn Disk,
    dir: &Path,
    options: &LogOptions,
    now: Timestamp,
) -> Result<Recovered, StorageError> {
    let site = Site { disk, dir, options, now };
    let survey = survey::survey(site)?;
    if let Some(recovered) = trusted::open_trusted(site, &survey)? {
        return Ok(recovered);
    }
    passes(Place::Surveyed);
    match judge(site, &survey)? {
        Judged::Damaged(damages, proven) => {
            unwritten::open_unwritten(site, survey, damages, proven)
        }
        Judged::Sound(state, walked, verdict) => {
            let rewritten = rewrite::rewrite(site, survey, state, &walked, verdict);
            if matches!(&rewritten, Err(StorageError::Io(failure)) if failure.is_disk_full()) {
                // It has no name yet, and others need the room.
                let _ = disk.remove_file(&dir.join(paths::RECOVERED_SEGMENT));
            }
            rewritten
        }
    }
}

/// Opens the log in `dir`, which exists, for reading what is known durable. Changes nothing on disk.
pub(crate) fn recover_read_only(
    disk: &dyn Disk,
    dir: &Path,
    options: &LogOptions,
    now: Timestamp,
) -> Result<Recovered, StorageError> {
    let site = Site { disk, dir, options, now };
    let survey = survey::survey(site)?;
    if let Some(found) = trusted::find_trusted(site, &survey)? {
        return Ok(unwritten::open_trusted(survey, found));
    }
    match judge(site, &survey)? {
        Judged::Damaged(damages, proven) => {
            unwritten::open_unwritten(site, survey, damages, proven)
        }
        Judged::Sound(_, walked, verdict) => {
            let mut found = unwritten::open_unwritten(site, survey, Vec::new(), walked.durable)?;
            found.report.verdict = verdict;
            Ok(found)
        }
    }
}

/// Judges a log whose newest mark cannot be trusted.
fn judge(site: Site<'_>, survey: &survey::Survey) -> Result<Judged, StorageError> {
    let state = match survey.sound_state() {
        Ok(state) => state,
        // Neither where the log begins nor any record is left: opened, it would read as an empty one.
        Err(_) if survey.tells_nothing() => {
            return Err(StorageError::Missing { path: site.dir.to_owned() });
        }
        Err(damage) => return Ok(Judged::Damaged(vec![damage], Offset::ZERO)),
    };
    if !state::has_next(survey.highest_epoch()) {
        return Ok(Judged::Damaged(vec![survey::state_damage()], Offset::ZERO));
    }
    let mut damages = links::damages_below(site, survey, survey.known_durable())?;
    damages.extend(leftovers::strays(site, survey)?);
    if !damages.is_empty() {
        return Ok(Judged::Damaged(damages, Offset::ZERO));
    }
    let walked = walk::walk(site, survey)?;
    if walked.epoch > survey.highest_epoch() {
        // An epoch is on record before anything is appended in it.
        return Ok(Judged::Damaged(vec![survey::state_damage()], walked.durable));
    }
    Ok(match verdict(walked.at_break, walked.against_mark()) {
        RecoveryVerdict::Damaged => {
            Judged::Damaged(vec![walked.damage(site, survey)?], walked.durable)
        }
        found @ (RecoveryVerdict::Trusted
        | RecoveryVerdict::CleanEnd
        | RecoveryVerdict::TornTail) => {
            // Entries may prove more durable than mark and headers did.
            let damages = links::damages_below(site, survey, walked.durable)?;
            if !damages.is_empty() {
                return Ok(Judged::Damaged(damages, walked.durable));
            }
            Judged::Sound(state, walked, found)
        }
    })
}
