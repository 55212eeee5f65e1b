//! Runs worlds by the thousand: `cargo xtask simulate`.
#![forbid(unsafe_code)]

use parlor_simulator::{Outcome, Plan, judge, rfc8867, run_aloud, shrink};
use std::{
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

const USAGE: &str = "\
usage: simulate [--seeds N] [--from S] [--jobs J] [--no-shrink]
       simulate --seed S
       simulate --rfc8867 DOCS
       simulate --plan JSON
           prints each second what the server knows of each link";
/// How often a long run says how far it is.
const NEWS_INTERVAL: Duration = Duration::from_secs(30);
/// Runs that are spent on making one plan smaller.
const SHRINK_RUNS_MAX: u32 = 300;

#[derive(Debug)]
struct Options {
    from: u64,
    seeds: u64,
    jobs: usize,
    shrinks: bool,
    plan: Option<Plan>,
    /// Where the page on RFC 8867 goes.
    docs: Option<std::path::PathBuf>,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        let mut options = Self { from: 0, seeds: 100, jobs, shrinks: true, plan: None, docs: None };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            let number = |text: String| text.parse::<u64>().map_err(|_| format!("{text:?}"));
            match argument.as_str() {
                "--from" => options.from = number(value()?)?,
                "--seeds" => options.seeds = number(value()?)?,
                "--seed" => (options.from, options.seeds) = (number(value()?)?, 1),
                "--jobs" => options.jobs = number(value()?)?.max(1) as usize,
                "--no-shrink" => options.shrinks = false,
                "--plan" => {
                    let plan =
                        serde_json::from_str(&value()?).map_err(|error| error.to_string())?;
                    options.plan = Some(plan);
                }
                "--rfc8867" => options.docs = Some(value()?.into()),
                other => return Err(format!("unknown option {other:?}")),
            }
        }
        Ok(options)
    }
}

/// What many worlds gave.
#[derive(Default)]
struct Sum {
    worlds: u64,
    failed: u64,
    simulated: Duration,
    shortest: Option<Duration>,
    passed: u64,
    hash: u64,
}

impl Sum {
    fn add(&mut self, outcome: &Outcome) {
        self.worlds += 1;
        self.failed += u64::from(!outcome.faults.is_empty());
        self.simulated += outcome.simulated;
        let shortest = self.shortest.unwrap_or(outcome.simulated);
        self.shortest = Some(shortest.min(outcome.simulated));
        self.passed += outcome.passed;
        // Whatever the order in which they end.
        self.hash = self.hash.wrapping_add(outcome.hash);
    }

    fn show(&self, took: Duration) {
        let seconds = took.as_secs_f64().max(1e-9);
        println!(
            "{} worlds, {} failed; {:.1} worlds a second; {:.0} virtual seconds for each real one, \
             {:.0} s in all, at least {:.1} s each; {} messages and packets; hash {:016x}",
            self.worlds,
            self.failed,
            self.worlds as f64 / seconds,
            self.simulated.as_secs_f64() / seconds,
            self.simulated.as_secs_f64(),
            self.shortest.unwrap_or_default().as_secs_f64(),
            self.passed,
            self.hash,
        );
    }
}

fn report(plan: &Plan, outcome: &Outcome, shrinks: bool) {
    println!("seed {} FAILED", plan.seed);
    outcome.faults.iter().for_each(|fault| println!("    {fault}"));
    let (shown, faults) = if shrinks {
        let small = shrink(plan, outcome, SHRINK_RUNS_MAX);
        let faults = judge(&small).faults;
        (small, faults)
    } else {
        (plan.clone(), Vec::new())
    };
    faults.iter().for_each(|fault| println!("    smallest: {fault}"));
    let text = serde_json::to_string(&shown).unwrap_or_default();
    println!("    cargo xtask simulate --plan '{text}'");
}

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("error: {error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if let Some(docs) = &options.docs {
        return rfc8867(docs);
    }
    let started = Instant::now();
    let sum = Mutex::new(Sum::default());
    if let Some(plan) = &options.plan {
        let outcome = run_aloud(plan);
        outcome.faults.iter().for_each(|fault| println!("    {fault}"));
        add(&sum, &outcome, started, false);
    } else {
        // A panic in a world is a fault, which is told with its seed.
        std::panic::set_hook(Box::new(|_| {}));
        let next = AtomicU64::new(options.from);
        std::thread::scope(|scope| {
            for _ in 0..options.jobs {
                scope.spawn(|| work(&options, &next, &sum, started));
            }
        });
    }
    let Ok(sum) = sum.into_inner() else { return ExitCode::FAILURE };
    sum.show(started.elapsed());
    if sum.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs the cases of RFC 8867 and writes their page and plots.
fn rfc8867(docs: &std::path::Path) -> ExitCode {
    let all = rfc8867::cases().into_iter().map(|case| {
        println!("{} {}", case.section, case.title);
        let measured = rfc8867::SEEDS.map(|seed| rfc8867::measure(&case, seed)).collect();
        (case, measured)
    });
    let (page, plots) = rfc8867::page(&all.collect::<Vec<_>>());
    let images = plots.iter().map(|(name, svg)| (docs.join("images").join(name), svg));
    for (path, text) in images.chain([(docs.join("congestion-rfc8867.md"), &page)]) {
        if let Err(error) = std::fs::write(&path, text) {
            eprintln!("error: {}: {error}", path.display());
            return ExitCode::FAILURE;
        }
    }
    println!("{page}");
    ExitCode::SUCCESS
}

fn work(options: &Options, next: &AtomicU64, sum: &Mutex<Sum>, started: Instant) {
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= options.from.saturating_add(options.seeds) {
            return;
        }
        let plan = Plan::generate(seed);
        let outcome = judge(&plan);
        if !outcome.faults.is_empty() {
            report(&plan, &outcome, options.shrinks);
        }
        add(sum, &outcome, started, true);
    }
}

fn add(sum: &Mutex<Sum>, outcome: &Outcome, started: Instant, with_news: bool) {
    let Ok(mut sum) = sum.lock() else { return };
    let news =
        |sum: &Sum| started.elapsed().as_secs() / NEWS_INTERVAL.as_secs() * sum.worlds.min(1);
    let before = NEWS.load(Ordering::Relaxed);
    sum.add(outcome);
    if with_news && news(&sum) > before {
        NEWS.store(news(&sum), Ordering::Relaxed);
        sum.show(started.elapsed());
    }
}

/// How often a long run has said how far it is.
static NEWS: AtomicU64 = AtomicU64::new(0);
