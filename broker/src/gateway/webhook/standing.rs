//! What became of requests, counted for those who ask how an endpoint stands.

use super::answer::Verdict;
use crate::{delivery::SettleStatus, service::delivery::webhook::WebhookStanding};

/// Counts a request by what became of it. One that was taken while its record was no longer held is posted again.
pub(super) fn count(standing: &mut WebhookStanding, verdict: &Verdict, told: (SettleStatus, i64)) {
    let (status, now_ms) = told;
    match verdict {
        Verdict::Delivered => standing.delivered += u64::from(status == SettleStatus::Ok),
        Verdict::Failed { reason, .. } => {
            standing.failed += 1;
            standing.last_failure = Some((reason.clone(), now_ms));
        }
        Verdict::Postponed { reason, .. } => {
            standing.postponed += 1;
            standing.last_failure = Some((reason.clone(), now_ms));
        }
        Verdict::Gone => {
            standing.failed += 1;
            standing.last_failure = Some(("answered 410 Gone".into(), now_ms));
        }
        Verdict::NoRoom => standing.no_room += 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_was_no_longer_held_when_its_endpoint_took_it_does_not_count_as_delivered() {
        let mut standing = WebhookStanding::default();
        for refused in [SettleStatus::StaleLease, SettleStatus::AlreadySettled] {
            count(&mut standing, &Verdict::Delivered, (refused, 5));
        }
        assert_eq!(standing.delivered, 0);
        count(&mut standing, &Verdict::Delivered, (SettleStatus::Ok, 5));
        assert_eq!((standing.delivered, standing.failed), (1, 0));
    }
}
