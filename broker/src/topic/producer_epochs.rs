//! Raised epochs of producer ids, the latest raised ones.
//!
//! Bounded: past so many ids the one raised longest ago is forgotten. Each id stands once, by its last raise, so
//! a snapshot and the commands it stands for forget the same ids.

use std::collections::{BTreeMap, HashMap};

/// Raised producer epochs that are remembered.
pub const PRODUCER_EPOCHS_MAX: usize = 100_000;

/// Epochs above 0 by producer id.
#[derive(Debug, Default)]
pub struct ProducerEpochs {
    /// Each id with its epoch and its place in `order`.
    epochs: HashMap<i64, (i16, u64)>,
    /// Ids by when they were raised last.
    order: BTreeMap<u64, i64>,
}

impl ProducerEpochs {
    /// The raised epoch of `id`; `None` when it was never raised, or so long ago that it is forgotten.
    pub fn get(&self, id: i64) -> Option<i16> {
        self.epochs.get(&id).map(|(epoch, _)| *epoch)
    }

    /// Ids remembered.
    pub fn count(&self) -> usize {
        self.epochs.len()
    }

    /// Notes that the epoch of `id` was raised to `epoch`.
    pub fn raise(&mut self, id: i64, epoch: i16) {
        let place = self.order.last_key_value().map_or(0, |(last, _)| last + 1);
        if let Some((_, before)) = self.epochs.insert(id, (epoch, place)) {
            self.order.remove(&before);
        }
        self.order.insert(place, id);
        if self.order.len() > PRODUCER_EPOCHS_MAX
            && let Some((_, forgotten)) = self.order.pop_first()
        {
            self.epochs.remove(&forgotten);
        }
    }

    /// Ids and epochs, raised longest ago first.
    pub fn oldest_first(&self) -> impl Iterator<Item = (i64, i16)> {
        self.order.values().filter_map(|id| Some((*id, self.get(*id)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_raised_longest_ago_is_forgotten_and_one_raised_again_is_not() {
        let mut epochs = ProducerEpochs::default();
        let max = i64::try_from(PRODUCER_EPOCHS_MAX).unwrap();
        for id in 0..max {
            epochs.raise(id, 1);
        }
        epochs.raise(0, 2);
        epochs.raise(max, 1);
        assert_eq!(epochs.count(), PRODUCER_EPOCHS_MAX);
        assert_eq!((epochs.get(0), epochs.get(1), epochs.get(2)), (Some(2), None, Some(1)));
        // One id raised again and again takes the place of no other.
        for epoch in 3..1_000 {
            epochs.raise(0, epoch);
        }
        assert_eq!(epochs.get(2), Some(1));
        let order: Vec<_> = epochs.oldest_first().collect();
        assert_eq!((order[0], order[order.len() - 1]), ((2, 1), (0, 999)));
        // What a snapshot restores forgets the same id next.
        let mut restored = ProducerEpochs::default();
        order.iter().for_each(|(id, epoch)| restored.raise(*id, *epoch));
        for epochs in [&mut epochs, &mut restored] {
            epochs.raise(max + 1, 1);
            assert_eq!((epochs.get(2), epochs.get(3)), (None, Some(1)));
        }
    }
}
