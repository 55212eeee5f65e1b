//! One outgoing RTP stream: numbering, history for retransmission, sender reports.

use parlor_model::{
    CodecBinding, ExtensionIds, Mid, NtpTime, Rid, RtpTimestamp, SequenceNumber, Ssrc,
};
use parlor_rtp::{HeaderFields, rtcp::SenderInfo, rtx::write_rtx, write_header};
use std::{collections::VecDeque, time::Duration};

/// Packets of a stream that are kept for retransmission.
pub const HISTORY_PACKETS: usize = 512;

/// Where an outgoing stream belongs.
#[derive(Clone, Debug)]
pub(crate) struct SendStreamConfig {
    pub mid: Mid,
    pub rid: Option<Rid>,
    pub ssrc: Ssrc,
    pub rtx_ssrc: Option<Ssrc>,
    pub codec: CodecBinding,
    pub extensions: ExtensionIds,
}

#[derive(Debug)]
pub(crate) struct SendStream {
    pub config: SendStreamConfig,
    next_sequence: u64,
    next_rtx_sequence: u64,
    history: VecDeque<(u64, Vec<u8>)>,
    packet_count: u32,
    octet_count: u32,
    last: Option<(Duration, RtpTimestamp)>,
}

/// A packet to seal: its bytes are `buffer[..len]`, its index is for SRTP.
pub(crate) struct Unsealed {
    pub header_len: usize,
    pub len: usize,
    pub ssrc: Ssrc,
    pub index: u64,
}

/// What the sender of a frame says about one packet.
#[derive(Clone, Copy, Debug)]
pub struct RtpPayload<'a> {
    /// Payload of the codec's RTP format.
    pub payload: &'a [u8],
    /// Moment of sampling, in ticks of the codec's clock.
    pub timestamp: RtpTimestamp,
    /// Last packet of a frame; first of a talk spurt.
    pub marker: bool,
    /// Loudness for the audio level extension, 0 loudest to 127 silent, in -dBov.
    pub audio_level: Option<u8>,
    /// The dependency descriptor, where there is one (AV1 RTP specification, appendix A).
    pub dependency_descriptor: Option<&'a [u8]>,
}

/// What a packet says of itself in header extensions.
#[derive(Clone, Copy)]
struct Own<'a> {
    audio_level: Option<u8>,
    descriptor: Option<&'a [u8]>,
}

impl RtpPayload<'_> {
    fn descriptor(&self) -> Option<&[u8]> {
        self.dependency_descriptor.filter(|descriptor| descriptor.len() <= DESCRIPTOR_BYTES_MAX)
    }
}

/// Longest dependency descriptor: an extension has no more room, in bytes.
const DESCRIPTOR_BYTES_MAX: usize = 255;

impl SendStream {
    /// A stream whose numbering begins at random places.
    pub fn new(config: SendStreamConfig, sequence: SequenceNumber, rtx: SequenceNumber) -> Self {
        Self {
            config,
            next_sequence: u64::from(sequence.0),
            next_rtx_sequence: u64::from(rtx.0),
            history: VecDeque::new(),
            packet_count: 0,
            octet_count: 0,
            last: None,
        }
    }

    /// Writes the next packet into `buffer`. `None` when it does not fit.
    pub fn write(
        &mut self,
        unix: Duration,
        packet: &RtpPayload<'_>,
        transport_sequence: u16,
        buffer: &mut [u8],
    ) -> Option<Unsealed> {
        let index = self.next_sequence;
        let fields = HeaderFields {
            marker: packet.marker,
            payload_type: self.config.codec.payload_type,
            sequence_number: SequenceNumber(index as u16),
            timestamp: packet.timestamp,
            ssrc: self.config.ssrc,
        };
        let own = Own { audio_level: packet.audio_level, descriptor: packet.descriptor() };
        let header_len = self.write_header(buffer, &fields, transport_sequence, own, false)?;
        let len = header_len + packet.payload.len();
        buffer.get_mut(header_len..len)?.copy_from_slice(packet.payload);
        self.next_sequence += 1;
        self.packet_count = self.packet_count.wrapping_add(1);
        self.octet_count = self.octet_count.wrapping_add(packet.payload.len() as u32);
        self.last = Some((unix, packet.timestamp));
        self.keep(index, packet);
        Some(Unsealed { header_len, len, ssrc: self.config.ssrc, index })
    }

