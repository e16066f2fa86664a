//! Checks of the web door through real sockets.

mod door;
