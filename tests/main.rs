//! The inspector: whole-house checks, one test binary.

mod it;
mod support;
