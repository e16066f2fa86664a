//! Shared checks live in the test binary `main.rs`; this library is empty on purpose.
