//! The targets. Each reads everything that its parser offers, since views parse lazily.

use parlor_model::Codec;
use parlor_rtp::{
    RtpPacket, classify, is_keyframe,
    red::Red,
    rtcp::{self, Rtcp, XrBlock},
    rtx, starts_frame, vp8,
};
use std::hint::black_box;

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
