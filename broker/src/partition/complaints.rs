//! What was said lately about records that cannot be read, so that a reader who asks again and again does not
//! fill the log of the broker with one line.
//!
//! Invariants:
//! - Of one place one line is said in [`SILENCE`].
//! - At most [`PLACES_MAX`] places are remembered; while so many are, nothing is said of others.

use std::time::Duration;

use parking_lot::Mutex;

/// How long nothing more is said about one place.
const SILENCE: Duration = Duration::from_secs(60);
/// Most places remembered.
const PLACES_MAX: usize = 64;

/// The places of one partition.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    /// Each with the monotonic time at which it was spoken of.
    said: Mutex<Vec<(String, Duration)>>,
}

impl Complaints {
    /// True when nothing was said about `place` for a while; then something is said `now`.
    pub(super) fn is_news(&self, place: &str, now: Duration) -> bool {
        let mut said = self.said.lock();
        said.retain(|(_, at)| now.saturating_sub(*at) < SILENCE);
        if said.len() >= PLACES_MAX || said.iter().any(|(known, _)| known == place) {
            return false;
        }
        said.push((place.to_owned(), now));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_place_is_spoken_of_once_in_a_while() {
        let complaints = Complaints::default();
        let at = Duration::from_secs;
        assert!(complaints.is_news("a", at(10)));
        assert!(!complaints.is_news("a", at(10)) && !complaints.is_news("a", at(69)));
        assert!(complaints.is_news("b", at(69)));
        assert!(complaints.is_news("a", at(70)));
        assert!(!complaints.is_news("b", at(70)) && !complaints.is_news("a", at(71)));
    }

    #[test]
    fn many_places_are_no_flood() {
        let complaints = Complaints::default();
        let said = |now| {
            let news = |place: &usize| complaints.is_news(&place.to_string(), now);
            (0..1_000).filter(news).count()
        };
        assert_eq!(said(Duration::from_secs(1)), PLACES_MAX);
        assert_eq!(said(Duration::from_secs(2)), 0);
        assert_eq!(said(Duration::from_secs(61)), PLACES_MAX);
    }
}
