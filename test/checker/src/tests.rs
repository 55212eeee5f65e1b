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
        codecs: vec![
            binding(Codec::Vp8, 96, Some(97)),
            binding(Codec::Vp9, 98, None),
            binding(Codec::Av1, 45, None),
            binding(Codec::H264, 102, None),
        ],
        dependency_descriptor: Some(12),
    });
    checker.allow(OutgoingStream {
        ssrc: AUDIO,
        rtx_ssrc: None,
        codecs: vec![binding(Codec::Opus, 111, None)],
        dependency_descriptor: None,
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
    assert_eq!(faults([rtp(VIDEO, 77, 1, 1, true, b"x")]), [Fault::PayloadType]);
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

/// A VP9 packet, one for each of two spatial layers.
#[derive(Clone, Copy)]
struct Vp9 {
    sequence: u16,
    timestamp: u32,
    picture_id: u16,
    spatial: u8,
    tl0: u8,
    marker: bool,
}

impl Vp9 {
    fn packet(&self) -> Vec<u8> {
        let [high, low] = (self.picture_id | 0x8000).to_be_bytes();
        let payload = [0xEC, high, low, self.spatial << 1, self.tl0, 1];
        rtp(VIDEO, 98, self.sequence, self.timestamp, self.marker, &payload)
    }
}

fn planted_vp9(spoil: impl FnOnce(&mut Vec<Vp9>)) -> Vec<Fault> {
    let picture = |number: u16| {
        [0, 1].map(|spatial| Vp9 {
            sequence: 65_530u16.wrapping_add(number * 2 + u16::from(spatial)),
            timestamp: u32::from(number) * 3000,
            picture_id: (0x7ffc + number) & 0x7fff,
            spatial,
            tl0: 252u8.wrapping_add(number as u8),
            marker: spatial == 1,
        })
    };
    let mut stream: Vec<_> = (0..20).flat_map(picture).collect();
    spoil(&mut stream);
    faults(stream.iter().map(Vp9::packet))
}

#[test]
fn vp9_indices_and_layers_out_of_order_are_seen() {
    assert_eq!(planted_vp9(|_| {}), []);
    assert_eq!(
        planted_vp9(|stream| {
            stream.remove(9);
        }),
        [],
        "lost"
    );
    let jump = planted_vp9(|stream| {
        for packet in &mut stream[20..] {
            packet.picture_id = (packet.picture_id + 0x7ff0) & 0x7fff;
        }
    });
    assert_eq!(jump, [Fault::PictureId]);
    assert_eq!(planted_vp9(|stream| stream[20].tl0 ^= 64), [Fault::Tl0PictureIndex]);
    assert_eq!(planted_vp9(|stream| stream[21].spatial = 0), [Fault::SpatialLayer]);
    assert_eq!(planted_vp9(|stream| stream[21].marker = false), [Fault::CutFrame]);
}

/// In place of a distance: no structure explains the descriptor.
const UNREADABLE: u16 = 4000;

/// Frame number, start, end, structure, distance to the frame that it depends on.
type Frame = (u16, bool, bool, bool, u16);

fn planted_descriptors(spoil: impl FnOnce(&mut Vec<Frame>)) -> Vec<Fault> {
    use parlor_rtp::dependency_descriptor::{self as dd, FrameDiffs, Structure, Template};
    let structure = Structure::new(0, &[Template::default()], 1, 0, &[]).unwrap();
    let mut frames: Vec<Frame> = (0..10u16)
        .flat_map(|at| {
            let number = at.wrapping_sub(5);
            [(number, true, false, at == 0, 1), (number, false, true, false, 1)]
        })
        .collect();
    frames[0].4 = 0;
    frames[1].4 = 0;
    spoil(&mut frames);
    let now = Instant::now();
    let mut checker = checker();
    for ((number, start, end, structure_attached, diff), sequence) in frames.into_iter().zip(1u16..)
    {
        if number == 9999 {
            continue;
        }
        let diffs =
            if diff == 0 { FrameDiffs::default() } else { FrameDiffs::new(&[diff]).unwrap() };
        let descriptor = dd::Descriptor {
            start_of_frame: start,
            end_of_frame: end,
            template_id: 0,
            frame_number: number,
            structure_attached,
            active_decode_targets: None,
            spatial_layer: 0,
            temporal_layer: 0,
            decode_targets: dd::DecodeTargets::default(),
            frame_diffs: diffs,
            chain_diffs: [0; dd::MAX_CHAINS],
        };
        let mut extension = [0; 64];
        let len = descriptor.write(&mut extension, &structure).unwrap();
        if diff == UNREADABLE {
            extension[0] |= 0x3f;
        }
        let mut out = vec![0; 200];
        let fields = HeaderFields {
            marker: end,
            payload_type: PayloadType(45),
            sequence_number: SequenceNumber(sequence),
            timestamp: RtpTimestamp(u32::from(number.wrapping_add(5)) * 3000),
            ssrc: VIDEO,
        };
        let header = write_header(&mut out, &fields, &[(12, &extension[..len])]).unwrap();
        out.truncate(header);
        out.extend([0x10, 0x30, sequence as u8]);
        checker.handle_packet(now, &out);
    }
    checker.descriptor_faults(VIDEO).into_iter().map(|(_, fault)| fault).collect()
}

#[test]
fn what_descriptors_say_is_held_to() {
    assert_eq!(planted_descriptors(|_| {}), []);
    let reference = planted_descriptors(|frames| (frames[8].4, frames[9].4) = (200, 200));
    assert_eq!(reference, [Fault::Reference]);
    assert_eq!(planted_descriptors(|frames| frames[7].2 = false)[0], Fault::CutFrame);
    let back = planted_descriptors(|frames| (frames[8].0, frames[9].0) = (60_000, 60_000));
    assert_eq!(back[0], Fault::FrameNumber);
    let unreadable = planted_descriptors(|frames| frames[8].4 = UNREADABLE);
    assert_eq!(unreadable[0], Fault::Descriptor);
    assert_eq!(planted_descriptors(|frames| frames[7].0 = 9999), [], "lost");
    assert_eq!(planted_descriptors(|frames| frames[0].3 = false), [], "joined in the middle");
}
