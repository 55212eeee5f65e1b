//! The estimator, the pacer and the allocation together on bad links, in virtual time: the rows of
//! issue 7's table and what RFC 8867 asks of congestion control. Each case runs under several
//! seeds, and the worst counts.
//!
//! `cargo test -p parlor-congestion --test network -- --nocapture --test-threads=1` prints the
//! table of docs/decisions/0003-congestion-control.md; with `PARLOR_PRINT=1` each second of each
//! run.
#![allow(clippy::unwrap_used)]

mod world;

use parlor_netem::{LinkConfig, Loss};
use std::{ops::Range, time::Duration};
use world::{Flow, MS, World, jain, link};

const SEEDS: Range<u64> = 1..11;

fn print(world: &World, name: &str) {
    if std::env::var_os("PARLOR_PRINT").is_some() {
        world.flows.iter().for_each(|flow| flow.print(name));
    }
}

/// The largest of what the seeds give.
fn worst(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(f64::NEG_INFINITY, f64::max)
}

fn run(config: &LinkConfig, seconds: u32, name: &str) -> Vec<World> {
    let worlds = SEEDS.map(|seed| {
        let mut world = World::new(config.clone(), 1, seed);
        world.run(seconds);
        print(&world, name);
        world
    });
    worlds.collect()
}

/// 20 s each at the rate of `config`, at 600 kbit/s and at 4 Mbit/s.
fn run_falling(config: &LinkConfig, name: &str) -> Vec<World> {
    let mut worlds = run(config, 20, name);
    for world in &mut worlds {
        for rate_bps in [600_000, 4_000_000] {
            world.set_rate(rate_bps);
            world.run(20);
        }
        print(world, name);
    }
    worlds
}

fn over(worlds: &[World], value: impl Fn(&Flow) -> f64) -> f64 {
    worst(worlds.iter().map(|world| value(&world.flows[0])))
}

#[test]
fn at_700_kbps_360p_stays_without_loss() {
    let mut worlds = run(&link(Some(700_000)), 60, "700 kbit/s");
    let without = over(&worlds, |flow| 1.0 - flow.share(12..60, Some(1)));
    let loss = over(&worlds, |flow| flow.loss(12..60));
    let most = over(&worlds, |flow| flow.mean_bps(12..60));
    let least = -over(&worlds, |flow| -flow.mean_bps(12..60));
    let padding = over(&worlds, |flow| flow.padding(12..60));
    let queue = worst(worlds.iter_mut().map(|world| world.flows[0].queue_p95_ms()));
    println!(
        "| 700 kbit/s, after 12 s | 360p all the time | not 360p {:.0} % | loss {:.2} % | estimate {:.0} to \
         {:.0} kbit/s | padding {:.1} % | queue p95 {queue:.0} ms |",
        100.0 * without,
        100.0 * loss,
        least / 1000.0,
        most / 1000.0,
        100.0 * padding
    );
    assert_eq!(without, 0.0);
    assert!(loss < 0.005, "{loss}");
    assert!(least > 0.85 * 700_000.0 && most < 700_000.0, "{least} {most}");
    assert!(padding < 0.05, "{padding}");
    assert!(queue < 60.0, "{queue}");
}

/// As Chromium on a busy machine was seen through a token bucket: no delay to speak of, audio with
/// redundancy, and frames that come in heaps.
#[test]
fn an_encoder_that_stalls_is_no_reason_to_fall() {
    // What 700 kbit/s leave of datagrams, with Ethernet, IP and UDP counted.
    let rate_bps = Some(660_000);
    let config = LinkConfig { delay: MS, burst_bytes: 3000, ..link(rate_bps) };
    let worlds = SEEDS.map(|seed| {
        let mut world = World::new(config.clone(), 1, seed).all_busy();
        world.run(60);
        print(&world, "an encoder that stalls");
        world
    });
    let worlds: Vec<_> = worlds.collect();
    let without = over(&worlds, |flow| 1.0 - flow.share(12..60, Some(1)));
    let loss = over(&worlds, |flow| flow.loss(12..60));
    println!(
        "| an encoder that stalls, 700 kbit/s | not 360p {:.0} % | loss {:.2} % |",
        100.0 * without,
        100.0 * loss
    );
    assert_eq!(without, 0.0);
    assert!(loss < 0.005, "{loss}");
}

