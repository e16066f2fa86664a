//! Tests of the state machine, through its public face.

mod orders;
mod rig;
mod rules;

use self::rig::Rig;