    fn keep(&mut self, index: u64, packet: &RtpPayload<'_>) {
        if self.config.rtx_ssrc.is_none() {
            return;
        }
        let mut kept = match self.history.len() {
            HISTORY_PACKETS => self.history.pop_front().map(|(_, kept)| kept).unwrap_or_default(),
            _ => Vec::new(),
        };
        kept.clear();
        kept.push(u8::from(packet.marker));
        kept.extend(packet.timestamp.0.to_be_bytes());
        let descriptor = packet.descriptor().unwrap_or_default();
        kept.push(descriptor.len() as u8);
        kept.extend(descriptor);
        kept.extend(packet.payload);
        self.history.push_back((index, kept));
    }

    /// Writes the retransmission of a packet. `None` when it is no longer, or never was, there.
    pub fn write_retransmission(
        &mut self,
        lost: SequenceNumber,
        transport_sequence: u16,
        buffer: &mut [u8],
    ) -> Option<Unsealed> {
        let (ssrc, payload_type) = (self.config.rtx_ssrc?, self.config.codec.rtx?);
        let newest = SequenceNumber(self.next_sequence.checked_sub(1)? as u16);
        let age = usize::try_from(newest.distance(lost)).ok()?;
        let place = self.history.len().checked_sub(age + 1)?;
        let index = self.next_rtx_sequence;
        let (_, kept) = self.history.get(place)?;
        let (&marker, rest) = kept.split_first()?;
        let (timestamp, rest) = rest.split_first_chunk::<4>()?;
        let (&descriptor_len, rest) = rest.split_first()?;
        let (descriptor, payload) = rest.split_at_checked(usize::from(descriptor_len))?;
        let fields = HeaderFields {
            marker: marker != 0,
            payload_type,
            sequence_number: SequenceNumber(index as u16),
            timestamp: RtpTimestamp(u32::from_be_bytes(*timestamp)),
            ssrc,
        };
        let descriptor = Some(descriptor).filter(|descriptor| !descriptor.is_empty());
        let own = Own { audio_level: None, descriptor };
        let header_len = self.write_header(buffer, &fields, transport_sequence, own, true)?;
        let len = header_len + write_rtx(buffer.get_mut(header_len..)?, lost, payload)?;
        self.next_rtx_sequence += 1;
        Some(Unsealed { header_len, len, ssrc, index })
    }

    fn write_header(
        &self,
        buffer: &mut [u8],
        fields: &HeaderFields,
        transport_sequence: u16,
        own: Own<'_>,
        repaired: bool,
    ) -> Option<usize> {
        let ids = &self.config.extensions;
        let transport_sequence = transport_sequence.to_be_bytes();
        let level = [own.audio_level.unwrap_or(127) & 0x7F];
        let rid_id = if repaired { ids.repaired_rid } else { ids.rid };
        let candidates: [(Option<u8>, &[u8]); 5] = [
            (ids.mid, self.config.mid.as_bytes()),
            (self.config.rid.and(rid_id), self.config.rid.as_ref().map_or(&[], Rid::as_bytes)),
            (ids.transport_cc, &transport_sequence),
            (own.audio_level.and(ids.audio_level), &level),
            (own.descriptor.and(ids.dependency_descriptor), own.descriptor.unwrap_or_default()),
        ];
        let mut extensions: [(u8, &[u8]); 5] = [(0, &[]); 5];
        let mut count = 0;
        for (id, data) in candidates {
            if let Some(id) = id {
                extensions[count] = (id, data);
                count += 1;
            }
        }
        write_header(buffer, fields, &extensions[..count])
    }