#[test]
fn falling_from_4_mbps_to_600_kbps_and_back() {
    let worlds: Vec<_> = SEEDS
        .map(|seed| {
            let mut world = World::new(link(Some(4_000_000)), 1, seed);
            world.run(20);
            world.set_rate(600_000);
            world.run(3);
            let full_bps = world.flows[0].estimator.full_bps(world.now).unwrap();
            assert!((540_000..680_000).contains(&full_bps), "{full_bps}");
            world.run(17);
            world.set_rate(4_000_000);
            world.run(20);
            print(&world, "4 Mbit/s, 600 kbit/s, 4 Mbit/s");
            world
        })
        .collect();
    let ramp = over(&worlds, |flow| flow.first(0, Some(2)).unwrap() as f64);
    let loss = over(&worlds, |flow| flow.loss(20..28));
    let concealed = over(&worlds, |flow| flow.concealed(20..28));
    let after_loss = over(&worlds, |flow| flow.loss(28..40));
    let without = over(&worlds, |flow| 1.0 - flow.share(28..40, Some(1)));
    let back = over(&worlds, |flow| (flow.first(40, Some(2)).unwrap() - 40) as f64);
    let lower = over(&worlds, |flow| 1.0 - flow.share(48..60, Some(2)));
    println!(
        "| 4 Mbit/s to 600 kbit/s, 8 s | loss {:.1} % | concealed {:.1} % | then: loss {:.2} %, not 360p {:.0} % | back at \
         4 Mbit/s: 720p after {:.0} s (first ramp {ramp:.0} s) |",
        100.0 * loss,
        100.0 * concealed,
        100.0 * after_loss,
        100.0 * without,
        back + 1.0
    );
    assert!(ramp < 3.0, "{ramp}");
    assert!(loss < 0.03, "{loss}");
    assert!(after_loss == 0.0 && without == 0.0, "{after_loss} {without}");
    assert!(back < 8.0 && lower == 0.0, "{back} {lower}");
}

#[test]
fn at_90_kbps_video_is_paused_and_comes_back() {
    let worlds: Vec<_> = SEEDS
        .map(|seed| {
            let mut world = World::new(link(Some(90_000)), 1, seed);
            world.run(30);
            let reason = world.flows[0].reason.to_string();
            assert!(reason.starts_with("paused because the estimate is"), "{reason}");
            world.set_rate(4_000_000);
            world.run(10);
            print(&world, "90 kbit/s");
            world
        })
        .collect();
    let unpaused = over(&worlds, |flow| 1.0 - flow.share(1..30, None));
    let loss = over(&worlds, |flow| flow.loss(2..30));
    let queue = over(&worlds, |flow| flow.audio_queue_ms(2..30));
    let back = over(&worlds, |flow| {
        (30..40).find(|second| flow.seconds[*second].layer.is_some()).unwrap() as f64 - 30.0
    });
    println!(
        "| 90 kbit/s | not paused {:.0} % | loss {:.2} % | round trip of audio {:.0} ms | video back after \
         {:.0} s |",
        100.0 * unpaused,
        100.0 * loss,
        40.0 + queue,
        back + 1.0
    );
    assert_eq!(unpaused, 0.0);
    assert!(loss < 0.003, "{loss}");
    assert!(40.0 + queue < 100.0, "{queue}");
    assert!(back < 2.0, "{back}");
}

