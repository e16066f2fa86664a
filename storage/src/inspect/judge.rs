//! What breaks within and between segments are: damage below what is known durable, torn at or above it.

use std::{ops::Range, path::Path};

use riverrun_proto::Offset;

use super::{
    Finding,
    walk::{Break, WalkedSegment},
};
use crate::{Damage, DamageReason, mark::Mark, paths};

/// What was read, before it is judged.
pub(super) struct Walked<'a> {
    pub(super) dir: &'a Path,
    pub(super) log_start: Option<Offset>,
    pub(super) known_durable: Offset,
    pub(super) mark: Option<Mark>,
    pub(super) segments: &'a [WalkedSegment],
}

impl Walked<'_> {
    /// The state file is not there or not valid: nothing below the durable mark is certain.
    pub(super) fn state_damage(&self) -> Finding {
        let first = self.segments.first().map_or(Offset::ZERO, |first| first.base);
        let path = self.dir.join(paths::STATE);
        let offsets = first..first.max(self.known_durable);
        Finding::Damage(Damage { offsets, path, pos: 0, reason: DamageReason::State })
    }

    /// Says what the breaks within and between segments are.
    pub(super) fn judge(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let first = self.segments.first();
        let log_start = self.log_start.unwrap_or_default();
        if let Some(first) = first.filter(|first| first.base > log_start) {
            findings.push(damage(log_start..first.base, &first.path, 0, DamageReason::Missing));
        } else if first.is_none() && self.known_durable > log_start {
            let path = self.dir.join(paths::segment(Path::new(""), log_start));
            let offsets = log_start..self.known_durable;
            findings.push(damage(offsets, &path, 0, DamageReason::Missing));
        }
        for (number, segment) in self.segments.iter().enumerate() {
            let next = self.segments.get(number + 1);
            // What retention dropped may still lie there; nobody reads it.
            if next.is_some_and(|next| next.base <= log_start) {
                continue;
            }
            let judge = |found| self.judge_break(segment, found, next);
            let judged = segment.breaks.iter().filter_map(judge);
            findings.extend(judged);
            findings.extend(self.judge_link(segment, next));
            let lost = segment.lost.iter().map(|(pos, offsets)| Finding::Lost {
                path: segment.path.clone(),
                pos: *pos,
                offsets: offsets.clone(),
            });
            findings.extend(lost);
        }
        findings
    }

    fn judge_break(
        &self,
        segment: &WalkedSegment,
        found: &Break,
        next: Option<&WalkedSegment>,
    ) -> Option<Finding> {
        if found.offsets.start < self.known_durable {
            let to_the_end = found.is_last && next.is_none();
            let end = if to_the_end { self.known_durable } else { found.offsets.end };
            let offsets = found.offsets.start..end.max(found.offsets.start);
            let cut = self.cut_of(segment, next).filter(|_| found.is_last);
            let reason = cut.unwrap_or(found.reason);
            return Some(damage(offsets, &segment.path, found.pos, reason));
        }
        (found.bytes > 0).then(|| Finding::Torn {
            path: segment.path.clone(),
            pos: found.pos,
            offset: found.offsets.start,
            bytes: found.bytes,
        })
    }

    /// Whether the file of `segment` ends before what its successor or the mark says was written.
    fn cut_of(
        &self,
        segment: &WalkedSegment,
        next: Option<&WalkedSegment>,
    ) -> Option<DamageReason> {
        let told = next.and_then(|next| next.header?.previous);
        let told = told.filter(|told| told.base == segment.base && !segment.stands_for(told));
        let marked = self.mark.filter(|mark| mark.segment_base == segment.base);
        let expected = told.map(|told| told.end_pos).or(marked.map(|mark| mark.pos))?;
        let len = segment.file_bytes;
        (segment.header.is_some() && len < expected)
            .then_some(DamageReason::CutOff { len, expected })
    }

    /// Whether `segment` ends as `next` says.
    fn judge_link(&self, segment: &WalkedSegment, next: Option<&WalkedSegment>) -> Option<Finding> {
        let next = next?;
        let end = segment.facts.end_offset;
        if next.base > self.known_durable || segment.breaks.iter().any(|found| found.is_last) {
            return None;
        }
        if end != next.base {
            let offsets = end.min(next.base)..end.max(next.base);
            let reason = if end < next.base { DamageReason::Missing } else { DamageReason::Seal };
            return Some(damage(offsets, &segment.path, segment.end.pos, reason));
        }
        // A segment with a break inside can not match, which is told already.
        let agrees = !segment.breaks.is_empty()
            || next.header.is_none_or(|header| {
                header.previous.is_some_and(|previous| segment.ends_as(&previous))
            });
        let offsets = segment.base..next.base;
        (!agrees).then(|| damage(offsets, &segment.path, segment.end.pos, DamageReason::Seal))
    }
}

fn damage(offsets: Range<Offset>, path: &Path, pos: u64, reason: DamageReason) -> Finding {
    Finding::Damage(Damage { offsets, path: path.to_owned(), pos, reason })
}