    /// What a sender report says now; `None` before the first packet.
    pub fn sender_info(&self, unix: Duration) -> Option<SenderInfo> {
        let (sent, timestamp) = self.last?;
        let elapsed = unix.saturating_sub(sent);
        let ticks =
            elapsed.as_micros() * u128::from(self.config.codec.codec.clock_rate()) / 1_000_000;
        Some(SenderInfo {
            ntp: ntp_from_unix(unix),
            rtp_timestamp: timestamp.wrapping_add(ticks as u32),
            packet_count: self.packet_count,
            octet_count: self.octet_count,
        })
    }
}

/// Seconds from 1900 to 1970 (RFC 868).
const NTP_UNIX_OFFSET_S: u64 = 2_208_988_800;

/// NTP time of a time since the Unix epoch.
pub(crate) fn ntp_from_unix(unix: Duration) -> NtpTime {
    let fraction = (u64::from(unix.subsec_nanos()) << 32) / 1_000_000_000;
    NtpTime((unix.as_secs().wrapping_add(NTP_UNIX_OFFSET_S)) << 32 | fraction)
}

#[cfg(test)]
mod tests {
    use super::*;
    use parlor_model::{Codec, PayloadType};
    use parlor_rtp::{RtpPacket, rtx::parse_rtx};

    fn stream() -> SendStream {
        let codec = CodecBinding {
            codec: Codec::Vp8,
            payload_type: PayloadType(96),
            rtx: Some(PayloadType(97)),
            variant: 0,
        };
        let config = SendStreamConfig {
            mid: Mid::new("7").unwrap(),
            rid: Rid::new("q"),
            ssrc: Ssrc(1),
            rtx_ssrc: Some(Ssrc(2)),
            codec,
            extensions: ExtensionIds {
                mid: Some(4),
                rid: Some(10),
                repaired_rid: Some(11),
                transport_cc: Some(3),
                ..ExtensionIds::default()
            },
        };
        SendStream::new(config, SequenceNumber(65_535), SequenceNumber(5))
    }

    fn send(stream: &mut SendStream, n: u8, buffer: &mut [u8]) -> Unsealed {
        let packet = RtpPayload {
            payload: &[n; 10],
            timestamp: RtpTimestamp(u32::from(n) * 3000),
            marker: true,
            audio_level: None,
            dependency_descriptor: None,
        };
        stream.write(Duration::from_secs(1), &packet, u16::from(n), buffer).unwrap()
    }

    #[test]
    fn a_lost_packet_comes_again_with_its_own_timestamp_across_the_wrap() {
        let mut stream = stream();
        let mut buffer = [0; 1500];
        for n in 0..4 {
            send(&mut stream, n, &mut buffer);
        }
        let again = stream.write_retransmission(SequenceNumber(65_535), 9, &mut buffer).unwrap();
        let packet = RtpPacket::parse(&buffer[..again.len]).unwrap();
        assert_eq!((packet.ssrc(), packet.timestamp()), (Ssrc(2), RtpTimestamp(0)));
        assert_eq!(parse_rtx(packet.payload()), Some((SequenceNumber(65_535), &[0; 10][..])));
        assert_eq!(packet.extension(11), Some(&b"q"[..]));
    }

    #[test]
    fn what_was_never_sent_or_is_forgotten_is_not_sent_again() {
        let mut stream = stream();
        let mut buffer = [0; 1500];
        assert!(stream.write_retransmission(SequenceNumber(65_535), 0, &mut buffer).is_none());
        for n in 0..=HISTORY_PACKETS {
            send(&mut stream, n as u8, &mut buffer);
        }
        assert!(stream.write_retransmission(SequenceNumber(65_535), 0, &mut buffer).is_none());
        assert!(stream.write_retransmission(SequenceNumber(0), 0, &mut buffer).is_some());
        assert!(stream.write_retransmission(SequenceNumber(9999), 0, &mut buffer).is_none());
    }
}
