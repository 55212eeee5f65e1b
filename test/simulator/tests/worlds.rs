//! Generated worlds: a slice of the seeds in every run, and each fault that one has found.
#![allow(clippy::unwrap_used)]

use parlor_simulator::{Plan, judge, run};
use std::path::Path;

/// Worlds in every run; `PARLOR_WORLDS` asks for more.
const WORLDS: u64 = 30;

#[test]
fn a_slice_of_the_seeds_holds() {
    let asked = std::env::var("PARLOR_WORLDS").ok().and_then(|text| text.parse().ok());
    for seed in 0..asked.unwrap_or(WORLDS) {
        let plan = Plan::generate(seed);
        let outcome = judge(&plan);
        assert_eq!(outcome.faults, Vec::<String>::new(), "cargo xtask simulate --seed {seed}");
    }
}

#[test]
fn a_world_runs_twice_alike() {
    for seed in [3, 11, 27, 40] {
        let plan = Plan::generate(seed);
        let (one, other) = (run(&plan), run(&plan));
        assert!(one.passed > 100, "seed {seed}: {one:?}");
        assert_eq!(one, other, "seed {seed}");
        assert_ne!(one.hash, run(&Plan { seed: seed + 1, ..plan }).hash);
    }
}

/// Whatever a world has found stays found: `regressions/` has the smallest plan of each fault.
#[test]
fn what_was_found_once_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
    let mut names: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|it| it.unwrap().path()).collect();
    names.sort();
    assert!(!names.is_empty());
    for name in names {
        let plan: Plan = serde_json::from_slice(&std::fs::read(&name).unwrap()).unwrap();
        assert_eq!(judge(&plan).faults, Vec::<String>::new(), "{}", name.display());
    }
}
