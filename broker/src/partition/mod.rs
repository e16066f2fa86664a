//! One partition.

mod ledger;
pub mod tail;
