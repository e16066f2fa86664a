//! Checks through real sockets.

mod bad_input;
mod client_consume;
mod client_groups;
mod client_produce;
mod data_dir;
mod durability;
mod fetch;
mod groups;
mod limits;
mod produce;
mod topics;
