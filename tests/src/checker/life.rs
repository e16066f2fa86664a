//! What was done to the broker so far, as the rules ask for it.

use crate::history::Event;

/// Counts of faults, up to the event that is looked at.
#[derive(Debug, Default)]
pub(super) struct Life {
    /// Power cuts so far.
    pub(super) cuts: u32,
    /// A power cut was recorded and no start since. What is answered now may be of a disk that is gone already.
    pub(super) in_cut: bool,
    /// Starts of the broker so far.
    pub(super) starts: u32,
    /// When the last one was.
    pub(super) start_ns: u64,
    /// Faults of any kind so far.
    pub(super) faults: u32,
    /// When each power cut was.
    pub(super) cut_ns: Vec<u64>,
    /// Faults that no acknowledged send followed yet.
    waiting: Vec<(String, u64)>,
}

impl Life {
    pub(super) fn fault(&mut self, name: &str, event: &Event) {
        self.faults += 1;
        self.waiting.push((name.to_owned(), event.t_ns));
        match name {
            "power-cut" => {
                self.cuts += 1;
                self.cut_ns.push(event.t_ns);
                self.in_cut = true;
            }
            "start" => {
                self.in_cut = false;
                self.starts += 1;
                self.start_ns = event.t_ns;
            }
            _ => {}
        }
    }

    /// Whether what began after `cuts` power cuts and ends now was surely answered before the next one.
    pub(super) fn is_sure(&self, cuts: u32) -> bool {
        !self.in_cut && self.cuts == cuts
    }

    /// Whether what comes at `t_ns` without being asked for is surely of the broker that runs now.
    pub(super) fn is_of_this_start(&self, t_ns: u64, lag_ns: u64) -> bool {
        self.starts == 0 || t_ns >= self.start_ns.saturating_add(lag_ns)
    }

    /// Service is there again: a send that began at `invoke_ns` was acknowledged. Gives the faults that are over with it.
    pub(super) fn served(&mut self, invoke_ns: u64) -> impl Iterator<Item = (String, u64)> {
        let over = if self.waiting.is_empty() {
            Vec::new()
        } else {
            self.waiting.extract_if(.., |(_, at)| *at <= invoke_ns).collect()
        };
        over.into_iter()
    }
}
