//! The project's own commands: `cargo xtask tidy` and `cargo xtask test`.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod bench;
mod fuzz;
mod prerequisites;
mod property;
mod simulate;
mod test;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask tidy
           checks the rules of docs/ARCHITECTURE.md that a machine can check
       cargo xtask test [--full] [--only STEP]... [FILTER]
           runs what CI runs; FILTER selects tests by a part of their name
           steps: fmt tidy clippy test loom bench build interop; loom only with --full
       cargo xtask bench [--check]
           counts what a forwarded packet costs; --check only holds it to its budgets
       cargo xtask property [CASES] [FIRST]
           so many random courses of events through the packet path (a million unless told), each
           of one number, from FIRST on
       cargo xtask bench --net [--seconds N] [--soak-seconds N] [--dry] [--built FOLDER]
                               [ROW]...
           measures a whole server between two network namespaces, as root, and writes
           docs/performance/net.json, net.svg and the tables of docs/performance.md
       cargo xtask fuzz TARGET [SECONDS]
           runs a target of test/fuzz under libFuzzer, for a minute unless told
       cargo xtask simulate [--seeds N] [--from S] [--jobs J] [--no-shrink]
           runs generated worlds; of those that fail it prints a smaller one and how to repeat it
       cargo xtask simulate --seed S | --plan JSON
           runs one world; of a plan it prints what the server knows of each link
       cargo xtask simulate --rfc8867
           writes docs/congestion-rfc8867.md";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let root = root();
    match arguments.split_first().map(|(command, rest)| (command.as_str(), rest)) {
        Some(("tidy", [])) => tidy_command(&root),
        Some(("test", rest)) => match test::Plan::parse(rest) {
            Ok(plan) => test::run(&root, &plan),
            Err(error) => usage(&error),
        },
        Some(("bench", [])) => bench::run(&root, false),
        Some(("bench", [check])) if check == "--check" => bench::run(&root, true),
        Some(("property", [])) => property::run(&root, "1000000", "0"),
        Some(("property", [cases])) => property::run(&root, cases, "0"),
        Some(("property", [cases, first])) => property::run(&root, cases, first),
        Some(("simulate", rest)) => simulate::run(&root, rest),
        Some(("bench", [net, rest @ ..])) if net == "--net" => {
            match bench::net::Plan::parse(rest) {
                Ok(plan) => bench::net::run(&root, &plan),
                Err(error) => usage(&error),
            }
        }
        Some(("fuzz", [target])) => fuzz::run(&root, target, "60"),
        Some(("fuzz", [target, seconds])) => fuzz::run(&root, target, seconds),
        Some((other, _)) => usage(&format!("unknown command {other:?}")),
        None => usage("a command is missing"),
    }
}

/// The workspace's folder.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_path_buf()
}

fn usage(error: &str) -> ExitCode {
    eprintln!("error: {error}\n\n{USAGE}");
    ExitCode::from(2)
}

fn tidy_command(root: &Path) -> ExitCode {
    match tidy::check(root) {
        Ok(violations) if violations.is_empty() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("tidy: {error}");
            ExitCode::FAILURE
        }
    }
}
