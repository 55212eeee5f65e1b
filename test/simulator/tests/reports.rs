//! A subscriber that knows no transport-wide feedback: receiver reports, and REMB from some.
#![allow(clippy::unwrap_used)]

mod call;

use call::{Call, MS, camera, rate};
use parlor_client::Model;
use parlor_model::Bitrate;
use parlor_simulator::Invitation;

fn call(seed: u64, model: Model, bps: u64) -> Call {
    let bob = Invitation { gives_transport_feedback: false, ..Invitation::new("bob", model) };
    Call::with_bob(seed, bob, rate(bps), camera())
}

#[test]
fn reports_alone_follow_a_link_that_falls() {
    for model in [Model::Single, Model::Pair] {
        let mut call = call(1, model, 4_000_000);
        call.watch("4 Mbit/s, first 5 s", 5000 * MS);
        let before = call.watch("4 Mbit/s", 5000 * MS);
        assert_eq!(before.height(), 720, "{before}");
        assert_eq!(call.world.shard().counters().transport_feedback_received, 0);
        call.set_down(rate(600_000));
        call.watch("600 kbit/s, first 6 s", 6000 * MS);
        let after = call.watch("600 kbit/s", 15_000 * MS);
        assert!(matches!(after.height(), 180 | 360), "{after}");
        assert!(after.frame_share() > 0.97 && after.audio_share() > 0.97, "{after}");
        assert!(after.lost_share() < 0.02 && after.frozen < 300 * MS, "{after}");
        call.set_down(rate(4_000_000));
        let rise = call.watch("4 Mbit/s again, first 30 s", 30_000 * MS);
        assert_eq!(rise.freezes, 0, "{rise}");
        let again = call.watch("4 Mbit/s again", 5000 * MS);
        assert_eq!(again.height(), 720, "{again}");
        call.assert_clean();
    }
}

/// Tells the server what the link carries, as a receiver that sees the delay grow.
fn watch_with_remb(call: &mut Call, name: &str, bps: u64, seconds: u32) -> call::Got {
    let mut got = call::Got::default();
    for _ in 0..seconds {
        let bob = call.bob;
        call.world.guest(bob).client().send_remb(Bitrate(bps));
        let second = call.watch(name, 1000 * MS);
        got.add(&second);
    }
    got
}

#[test]
fn a_receivers_own_estimate_is_followed() {
    for model in [Model::Single, Model::Pair] {
        let mut call = call(1, model, 4_000_000);
        watch_with_remb(&mut call, "4 Mbit/s, first 5 s", 3_800_000, 5);
        let before = watch_with_remb(&mut call, "4 Mbit/s", 3_800_000, 5);
        assert_eq!(before.height(), 720, "{before}");
        call.set_down(rate(600_000));
        call.watch("600 kbit/s, before the receiver says so", 500 * MS);
        watch_with_remb(&mut call, "600 kbit/s, first 3 s", 560_000, 3);
        let after = watch_with_remb(&mut call, "600 kbit/s", 560_000, 10);
        assert_eq!(after.height(), 360, "{after}");
        assert!(after.frame_share() > 0.99 && after.freezes == 0 && after.lost == 0, "{after}");
        call.set_down(rate(4_000_000));
        watch_with_remb(&mut call, "4 Mbit/s again, first 5 s", 3_800_000, 5);
        let again = watch_with_remb(&mut call, "4 Mbit/s again", 3_800_000, 5);
        assert_eq!(again.height(), 720, "{again}");
        call.assert_clean();
    }
}
