//! The inspector: whole-house checks, one test binary.

mod it;
mod python_stubs;
mod support;
