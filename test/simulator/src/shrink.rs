//! Makes a plan that fails smaller while it still fails.

use crate::{
    Outcome, Plan, SourceKind,
    plan::{PlannedGuest, PlannedLink, Seat},
    run,
};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs a plan; a panic is a fault like any other.
pub fn judge(plan: &Plan) -> Outcome {
    let outcome = catch_unwind(AssertUnwindSafe(|| run(plan)));
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("something");
        Outcome {
            hash: 0,
            faults: vec![format!("panicked: {text}")],
            simulated: Default::default(),
            passed: 0,
        }
    })
}

/// What kind of fault it is: its words without the numbers.
fn kind(fault: &str) -> String {
    let words = fault.split(" (at ").next().unwrap_or(fault);
    words.chars().filter(|c| !c.is_ascii_digit()).take(60).collect()
}

/// The smallest plan found, in at most this many runs, that fails as `plan` does.
pub fn shrink(plan: &Plan, outcome: &Outcome, runs_max: u32) -> Plan {
    let Some(wanted) = outcome.faults.first().map(|fault| kind(fault)) else {
        return plan.clone();
    };
    let mut best = plan.clone();
    let mut runs = 0;
    loop {
        let smaller = candidates(&best).into_iter().find(|candidate| {
            runs += 1;
            runs <= runs_max && judge(candidate).faults.iter().any(|it| kind(it) == wanted)
        });
        match smaller {
            Some(smaller) => best = smaller,
            None => return best,
        }
    }
}

/// Plans that are a step smaller, the largest steps first.
fn candidates(plan: &Plan) -> Vec<Plan> {
    let mut all = Vec::new();
    let mut add = |change: &dyn Fn(&mut Plan)| {
        let mut smaller = plan.clone();
        change(&mut smaller);
        if smaller != *plan && !smaller.guests.is_empty() {
            all.push(smaller);
        }
    };
    let half = plan.actions.len() / 2;
    if half > 0 {
        add(&|plan| drop(plan.actions.drain(..half)));
        add(&|plan| plan.actions.truncate(half));
    }
    for seat in plan.guests.keys() {
        add(&|plan| without(plan, *seat));
    }
    for index in 0..plan.actions.len() {
        add(&|plan| drop(plan.actions.remove(index)));
    }
    let last = plan.actions.last().map_or(0, |action| action.at_ms);
    add(&|plan| plan.until_ms = plan.until_ms.min(last + 2000));
    add(&|plan| plan.shards = 1);
    for (seat, guest) in &plan.guests {
        let mut change = |change: &dyn Fn(&mut PlannedGuest)| {
            add(&|plan| {
                if let Some(guest) = plan.guests.get_mut(seat) {
                    change(guest);
                }
            });
        };
        change(&|guest| guest.up = PlannedLink::default());
        change(&|guest| guest.down = PlannedLink::default());
        change(&|guest| guest.drift_ppm = 0);
        change(&|guest| guest.joins_ms = 0);
        change(&|guest| guest.room = 0);
        change(&|guest| guest.pair = false);
        for index in 0..guest.sources.len() {
            change(&|guest| drop(guest.sources.remove(index)));
            change(&|guest| guest.sources[index] = simpler(&guest.sources[index]));
        }
    }
    all
}

fn simpler(source: &SourceKind) -> SourceKind {
    match source {
        SourceKind::Audio | SourceKind::Red => SourceKind::Audio,
        video => SourceKind::Video { bitrates_bps: video.bitrates_bps()[..1].to_vec() },
    }
}

fn without(plan: &mut Plan, seat: Seat) {
    plan.guests.remove(&seat);
    plan.actions.retain(|action| action.guest != seat);
}
