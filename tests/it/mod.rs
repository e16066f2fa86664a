//! Checks through real sockets.

mod bad_input;
mod client_consume;
mod client_groups;
mod client_produce;
mod client_push;
pub(crate) mod data_dir;
mod dropped_handles;
mod durability;
mod explore;
mod fetch;
mod flood;
mod groups;
mod half_open;
mod hostile_messages;
mod limits;
mod memory;
mod metrics;
mod produce;
mod push;
mod read_only;
mod retention;
mod scrub;
mod shutdown;
mod stray_segments;
mod topics;
