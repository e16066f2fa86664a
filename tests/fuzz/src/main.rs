//! The program that libFuzzer drives. `RIVERRUN_FUZZ` names the target; the arguments are libFuzzer's.

#![no_main]
#![expect(
    clippy::disallowed_methods,
    reason = "libFuzzer's macro writes a file when it is asked to"
)]

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