/// Whatever a probe was doing when the link recovered, and although audio alone fills nine tenths of
/// the slower one.
#[test]
fn behind_a_token_bucket_video_comes_back() {
    for (rate_bps, back_most) in [(90_000, 2_000 * MS), (54_000, 2_500 * MS)] {
        let mut back = Duration::ZERO;
        let mut worlds = Vec::new();
        for seed in SEEDS {
            for phase in 0..10 {
                let burst_bytes = [16_000, 32_000, 3_000][seed as usize % 3];
                let config = LinkConfig { burst_bytes, ..link(Some(4_000_000)) };
                let mut world = World::new(config, 1, 100 * seed + u64::from(phase));
                world.run(8);
                world.set_rate(rate_bps);
                world.run(28);
                world.run_for(100 * MS * phase);
                world.set_rate(4_000_000);
                let recovered = world.now;
                while world.flows[0].layer().is_none() && world.now - recovered < 30_000 * MS {
                    world.run_for(MS);
                }
                back = back.max(world.now - recovered);
                print(&world, "token bucket");
                worlds.push(world);
            }
        }
        let unpaused = over(&worlds, |flow| 1.0 - flow.share(16..36, None));
        let loss = over(&worlds, |flow| flow.loss(16..36));
        let queue = over(&worlds, |flow| flow.audio_queue_ms(16..36));
        println!(
            "| token bucket, {} kbit/s and back to 4 Mbit/s | not paused {:.1} % | loss {:.1} % | queue \
             {queue:.0} ms | video back after {:.1} s |",
            rate_bps / 1000,
            100.0 * unpaused,
            100.0 * loss,
            back.as_secs_f64()
        );
        assert_eq!(unpaused, 0.0);
        assert!(loss < 0.01, "{loss}");
        assert!(queue < 60.0, "{queue}");
        assert!(back < back_most, "{back:?}");
    }
}

#[test]
fn random_loss_costs_no_layer() {
    for share in [0.05, 0.15] {
        let config = LinkConfig { loss: Loss::Independent(share), ..link(Some(10_000_000)) };
        let worlds = run(&config, 60, "random loss");
        let ramp = over(&worlds, |flow| flow.first(0, Some(2)).map_or(99.0, |at| at as f64));
        let lower = over(&worlds, |flow| 1.0 - flow.share(15..60, Some(2)));
        let least = -over(&worlds, |flow| -flow.mean_bps(15..60));
        println!(
            "| {:.0} % random loss | 720p after {ramp:.0} s | then below 720p {:.1} % | least mean estimate {:.0} \
             kbit/s |",
            100.0 * share,
            100.0 * lower,
            least / 1000.0
        );
        assert!(ramp < 12.0, "{share} {ramp}");
        assert!(lower < 0.1, "{share} {lower}");
        assert!(least > 1_800_000.0, "{share} {least}");
    }
}

#[test]
fn flows_share_a_link_fairly() {
    for flows in [2, 3, 5, 10] {
        let indices = SEEDS.map(|seed| {
            let config = link(Some(1_000_000 * flows as u64));
            let mut world = World::new(config, flows, seed).all_elastic();
            world.run(120);
            let shares: Vec<_> = world.flows.iter().map(|flow| flow.media_bps(40..120)).collect();
            let used = shares.iter().sum::<f64>() / (1e6 * flows as f64);
            let queue = worst(world.flows.iter_mut().map(Flow::queue_p95_ms));
            (jain(&shares), used, queue)
        });
        let results: Vec<_> = indices.collect();
        let least = -worst(results.iter().map(|(index, ..)| -index));
        let used = -worst(results.iter().map(|(_, used, _)| -used));
        let queue = worst(results.iter().map(|(.., queue)| *queue));
        println!("| {flows} flows | Jain {least:.3} | used {used:.2} | queue p95 {queue:.0} ms |");
        assert!(least > 0.9, "{flows}: {least}");
        assert!(used > 0.8, "{flows}: {used}");
        assert!(queue < 100.0, "{flows}: {queue}");
    }
}

#[test]
fn a_late_flow_gets_its_share() {
    let indices = SEEDS.map(|seed| {
        let mut world = World::new(link(Some(3_000_000)), 2, seed).all_elastic();
        let late = world.start + 30_000 * MS;
        world.flows[1].begin_at(late);
        world.run(150);
        print(&world, "late");
        let shares: Vec<_> = world.flows.iter().map(|flow| flow.media_bps(70..150)).collect();
        -jain(&shares)
    });
    let least = -worst(indices);
    println!("| a flow that comes 30 s later | Jain {least:.3} |");
    assert!(least > 0.9, "{least}");
}

