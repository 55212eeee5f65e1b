//! Each fault is planted once and seen.

use std::time::Instant;

use parlor_model::{Codec, CodecBinding, PayloadType, RtpTimestamp, SequenceNumber, Ssrc};
use parlor_rtp::{
    HeaderFields,
    vp8::{Descriptor, PictureId, TemporalLayer},
    write_header,
};

use super::*;

const VIDEO: Ssrc = Ssrc(10);
const VIDEO_RTX: Ssrc = Ssrc(11);
const AUDIO: Ssrc = Ssrc(20);

/// A VP8 packet whose fields a test spoils.
#[derive(Clone, Copy)]
struct Vp8 {
    sequence: u16,
    timestamp: u32,
    marker: bool,
    starts: bool,
    picture_id: u16,
    tl0: u8,
    temporal: u8,
    content: u8,
}

impl Vp8 {
    fn payload(&self) -> Vec<u8> {
        let descriptor = Descriptor {
            start_of_partition: self.starts,
            picture_id: Some(PictureId { value: self.picture_id, wide: true }),
            tl0_picture_index: Some(self.tl0),
            temporal: Some(TemporalLayer { id: self.temporal, sync: false }),
            ..Descriptor::default()
        };
        let mut out = vec![self.content; 20];
        descriptor.write(&mut out).unwrap();
        out
    }

    fn packet(&self) -> Vec<u8> {
        rtp(VIDEO, 96, self.sequence, self.timestamp, self.marker, &self.payload())
    }

    fn retransmission(&self, sequence: u16) -> Vec<u8> {
        let payload = [&self.sequence.to_be_bytes()[..], &self.payload()].concat();
        rtp(VIDEO_RTX, 97, sequence, self.timestamp, self.marker, &payload)
    }
}

fn rtp(
    ssrc: Ssrc,
    payload_type: u8,
    sequence: u16,
    timestamp: u32,
    marker: bool,
    payload: &[u8],
) -> Vec<u8> {
    let mut out = vec![0; 12];
    let fields = HeaderFields {
        marker,
        payload_type: PayloadType(payload_type),
        sequence_number: SequenceNumber(sequence),
        timestamp: RtpTimestamp(timestamp),
        ssrc,
    };
    write_header(&mut out, &fields, &[]).unwrap();
    out.extend(payload);
    out
}

/// Two packets for each frame, over the wraps of sequence number, timestamp, picture id and
/// TL0PICIDX.
fn stream() -> Vec<Vp8> {
    let frame = |number: u16| {
        let timestamp = (u32::MAX - 9000).wrapping_add(u32::from(number) * 3000);
        let first = Vp8 {
            sequence: 65_530u16.wrapping_add(number * 2),
            timestamp,
            marker: false,
            starts: true,
            picture_id: (0x7ffc + number) & 0x7fff,
            tl0: 252u8.wrapping_add(number.div_ceil(2) as u8),
            temporal: u8::from(number.is_multiple_of(2)),
            content: number as u8 * 2,
        };
        let second =
            Vp8 { sequence: first.sequence.wrapping_add(1), marker: true, starts: false, ..first };
        [first, second]
    };
    (0..20).flat_map(frame).collect()
}

fn checker() -> Checker {
    let mut checker = Checker::default();
    let binding = |codec, payload_type, rtx: Option<u8>| CodecBinding {
        codec,
        payload_type: PayloadType(payload_type),
        rtx: rtx.map(PayloadType),
        variant: 0,
    };
    checker.allow(OutgoingStream {
        ssrc: VIDEO,
        rtx_ssrc: Some(VIDEO_RTX),
        codecs: vec![binding(Codec::Vp8, 96, Some(97))],
    });
    checker.allow(OutgoingStream {
        ssrc: AUDIO,
        rtx_ssrc: None,
        codecs: vec![binding(Codec::Opus, 111, None)],
    });
    checker
}

fn faults(packets: impl IntoIterator<Item = Vec<u8>>) -> Vec<Fault> {
    let now = Instant::now();
    let mut checker = checker();
    for packet in packets {
        checker.handle_packet(now, &packet);
    }
    let mut faults: Vec<_> = checker.violations().iter().map(|violation| violation.fault).collect();
    faults.dedup();
    faults
}

fn planted(spoil: impl FnOnce(&mut Vec<Vp8>)) -> Vec<Fault> {
    let mut stream = stream();
    spoil(&mut stream);
    faults(stream.iter().map(Vp8::packet))
}

#[test]
fn a_whole_stream_is_without_fault() {
    let now = Instant::now();
    let mut checker = checker();
    for packet in stream() {
        checker.handle_packet(now, &packet.packet());
    }
    assert_eq!(checker.violations(), []);
    assert_eq!(checker.complete_frames(VIDEO), 20);
    assert_eq!(checker.missing(VIDEO), 0);
    assert_eq!(checker.starts_with_keyframe(VIDEO), Some(true));
}

