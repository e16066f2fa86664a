//! The inspector: whole-house checks, one test binary.
