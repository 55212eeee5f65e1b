//! What the tests of this crate share.
#![allow(dead_code)]

use parlor_model::{
    Codec, Fingerprint, IceCredentials, Ssrc, SubscriptionId, TrackId, TrackKind, TrackSource,
};
use parlor_sdp::{LocalTransport, PublishedTrack, SendSource, SendTrack, text::SessionDescription};

pub fn fixture(name: &str) -> String {
    let path = format!("{}/tests/fixtures/{name}.sdp", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}

pub fn parse(text: &str) -> SessionDescription {
    SessionDescription::parse(text).unwrap()
}

pub fn local(ufrag: &str) -> LocalTransport {
    LocalTransport {
        ice: IceCredentials { ufrag: ufrag.to_owned(), pwd: "p".repeat(32) },
        fingerprint: Fingerprint { algorithm: "sha-256".to_owned(), digest: vec![0xAB; 32] },
        ice_lite: false,
        candidates: vec!["candidate:1 1 udp 2130706431 127.0.0.1 7882 typ host".to_owned()],
    }
}

pub fn published(track: u64, cid: &str, kind: TrackKind) -> PublishedTrack {
    PublishedTrack {
        track: TrackId(track),
        cid: cid.to_owned(),
        kind,
        source: TrackSource::Unknown,
        codec: None,
        disable_red: false,
        disable_dtx: false,
        stereo: false,
    }
}

pub fn source(track: u64, codecs: &[Codec]) -> SendSource {
    SendSource { track: TrackId(track), codecs: codecs.to_vec() }
}

pub fn audio(number: u32, stream: &str, track: &str, ssrc: u32) -> SendTrack {
    SendTrack {
        subscription: SubscriptionId(number),
        kind: TrackKind::Audio,
        sources: vec![source(u64::from(number), &[Codec::Red, Codec::Opus])],
        stream_id: format!("{stream}|{track}"),
        track_id: track.to_owned(),
        ssrc: Ssrc(ssrc),
        rtx_ssrc: None,
        stereo: false,
    }
}

pub fn video(number: u32, stream: &str, track: &str, ssrc: u32, rtx_ssrc: u32) -> SendTrack {
    SendTrack {
        kind: TrackKind::Video,
        sources: vec![source(u64::from(number), &[Codec::Vp8])],
        rtx_ssrc: Some(Ssrc(rtx_ssrc)),
        ..audio(number, stream, track, ssrc)
    }
}
