//! The inspector: whole-house checks, one test binary.

mod cli;
mod it;
mod python_stubs;
mod support;
