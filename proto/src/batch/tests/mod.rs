//! Tests of the codec.

mod bombs;
mod build;
mod damage;
mod fixtures;
mod kafka;
mod produced;
mod random;
