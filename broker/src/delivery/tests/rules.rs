//! The rules of delivery, one table each.

use super::{Rig, rig::settings};
use crate::delivery::SettleStatus;

fn rig(keys: &str) -> Rig {
    let mut rig = Rig::new(settings());
    rig.append(keys);
    rig.open("a");
    rig
}

#[test]
fn records_go_out_as_far_as_the_credit_goes_and_an_ack_moves_the_floor() {
    let mut rig = rig("........");
    rig.expect("");
    rig.credit("a", 5);
    rig.expect("a 0..5");
    assert_eq!(rig.ack("a", 1, 3), SettleStatus::Ok);
    assert_eq!(rig.floor(), 0);
    assert_eq!(rig.ack("a", 0, 1), SettleStatus::Ok);
    assert_eq!(rig.floor(), 3);
    rig.expect("");
    rig.credit("a", 4);
    rig.expect("");
    rig.credit("a", 6);
    rig.expect("a 5");
    assert_eq!(rig.ack("a", 3, 5), SettleStatus::Ok);
    assert_eq!(rig.ack("a", 5, 6), SettleStatus::Ok);
    rig.credit("a", 100);
    rig.expect("a 6..8");
    assert_eq!(rig.ack("a", 6, 8), SettleStatus::Ok);
    rig.expect("");
    assert_eq!((rig.floor(), rig.image.floor), (8, 8));
}
