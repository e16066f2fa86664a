//! The inspector: whole-house checks, one test binary.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "checks touch files, clocks and processes, and stop at the first surprise"
)]

mod cli;
mod conformance;
mod examples;
mod golden;
mod it;
mod kill;
mod python_stubs;
mod support;
mod web;
mod webhooks;
mod work_queue;
