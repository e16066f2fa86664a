//! Push sessions, unary receive and subscriptions over real sockets, with generated stubs.

mod admin;
mod bad_input;
mod flow;
mod orders;
mod receive;
mod rules;
mod sessions;
