//! What checks and harnesses share: the history of a run and its checker, brokers in processes of their own, and the
//! programs that the checks start. The checks live in `main.rs`, the harnesses in `prove/`.

pub mod checker;
pub mod history;
pub mod house;
pub mod load;
pub mod member;
pub mod ports;
pub mod proxy;
pub mod random;
pub mod recorder;
pub mod work;
