//! The cellar: keeps one partition's bytes on disk and finds them again.

pub mod ballast;
pub mod data_dir;
pub mod disk;
pub mod lock;
pub mod recycle;
pub mod space;
