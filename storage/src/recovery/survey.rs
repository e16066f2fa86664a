//! What lies in the directory: names, header blocks, state, mark. Reads only.

use std::path::PathBuf;

use riverrun_proto::{LeaderEpoch, Offset};

use super::Site;
use crate::{
    Damage, DamageReason, StorageError,
    format::SegmentHeader,
    log::create::list,
    mark::MarkPage,
    paths::{self, FileName},
    segment_file,
    state::{self, LogState, StoredState},
};

/// One segment file.
#[derive(Clone, Debug)]
pub(super) struct FoundSegment {
    /// Base offset by its name.
    pub(super) base: Offset,
    /// The file.
    pub(super) path: PathBuf,
    /// Its header block and checksum, when valid and of this base.
    pub(super) header: Option<(SegmentHeader, u32)>,
}

/// The directory.
#[derive(Debug)]
pub(super) struct Survey {
    /// Segments in order of their base; those below the log start and superseded ones are not among them.
    pub(super) segments: Vec<FoundSegment>,
    /// Segments below the log start, which an interrupted delete left.
    pub(super) passed: Vec<FoundSegment>,
    /// Segments of a lower epoch than one before them: an interrupted recovery left them (row 9), or they are
    /// not this log's (row 10).
    pub(super) superseded: Vec<FoundSegment>,
    /// The state file.
    pub(super) state: StoredState,
    /// The mark page.
    pub(super) mark: MarkPage,
    /// Offsets of producer snapshots, rising.
    pub(super) snapshots: Vec<Offset>,
    /// Files named `*.tmp`.
    pub(super) temporaries: Vec<PathBuf>,
    /// Index files and their segments' bases.
    pub(super) indexes: Vec<(Offset, PathBuf)>,
    /// Files set aside earlier and the bases they come from.
    pub(super) torn: Vec<(Offset, PathBuf)>,
}

/// Looks at the directory of `site`.
pub(super) fn survey(site: Site<'_>) -> Result<Survey, StorageError> {
    survey_without(site, &[])
}

/// Looks at the directory of `site` as if the segments at `apart` were not there.
pub(super) fn survey_without(site: Site<'_>, apart: &[PathBuf]) -> Result<Survey, StorageError> {
    let Site { disk, dir, options, .. } = site;
    let mut survey = Survey {
        segments: Vec::new(),
        passed: Vec::new(),
        superseded: Vec::new(),
        state: state::load(disk, dir)?,
        mark: MarkPage::load(disk, dir)?,
        snapshots: Vec::new(),
        temporaries: Vec::new(),
        indexes: Vec::new(),
        torn: Vec::new(),
    };
    for entry in list(disk, dir)? {
        let path = dir.join(&entry.name);
        match FileName::parse(&entry.name) {
            FileName::Segment(_) if apart.contains(&path) => {}
            FileName::Segment(base) => {
                let header = segment_file::read_header(disk, &path, options)?;
                let header = header.filter(|(header, _)| header.base == base);
                survey.segments.push(FoundSegment { base, path, header });
            }
            FileName::Producers(as_of) => survey.snapshots.push(as_of),
            FileName::Temporary => survey.temporaries.push(path),
            FileName::Index(base) => survey.indexes.push((base, path)),
            FileName::Torn(base) => survey.torn.push((base, path)),
            FileName::State | FileName::Mark | FileName::Cleaned | FileName::Foreign => {}
        }
    }
    survey.segments.sort_by_key(|segment| segment.base);
    survey.snapshots.sort_unstable();
    survey.set_leftovers_apart();
    Ok(survey)
}

/// The state file as damage.
pub(super) fn state_damage() -> Damage {
    let path = PathBuf::from(paths::STATE);
    Damage { offsets: Offset::ZERO..Offset::ZERO, path, pos: 0, reason: DamageReason::State }
}

impl Survey {
    /// Takes segments out of the list that an interrupted delete or recovery may have left behind.
    fn set_leftovers_apart(&mut self) {
        let log_start = self.log_start().unwrap_or(Offset::ZERO);
        let passed = self
            .segments
            .windows(2)
            .take_while(|pair| pair[1].base <= log_start && pair[1].header.is_some());
        let count = passed.count();
        self.passed.extend(self.segments.drain(..count));
        let mut highest = LeaderEpoch(0);
        let (kept, superseded) = self.segments.drain(..).partition(|segment| {
            let epoch = segment.header.map_or(highest, |(header, _)| header.leader_epoch);
            let kept = epoch >= highest;
            highest = highest.max(epoch);
            kept
        });
        self.segments = kept;
        self.superseded = superseded;
    }

    /// The log start on record.
    pub(super) fn log_start(&self) -> Option<Offset> {
        match &self.state {
            StoredState::Valid(state) => Some(state.log_start),
            StoredState::Missing | StoredState::Invalid => None,
        }
    }

    /// True when neither a state nor a segment says anything about the log.
    pub(super) fn tells_nothing(&self) -> bool {
        self.log_start().is_none() && self.segments.iter().all(|segment| segment.header.is_none())
    }

    /// The state, when it is there and the first segment holds its log start.
    pub(super) fn sound_state(&self) -> Result<LogState, Damage> {
        let damage = |from: Offset, to: Offset, path, reason| Damage {
            offsets: from..to.max(from),
            path,
            pos: 0,
            reason,
        };
        let dir_of = |name: &str| PathBuf::from(name);
        let StoredState::Valid(state) = &self.state else { return Err(state_damage()) };
        match self.segments.first() {
            Some(first) if first.base <= state.log_start => Ok(state.clone()),
            Some(first) => {
                let path = first.path.clone();
                Err(damage(state.log_start, first.base, path, DamageReason::Missing))
            }
            None => {
                let (from, to) = (state.log_start, self.known_durable());
                Err(damage(from, to, dir_of(paths::STATE), DamageReason::Missing))
            }
        }
    }

    /// The highest offset that mark, state and header blocks prove durable.
    pub(super) fn known_durable(&self) -> Offset {
        let mark = self.mark.newest().map_or(Offset::ZERO, |mark| mark.flushed);
        let headers = self.segments.iter().filter_map(|segment| segment.header);
        let headers = headers.map(|(header, _)| header.durable_upto).max();
        let state = match &self.state {
            StoredState::Valid(state) => state.proves_durable(),
            StoredState::Missing | StoredState::Invalid => Offset::ZERO,
        };
        mark.max(headers.unwrap_or_default()).max(state)
    }

    /// The highest epoch on record.
    pub(super) fn highest_epoch(&self) -> LeaderEpoch {
        let headers = self.segments.iter().chain(&self.superseded);
        let headers = headers.filter_map(|segment| segment.header);
        let highest = headers.map(|(header, _)| header.leader_epoch).max().unwrap_or_default();
        match &self.state {
            StoredState::Valid(state) => highest.max(state.epoch()),
            StoredState::Missing | StoredState::Invalid => highest,
        }
    }
}
