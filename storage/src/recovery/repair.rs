//! Gives up what is damaged, on command: for `riverrun log repair`. Works offline on one log that nobody has open.
//!
//! ```text
//! plan   which files end or hold other than they should, what of them is valid, which offsets are gone. Reads only
//! 1 set aside   every file that is about to be replaced is copied to the quarantine, those from elsewhere are moved; synced
//! 2 mark        a mark that is not clean and says how far the log was durable; no snapshot of producers past the first loss; synced
//! 3 write       oldest first: each file as a new one (valid entries copied, lost offsets as entries of kind `Lost`), synced,
//!               renamed over the old name; directory sync
//! 4 state       made anew when it is not there
//! 5 recover     as after a crash: a new segment and a higher epoch at the end
//! ```
//!
//! Invariants:
//! - Offsets stay dense and the chain stays whole, so recovery needs to know nothing of repairs: what is lost later is damage again.
//! - Bytes are durable in the quarantine before the log changes, and nothing there is overwritten or removed.
//! - Each rename leaves a log with fewer damages, so a repair that was cut short is begun again and comes to the same end.
//! - The log end never falls below what mark, headers or entries prove durable.
//!
//! It does not judge whether a loss is acceptable, and repairs no log whose files belong to another partition or a newer format.

mod layout;
mod neighbours;
mod pieces;
mod quarantine;
mod rescue;
mod salvage;
mod write;

use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use riverrun_proto::{LeaderEpoch, Offset, PartitionId, TopicId, limits};
use uuid::Uuid;

use self::{layout::Layout, pieces::Found, rescue::RescueDisk};
use super::{
    Site, recover,
    survey::{self, Survey},
};
use crate::{
    INDEX_INTERVAL_BYTES, LogFailure, LogOptions, PRODUCER_COUNT_MAX, RecoveryVerdict,
    SEALED_FILES_MAX, StorageError, Timestamp,
    data_dir::{DataDir, LOGS_DIR, QUARANTINE_DIR},
    disk::Disk,
    log::create,
    paths, state,
};

/// One log to be repaired. Nobody else may have it open.
#[derive(Debug)]
pub struct LogRepair {
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// Directory of the log.
    pub dir: PathBuf,
    /// Directory for what is set aside; made when it is needed.
    pub quarantine: PathBuf,
    /// What the log is. Limits hold for the segment that the repair begins.
    pub options: LogOptions,
    /// Now.
    pub now: Timestamp,
}

/// Records that cannot be read any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Their offsets.
    pub offsets: Range<Offset>,
    /// File that holds them, or should.
    pub path: PathBuf,
    /// Bytes of the file that are not valid; empty when the file is not there.
    pub bytes: Range<u64>,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Loss { offsets, path, bytes } = self;
        write!(f, "offsets `{}..{}`: ", offsets.start, offsets.end)?;
        let path = path.display();
        if bytes.is_empty() {
            write!(f, "`{path}` does not have them")
        } else {
            write!(f, "bytes `{}..{}` of `{path}`", bytes.start, bytes.end)
        }
    }
}

/// What a repair of one log does, or did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repair {
    /// First offset kept.
    pub log_start: Offset,
    /// Offset of the next record.
    pub log_end: Offset,
    /// What is given up, oldest first.
    pub losses: Vec<Loss>,
    /// Files that are set aside: those that are written anew and those from elsewhere.
    pub set_aside: Vec<PathBuf>,
    /// Segment files that are written, those in place of others included.
    pub written: Vec<PathBuf>,
    /// Bytes that the device refuses to read. What they held is lost; the quarantine has zeros there.
    pub unreadable: Vec<(PathBuf, Range<u64>)>,
    /// True when log start and epoch history are taken from what is there, because the state file is missing or invalid.
    pub state_anew: bool,
    /// Epoch of the records that come next; `None` before it is done.
    pub epoch: Option<LeaderEpoch>,
}

impl Repair {
    /// True when the log has damage.
    pub fn is_needed(&self) -> bool {
        let is_changed = !self.set_aside.is_empty() || !self.written.is_empty();
        self.state_anew || is_changed || !self.unreadable.is_empty()
    }

    /// Offsets given up.
    pub fn lost_count(&self) -> u64 {
        self.losses.iter().map(|loss| loss.offsets.end.since(loss.offsets.start)).sum()
    }

    /// Offsets that stay, those without records included.
    pub fn kept_count(&self) -> u64 {
        self.log_end.since(self.log_start).saturating_sub(self.lost_count())
    }
}

impl LogRepair {
    /// The repair of the log in `dir`, below the data directory. `None` when that is not `logs/<topic id>/<partition>`.
    pub fn in_data_dir(data_dir: &DataDir, dir: &Path, now: Timestamp) -> Option<LogRepair> {
        let mut names = dir.components().rev().map(|part| part.as_os_str().to_str());
        let partition: u32 = names.next()??.parse().ok()?;
        let topic_id = TopicId(Uuid::try_parse(names.next()??).ok()?);
        let is_below = names.next()?? == LOGS_DIR && names.next().is_none();
        let quarantine = Path::new(QUARANTINE_DIR);
        let quarantine = quarantine.join(topic_id.to_string()).join(partition.to_string());
        let options = LogOptions {
            topic_id,
            partition: PartitionId(partition),
            segment_bytes_max: 16 << 20,
            segment_age_max: Duration::MAX,
            batch_bytes_max: limits::BATCH_BYTES_MAX,
            index_interval_bytes: INDEX_INTERVAL_BYTES,
            producer_count_max: PRODUCER_COUNT_MAX,
            producer_age_max: Duration::MAX,
            sealed_files_max: SEALED_FILES_MAX,
        };
        is_below.then(|| LogRepair {
            disk: data_dir.disk(),
            dir: dir.to_owned(),
            quarantine,
            options,
            now,
        })
    }

