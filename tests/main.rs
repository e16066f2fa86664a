//! The inspector: whole-house checks, one test binary.

mod cli;
mod it;
mod kill;
mod python_stubs;
mod support;
