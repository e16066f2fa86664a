//! What bytes from outside may do: one function for each door through which they come.
//!
//! A target takes any bytes. It never panics on them, never holds more memory than its bound, and what it accepts is what it should be:
//! read back it is the same, and nothing comes out that was not in. A broken promise is a panic. libFuzzer drives the targets (program
//! `fuzz`, feature `libfuzzer`, built by `cargo xtask prove fuzz`); the kept inputs of `corpus/` go through the same functions in
//! every `cargo test`.
//!
//! - [`target`]: what a target is, and all of them.
//! - `batch`, `segment`, `index`, `mark`, `metadata`, `groups`, `subscriptions`, `messages`, `config`: one door each.
//! - `log`: the small log on a simulated disk that `segment`, `index` and `mark` damage. `layout`: its bytes, to put checksums right.
//! - [`memory`]: counts what a thread holds. [`seeds`]: what the fuzzer begins with.
//!
//! Checksums keep nearly all bytes out, so most targets begin with a byte that says whether they are put right first.

pub mod memory;
pub mod seeds;
pub mod target;

mod batch;
mod config;
mod groups;
mod index;
mod layout;
mod log;
mod mark;
mod messages;
mod metadata;
mod pieces;
mod segment;
mod subscriptions;
#[cfg(test)]
mod tests;

pub use target::{TARGETS, Taken, Target};
