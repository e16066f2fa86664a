//! Makes a failing list of steps shorter.

use super::step::Step;

/// Most tries.
const TRIES_MAX: usize = 600;

/// A shorter list that still `fails`: pieces are left out, half of it first, then ever smaller ones.
pub(super) fn shorten(steps: Vec<Step>, fails: impl Fn(&[Step]) -> bool) -> Vec<Step> {
    let mut best = steps;
    let mut piece = best.len().div_ceil(2);
    let mut tries = 0;
    while piece > 0 && tries < TRIES_MAX {
        let mut at = 0;
        while at < best.len() && tries < TRIES_MAX {
            let mut shorter = best.clone();
            shorter.drain(at..(at + piece).min(best.len()));
            tries += 1;
            if fails(&shorter) {
                best = shorter;
            } else {
                at += piece;
            }
        }
        piece /= 2;
    }
    best
}
