//! An open record: looked at and not settled.
//!
//! 16 bytes, because a subscription may have a million of them.

/// No key, no grant, no session.
pub(super) const NONE: u32 = u32::MAX;

const STATE: u8 = 0b0000_0011;
const STARTED: u8 = 0b0000_0100;
const ISOLATED: u8 = 0b0000_1000;
const CRASHES: u8 = 0b0011_0000;
const CRASHES_SHIFT: u32 = 4;

/// Where an open record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// May be handed out.
    Ready,
    /// In a session's hands.
    InFlight,
    /// Waits for its next try.
    RetryWait,
    /// Waits for an earlier record of its key.
    Blocked,
}

/// An open record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Slot in the table of keys, or [`NONE`].
    pub(super) key: u32,
    /// Grant that holds it; only meaningful in flight.
    pub(super) grant: u32,
    /// Bytes of key, value and headers.
    pub(super) bytes: u32,
    /// Failures so far; stops at its largest value.
    pub(super) failures: u16,
    /// Times handed out; stops at its largest value.
    pub(super) attempts: u8,
    /// State, started, isolated, crashes.
    bits: u8,
}

impl Entry {
    /// A blocked record that was never handed out.
    pub(super) fn new(key: u32, bytes: u32, failures: u16) -> Entry {
        Entry { key, grant: NONE, bytes, failures, attempts: 0, bits: State::Blocked as u8 }
    }

    pub(super) fn state(&self) -> State {
        match self.bits & STATE {
            0 => State::Ready,
            1 => State::InFlight,
            2 => State::RetryWait,
            _ => State::Blocked,
        }
    }

    pub(super) fn set_state(&mut self, state: State) {
        self.bits = (self.bits & !STATE) | state as u8;
    }

    /// Its holder said that handling began.
    pub(super) fn started(&self) -> bool {
        self.bits & STARTED != 0
    }

    pub(super) fn set_started(&mut self, started: bool) {
        self.bits = (self.bits & !STARTED) | if started { STARTED } else { 0 };
    }

    /// It is handed out alone, because its handlers crashed.
    pub(super) fn isolated(&self) -> bool {
        self.bits & ISOLATED != 0
    }

    /// Counts a crash while it was handled; the second one isolates it.
    pub(super) fn add_crash(&mut self) {
        let crashes = ((self.bits & CRASHES) >> CRASHES_SHIFT).saturating_add(1).min(3);
        self.bits = (self.bits & !CRASHES) | (crashes << CRASHES_SHIFT);
        if crashes >= 2 {
            self.bits |= ISOLATED;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_sixteen_bytes_and_its_bits_do_not_touch_each_other() {
        assert_eq!(size_of::<Entry>(), 16);
        let mut entry = Entry::new(NONE, 7, 0);
        entry.set_started(true);
        for state in [State::Ready, State::InFlight, State::RetryWait, State::Blocked] {
            entry.set_state(state);
            assert_eq!((entry.state(), entry.started(), entry.isolated()), (state, true, false));
        }
        entry.add_crash();
        assert!(!entry.isolated());
        entry.add_crash();
        assert!(entry.isolated());
        entry.set_started(false);
        assert_eq!(
            (entry.state(), entry.started(), entry.isolated()),
            (State::Blocked, false, true)
        );
    }
}
