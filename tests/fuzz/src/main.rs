//! The program that libFuzzer drives. `RIVERRUN_FUZZ` names the target; the arguments are libFuzzer's.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use riverrun_fuzz::Target;

static TARGET: OnceLock<&Target> = OnceLock::new();

fuzz_target!(|input: &[u8]| {
    let target = TARGET.get_or_init(|| {
        let name = std::env::var("RIVERRUN_FUZZ").unwrap_or_default();
        Target::named(&name).expect("`RIVERRUN_FUZZ` names a target")
    });
    target.look_at(input);
});
