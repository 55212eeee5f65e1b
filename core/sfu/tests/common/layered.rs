//! The streams of a layered source as a publisher numbers them.

use std::ops::{Deref, DerefMut};

pub use parlor_checker::layered::{Coding, FrameId, Name};

use super::media::{MID_ID, RID_ID, TRANSPORT_CC_ID, packet};

pub const DESCRIPTOR_ID: u8 = 12;

/// One stream of a camera.
pub struct LayeredSource {
    pub ssrc: u32,
    pub rid: Option<&'static str>,
    pub sequence: u16,
    source: parlor_checker::layered::LayeredSource,
}

impl LayeredSource {
    pub fn new(coding: Coding, ssrc: u32, rid: Option<&'static str>) -> Self {
        let source = parlor_checker::layered::LayeredSource::new(coding, ssrc);
        Self { ssrc, rid, sequence: (ssrc as u16).wrapping_mul(7919), source }
    }

    /// The packets of the next picture; `transport` is the transport-wide counter of the sender.
    pub fn next(&mut self, keyframe: bool, transport: &mut u16) -> Vec<Vec<u8>> {
        let packets = self.source.next_picture(keyframe);
        packets.iter().map(|packet| self.write(packet, transport)).collect()
    }

    fn write(
        &mut self,
        next: &parlor_checker::layered::LayeredPacket,
        transport: &mut u16,
    ) -> Vec<u8> {
        let number = transport.to_be_bytes();
        *transport = transport.wrapping_add(1);
        let mut extensions: Vec<(u8, &[u8])> = vec![(MID_ID, b"1"), (TRANSPORT_CC_ID, &number)];
        if let Some(rid) = self.rid {
            extensions.push((RID_ID, rid.as_bytes()));
        }
        if let Some(descriptor) = &next.descriptor {
            extensions.push((DESCRIPTOR_ID, descriptor));
        }
        let (payload_type, sequence) = (self.coding.payload_type(), self.sequence);
        self.sequence = self.sequence.wrapping_add(1);
        let (timestamp, marker) = (next.timestamp, next.marker);
        let (ssrc, payload) = (self.ssrc, &next.payload);
        packet(ssrc, payload_type, sequence, timestamp, marker, &extensions, payload)
    }
}

impl Deref for LayeredSource {
    type Target = parlor_checker::layered::LayeredSource;

    fn deref(&self) -> &Self::Target {
        &self.source
    }
}

impl DerefMut for LayeredSource {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.source
    }
}
