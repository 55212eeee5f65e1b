//! Runs the target named by `PARLOR_FUZZ_TARGET` under libFuzzer.
#![no_main]
#![forbid(unsafe_code)]

use std::sync::LazyLock;

static TARGET: LazyLock<parlor_fuzz::Target> = LazyLock::new(|| {
    let name = std::env::var("PARLOR_FUZZ_TARGET").unwrap_or_default();
    parlor_fuzz::target(&name).unwrap_or_else(|| {
        let known: Vec<_> = parlor_fuzz::TARGETS.iter().map(|(name, _)| *name).collect();
        eprintln!("PARLOR_FUZZ_TARGET is {name:?}; choose one of {known:?}");
        std::process::exit(2)
    })
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| TARGET(data));
