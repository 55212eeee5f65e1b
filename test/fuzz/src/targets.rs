//! The targets. Each reads everything that its parser offers, since views parse lazily.

use livekit_protocol as proto;
use parlor_model::{
    Codec, DataChannel, DtlsRole, Fingerprint, IceCredentials, Path, RemoteTransport, SrtpProfile,
    TrackId, TrackKind, TrackSource, TransportAddress,
};
use parlor_rtp::{
    RtpPacket, classify,
    dependency_descriptor::{Descriptor, Structure},
    is_keyframe,
    red::Red,
    rtcp::{self, Rtcp, XrBlock},
    rtx, starts_frame, vp8,
};
use parlor_sdp::{
    Answerer, ConnectionModel, LocalTransport, PublishedTrack, text::SessionDescription,
};
use parlor_signal::{connect, data, frame, token};
use parlor_srtp::SrtpReceiver;
use parlor_transport::{DtlsIdentity, Transport, TransportConfig, parse_dcep, stun_username_ufrag};
use prost::Message;
use std::{
    hint::black_box,
    net::SocketAddr,
    sync::LazyLock,
    time::{Duration, Instant},
};

pub fn forwarder(data: &[u8]) {
    black_box(parlor_sfu::forward_bytes(Instant::now(), data));
}

/// The frames of a stream together are the stream, and its second half is split as the whole was.
pub fn tcp_frames(data: &[u8]) {
    let (mut rest, mut ends) = (data, vec![0]);
    let mut bytes = 0;
    let whole = loop {
        match parlor_net::split_frame(rest) {
            Ok((Some(frame), after)) => {
                bytes += 2 + frame.len();
                rest = after;
                ends.push(bytes);
            }
            other => break other,
        }
    };
    assert_eq!(bytes + rest.len(), data.len());
    let begin = ends.get(ends.len() / 2).copied().unwrap_or(0);
    let mut tail = data.get(begin..).unwrap_or_default();
    for _ in ends.len() / 2 + 1..ends.len() {
        let split = parlor_net::split_frame(tail);
        assert!(matches!(split, Ok((Some(_), _))));
        tail = split.map_or(tail, |(_, after)| after);
    }
    assert_eq!(parlor_net::split_frame(tail), whole);
    if let Some((_, after)) = whole.ok().filter(|(frame, _)| frame.is_none()) {
        black_box(stun_username_ufrag(after.get(2..).unwrap_or_default()));
    }
}

pub fn rtp(data: &[u8]) {
    black_box(classify(data));
    for packet in [RtpPacket::parse(data), RtpPacket::parse_protected(data)].into_iter().flatten() {
        assert!(packet.header_len() + packet.payload().len() + packet.padding_len() <= data.len());
        for (id, value) in packet.extensions() {
            black_box((id, value, packet.extension(id)));
        }
        black_box((packet.csrcs().count(), packet.sequence_number(), packet.timestamp()));
        black_box(rtx::parse_rtx(packet.payload()));
    }
}

pub fn rtcp(data: &[u8]) {
    for packet in rtcp::packets(data) {
        match packet {
            Rtcp::SenderReport(report) => _ = black_box(report.reports.count()),
            Rtcp::ReceiverReport(report) => _ = black_box(report.reports.count()),
            Rtcp::SourceDescription(description) => {
                for chunk in description.chunks() {
                    black_box((chunk.cname(), chunk.items().count()));
                }
            }
            Rtcp::Goodbye(goodbye) => _ = black_box((goodbye.ssrcs().count(), goodbye.reason())),
            Rtcp::Nack(nack) => _ = black_box(nack.lost().count()),
            Rtcp::FullIntraRequest(request) => _ = black_box(request.entries().count()),
            Rtcp::Remb(remb) => _ = black_box(remb.ssrcs().count()),
            Rtcp::TransportFeedback(feedback) => {
                assert!(feedback.arrivals_us().count() <= usize::from(feedback.status_count()));
            }
            Rtcp::ExtendedReport(report) => {
                for block in report.blocks() {
                    if let XrBlock::Dlrr(entries) = block {
                        black_box(entries.count());
                    }
                }
            }
            Rtcp::PictureLossIndication(_) | Rtcp::Unknown { .. } => {}
        }
    }
}

pub fn payload(data: &[u8]) {
    for codec in
        [Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::H264, Codec::H265, Codec::Opus, Codec::Red]
    {
        black_box((is_keyframe(codec, data), starts_frame(codec, data)));
        black_box(parlor_rtp::payload::temporal_layer(codec, data));
    }
    black_box(vp8::keyframe_size(data));
    let mut copy = data.to_vec();
    vp8::rewrite(&mut copy, 0x7FFF, 255, 31);
    if let Some(descriptor) = vp8::Descriptor::parse(data) {
        let mut out = [0; 16];
        if let Some(len) = descriptor.write(&mut out) {
            assert_eq!(
                vp8::Descriptor::parse(&[&out[..len], &[0; 8]].concat()).map(|d| d.picture_id),
                Some(descriptor.picture_id)
            );
        }
    }
}

pub fn red(data: &[u8]) {
    if let Ok(red) = Red::parse(data) {
        let redundant: usize = red.redundant().map(|block| block.payload.len()).sum();
        assert!(redundant + red.primary().len() <= data.len());
    }
}

