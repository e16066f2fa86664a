//! Work in any order: records are marked as done one by one, and only the contiguous prefix is committed.

use std::sync::Arc;

use super::{batch::Received, shared::Shared};
use crate::error::Result;

/// Marks records as done, from any task, in any order. Cheap to clone. Offsets are committed in the
/// background, at the interval of [`super::Commit::Processed`] or each second, and when the consumer closes.
///
/// A record that is never marked holds its partition's committed offset back: after a restart it comes again.
#[derive(Clone, Debug)]
pub struct Tracker {
    pub(super) shared: Arc<Shared>,
}

impl Tracker {
    /// Marks a record as done. Marking it again changes nothing.
    ///
    /// # Errors
    /// A fenced error when the partition was given up, sought or reset since: the record comes again,
    /// here or at another member.
    pub fn done(&self, record: &Received) -> Result<()> {
        let marked = self.shared.book.lock().done(&record.partition, record.life, record.offset);
        self.shared.committer.notify_one();
        marked
    }

    /// Commits what is done up to now.
    ///
    /// # Errors
    /// As [`super::Consumer::commit`].
    pub async fn commit(&self) -> Result<()> {
        let progress = self.shared.book.lock().progress(false);
        self.shared.commit_progress(progress).await
    }

    /// Records handed out and not done.
    pub fn open(&self) -> usize {
        self.shared.book.lock().open()
    }
}
