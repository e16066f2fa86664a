//! What the checks share.

pub(crate) mod binary;
pub(crate) mod broker;
pub(crate) mod client;
pub(crate) mod damage;
pub(crate) mod frames;
pub(crate) mod http;
pub(crate) mod mount;
pub(crate) mod npm;
pub(crate) mod openmetrics;
pub(crate) mod process;
pub(crate) mod push;
pub(crate) mod raw_call;
pub(crate) mod receiver;
pub(crate) mod records;
pub(crate) mod sockets;
pub(crate) mod text;
