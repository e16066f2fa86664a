//! Checks through real sockets.

mod client_consume;
mod client_groups;
mod client_produce;
mod groups;
mod topics;
