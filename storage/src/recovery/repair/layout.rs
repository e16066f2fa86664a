//! The segments as they will be: which files are written anew, which are made, and how each is tied to the one before it.
//!
//! A file is left as it is when all of it is valid, it ends as its successor says, and it tells the truth of the one before it.
//! Offsets that no file has any more get a segment of their own. A file that the one behind it tells of stands for what that
//! one says, as after compaction, so the one behind it stays as it is.

use std::{ops::Range, path::PathBuf};

use riverrun_proto::{LeaderEpoch, Offset};

use super::{
    super::{Site, survey::Survey},
    Loss,
    neighbours::is_linked,
    pieces::{Found, Piece, claim},
    salvage::{Run, Salvage, after},
};
use crate::{
    StorageError, Timestamp,
    format::{Previous, SegmentHeader},
    paths,
};

/// What a new file holds, in order.
#[derive(Clone, Debug)]
pub(super) enum Part {
    /// Entries of the old file.
    Copy(Run),
    /// Offsets given up, and the bytes of the old file that should hold them.
    Lost(Range<Offset>, Range<u64>),
}

/// How a new segment is tied to the one before it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Tie {
    /// It ends so.
    Told(Option<Previous>),
    /// It is new as well, and ends as it will be written.
    Written,
}

/// One new file.
#[derive(Clone, Debug)]
pub(super) struct NewSegment {
    /// Its name.
    pub(super) path: PathBuf,
    /// Its header block, but for the tie.
    pub(super) header: SegmentHeader,
    /// The tie.
    pub(super) tie: Tie,
    /// No entry behind it was appended before, as far as is known.
    pub(super) time: Timestamp,
    /// Salt of the entries copied.
    pub(super) salt: u64,
    /// What it holds.
    pub(super) parts: Vec<Part>,
}

/// The log as it will be.
#[derive(Debug)]
pub(super) struct Layout {
    /// New files, oldest first.
    pub(super) segments: Vec<NewSegment>,
    /// Files that stay as they are.
    pub(super) kept: Vec<PathBuf>,
    /// First offset past all of it.
    pub(super) end: Offset,
}

impl Layout {
    /// What is given up at or past `log_start`.
    pub(super) fn losses(&self, log_start: Offset) -> Vec<Loss> {
        let lost = self.segments.iter().flat_map(|segment| {
            segment.parts.iter().filter_map(|part| match part {
                Part::Lost(offsets, bytes) => Some(Loss {
                    offsets: offsets.start.max(log_start)..offsets.end,
                    path: segment.path.clone(),
                    bytes: bytes.clone(),
                }),
                Part::Copy(_) => None,
            })
        });
        lost.filter(|loss| !loss.offsets.is_empty()).collect()
    }

    /// Names of the new files. Some may be there, and are replaced.
    pub(super) fn written(&self) -> impl Iterator<Item = PathBuf> {
        self.segments.iter().map(|segment| segment.path.clone())
    }
}

/// Plans the log anew.
pub(super) fn plan(
    site: Site<'_>,
    survey: &Survey,
    found: &Found<'_>,
) -> Result<Layout, StorageError> {
    let headers = found.pieces.iter().filter_map(|piece| piece.found.header);
    let epoch = headers.map(|(header, _)| header.leader_epoch).next();
    let first = found.pieces.first().map_or(found.log_start, |piece| piece.found.base);
    let mut planner = Planner {
        site,
        layout: Layout { segments: Vec::new(), kept: Vec::new(), end: found.log_start.min(first) },
        tie: Tie::Told(None),
        last_base: None,
        time: found.pieces.iter().find_map(Piece::begun).unwrap_or(site.now),
        durable: found.durable,
        epoch: epoch.unwrap_or_else(|| survey.highest_epoch().max(LeaderEpoch(1))),
    };
    for (number, piece) in found.pieces.iter().enumerate() {
        planner.add(piece, found.pieces.get(number + 1), found.wanted)?;
    }
    planner.fill(found.wanted, None);
    let is_begun = survey.segments.first().is_some_and(|first| first.base <= found.log_start);
    if planner.last_base.is_none() && !is_begun {
        // Nothing was in it, and without a file a start takes it for lost.
        planner.begin();
    }
    Ok(planner.layout)
}

