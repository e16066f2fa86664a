//! What the watermarks are built on. The harness of the wait lists compiles `offsets.rs` over a model of memory instead.

pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
