//! Bugs on purpose, which the harnesses must find.
//!
//! Built with feature `planted`, the program breaks in the one place that `RIVERRUN_PLANTED` names; so a harness that stays
//! green over it proves nothing. Built without the feature, as every released program is, [`planted`] is constantly false and
//! the compiler takes the places out.

/// A bug that can be switched on. Each is caught by the harness named here, as part of the check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Receipts are given and records shown before the flush. POWER, SIM.
    AckBeforeSync,
    /// A flush says it is done without doing it. POWER, SIM.
    SkipSync,
    /// Names in a directory are never made durable. SIM.
    SkipDirsync,
    /// A failed flush is tried again, and its success believed. INJ, SIM.
    RetrySync,
    /// A length is followed before its checksum was looked at. FLIP.
    TrustLength,
    /// Recovery cuts at the first bad place wherever it lies. FLIP.
    TruncateFirstBad,
    /// What recovery kept is served before it is made durable anew. SIM.
    ServeBeforeResync,
    /// After an unclean stop offsets begin one lower than they should. KILL, SIM.
    ReuseOffset,
    /// A settlement is confirmed and not remembered. KILL.
    ForgetAck,
    /// A batch that is sent again is stored again. KILL, NET.
    NoDedup,
    /// A reader looks before it registers, and not after. WAIT.
    MissedWake,
    /// A session is given one record more than its window. SIM, NET.
    WindowOffByOne,
    /// A batch that a full disk refuses is acknowledged. FULL.
    AckRefused,
    /// A range in an entry of state is followed without a look at where it ends. FUZZ.
    TrustRange,
}

impl Bug {
    /// All of them.
    pub const ALL: [Bug; 14] = [
        Bug::AckBeforeSync,
        Bug::SkipSync,
        Bug::SkipDirsync,
        Bug::RetrySync,
        Bug::TrustLength,
        Bug::TruncateFirstBad,
        Bug::ServeBeforeResync,
        Bug::ReuseOffset,
        Bug::ForgetAck,
        Bug::NoDedup,
        Bug::MissedWake,
        Bug::WindowOffByOne,
        Bug::AckRefused,
        Bug::TrustRange,
    ];

    /// What `RIVERRUN_PLANTED` calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Bug::AckBeforeSync => "bug_ack_before_sync",
            Bug::SkipSync => "bug_skip_sync",
            Bug::SkipDirsync => "bug_skip_dirsync",
            Bug::RetrySync => "bug_retry_sync",
            Bug::TrustLength => "bug_trust_length",
            Bug::TruncateFirstBad => "bug_truncate_first_bad",
            Bug::ServeBeforeResync => "bug_serve_before_resync",
            Bug::ReuseOffset => "bug_reuse_offset",
            Bug::ForgetAck => "bug_forget_ack",
            Bug::NoDedup => "bug_no_dedup",
            Bug::MissedWake => "bug_missed_wake",
            Bug::WindowOffByOne => "bug_window_off_by_one",
            Bug::AckRefused => "bug_ack_refused",
            Bug::TrustRange => "bug_trust_range",
        }
    }
}

/// Whether this process was built and started to have this bug.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub const fn planted(_bug: Bug) -> bool {
    false
}

/// Whether this process was built and started to have this bug.
#[cfg(feature = "planted")]
pub fn planted(bug: Bug) -> bool {
    use std::sync::OnceLock;
    static CHOSEN: OnceLock<Option<String>> = OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| std::env::var("RIVERRUN_PLANTED").ok());
    chosen.as_deref() == Some(bug.name())
}
