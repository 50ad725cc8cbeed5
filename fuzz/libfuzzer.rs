//! The target that `ED_FUZZ_TARGET` names, under libFuzzer. Built and run by `fuzz/run`.

#![no_main]
#![allow(clippy::panic, reason = "libFuzzer has no other way to report an error")]

use std::sync::OnceLock;

use fuzz::{TARGETS, Target, limit_memory, silence_caught_panics};

static TARGET: OnceLock<Target> = OnceLock::new();

fn target() -> Target {
    let name = std::env::var("ED_FUZZ_TARGET").unwrap_or_default();
    let Some(target) = TARGETS.into_iter().find(|target| target.name == name) else {
        panic!("ED_FUZZ_TARGET is '{name}', not one of: {}", TARGETS.map(|target| target.name).join(", "))
    };
    if let Err(error) = limit_memory() {
        panic!("memory is not limited: {error}");
    }
    silence_caught_panics();
    target
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| (TARGET.get_or_init(target).run)(input));
