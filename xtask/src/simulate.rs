//! `cargo xtask simulate`: whole worlds under generated plans (`test/simulator`).

use std::path::Path;
use std::process::{Command, ExitCode};

/// Runs the worlds that `arguments` ask for, built for speed with its checks on.
pub fn run(root: &Path, arguments: &[String]) -> ExitCode {
    let mut cargo = Command::new("cargo");
    cargo.args(["run", "--quiet", "--profile", "simulate", "--package", "parlor-simulator"]);
    cargo.args(["--bin", "simulate", "--"]).args(arguments);
    if arguments == ["--rfc8867"] {
        cargo.arg(root.join("docs"));
    }
    match cargo.current_dir(root).status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: cargo: {error}");
            ExitCode::FAILURE
        }
    }
}
