//! How far a write has come.

use riverrun_proto::grpc::v1;

/// A level of durability, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Durability {
    /// Accepted into the broker's queue: it can still be lost. Never a topic's setting.
    Accepted,
    /// In the page cache: survives the death of the broker, not a power loss.
    Os,
    /// As `Os`, flushed in the background every `flush_interval`.
    Interval,
    /// On disk: survives a power loss. The default of a topic.
    Fsync,
}

impl Durability {
    /// The level of the wire; unspecified is the level of `acks = none`.
    pub(crate) fn from_wire(wire: v1::Durability) -> Durability {
        match wire {
            v1::Durability::Unspecified => Durability::Accepted,
            v1::Durability::Os => Durability::Os,
            v1::Durability::Interval => Durability::Interval,
            v1::Durability::Fsync => Durability::Fsync,
        }
    }

    /// The level on the wire.
    pub(crate) fn to_wire(self) -> v1::Durability {
        match self {
            Durability::Accepted => v1::Durability::Unspecified,
            Durability::Os => v1::Durability::Os,
            Durability::Interval => v1::Durability::Interval,
            Durability::Fsync => v1::Durability::Fsync,
        }
    }
}
