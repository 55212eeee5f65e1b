//! Whatever happens on the way in and whatever is asked for, what leaves satisfies the checker and
//! decodes to frames that were sent.
//!
//! `PROPTEST_CASES` raises the number of cases.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{
    layered::Coding,
    plan::{Announced, Plan, Step},
};
use parlor_model::Codec;
use proptest::prelude::*;

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (any::<u64>(), 0..40u8).prop_map(|(seed, wait_ms)| Step::Frame { seed, wait_ms }),
        1 => (0..3u8).prop_map(Step::Padding),
        1 => (0..3u8).prop_map(Step::Toggle),
        2 => (0..4u8).prop_map(Step::MaxLayer),
        1 => (1..40u8).prop_map(Step::MaxFps),
        1 => (1..4u8).prop_map(Step::Produced),
        1 => any::<bool>().prop_map(Step::Enabled),
        1 => any::<bool>().prop_map(Step::Muted),
        3 => (0..60u8, 1..20u8).prop_map(|(back, count)| Step::Nack(back, count)),
        1 => Just(Step::Pli),
    ]
}

fn coding() -> impl Strategy<Value = (Coding, usize)> {
    let vp9 = Coding::plain(Codec::Vp9);
    let av1 = Coding { descriptor: true, ..Coding::plain(Codec::Av1) };
    let simulcast = (
        prop::sample::select(vec![
            Coding::plain(Codec::Vp8),
            Coding { descriptor: true, ..Coding::plain(Codec::Vp8) },
            Coding::plain(Codec::H264),
            Coding::plain(Codec::H265),
            vp9,
            av1,
            Coding { descriptor: true, ..vp9 },
        ]),
        1..=3u8,
        1..=3usize,
    );
    let simulcast =
        simulcast.prop_map(|(coding, temporal, streams)| (Coding { temporal, ..coding }, streams));
    let svc = (1..=3u8, 1..=3u8, any::<bool>(), any::<bool>(), any::<bool>());
    let svc = svc.prop_map(move |(spatial, temporal, key_only, descriptor, is_av1)| {
        let codec = if is_av1 { Codec::Av1 } else { Codec::Vp9 };
        (Coding { codec, spatial, temporal, key_only, descriptor: descriptor || is_av1 }, 1)
    });
    prop_oneof![simulcast, svc]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(
        std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(64)
    ) })]

    #[test]
    fn any_course_of_events_leaves_a_clean_stream(
        (coding, layers) in coding(),
        sequence: u16,
        by_ssrc: bool,
        steps in proptest::collection::vec(step(), 1..150),
    ) {
        let announced = if by_ssrc { Announced::BySsrc } else { Announced::ByRid };
        let mut plan = Plan::new(Plan::world(), 0, coding, layers, announced, sequence);
        for step in steps {
            plan.apply(step);
        }
        plan.check()?;
        plan.decode()?;
        plan.calm_down(90)?;
    }
}
