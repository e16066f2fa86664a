//! What the wait list is built on. The harness of the wait lists compiles `tail.rs` over a scheduler instead, which tries the
//! orders in which threads can meet there.

pub(crate) use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::SeqCst},
};

pub(crate) use futures_util::task::AtomicWaker;
pub(crate) use parking_lot::Mutex;
