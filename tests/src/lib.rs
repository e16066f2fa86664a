//! What the checks in `main.rs` share with the programs they run. The checks themselves live there.

pub mod work;
