//! What the wait list is built on here: the primitives of the scheduler.

pub(crate) use std::sync::Arc;

pub(crate) use shuttle::sync::atomic::{
    AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::SeqCst,
};

pub(crate) use super::bell::{AtomicWaker, Mutex};
