//! Tests of the codec.

mod build;
