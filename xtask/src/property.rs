//! `cargo xtask property`: the cases of `core/sfu/tests/cases.rs` at scale.

use std::path::Path;
use std::process::{Command, ExitCode};

/// Runs `cases` cases from number `first` on in a release build with its assertions.
pub fn run(root: &Path, cases: &str, first: &str) -> ExitCode {
    let mut command = Command::new("cargo");
    command.args(["test", "--release", "--package", "parlor-sfu", "--test", "cases"]);
    command.args(["--", "--nocapture"]);
    command.env("PARLOR_CASES", cases).env("PARLOR_SEED", first);
    command.env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true");
    command.env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "true");
    match command.current_dir(root).status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: cargo: {error}");
            ExitCode::FAILURE
        }
    }
}
