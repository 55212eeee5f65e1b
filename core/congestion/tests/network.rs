//! The estimator, the pacer and the allocation on bad links (issue 7's table).

mod world;

use parlor_netem::{LinkConfig, Loss};
use world::{World, jain, link};

fn print(world: &World, name: &str) {
    if std::env::var_os("PARLOR_PRINT").is_some() {
        world.flows.iter().for_each(|flow| flow.print(name));
    }
}

#[test]
fn at_700_kbps() {
    let mut world = World::new(link(Some(700_000)), 1, 1);
    world.run(60);
    print(&world, "700 kbit/s");
}

#[test]
fn falling_and_rising() {
    let mut world = World::new(link(Some(4_000_000)), 1, 1);
    world.run(20);
    world.set_rate(600_000);
    world.run(20);
    world.set_rate(4_000_000);
    world.run(20);
    print(&world, "4 Mbit/s, 600 kbit/s, 4 Mbit/s");
}

#[test]
fn at_90_kbps() {
    let mut world = World::new(link(Some(90_000)), 1, 1);
    world.run(30);
    world.set_rate(4_000_000);
    world.run(10);
    print(&world, "90 kbit/s");
}

#[test]
fn random_loss() {
    for loss in [0.05, 0.15] {
        let config = LinkConfig { loss: Loss::Independent(loss), ..link(Some(10_000_000)) };
        let mut world = World::new(config, 1, 1);
        world.run(60);
        print(&world, &format!("{loss} loss"));
    }
}

#[test]
fn fairness() {
    for flows in [2, 5] {
        let mut world = World::new(link(Some(1_000_000 * flows as u64)), flows, 1);
        world.run(60);
        print(&world, "fair");
        let shares: Vec<_> = world.flows.iter().map(|flow| flow.mean_bps(20..60)).collect();
        println!("{shares:?} {}", jain(&shares));
    }
}
