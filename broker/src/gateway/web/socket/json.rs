//! Messages as JSON texts.

mod asked;
mod told;

pub(super) use self::{
    asked::{id, read},
    told::{write, write_found},
};

/// The protocol, for clients that name one.
pub(super) const PROTOCOL: &str = "riverrun.v1.json";
