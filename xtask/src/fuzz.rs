//! `cargo xtask fuzz`: a target of `test/fuzz` under libFuzzer, with a stable compiler.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

/// What `cargo fuzz` passes, less the address sanitizer, which needs a nightly compiler and would
/// find little where unsafe code is forbidden.
const COVERAGE_FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Cdebug-assertions -Ccodegen-units=1";

/// Runs `target` for `seconds`, from the corpus in git. An input that fails is written there, so
/// that the corpus test repeats it; what merely reaches new code stays in the build folder.
pub fn run(root: &Path, target: &str, seconds: &str) -> ExitCode {
    let seeds = root.join("test/fuzz/corpus").join(target);
    let found = root.join("target/fuzz/corpus").join(target);
    for folder in [&seeds, &found] {
        if let Err(error) = fs::create_dir_all(folder) {
            eprintln!("error: {}: {error}", folder.display());
            return ExitCode::FAILURE;
        }
    }
    let mut command = Command::new("cargo");
    command.args(["run", "--package", "parlor-fuzz", "--features", "libfuzzer", "--target-dir"]);
    // With a target named, the flags leave build scripts alone.
    command.arg(root.join("target/fuzz")).args(["--target", &host(), "--", "-timeout=10"]);
    command.arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-artifact_prefix={}/", seeds.display())).args([&found, &seeds]);
    command.env("RUSTFLAGS", COVERAGE_FLAGS).env("PARLOR_FUZZ_TARGET", target);
    match command.current_dir(root).status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: cargo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The compiler's own platform, such as `x86_64-unknown-linux-gnu`.
fn host() -> String {
    let output = Command::new("rustc").arg("-vV").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let text = text.unwrap_or_default();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.unwrap_or("x86_64-unknown-linux-gnu").to_string()
}
