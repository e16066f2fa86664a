//! Tests of the state machine, through its public face.

mod explain;
mod model;
mod orders;
mod rig;
mod rules;
mod steering;

use self::rig::Rig;
