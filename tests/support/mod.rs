//! What the checks share.

pub(crate) mod broker;
pub(crate) mod client;
pub(crate) mod records;
