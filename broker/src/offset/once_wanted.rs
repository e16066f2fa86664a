//! Topics that a group wanted and may want again: what is created under such a name meanwhile is new to it, so
//! that nothing of it is skipped.
//!
//! Bounded: past so many names the one noted longest ago is forgotten.

use std::collections::BTreeMap;

/// Names remembered for each group.
pub const ONCE_WANTED_MAX: usize = 1_000;

/// Names of topics. Equal are those with the same names in the same order, whatever was forgotten in between.
#[derive(Clone, Debug, Default)]
pub struct OnceWanted {
    /// Each name with its place in `order`.
    places: BTreeMap<String, u64>,
    /// Names by when they were noted last.
    order: BTreeMap<u64, String>,
}

impl PartialEq for OnceWanted {
    fn eq(&self, other: &OnceWanted) -> bool {
        self.order.values().eq(other.order.values())
    }
}

impl OnceWanted {
    /// True when `name` was noted and not forgotten.
    pub fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// Notes names, the last as the newest.
    pub fn note(&mut self, names: Vec<String>) {
        for name in names {
            let place = self.order.last_key_value().map_or(0, |(last, _)| last + 1);
            if let Some(before) = self.places.insert(name.clone(), place) {
                self.order.remove(&before);
            }
            self.order.insert(place, name);
            if self.order.len() > ONCE_WANTED_MAX
                && let Some((_, forgotten)) = self.order.pop_first()
            {
                self.places.remove(&forgotten);
            }
        }
    }

    /// The names, noted longest ago first.
    pub fn oldest_first(&self) -> Vec<String> {
        self.order.values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_noted_again_is_what_a_snapshot_says_of_it() {
        let of = |names: &[&str]| {
            let mut wanted = OnceWanted::default();
            wanted.note(names.iter().map(|name| (*name).into()).collect());
            wanted
        };
        assert_eq!(of(&["a", "a"]), of(&["a"]));
        assert_eq!(of(&["a", "b", "a"]), of(&["b", "a"]));
        assert_ne!(of(&["a", "b"]), of(&["b", "a"]));
    }

    #[test]
    fn the_name_noted_longest_ago_is_forgotten_first() {
        let mut wanted = OnceWanted::default();
        let name = |number: usize| format!("t{number}");
        wanted.note((0..ONCE_WANTED_MAX).map(name).collect());
        wanted.note(vec![name(0), "new".into()]);
        assert!(wanted.contains("t0") && wanted.contains("new") && !wanted.contains("t1"));
        let names = wanted.oldest_first();
        assert_eq!(names.len(), ONCE_WANTED_MAX);
        assert_eq!((&*names[0], &*names[998], &*names[999]), ("t2", "t0", "new"));
    }
}
