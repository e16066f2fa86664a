//! Where the peers come from: packages of registries, through the clients that the machine is set up for. Nothing is installed; all is unpacked to
//! the cache folder.

pub(crate) mod debian;
pub(crate) mod maven;
