//! What the checks share.

pub(crate) mod binary;
pub(crate) mod broker;
pub(crate) mod client;
pub(crate) mod process;
pub(crate) mod records;