#[test]
fn on_many_kinds_of_links_the_capacity_is_used_and_the_queue_short() {
    let base = link(Some(1_000_000));
    let jitter = LinkConfig { jitter: 30 * MS, ..base.clone() };
    let cases = [
        ("plain", base.clone()),
        ("30 ms of jitter", jitter.clone()),
        ("jitter that reorders", LinkConfig { reorders: true, ..jitter }),
        ("a queue of 1 s", LinkConfig { queue: 1000 * MS, ..base.clone() }),
        ("a queue of 20 ms", LinkConfig { queue: 20 * MS, ..base.clone() }),
        ("600 ms of round trip", LinkConfig { delay: 300 * MS, ..base.clone() }),
        (
            "bursts of loss",
            LinkConfig { loss: Loss::Gilbert { to_bad: 0.01, to_good: 0.2 }, ..base.clone() },
        ),
        ("5 % loss", LinkConfig { loss: Loss::Independent(0.05), ..base.clone() }),
        ("15 % loss", LinkConfig { loss: Loss::Independent(0.15), ..base.clone() }),
        ("duplication", LinkConfig { duplication: 0.1, ..base }),
    ];
    for (name, config) in cases {
        let results = SEEDS.map(|seed| {
            let mut world = World::new(config.clone(), 1, seed).all_elastic();
            world.run(20);
            world.flows[0].forget_delays();
            world.run(40);
            let lost = world.link.counters().overflowed as f64 / world.link.counters().sent as f64;
            let flow = &mut world.flows[0];
            (flow.mean_bps(10..60) / 1e6, lost, flow.queue_p95_ms(), flow.padding(10..60))
        });
        let results: Vec<_> = results.collect();
        let least = -worst(results.iter().map(|(used, ..)| -used));
        let most = worst(results.iter().map(|(used, ..)| *used));
        let lost = worst(results.iter().map(|(_, lost, ..)| *lost));
        let queue = worst(results.iter().map(|(_, _, queue, _)| *queue));
        let padding = worst(results.iter().map(|(.., padding)| *padding));
        println!(
            "| {name} | estimate {least:.2} to {most:.2} of the capacity | overflowed {:.2} % | queue p95 \
             {queue:.0} ms | padding {:.1} % |",
            100.0 * lost,
            100.0 * padding
        );
        assert!(least > 0.8 && most < 1.02, "{name}: {least} {most}");
        assert!(lost < 0.05, "{name}: {lost}");
        assert!(queue < 100.0, "{name}: {queue}");
        assert!(padding < 0.05, "{name}: {padding}");
    }
}

#[test]
fn the_estimate_follows_a_capacity_that_changes() {
    // RFC 8867 section 5.1, scaled: 4, 2.5, 0.6, 4 Mbit/s.
    let plan = [(4_000_000, 40), (2_500_000, 40), (600_000, 30), (4_000_000, 40)];
    let worlds = SEEDS.map(|seed| {
        let mut world = World::new(link(Some(plan[0].0)), 1, seed).all_elastic();
        for (rate_bps, seconds) in plan {
            world.set_rate(rate_bps);
            world.run(seconds);
        }
        print(&world, "variable");
        world
    });
    let worlds: Vec<_> = worlds.collect();
    let mut from = 0;
    for (rate_bps, seconds) in plan {
        let settled = from + 10..from + seconds as usize;
        from += seconds as usize;
        let least = -over(&worlds, |flow| -flow.mean_bps(settled.clone())) / rate_bps as f64;
        let most = over(&worlds, |flow| flow.mean_bps(settled.clone())) / rate_bps as f64;
        println!("| {rate_bps} bit/s after 10 s | estimate {least:.2} to {most:.2} of it |");
        assert!(least > 0.8 && most < 1.02, "{rate_bps}: {least} {most}");
    }
}

