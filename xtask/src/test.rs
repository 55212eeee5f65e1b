//! `cargo xtask test`: one list of steps for CI and for developers.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use crate::bench;
use crate::prerequisites;
use crate::tidy;

const STEPS: &[&str] = &["fmt", "tidy", "clippy", "test", "loom", "bench", "build", "interop"];
/// Steps that only the long run has, unless they are named.
const LONG_STEPS: &[&str] = &["loom"];

/// Generated worlds of `test/simulator` in a full run.
const WORLDS_FULL: &str = "1000";

/// How often a full run kills the server in the middle of API calls and webhooks.
const KILLS_FULL: &str = "100";

/// What to run.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Also the long runs.
    full: bool,
    /// Only these steps; all when empty.
    only: Vec<String>,
    /// A part of the names of the tests to run.
    filter: Option<String>,
}

/// What a step counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    passed: usize,
    failed: usize,
}

impl Plan {
    /// Reads the arguments behind `test`.
    pub fn parse(arguments: &[String]) -> Result<Plan, String> {
        let mut plan = Plan::default();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--full" => plan.full = true,
                "--only" => {
                    let step = arguments.next().ok_or("--only needs the name of a step")?;
                    if !STEPS.contains(&step.as_str()) {
                        return Err(format!("unknown step {step:?}"));
                    }
                    plan.only.push(step.clone());
                }
                option if option.starts_with('-') => {
                    return Err(format!("unknown option {option:?}"));
                }
                filter if plan.filter.is_none() => plan.filter = Some(filter.to_string()),
                other => return Err(format!("a second filter {other:?}")),
            }
        }
        Ok(plan)
    }

    fn runs(&self, step: &str) -> bool {
        if self.only.is_empty() {
            if LONG_STEPS.contains(&step) && !self.full {
                return false;
            }
            // A filter asks for tests; the checks have no names to select.
            return self.filter.is_none() || matches!(step, "test" | "build" | "interop");
        }
        // The end-to-end tests need the binary as it is now.
        self.only.iter().any(|only| only == step || (step == "build" && only == "interop"))
    }
}

/// Runs the plan's steps in order, and says at the end how many passed and failed.
pub fn run(root: &Path, plan: &Plan) -> ExitCode {
    let mut total = Count::default();
    for step in STEPS.iter().filter(|step| plan.runs(step)) {
        println!("==> {step}");
        let started = Instant::now();
        let count = run_step(root, plan, step);
        let verdict = if count.failed == 0 { "ok" } else { "FAILED" };
        println!("<== {step} {verdict} ({:.1} s)", started.elapsed().as_secs_f32());
        total.passed += count.passed;
        total.failed += count.failed;
        if *step == "build" && count.failed > 0 {
            break;
        }
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_step(root: &Path, plan: &Plan, step: &str) -> Count {
    let cargo = |arguments: &[&str]| {
        let mut command = Command::new("cargo");
        command.args(arguments).current_dir(root);
        command
    };
    match step {
        "fmt" => one(counted(&mut cargo(&["fmt", "--all", "--check"])).1),
        "tidy" => match tidy::check(root) {
            Ok(violations) => one(violations.is_empty()),
            Err(error) => failed(&error),
        },
        "clippy" => one(counted(&mut cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]))
        .1),
        "test" => {
            let mut command = cargo(&["test", "--workspace", "--no-fail-fast"]);
            command.args(plan.filter.as_deref());
            if plan.full {
                command.env("PARLOR_WORLDS", WORLDS_FULL).env("PARLOR_KILLS", KILLS_FULL);
            }
            at_least_status(counted(&mut command))
        }
        "loom" => {
            let mut command = cargo(&["test", "--release", "--package", "parlor-ring"]);
            command.args(["--test", "loom", "--target-dir", "target/loom"]);
            at_least_status(counted(command.env("RUSTFLAGS", "--cfg loom")))
        }
        "bench" => match bench::check(root) {
            Ok(is_within_budget) => one(is_within_budget),
            Err(error) => failed(&error),
        },
        "build" => {
            let packages = ["--package", "parlor", "--package", "parlor-player"];
            one(counted(cargo(&["build", "--bins"]).args(packages)).1)
        }
        "interop" => interop(root, plan),
        other => failed(&format!("no such step: {other}")),
    }
}