#[test]
fn what_a_link_does_is_no_fault() {
    let now = Instant::now();
    let mut checker = checker();
    let stream = stream();
    for (at, packet) in stream.iter().enumerate() {
        match at {
            // Lost and repaired later; lost for good; overtaken; doubled.
            5 | 9 => {}
            20 => checker.handle_packet(now, &stream[22].packet()),
            22 => checker.handle_packet(now, &stream[20].packet()),
            30 => {
                checker.handle_packet(now, &packet.packet());
                checker.handle_packet(now, &packet.packet());
            }
            _ => checker.handle_packet(now, &packet.packet()),
        }
    }
    checker.handle_packet(now, &stream[5].retransmission(3));
    assert_eq!(checker.violations(), []);
    assert_eq!(checker.complete_frames(VIDEO), 19);
    assert_eq!(checker.missing(VIDEO), 1);
}

#[test]
fn two_payloads_under_one_number_are_seen() {
    let spoilt = planted(|stream| {
        let twin = Vp8 { content: 99, ..stream[8] };
        stream.insert(9, twin);
    });
    assert_eq!(spoilt, [Fault::SealedTwice, Fault::TwoPayloads]);
    let stream = stream();
    let other = Vp8 { content: 99, ..stream[8] };
    let packets = stream.iter().map(Vp8::packet).chain([other.retransmission(1)]);
    assert_eq!(faults(packets), [Fault::TwoPayloads]);
}

#[test]
fn one_nonce_for_two_headers_is_seen() {
    let stream = stream();
    let mut padded = stream[8].packet();
    padded[0] |= 0x20;
    padded.extend([0, 0, 0, 4]);
    assert_eq!(faults([stream[8].packet(), padded]), [Fault::SealedTwice]);
}

#[test]
fn a_timestamp_that_goes_back_is_seen() {
    let spoilt = planted(|stream| {
        for packet in &mut stream[20..22] {
            packet.timestamp = packet.timestamp.wrapping_sub(9000);
        }
    });
    assert_eq!(spoilt, [Fault::Timestamp]);
    let audio = |sequence, timestamp| rtp(AUDIO, 111, sequence, timestamp, false, b"x");
    assert_eq!(faults([audio(1, 960), audio(2, 960)]), [Fault::Timestamp]);
    assert_eq!(faults([audio(2, 1920), audio(1, 960), audio(3, 2880)]), []);
}

#[test]
fn a_cut_frame_without_a_hole_is_seen() {
    let spoilt = planted(|stream| {
        stream.remove(9);
        for packet in &mut stream[9..] {
            packet.sequence = packet.sequence.wrapping_sub(1);
        }
    });
    assert_eq!(spoilt, [Fault::CutFrame]);
}

#[test]
fn a_frame_without_its_beginning_or_after_its_end_is_seen() {
    let spoilt = planted(|stream| {
        stream.remove(10);
        for packet in &mut stream[10..] {
            packet.sequence = packet.sequence.wrapping_sub(1);
        }
    });
    assert_eq!(spoilt, [Fault::NoBeginning]);
    assert_eq!(planted(|stream| stream[10].marker = true), [Fault::AfterEnd]);
}

#[test]
fn vp8_indices_that_jump_are_seen() {
    let jump = |stream: &mut Vec<Vp8>, by| {
        for packet in &mut stream[20..] {
            packet.picture_id = packet.picture_id.wrapping_add(by) & 0x7fff;
        }
    };
    assert_eq!(planted(|stream| jump(stream, 1)), [Fault::PictureId]);
    let across_a_hole = planted(|stream| {
        jump(stream, 40);
        stream.remove(19);
    });
    assert_eq!(across_a_hole, [Fault::PictureId]);
    let tl0 = planted(|stream| {
        for packet in &mut stream[20..] {
            packet.tl0 = packet.tl0.wrapping_add(7);
        }
    });
    assert_eq!(tl0, [Fault::Tl0PictureIndex]);
}

#[test]
fn forbidden_and_revoked_streams_are_seen() {
    let now = Instant::now();
    assert_eq!(faults([rtp(Ssrc(99), 96, 1, 1, true, b"x")]), [Fault::Forbidden]);
    assert_eq!(faults([rtp(VIDEO, 98, 1, 1, true, b"x")]), [Fault::PayloadType]);
    assert_eq!(faults([rtp(VIDEO_RTX, 97, 1, 1, true, b"x")]), [Fault::Rtx]);
    assert_eq!(faults([vec![1, 2, 3]]), [Fault::Malformed]);
    let mut checker = checker();
    let stream = stream();
    checker.handle_packet(now, &stream[0].packet());
    checker.revoke(VIDEO);
    checker.handle_packet(now, &stream[1].packet());
    checker.handle_packet(now, &stream[1].retransmission(1));
    let faults: Vec<_> = checker.violations().iter().map(|violation| violation.fault).collect();
    assert_eq!(faults, [Fault::Revoked, Fault::Revoked]);
}