#[test]
fn the_same_seed_gives_the_same_estimates() {
    let run = || {
        let loss = Loss::Independent(0.1);
        let mut world = World::new(LinkConfig { loss, ..link(Some(800_000)) }, 2, 7);
        world.run(20);
        let seconds = world.flows.iter().flat_map(|flow| &flow.seconds);
        seconds.map(|second| (second.estimate_bps, second.sent, second.lost)).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}

#[test]
fn a_token_bucket_does_not_deceive_for_long() {
    for (rate_bps, burst_bytes) in
        [(700_000, 4_000), (700_000, 16_000), (700_000, 32_000), (90_000, 4_000), (90_000, 16_000)]
    {
        let config = LinkConfig { burst_bytes, ..link(Some(rate_bps)) };
        let mut worlds = run(&config, 90, "token bucket");
        let fits = if rate_bps == 90_000 { None } else { Some(1) };
        let without = over(&worlds, |flow| 1.0 - flow.share(30..90, fits));
        let loss = over(&worlds, |flow| flow.loss(30..90));
        let most = over(&worlds, |flow| flow.mean_bps(30..90));
        let queue = worst(worlds.iter_mut().map(|world| world.flows[0].queue_p95_ms()));
        println!(
            "| token bucket of {burst_bytes} bytes at {} kbit/s | other layers {:.0} % | loss {:.2} % | mean \
             estimate up to {:.0} | queue p95 {queue:.0} ms |",
            rate_bps / 1000,
            100.0 * without,
            100.0 * loss,
            most / 1000.0
        );
        assert!(without < 0.15, "{burst_bytes}: {without}");
        assert!(loss < 0.05, "{burst_bytes}: {loss}");
    }
}

/// As on Wi-Fi: delays alone look like a queue to a short probe.
#[test]
fn where_delays_jitter_720p_comes_back_too() {
    let config = LinkConfig { jitter: 10 * MS, ..link(Some(10_000_000)) };
    let worlds = run_falling(&config, "10 ms of jitter");
    let ramp = over(&worlds, |flow| flow.first(0, Some(2)).unwrap_or(99) as f64);
    let back = over(&worlds, |flow| (flow.first(40, Some(2)).unwrap_or(99) - 40) as f64);
    println!(
        "| 10 ms of jitter | 720p after {:.0} s | and {:.0} s after 20 s at 600 kbit/s |",
        ramp + 1.0,
        back + 1.0
    );
    assert!(ramp < 4.0, "{ramp}");
    assert!(back < 8.0, "{back}");
}

/// A short probe that only seems to have filled the link must not be the last for long.
#[test]
fn where_delays_jitter_720p_comes_at_the_start() {
    let config = LinkConfig { jitter: 10 * MS, ..link(Some(10_000_000)) };
    for seed in 1..101 {
        let mut world = World::new(config.clone(), 1, seed);
        world.run(12);
        let ramp = world.flows[0].first(0, Some(2));
        assert!(ramp.is_some_and(|second| second < 8), "seed {seed}: {ramp:?}");
    }
}

#[test]
fn behind_a_token_bucket_720p_comes_back_too() {
    let config = LinkConfig { burst_bytes: 16_000, ..link(Some(4_000_000)) };
    let worlds = run_falling(&config, "token bucket");
    let loss = over(&worlds, |flow| flow.loss(20..28));
    let without = over(&worlds, |flow| 1.0 - flow.share(28..40, Some(1)));
    let back = over(&worlds, |flow| (flow.first(40, Some(2)).unwrap_or(99) - 40) as f64);
    println!(
        "| token bucket of 16000 bytes, 4 Mbit/s to 600 kbit/s and back | loss {:.1} % | then not 360p {:.0} % | \
         720p after {:.0} s |",
        100.0 * loss,
        100.0 * without,
        back + 1.0
    );
    assert!(loss < 0.04, "{loss}");
    assert_eq!(without, 0.0);
    assert!(back < 8.0, "{back}");
}