fn interop(root: &Path, plan: &Plan) -> Count {
    let tools = match prerequisites::install(root) {
        Ok(tools) => tools,
        Err(error) => return failed(&error),
    };
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), Into::into);
    let mut command = Command::new("node");
    command.arg("run.js").current_dir(root.join("test/interop"));
    command.arg("--server").arg(target.join("debug/parlor"));
    command.arg("--player").arg(target.join("debug/parlor-player"));
    command.arg("--chromium").arg(&tools.chromium);
    command.arg("--firefox").arg(&tools.firefox);
    command.arg("--python").arg(&tools.python);
    command.arg("--agents-python").arg(&tools.agents_python);
    if plan.full {
        command.arg("--full");
    }
    command.args(plan.filter.as_deref());
    at_least_status(counted(&mut command))
}

fn one(success: bool) -> Count {
    if success { Count { passed: 1, failed: 0 } } else { Count { passed: 0, failed: 1 } }
}

fn failed(error: &str) -> Count {
    println!("error: {error}");
    one(false)
}

/// A command that failed without a failed test (it did not compile, say) is one failure.
fn at_least_status((count, success): (Count, bool)) -> Count {
    if success || count.failed > 0 { count } else { Count { failed: 1, ..count } }
}

/// Runs a command, passes its output on, and counts the tests that it reports.
fn counted(command: &mut Command) -> (Count, bool) {
    let mut count = Count::default();
    let mut child = match command.stdout(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(error) => {
            println!("error: {:?}: {error}", command.get_program());
            return (count, false);
        }
    };
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            println!("{line}");
            if let Some(result) = result_line(&line) {
                count.passed += result.passed;
                count.failed += result.failed;
            }
        }
    }
    (count, child.wait().is_ok_and(|status| status.success()))
}

/// `test result: ok. 3 passed; 0 failed; ...` of cargo, `3 passed, 0 failed` of our own runner.
fn result_line(line: &str) -> Option<Count> {
    let numbers = match line.strip_prefix("test result: ") {
        Some(rest) => rest.split_once(". ")?.1,
        None => line,
    };
    let mut parts = numbers.split([';', ',']).map(str::trim);
    let passed = parts.next()?.strip_suffix(" passed")?.parse().ok()?;
    let failed = parts.next()?.strip_suffix(" failed")?.parse().ok()?;
    Some(Count { passed, failed })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(arguments: &[&str]) -> Result<Plan, String> {
        Plan::parse(&arguments.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn arguments_are_read_and_wrong_ones_named() {
        let read = plan(&["--full", "--only", "interop", "mute"]).unwrap();
        let expected =
            Plan { full: true, only: vec!["interop".into()], filter: Some("mute".into()) };
        assert_eq!(read, expected);
        assert!(read.runs("interop") && read.runs("build") && !read.runs("clippy"));
        assert!(plan(&[]).unwrap().runs("clippy"));
        assert!(!plan(&[]).unwrap().runs("loom") && plan(&["--full"]).unwrap().runs("loom"));
        assert!(plan(&["--only", "loom"]).unwrap().runs("loom"));
        assert!(plan(&["--only", "lunch"]).unwrap_err().contains("lunch"));
        assert!(
            plan(&["--only"]).is_err() && plan(&["--fast"]).is_err() && plan(&["a", "b"]).is_err()
        );
    }

    #[test]
    fn results_are_counted() {
        let cargo =
            "test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(result_line(cargo), Some(Count { passed: 3, failed: 1 }));
        assert_eq!(result_line("12 passed, 0 failed"), Some(Count { passed: 12, failed: 0 }));
        assert_eq!(result_line("running 3 tests"), None);
    }

    #[test]
    fn a_command_that_fails_without_a_failed_test_is_one_failure() {
        assert_eq!(at_least_status((Count::default(), false)), Count { passed: 0, failed: 1 });
        assert_eq!(
            at_least_status((Count { passed: 2, failed: 1 }, false)),
            Count { passed: 2, failed: 1 }
        );
    }
}
