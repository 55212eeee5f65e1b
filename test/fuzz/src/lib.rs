//! One function for each parser that a network peer can reach: feed it any bytes, it must not
//! panic, and what it takes apart must come together again.
//!
//! `cargo xtask fuzz TARGET` runs one of them under libFuzzer from the corpus beside this crate;
//! the tests of this crate run every target over its corpus, so that a finding stays fixed.
//!
//! ```
//! let (name, target) = parlor_fuzz::TARGETS[0];
//! assert_eq!(name, "rtp");
//! target(b"not a packet");
//! ```
#![forbid(unsafe_code)]

mod targets;

/// A target: it takes any bytes and must return.
pub type Target = fn(&[u8]);

/// Every target by name; the corpus lies in `corpus/<name>`.
pub const TARGETS: &[(&str, Target)] = &[
    ("rtp", targets::rtp),
    ("rtcp", targets::rtcp),
    ("payload", targets::payload),
    ("red", targets::red),
    ("dependency_descriptor", targets::dependency_descriptor),
    ("forwarder", targets::forwarder),
    ("srtp", targets::srtp),
    ("sdp", targets::sdp),
    ("offer", targets::offer),
    ("datagram", targets::datagram),
    ("tcp_frames", targets::tcp_frames),
    ("dcep", targets::dcep),
    ("signal", targets::signal),
    ("join_request", targets::join_request),
    ("data_packet", targets::data_packet),
    ("token", targets::token),
];

/// The target with this name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, target)| *target)
}
