//! Bad links to a subscriber: the rows of the issue *Bad networks*, with a camera of three layers.
#![allow(clippy::unwrap_used)]

mod call;

use call::{Call, MS, link, rate};
use parlor_client::Model;
use parlor_netem::{LinkConfig, Loss};
use parlor_simulator::SourceKind;

#[test]
fn an_open_link_has_all_layers_soon_and_keeps_them() {
    for model in [Model::Single, Model::Pair] {
        let mut call = Call::new(1, model, link(None, Loss::None));
        call.watch("open, first 1.2 s", 1200 * MS);
        let soon = call.watch("open, 1.8 s more", 1800 * MS);
        assert_eq!(soon.height(), 720, "{soon}");
        let got = call.watch("open", 10_000 * MS);
        assert_eq!(got.height(), 720, "{got}");
        assert!(got.frame_share() > 0.99 && got.freezes == 0 && got.lost == 0, "{got}");
        call.assert_clean();
    }
}

#[test]
fn seven_hundred_kilobits_carry_360p_whole() {
    for seed in 1..=3 {
        let mut call = Call::new(seed, Model::Single, rate(700_000));
        call.watch("700 kbit/s, first 12 s", 12_000 * MS);
        let got = call.watch("700 kbit/s", 20_000 * MS);
        assert_eq!(got.height(), 360, "{got}");
        assert!(got.frame_share() > 0.99 && got.freezes == 0, "{got}");
        assert!(got.lost_share() < 0.005 && got.audio_share() > 0.99, "{got}");
        let (why, decisions) = call.explanation();
        assert!(why.contains("360p because the estimate is"), "{why}");
        assert!(decisions.iter().any(|why| why.starts_with("360p because")), "{decisions:?}");
        call.assert_clean();
    }
}

#[test]
fn a_link_that_falls_and_recovers() {
    for seed in 1..=3 {
        let mut call = Call::new(seed, Model::Single, rate(4_000_000));
        call.watch("4 Mbit/s, first 5 s", 5000 * MS);
        let before = call.watch("4 Mbit/s", 10_000 * MS);
        assert_eq!(before.height(), 720, "{before}");
        assert!(before.freezes == 0 && before.frame_share() > 0.99, "{before}");
        call.set_down(rate(600_000));
        let missed = call.missing();
        let fall = call.watch("600 kbit/s, first 8 s", 8000 * MS);
        // What waited when the layer was given up leaves no holes behind.
        let missed = call.missing() - missed;
        println!("{missed} numbers missing, {} packets lost", fall.lost);
        assert!(missed <= fall.lost + 2, "{missed} numbers are missing, {fall}");
        assert!(fall.lost_share() < 0.06, "{fall}");
        assert!(fall.frozen <= 600 * MS, "{fall}");
        assert!(fall.audio_share() > 0.97, "{fall}");
        call.assert_settles_and_recovers();
        call.assert_clean();
    }
}

#[test]
fn ninety_kilobits_pause_the_video_and_say_so() {
    for seed in 1..=3 {
        let mut call = Call::new(seed, Model::Single, rate(4_000_000));
        call.watch("4 Mbit/s", 8000 * MS);
        call.set_down(rate(90_000));
        call.watch("90 kbit/s, first 8 s", 8000 * MS);
        assert_eq!(call.is_paused(), Some(true));
        let got = call.watch("90 kbit/s", 15_000 * MS);
        assert_eq!(got.frames, 0, "{got}");
        assert_eq!(call.is_paused(), Some(true));
        assert!(call.round_trip() < 150 * MS, "{:?}", call.round_trip());
        assert!(got.audio_share() > 0.99, "{got}");
        call.set_down(rate(4_000_000));
        call.watch("4 Mbit/s again, first 3 s", 3000 * MS);
        assert_eq!(call.is_paused(), Some(false));
        let again = call.watch("4 Mbit/s again", 1000 * MS);
        assert!(again.frame_share() > 0.9, "{again}");
        call.assert_clean();
    }
}

#[test]
fn random_loss_does_not_freeze_the_picture() {
    for (loss, least, freezes) in [(0.05, 0.96, 0), (0.15, 0.94, 1)] {
        for seed in 1..=3 {
            let lossy = link(None, Loss::Independent(loss));
            let mut call = Call::new(seed, Model::Single, link(None, Loss::None));
            call.watch("no loss", 5000 * MS);
            call.set_down(lossy);
            let got = call.watch("random loss", 20_000 * MS);
            assert!(got.frame_share() >= least, "{got}");
            assert!(got.freezes <= freezes && got.longest_freeze < 300 * MS, "{got}");
            call.assert_clean();
        }
    }
}