    /// What a repair would do. Reads every entry, changes nothing.
    ///
    /// # Errors
    /// When the directory holds nothing of a log, a file belongs to another partition or a newer format, or the disk refuses.
    pub fn look(&self) -> Result<Repair, StorageError> {
        let rescue = RescueDisk::new(self.disk.clone());
        self.planned(&rescue, |_, found, layout| self.told(&rescue, found, layout))
    }

    /// Whether something in the directory says that a log was in it, records or not. Without that, its creation was not finished, or all its
    /// files are gone.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn was_begun(&self) -> Result<bool, StorageError> {
        Ok(!create::is_absent(self.disk.as_ref(), &self.dir)?)
    }

    /// Repairs the log: what [`LogRepair::look`] calls lost is given up. A sound log is left as it is.
    ///
    /// # Errors
    /// As [`LogRepair::look`]. A repair that failed may be begun again.
    pub fn accept_loss(&self) -> Result<Repair, StorageError> {
        let rescue = RescueDisk::new(self.disk.clone());
        let site = self.site(&rescue);
        let mut repair = self.planned(&rescue, |survey, found, layout| {
            let repair = self.told(&rescue, found, layout)?;
            if repair.is_needed() {
                let quarantine = &self.quarantine;
                quarantine::set_aside(site, quarantine, &repair.set_aside, &found.strangers)?;
                write::write(site, survey, found, layout)?;
            }
            Ok(repair)
        })?;
        if !repair.is_needed() {
            return Ok(repair);
        }
        let opened = recover(site.disk, site.dir, site.options, site.now)?;
        if let (RecoveryVerdict::Damaged, Some(damage)) =
            (opened.report.verdict, opened.damages.first())
        {
            return Err(StorageError::Failed(LogFailure::Damaged(damage.clone())));
        }
        repair.log_end = opened.offsets.log_end;
        repair.epoch = Some(opened.report.leader_epoch);
        Ok(repair)
    }

    /// Looks, without the files from elsewhere: they hide which of this log's belong together.
    fn planned<T>(
        &self,
        rescue: &RescueDisk,
        act: impl FnOnce(&Survey, &Found<'_>, &Layout) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let site = self.site(rescue);
        let mut apart = Vec::new();
        loop {
            let survey = survey::survey_without(site, &apart)?;
            let mut found = pieces::find(site, rescue, &survey)?;
            if found.strangers.is_empty() {
                apart.extend(self.unreadable_side_files(rescue, &survey)?);
                found.strangers = apart;
                let layout = layout::plan(site, &survey, &found)?;
                return act(&survey, &found, &layout);
            }
            apart.append(&mut found.strangers);
        }
    }

    /// Files beside the segments that the device refuses in part: nothing but a new one helps.
    fn unreadable_side_files(
        &self,
        rescue: &RescueDisk,
        survey: &Survey,
    ) -> Result<Vec<PathBuf>, StorageError> {
        let snapshots = survey.snapshots.iter().map(|as_of| paths::producers(&self.dir, *as_of));
        let indexes = survey.indexes.iter().map(|(_, path)| path.clone());
        let others = [paths::MARK, paths::CLEANED].map(|name| self.dir.join(name));
        let mut side_files: Vec<PathBuf> = snapshots.chain(indexes).chain(others).collect();
        for path in &side_files {
            state::read_small(rescue, path)?;
        }
        side_files.retain(|path| rescue.was_refused(path));
        Ok(side_files)
    }

    fn site<'a>(&'a self, rescue: &'a RescueDisk) -> Site<'a> {
        let LogRepair { dir, options, now, .. } = self;
        Site { disk: rescue, dir, options, now: *now }
    }

    /// The plan as it is told to the operator.
    fn told(
        &self,
        rescue: &RescueDisk,
        found: &Found<'_>,
        layout: &Layout,
    ) -> Result<Repair, StorageError> {
        let losses = layout.losses(found.log_start);
        let set_aside = self.set_aside(found, layout)?;
        Ok(Repair {
            log_start: found.log_start,
            log_end: layout.end,
            losses,
            set_aside,
            written: layout.written().collect(),
            unreadable: rescue.refused(),
            state_anew: found.state.is_none(),
            epoch: None,
        })
    }

    /// Files of the directory that a repair replaces or moves.
    fn set_aside(&self, found: &Found<'_>, layout: &Layout) -> Result<Vec<PathBuf>, StorageError> {
        let names = create::list(self.disk.as_ref(), &self.dir)?;
        let is_there = |path: &Path| {
            names.iter().any(|entry| path.file_name().is_some_and(|name| *name == *entry.name))
        };
        let mut paths: Vec<PathBuf> = found.strangers.clone();
        if found.state.is_none() {
            paths.push(self.dir.join(paths::STATE));
        }
        paths.extend(layout.written());
        paths.retain(|path| is_there(path));
        paths.sort_unstable();
        paths.dedup();
        Ok(paths)
    }
}
