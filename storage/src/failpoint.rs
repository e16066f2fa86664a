//! Places where a process of the harnesses dies.
//!
//! Built with feature `planted` and started with `RIVERRUN_DIE_AT=before_sync:3`, the program ends like a killed one, without a word,
//! when it comes to that place for the third time. Built without the feature, as every released program is, [`passes`] does nothing and
//! the compiler takes the places out.

/// A place on the way of a record, of a file, or of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// An entry is about to be copied into its segment.
    BeforeCopy,
    /// It is copied and not published.
    AfterCopy,
    /// A segment is about to be flushed.
    BeforeSync,
    /// It is flushed, and nobody knows.
    AfterSync,
    /// The flushed offset moved; the mark page is about to be written.
    BeforeMark,
    /// The mark page is written and not synced.
    AfterMark,
    /// A clean mark is written and not synced.
    CleanMark,
    /// The next segment has its header and not its name.
    BeforeName,
    /// The next segment has its name; the one before is not sealed.
    BeforeSeal,
    /// The seal is written; writing goes on in the segment before.
    AfterSeal,
    /// Writing goes on in the next segment; the index of the one before is not written.
    BeforeIndex,
    /// A side file is written under another name.
    BeforeReplace,
    /// It has its name, which is not durable.
    AfterReplace,
    /// A receipt is about to be given.
    BeforeAck,
    /// It is given.
    AfterAck,
    /// A start knows what is in the directory.
    Surveyed,
    /// A start copied the end of the log, and did not sync it.
    Recopied,
    /// The copy is durable and has no name.
    RecopySynced,
    /// The copy has its name, which is not durable.
    RecopyNamed,
    /// What the copy replaces is there as well.
    RecopyCounts,
    /// What it replaces is removed; the epoch is not stored.
    Replaced,
    /// The epoch is stored; there is no clean mark.
    EpochStored,
}

impl Place {
    /// All of them.
    pub const ALL: [Place; 22] = [
        Place::BeforeCopy,
        Place::AfterCopy,
        Place::BeforeSync,
        Place::AfterSync,
        Place::BeforeMark,
        Place::AfterMark,
        Place::CleanMark,
        Place::BeforeName,
        Place::BeforeSeal,
        Place::AfterSeal,
        Place::BeforeIndex,
        Place::BeforeReplace,
        Place::AfterReplace,
        Place::BeforeAck,
        Place::AfterAck,
        Place::Surveyed,
        Place::Recopied,
        Place::RecopySynced,
        Place::RecopyNamed,
        Place::RecopyCounts,
        Place::Replaced,
        Place::EpochStored,
    ];

    /// What `RIVERRUN_DIE_AT` calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Place::BeforeCopy => "before_copy",
            Place::AfterCopy => "after_copy",
            Place::BeforeSync => "before_sync",
            Place::AfterSync => "after_sync",
            Place::BeforeMark => "before_mark",
            Place::AfterMark => "after_mark",
            Place::CleanMark => "clean_mark",
            Place::BeforeName => "before_name",
            Place::BeforeSeal => "before_seal",
            Place::AfterSeal => "after_seal",
            Place::BeforeIndex => "before_index",
            Place::BeforeReplace => "before_replace",
            Place::AfterReplace => "after_replace",
            Place::BeforeAck => "before_ack",
            Place::AfterAck => "after_ack",
            Place::Surveyed => "surveyed",
            Place::Recopied => "recopied",
            Place::RecopySynced => "recopy_synced",
            Place::RecopyNamed => "recopy_named",
            Place::RecopyCounts => "recopy_counts",
            Place::Replaced => "replaced",
            Place::EpochStored => "epoch_stored",
        }
    }

    /// True where a broker comes by for every record or flush, and not once in a while only.
    pub const fn is_frequent(self) -> bool {
        match self {
            Place::BeforeCopy
            | Place::AfterCopy
            | Place::BeforeSync
            | Place::AfterSync
            | Place::BeforeMark
            | Place::AfterMark
            | Place::BeforeAck
            | Place::AfterAck => true,
            Place::CleanMark
            | Place::BeforeName
            | Place::BeforeSeal
            | Place::AfterSeal
            | Place::BeforeIndex
            | Place::BeforeReplace
            | Place::AfterReplace
            | Place::Surveyed
            | Place::Recopied
            | Place::RecopySynced
            | Place::RecopyNamed
            | Place::RecopyCounts
            | Place::Replaced
            | Place::EpochStored => false,
        }
    }
}

/// Goes on, unless this process was built and started to die here.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub const fn passes(_place: Place) {}

/// Goes on, unless this process was built and started to die here.
#[cfg(feature = "planted")]
pub fn passes(place: Place) {
    use std::sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    };
    static CHOSEN: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static TIMES: AtomicU64 = AtomicU64::new(0);
    let chosen = CHOSEN.get_or_init(|| {
        let text = std::env::var("RIVERRUN_DIE_AT").ok()?;
        let (name, times) = text.split_once(':')?;
        Some((name.to_owned(), times.parse().ok()?))
    });
    let Some((name, times)) = chosen else { return };
    if name == place.name() && TIMES.fetch_add(1, Ordering::SeqCst) + 1 == *times {
        let _never_returns =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}
