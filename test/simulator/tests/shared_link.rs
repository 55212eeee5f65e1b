//! Subscribers who share a link, on RFC 8867's cases; all of them are `simulate --rfc8867`'s.
#![allow(clippy::unwrap_used)]

use parlor_simulator::rfc8867::{cases, measure};

/// Who has much of the link gives way before who has little, and the probes of the others take no layer
/// from anybody.
#[test]
fn five_on_one_link_have_equal_parts_and_their_layers() {
    let equal = cases().into_iter().find(|case| case.section == "equal-5").unwrap();
    for seed in 9004..9008 {
        let measured = measure(&equal, seed);
        let (jain, best) = (measured.jain_received.unwrap(), measured.best_share);
        assert!(jain > 0.9 && best > 0.9, "seed {seed}: {jain:.2}, best layers {best:.2}");
    }
}
