//! How safe a write is before its producer hears of it.

/// How far a write must have come before it is acknowledged. Ordered from weak to strong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Durability {
    /// In the page cache: survives the death of the process.
    Os,
    /// As `Os`, and flushed in the background.
    Interval,
    /// On the disk.
    #[default]
    Fsync,
}
