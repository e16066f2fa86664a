//! The cellar: keeps one partition's bytes on disk and finds them again.

pub mod disk;