/// A client asks for what was lost twice 100 ms later only.
#[test]
fn what_a_link_of_4_percent_loss_lost_is_sent_twice() {
    for seed in 1..=3 {
        let mut call = Call::new(seed, Model::Single, link(None, Loss::Independent(0.04)));
        call.watch("first 5 s", 5000 * MS);
        let counted = |call: &Call| {
            let counters = call.world.shard().counters();
            (counters.packets_nacked_by_peers, counters.retransmissions_sent)
        };
        let (asked_before, sent_before) = counted(&call);
        let got = call.watch("later", 10_000 * MS);
        let (asked, sent) = counted(&call);
        let (asked, sent) = (asked - asked_before, sent - sent_before);
        assert!(asked > 50 && sent * 2 > asked * 3, "{asked} asked for, {sent} sent; {got}");
        call.assert_clean();
    }
}

/// A satellite: what is asked for again comes 600 ms after it was lost at the earliest.
#[test]
fn a_far_link_that_loses_in_bursts_keeps_its_picture() {
    let far = |loss| LinkConfig { delay: 300 * MS, ..link(None, loss) };
    for seed in 1..=5 {
        let mut call = Call::new(seed, Model::Single, link(None, Loss::None));
        call.set_links(far(Loss::None), far(Loss::Gilbert { to_bad: 0.002, to_good: 0.3 }));
        call.watch("far, first 10 s", 10_000 * MS);
        let got = call.watch("far, bursts of loss", 30_000 * MS);
        assert_eq!(got.height(), 720, "{got}");
        assert!(got.frame_share() >= 0.99 && got.freezes == 0, "{got}");
        // 12 to 16 with repair by need alone.
        assert!(got.stalls <= 2, "{got}");
        call.assert_clean();
    }
}

#[test]
fn a_quality_that_is_asked_for_takes_one_keyframe() {
    for (seed, jitter_ms) in [(1, 0), (2, 5), (3, 15)] {
        let jittery = LinkConfig { jitter: jitter_ms * MS, ..link(None, Loss::None) };
        let mut call = Call::new(seed, Model::Single, jittery);
        call.watch("all layers", 6000 * MS);
        for _ in 0..4 {
            for (quality, height) in [(0, 180), (1, 360), (2, 720), (1, 360)] {
                let before = call.world.shard().counters().plis_sent;
                call.ask_for(quality);
                call.watch("the switch", 600 * MS);
                let got = call.watch("switched", 300 * MS);
                assert_eq!(got.height(), height, "{got}");
                assert_eq!(call.world.shard().counters().plis_sent - before, 1, "{got}");
            }
        }
        call.assert_clean();
    }
}

#[test]
fn a_run_repeats() {
    let run = || {
        let mut call = Call::new(9, Model::Pair, rate(700_000));
        call.watch("repeated", 6000 * MS);
        call.world.trace().clone()
    };
    let (one, other) = (run(), run());
    if let Some(difference) = one.first_difference(&other) {
        panic!("two runs of one seed differ at {difference}");
    }
}

#[test]
fn a_slow_link_is_not_flooded_at_the_start() {
    for bps in [600_000, 700_000, 1_000_000] {
        for seed in 1..=3 {
            let mut call = Call::new(seed, Model::Single, rate(bps));
            let first = call.watch(&format!("{bps} bit/s, first 1 s"), 1000 * MS);
            assert!(first.frames > 20 && first.lost == 0 && first.freezes == 0, "{first}");
            let got = call.watch(&format!("{bps} bit/s, 9 s more"), 9000 * MS);
            assert!(got.lost_share() < 0.005 && got.freezes == 0, "{got}");
            assert!(got.frame_share() > 0.99 && got.audio_share() > 0.99, "{got}");
            let after = call.watch(&format!("{bps} bit/s"), 5000 * MS);
            assert_eq!(after.height(), 360, "{after}");
            call.assert_clean();
        }
    }
}

/// A publisher raises its rate for seconds after it has begun: 720p that passes now does not then.
#[test]
fn a_layer_that_has_just_begun_is_not_taken_for_what_it_is_at_first() {
    // The least that 720p takes when it begins, by livekit-client's start bitrate.
    let camera = SourceKind::Video { bitrates_bps: vec![160_000, 300_000, 550_000] };
    let mut call = Call::with_camera(1, Model::Single, rate(1_200_000), camera);
    let heights = |call: &mut Call, time| {
        call.world.run(time);
        let link = call.world.shard().explain(call.world.now().instant).pop().unwrap();
        let camera = link.subscriptions.last().unwrap().1.clone();
        camera.split(' ').next().unwrap().to_owned()
    };
    assert_eq!(heights(&mut call, 1500 * MS), "360p");
    assert_eq!(heights(&mut call, 2000 * MS), "360p");
    assert_eq!(heights(&mut call, 3000 * MS), "720p");
}
