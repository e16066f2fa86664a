//! Checks through real sockets.

mod topics;