pub fn dependency_descriptor(data: &[u8]) {
    let structure = Structure::parse(data);
    let Some(descriptor) = Descriptor::parse(data, structure.as_ref()) else { return };
    if let Some(structure) = structure {
        let mut out = [0; 512];
        let len = descriptor.write(&mut out, &structure).unwrap_or(0);
        if len > 0 {
            let again = Descriptor::parse(&out[..len], Some(&structure));
            assert_eq!(again.as_ref(), Some(&descriptor));
        }
    }
}

pub fn srtp(data: &[u8]) {
    let profiles =
        [SrtpProfile::AeadAes128Gcm, SrtpProfile::AeadAes256Gcm, SrtpProfile::AesCm128HmacSha1_80];
    for profile in profiles {
        let (key, salt) = (vec![1; profile.key_len()], vec![2; profile.salt_len()]);
        let Ok(mut receiver) = SrtpReceiver::new(profile, &key, &salt) else { continue };
        assert!(receiver.open_rtp(&mut data.to_vec()).is_err());
        assert!(receiver.open_rtcp(&mut data.to_vec()).is_err());
    }
}

pub fn sdp(data: &[u8]) {
    let Ok(description) = SessionDescription::parse_bytes(data) else { return };
    // Implied attributes appear with the first printing; from then on nothing changes.
    let again = SessionDescription::parse(&description.to_string());
    let text = again.map(|again| again.to_string());
    let twice = text.as_ref().map(|text| SessionDescription::parse(text).map(|d| d.to_string()));
    assert_eq!(twice, Ok(text.clone()));
}

pub fn offer(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let codecs = [Codec::Opus, Codec::Red, Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1];
    for model in [ConnectionModel::Single, ConnectionModel::Publisher] {
        let mut answerer = Answerer::new(1, 1, model, &codecs);
        let publication = PublishedTrack {
            track: TrackId(1),
            cid: "cid".into(),
            kind: TrackKind::Video,
            source: TrackSource::Camera,
            codec: Some(Codec::Vp8),
            disable_red: false,
            disable_dtx: false,
            stereo: false,
        };
        if let Ok(answer) = answerer.handle_offer(text, &local_transport(), &[publication]) {
            assert!(SessionDescription::parse(&answer.sdp).is_ok(), "{}", answer.sdp);
        }
    }
}

fn local_transport() -> LocalTransport {
    LocalTransport {
        ice: IceCredentials { ufrag: "ufragufrag".into(), pwd: "p".repeat(24) },
        fingerprint: Fingerprint { algorithm: "sha-256".into(), digest: vec![7; 32] },
        ice_lite: true,
        candidates: Vec::new(),
    }
}

static IDENTITY: LazyLock<Option<DtlsIdentity>> = LazyLock::new(|| DtlsIdentity::generate().ok());

/// Several datagrams from one address, each after its length in two bytes.
pub fn datagram(data: &[u8]) {
    let Some(identity) = &*IDENTITY else { return };
    let ice = IceCredentials { ufrag: "ours".into(), pwd: "o".repeat(24) };
    let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let now = Instant::now();
    let config = TransportConfig {
        identity: identity.clone(),
        ice,
        ice_lite: true,
        ice_controlling: false,
        seed: [3; 32],
        open_channels: Vec::new(),
        local_addresses: vec![TransportAddress::udp(address(7882))],
    };
    let mut transport = Transport::new(now, config);
    let remote = RemoteTransport {
        ice: IceCredentials { ufrag: "them".into(), pwd: "t".repeat(24) },
        ice_lite: false,
        fingerprints: vec![identity.fingerprint().clone()],
        dtls_role: DtlsRole::Server,
        sctp: None,
    };
    black_box(transport.set_remote(now, remote).is_ok());
    let mut rest = data;
    let mut out = [0; 1500];
    while let Some((len, after)) = rest.split_first_chunk::<2>() {
        let len = usize::from(u16::from_be_bytes(*len)).min(after.len());
        let (datagram, after) = after.split_at(len);
        rest = after;
        black_box(stun_username_ufrag(datagram));
        transport.handle_datagram(now, Path::udp(address(7882), address(9)), datagram);
        while transport.poll_transmit(&mut out).is_some() {}
        while transport.poll_event().is_some() {}
    }
    transport.handle_timeout(now + Duration::from_secs(1));
}

pub fn dcep(data: &[u8]) {
    black_box(parse_dcep(data));
}

pub fn signal(data: &[u8]) {
    black_box(frame::decode_binary(data).is_ok());
    if let Ok(text) = std::str::from_utf8(data) {
        black_box(frame::decode_text(text).is_ok());
    }
}

pub fn join_request(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        black_box(connect::decode_join_request(text).is_ok());
    }
}

pub fn data_packet(data: &[u8]) {
    let Ok(packet) = data::Packet::read(data.to_vec()) else { return };
    let sender = data::Sender { sid: "PA_me", identity: "me", hidden: false, agent: false };
    let relayed = packet.relay(DataChannel::Reliable, &sender);
    if let (Ok(before), Ok(after)) =
        (proto::DataPacket::decode(data), proto::DataPacket::decode(&relayed[..]))
    {
        assert_eq!(after.participant_identity, "me");
        assert_eq!(after.participant_sid, "PA_me");
        assert_eq!(after.sequence, before.sequence);
    }
}

pub fn token(data: &[u8]) {
    let keys = [("devkey".to_owned(), "secret".to_owned())].into_iter().collect();
    if let Ok(text) = std::str::from_utf8(data) {
        black_box(token::verify(text, &keys, Duration::from_secs(1_800_000_000)).is_ok());
    }
}
