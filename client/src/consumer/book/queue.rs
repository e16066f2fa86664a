//! What was fetched and waits to be handed out, oldest first, with its bytes counted.

use std::{collections::VecDeque, sync::Arc};

use riverrun_proto::TopicPartition;

use crate::{consumer::batch::Batch, error::Error};

/// What waits to be handed out.
#[derive(Debug)]
pub(super) enum Item {
    Batch(Batch),
    /// Why nothing more of the partition follows.
    Stop {
        partition: TopicPartition,
        life: u64,
        error: Error,
    },
    /// The topic is no more; nothing of it follows.
    Deleted {
        topic: Arc<str>,
        error: Error,
    },
}

/// The items in their order. Its bound is the fetcher's business: it asks for no more while there are many bytes.
#[derive(Debug, Default)]
pub(super) struct Queue {
    items: VecDeque<Item>,
    /// Bytes of all items.
    bytes: usize,
}

impl Queue {
    /// Adds the newest.
    pub(super) fn push(&mut self, item: Item) {
        self.bytes += item.bytes();
        self.items.push_back(item);
    }

    /// Takes the oldest.
    pub(super) fn pop(&mut self) -> Option<Item> {
        let item = self.items.pop_front()?;
        self.bytes -= item.bytes();
        Some(item)
    }

    /// Drops whatever `keep` does not want.
    pub(super) fn retain(&mut self, keep: impl FnMut(&Item) -> bool) {
        self.items.retain(keep);
        self.bytes = self.items.iter().map(Item::bytes).sum();
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// True when nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

impl Item {
    fn bytes(&self) -> usize {
        match self {
            Item::Batch(batch) => batch.bytes(),
            Item::Stop { .. } | Item::Deleted { .. } => 0,
        }
    }
}
