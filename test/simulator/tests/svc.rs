//! A camera with spatial layers in one stream (SVC) to a subscriber on a bad link.
#![allow(clippy::unwrap_used)]

mod call;

use call::{Call, MS, rate};
use parlor_client::Model;
use parlor_simulator::SourceKind;

fn cameras() -> [SourceKind; 4] {
    let bitrates_bps = vec![160_000, 250_000, 1_250_000];
    [
        SourceKind::Svc { bitrates_bps: bitrates_bps.clone() },
        SourceKind::Vp9 { bitrates_bps: bitrates_bps.clone(), key_only: false },
        SourceKind::Av1 { bitrates_bps: bitrates_bps.clone(), key_only: false },
        // Layers depend on one another in keyframes only: each has all of its bits.
        SourceKind::Av1 { bitrates_bps: vec![160_000, 410_000, 1_700_000], key_only: true },
    ]
}

#[test]
fn a_layer_that_does_not_fit_any_more_is_cut_at_once() {
    for (seed, camera) in (1..).zip(cameras()) {
        println!("{camera:?}");
        let mut call = Call::with_camera(seed, Model::Single, rate(4_000_000), camera);
        call.watch("4 Mbit/s, first 5 s", 5000 * MS);
        let before = call.watch("4 Mbit/s", 5000 * MS);
        assert_eq!(before.height(), 720, "{before}");
        call.set_down(rate(600_000));
        let first = call.watch("600 kbit/s, first 1 s", 1000 * MS);
        assert!(first.lost_share() < 0.15 && first.frozen <= 400 * MS, "{first}");
        // Nothing of what does not fit leaves any more, although no keyframe has come.
        let rest = call.watch("600 kbit/s, 7 s more", 7000 * MS);
        assert!(rest.lost == 0 && rest.frame_share() > 0.99, "{rest}");
        // The keyframe that brings 360p back takes all that the link carries.
        assert!(rest.frozen <= 250 * MS, "{rest}");
        let lost_share = (first.lost + rest.lost) as f64 / (first.sent + rest.sent) as f64;
        assert!(lost_share < 0.06, "{first}; {rest}");
        call.assert_settles_and_recovers();
        call.assert_clean();
    }
}

#[test]
fn ninety_kilobits_pause_it() {
    for (seed, camera) in (1..).zip(cameras()) {
        println!("{camera:?}");
        let mut call = Call::with_camera(seed, Model::Single, rate(4_000_000), camera);
        call.watch("4 Mbit/s", 8000 * MS);
        call.set_down(rate(90_000));
        call.watch("90 kbit/s, first 8 s", 8000 * MS);
        let got = call.watch("90 kbit/s", 15_000 * MS);
        assert_eq!(got.frames, 0, "{got}");
        call.set_down(rate(4_000_000));
        call.watch("4 Mbit/s again, first 3 s", 3000 * MS);
        let again = call.watch("4 Mbit/s again", 1000 * MS);
        assert!(again.frame_share() > 0.9, "{again}");
        call.assert_clean();
    }
}