/// The layout while it is made.
struct Planner<'a> {
    site: Site<'a>,
    layout: Layout,
    /// How the last segment ends.
    tie: Tie,
    /// Base of the last segment.
    last_base: Option<Offset>,
    /// Nothing that was appended from the next file on is older, as far as is known.
    time: Timestamp,
    /// The highest offset known durable: no new file claims more.
    durable: Offset,
    /// No new segment has a lower epoch.
    epoch: LeaderEpoch,
}

impl Planner<'_> {
    /// Adds a file, and before it what is missing.
    fn add(
        &mut self,
        piece: &Piece<'_>,
        next: Option<&Piece<'_>>,
        wanted: Offset,
    ) -> Result<(), StorageError> {
        self.time = piece.begun().unwrap_or(self.time);
        let tied = self.lead_to(piece);
        if let Some((header, _)) = piece.found.header {
            self.epoch = self.epoch.max(header.leader_epoch);
        }
        let claimed = claim(piece.found, next.map(|next| next.found));
        let follows = next.map_or(wanted, |next| next.found.base);
        // One without entries has the name of what is to be filled.
        let is_empty = piece.end_offset() == piece.found.base && follows > piece.found.base;
        let is_whole = match &piece.salvage {
            Some(salvage) if salvage.holes.is_empty() && piece.is_readable && !is_empty => {
                self.ends_well((piece, salvage), next, wanted)?
            }
            Some(_) | None => false,
        };
        if let (Some(salvage), true, true, true) =
            (&piece.salvage, is_whole, tied, piece.found.header.is_some())
        {
            self.keep(piece, salvage);
            return Ok(());
        }
        let end = match (next, claimed, &piece.salvage) {
            (Some(_), None, Some(salvage)) if !is_empty => salvage.end_offset(),
            (Some(_), ..) => follows,
            (None, ..) => piece.end_offset().max(wanted),
        };
        let tie = match piece.found.header {
            Some((header, _)) if tied => Tie::Told(header.previous),
            Some(_) | None => self.tie,
        };
        self.renew(piece, (tie, claimed), end);
        Ok(())
    }

    /// Fills up to where `piece` begins. True when what is before it then ends as it says.
    fn lead_to(&mut self, piece: &Piece<'_>) -> bool {
        let (base, at) = (piece.found.base, self.layout.end);
        let told = piece.told();
        if self.last_base.is_none() && at == base {
            return true;
        }
        if at == base {
            // Kept ones were compared with what it says, new ones stand for it.
            return told.is_some_and(|told| {
                Some(told.base) == self.last_base && told.facts.end_offset == base
            });
        }
        let fits = |told: &Previous| told.facts.end_offset == base && told.base < base;
        let anchor = told.filter(fits).filter(|told| told.base >= at || self.last_base.is_none());
        match anchor {
            Some(told) => {
                if self.last_base.is_none() {
                    self.layout.end = at.min(told.base);
                }
                self.fill(told.base, None);
                self.fill(base, Some(told));
                true
            }
            None => {
                self.fill(base, None);
                false
            }
        }
    }

    /// A segment without records up to `end`, when there is anything to fill.
    fn fill(&mut self, end: Offset, stands_for: Option<Previous>) {
        let base = self.layout.end;
        if base < end {
            self.make(stands_for, vec![Part::Lost(base..end, 0..0)]);
        }
    }

    /// A segment without entries.
    fn begin(&mut self) {
        self.make(None, Vec::new());
    }

    /// A segment where no file is, with these parts.
    fn make(&mut self, stands_for: Option<Previous>, parts: Vec<Part>) {
        let base = self.layout.end;
        let header = SegmentHeader {
            topic_id: self.site.options.topic_id,
            partition: self.site.options.partition,
            leader_epoch: self.epoch,
            base,
            created: after(self.site.now, self.site.now),
            durable_upto: base.min(self.durable),
            previous: None,
            stands_for,
            recycled: false,
        };
        self.push(NewSegment {
            path: paths::segment(self.site.dir, base),
            header,
            tie: self.tie,
            time: self.time,
            salt: 0,
            parts,
        });
    }

    /// Whether a file without holes ends as the next one says. Where none says so, it stays only with a seal, or as the last one: what nobody
    /// calls durable in it may be in memory alone, and is written anew, here or by the recovery.
    fn ends_well(
        &self,
        (piece, salvage): (&Piece<'_>, &Salvage),
        next: Option<&Piece<'_>>,
        wanted: Offset,
    ) -> Result<bool, StorageError> {
        let end = salvage.end_offset();
        let Some(next) = next else { return Ok(end >= wanted) };
        if claim(piece.found, Some(next.found)).is_none() {
            return Ok(salvage.end.sealed);
        }
        Ok(end == next.found.base && is_linked(self.site, piece.found, next.found)?)
    }

    /// Leaves a file as it is.
    fn keep(&mut self, piece: &Piece<'_>, salvage: &Salvage) {
        self.layout.kept.push(piece.found.path.clone());
        self.tie = Tie::Told(Some(salvage.end));
        self.last_base = Some(piece.found.base);
        self.layout.end = salvage.end_offset();
    }

    /// Writes a file anew, up to `end`.
    fn renew(&mut self, piece: &Piece<'_>, (tie, claimed): (Tie, Option<Previous>), end: Offset) {
        let (site, base) = (self.site, piece.found.base);
        let old = piece.found.header.map(|(header, _)| header);
        let header = SegmentHeader {
            topic_id: site.options.topic_id,
            partition: site.options.partition,
            leader_epoch: old.map_or(self.epoch, |header| header.leader_epoch),
            base,
            created: after(old.map_or(site.now, |header| header.created), site.now),
            durable_upto: old.map_or(base, |header| header.durable_upto).min(self.durable),
            previous: None,
            stands_for: claimed,
            recycled: false,
        };
        let (salt, parts) = parts(piece, end);
        let (path, time) = (piece.found.path.clone(), self.time);
        self.push(NewSegment { path, header, tie, time, salt, parts });
        self.layout.end = end;
    }

    fn push(&mut self, segment: NewSegment) {
        if let Some(Part::Lost(offsets, _)) = segment.parts.last() {
            self.layout.end = offsets.end;
        }
        self.last_base = Some(segment.header.base);
        self.tie = Tie::Written;
        self.layout.segments.push(segment);
    }
}

/// Salt and parts of a file that is written anew up to `end`.
fn parts(piece: &Piece<'_>, end: Offset) -> (u64, Vec<Part>) {
    let Some(salvage) = &piece.salvage else {
        return (0, vec![Part::Lost(piece.found.base..end, 0..0)]);
    };
    let copied = salvage.runs.iter().map(|run| (run.start.pos, Part::Copy(*run)));
    let lost = salvage
        .holes
        .iter()
        .filter(|hole| !hole.offsets.is_empty())
        .map(|hole| (hole.bytes.start, Part::Lost(hole.offsets.clone(), hole.bytes.clone())));
    let mut parts: Vec<_> = copied.chain(lost).collect();
    parts.sort_by_key(|(pos, _)| *pos);
    let mut parts: Vec<Part> = parts.into_iter().map(|(_, part)| part).collect();
    let (from, pos) = (salvage.end_offset(), salvage.end.end_pos);
    if from < end {
        parts.push(Part::Lost(from..end, pos..salvage.file_bytes.max(pos)));
    }
    (salvage.salt, parts)
}
