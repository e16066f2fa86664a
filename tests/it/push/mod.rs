//! Push sessions, unary receive and subscriptions over real sockets, with generated stubs.

mod admin;
mod bad_input;
mod dead_letters;
mod explain;
mod flow;
mod idle;
mod kill;
mod orders;
mod power;
mod receive;
mod rules;
mod schedule;
mod sessions;
