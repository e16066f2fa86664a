//! The command line as a user meets it: the real binary, its output, its messages and its exit codes.

mod bench;
mod consume;
mod corpus;
mod groups;
mod logs;
mod offline;
mod produce;
mod repair;
mod serve;
mod subscriptions;
mod terminal;
mod topics;
