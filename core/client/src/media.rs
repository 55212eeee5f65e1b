//! RTP and RTCP of one connection: sealing and opening, retransmission, reports, feedback.

use crate::{
    receive::{NACK_DELAY, ReceiveStream, ReceivedStream},
    send::{RtpPayload, SendStream, SendStreamConfig, Unsealed, ntp_from_unix},
};
use parlor_model::{Bitrate, Mid, Now, Rid, SequenceNumber, SrtpKeys, Ssrc};
use parlor_rtp::{
    RtpPacket,
    extension::parse_transport_sequence_number,
    is_rtcp,
    rtcp::{self, FeedbackSsrcs, Rtcp, TransportFeedbackFields},
    rtx,
};
use parlor_sdp::client::{ClientDescription, ClientReceive, ClientSend, LocalTrack};
use parlor_srtp::{SrtpError, SrtpReceiver, SrtpSender};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// How often sender and receiver reports go out.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// How often arrivals are reported for congestion control.
const FEEDBACK_INTERVAL: Duration = Duration::from_millis(100);
/// Most arrivals that are collected for one feedback.
const ARRIVALS_MAX: usize = 2048;
/// Sealed packets that wait to be sent; more are dropped.
pub const OUTGOING_MAX: usize = 2048;
const PACKET_BYTES_MAX: usize = 1600;

/// A media packet from the server, opened.
#[derive(Clone, Copy, Debug)]
pub struct ReceivedRtp<'a> {
    /// The section that it came in.
    pub mid: Mid,
    /// The packet; of a retransmission, what it carries is in `payload` with its own number.
    pub packet: RtpPacket<'a>,
    /// Number of the media packet, also when it came as a retransmission.
    pub sequence_number: SequenceNumber,
    /// Payload of the media packet, also when it came as a retransmission.
    pub payload: &'a [u8],
    /// Whether it came as a retransmission.
    pub is_retransmission: bool,
    /// Whether it came for the first time.
    pub is_new: bool,
}

/// A stream of ours whose receiver needs a keyframe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyframeRequest {
    /// The section.
    pub mid: Mid,
    /// The simulcast stream.
    pub rid: Option<Rid>,
}

/// What went wrong or was thrown away, by cause.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MediaCounters {
    /// Media packets that came for the first time.
    pub received: u64,
    /// Media packets that came again.
    pub duplicates: u64,
    /// Media packets that came as retransmissions and were missing.
    pub repaired: u64,
    /// Packets that could not be opened.
    pub unauthentic: u64,
    /// Packets of streams that no section announced.
    pub unknown_ssrc: u64,
    /// Packets that were asked for.
    pub nacked: u64,
    /// Packets that were sent again because the server asked.
    pub retransmitted: u64,
}

impl std::ops::AddAssign for MediaCounters {
    fn add_assign(&mut self, other: Self) {
        self.received += other.received;
        self.duplicates += other.duplicates;
        self.repaired += other.repaired;
        self.unauthentic += other.unauthentic;
        self.unknown_ssrc += other.unknown_ssrc;
        self.nacked += other.nacked;
        self.retransmitted += other.retransmitted;
    }
}

struct Receiver {
    ssrc: Ssrc,
    rtx_ssrc: Option<Ssrc>,
    stream: ReceiveStream,
}

/// Whose SSRC it is: sorted, and small, for it is read for each packet.
#[derive(Default)]
struct Sources(Vec<(Ssrc, Source)>);

#[derive(Clone, Copy)]
struct Source {
    /// Place of the receiver.
    receiver: usize,
    is_retransmission: bool,
}

impl Sources {
    fn of(receivers: &[Receiver]) -> Self {
        let mut sources = Vec::with_capacity(receivers.len() * 2);
        for (place, receiver) in receivers.iter().enumerate() {
            let source = |is_retransmission| Source { receiver: place, is_retransmission };
            sources.push((receiver.ssrc, source(false)));
            sources.extend(receiver.rtx_ssrc.map(|ssrc| (ssrc, source(true))));
        }
        sources.sort_by_key(|(ssrc, _)| *ssrc);
        Self(sources)
    }

    fn get(&self, ssrc: Ssrc) -> Option<Source> {
        let place = self.0.binary_search_by_key(&ssrc, |(ssrc, _)| *ssrc).ok()?;
        self.0.get(place).map(|(_, source)| *source)
    }
}

pub(crate) struct Media {
    epoch: Instant,
    rng: ChaCha8Rng,
    srtp: Option<(SrtpSender, SrtpReceiver)>,
    senders: Vec<SendStream>,
    /// In the order of their SSRCs.
    receivers: Vec<Receiver>,
    sources: Sources,
    /// When [`Media::send_nacks`] may have something to ask; never too late.
    nack_due: Option<Instant>,
    receive_transport_cc: Option<u8>,
    transport_sequence: u16,
    arrivals: Vec<(u16, Instant)>,
    feedback_count: u8,
    local_ssrc: Ssrc,
    next_report: Instant,
    next_feedback: Instant,
    outgoing: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
    nacks: Vec<SequenceNumber>,
    pub keyframe_requests: VecDeque<KeyframeRequest>,
    /// RTCP in the clear, for who asked to see it: whether it came in, and the compound packet.
    pub watched_rtcp: Option<VecDeque<(bool, Vec<u8>)>>,
    pub counters: MediaCounters,
}

impl Media {
    pub fn new(now: Instant, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        Self {
            epoch: now,
            srtp: None,
            senders: Vec::new(),
            receivers: Vec::new(),
            sources: Sources::default(),
            nack_due: None,
            receive_transport_cc: None,
            transport_sequence: 0,
            arrivals: Vec::new(),
            feedback_count: 0,
            local_ssrc: Ssrc(rng.next_u32()),
            next_report: now + REPORT_INTERVAL,
            next_feedback: now + FEEDBACK_INTERVAL,
            outgoing: VecDeque::new(),
            spare: Vec::new(),
            nacks: Vec::new(),
            keyframe_requests: VecDeque::new(),
            watched_rtcp: None,
            counters: MediaCounters::default(),
            rng,
        }
    }

    pub fn set_keys(&mut self, keys: &SrtpKeys) -> Result<(), SrtpError> {
        let sender = SrtpSender::new(keys.profile, &keys.send.key, &keys.send.salt)?;
        let receiver = SrtpReceiver::new(keys.profile, &keys.receive.key, &keys.receive.salt)?;
        self.srtp = Some((sender, receiver));
        Ok(())
    }

    /// Takes over what was negotiated; streams that stay keep their state.
    pub fn set_description(&mut self, description: &ClientDescription, tracks: &[LocalTrack]) {
        for section in &description.receive {
            self.add_receiver(section);
        }
        let announced: Vec<_> = description.receive.iter().map(|section| section.stream).collect();
        self.receivers
            .retain(|receiver| announced.iter().any(|stream| stream.ssrc == Some(receiver.ssrc)));
        self.receivers.sort_by_key(|receiver| receiver.ssrc);
        self.sources = Sources::of(&self.receivers);
        self.senders.retain(|sender| description.send.iter().any(|s| s.mid == sender.config.mid));
        for section in &description.send {
            if let Some(track) = tracks.iter().find(|track| track.cid == section.cid) {
                self.add_senders(section, track);
            }
        }
    }

    fn add_receiver(&mut self, section: &ClientReceive) {
        self.receive_transport_cc = section.extensions.transport_cc.or(self.receive_transport_cc);
        let (Some(codec), Some(ssrc)) = (section.codecs.first(), section.stream.ssrc) else {
            return;
        };
        let rtx_ssrc = section.stream.rtx_ssrc;
        if let Some(known) = self.receivers.iter_mut().find(|receiver| receiver.ssrc == ssrc) {
            known.rtx_ssrc = rtx_ssrc.or(known.rtx_ssrc);
            return;
        }
        let stream = ReceiveStream::new(section.mid, *codec, section.feedback.nack);
        self.receivers.push(Receiver { ssrc, rtx_ssrc, stream });
    }

    fn add_senders(&mut self, section: &ClientSend, track: &LocalTrack) {
        let Some(&codec) = section.codecs.first() else { return };
        if self.senders.iter().any(|sender| sender.config.mid == section.mid) {
            return;
        }
        let add = |media: &mut Self, rid, ssrc, rtx_ssrc| {
            let config = SendStreamConfig {
                mid: section.mid,
                rid,
                ssrc,
                rtx_ssrc: codec.rtx.and(rtx_ssrc),
                codec,
                extensions: section.extensions,
            };
            // Half of the numbers: who hears nothing before they wrap could not decrypt what comes
            // after (RFC 3711 section 3.3.1).
            let mut number = || SequenceNumber(media.rng.next_u32() as u16 >> 1);
            let stream = SendStream::new(config, number(), number());
            media.senders.push(stream);
        };
        if track.rids.is_empty() {
            add(self, None, track.ssrc, track.rtx_ssrc);
        }
        for rid in &section.rids {
            let (ssrc, rtx_ssrc) = (Ssrc(self.rng.next_u32()), Ssrc(self.rng.next_u32()));
            add(self, Some(*rid), ssrc, Some(rtx_ssrc));
        }
    }

    /// Sends one packet of a section's stream. False when there is no such stream or no key yet.
    pub fn send_rtp(
        &mut self,
        now: Now,
        mid: Mid,
        rid: Option<Rid>,
        packet: &RtpPayload<'_>,
    ) -> bool {
        let Some((srtp, _)) = &self.srtp else { return false };
        let Some(sender) =
            self.senders.iter_mut().find(|s| s.config.mid == mid && s.config.rid == rid)
        else {
            return false;
        };
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.resize(PACKET_BYTES_MAX, 0);
        let unsealed = sender.write(now.unix, packet, self.transport_sequence, &mut buffer);
        let sealed = unsealed.and_then(|unsealed| seal(srtp, &unsealed, &mut buffer));
        self.transport_sequence = self.transport_sequence.wrapping_add(1);
        self.queue(buffer, sealed)
    }

    fn queue(&mut self, mut buffer: Vec<u8>, sealed_len: Option<usize>) -> bool {
        match sealed_len {
            Some(len) if self.outgoing.len() < OUTGOING_MAX => {
                buffer.truncate(len);
                self.outgoing.push_back(buffer);
                true
            }
            _ => {
                self.spare.push(buffer);
                false
            }
        }
    }

    /// The next sealed datagram for the selected path, copied into `out`.
    pub fn poll_transmit(&mut self, out: &mut [u8]) -> Option<usize> {
        let packet = self.outgoing.pop_front()?;
        let len = packet.len();
        let copied = out.get_mut(..len).map(|slot| slot.copy_from_slice(&packet));
        if self.spare.len() < 64 {
            self.spare.push(packet);
        }
        copied.map(|()| len)
    }

    /// Takes an SRTP or SRTCP datagram; returns the media packet in it.
    pub fn handle_datagram<'a>(
        &mut self,
        now: Now,
        datagram: &'a mut [u8],
    ) -> Option<ReceivedRtp<'a>> {
        let (_, srtp) = self.srtp.as_mut()?;
        if is_rtcp(datagram) {
            match srtp.open_rtcp(datagram) {
                Ok(len) => {
                    let compound = datagram.get(..len)?;
                    self.watch(true, compound);
                    self.handle_rtcp(now, compound);
                }
                Err(_) => self.counters.unauthentic += 1,
            }
            return None;
        }
        let Ok(len) = srtp.open_rtp(datagram) else {
            self.counters.unauthentic += 1;
            return None;
        };
        let packet = RtpPacket::parse(datagram.get(..len)?).ok()?;
        self.note_arrival(now.instant, &packet);
        self.receive(now.instant, packet)
    }

    fn receive<'a>(&mut self, now: Instant, packet: RtpPacket<'a>) -> Option<ReceivedRtp<'a>> {
        let source = self.sources.get(packet.ssrc());
        let receiver = source.and_then(|source| self.receivers.get_mut(source.receiver));
        let (Some(Source { is_retransmission, .. }), Some(Receiver { stream, .. })) =
            (source, receiver)
        else {
            self.counters.unknown_ssrc += 1;
            return None;
        };
        let (sequence_number, payload) = if is_retransmission {
            rtx::parse_rtx(packet.payload())?
        } else {
            (packet.sequence_number(), packet.payload())
        };
        let missing = stream.missing();
        let is_new = stream.handle(now, self.epoch, sequence_number, packet.timestamp()).is_some();
        if stream.missing() > missing {
            let due = now + NACK_DELAY;
            self.nack_due = Some(self.nack_due.map_or(due, |earlier| earlier.min(due)));
        }
        match (is_new, is_retransmission) {
            (true, true) => self.counters.repaired += 1,
            (true, false) => self.counters.received += 1,
            (false, _) => self.counters.duplicates += 1,
        }
        Some(ReceivedRtp {
            mid: stream.mid,
            packet,
            sequence_number,
            payload,
            is_retransmission,
            is_new,
        })
    }

    fn note_arrival(&mut self, now: Instant, packet: &RtpPacket<'_>) {
        let Some(id) = self.receive_transport_cc else { return };
        let number = packet.extension(id).and_then(parse_transport_sequence_number);
        if let Some(number) = number
            && self.arrivals.len() < ARRIVALS_MAX
        {
            self.arrivals.push((number, now));
        }
    }

    fn handle_rtcp(&mut self, now: Now, compound: &[u8]) {
        for packet in rtcp::packets(compound) {
            match packet {
                Rtcp::SenderReport(report) => {
                    let receiver = self.receivers.iter_mut().find(|r| r.ssrc == report.ssrc);
                    if let Some(Receiver { stream, .. }) = receiver {
                        stream.handle_sender_report(now.instant, report.info.ntp);
                    }
                }
                Rtcp::Nack(nack) => self.retransmit(nack.ssrcs.media, nack.lost()),
                Rtcp::PictureLossIndication(ssrcs) => self.request_keyframe_of(ssrcs.media),
                Rtcp::FullIntraRequest(request) => {
                    request.entries().for_each(|(ssrc, _)| self.request_keyframe_of(ssrc));
                }
                _ => {}
            }
        }
    }

    fn request_keyframe_of(&mut self, ssrc: Ssrc) {
        let sender = self.senders.iter().find(|sender| sender.config.ssrc == ssrc);
        if let Some(sender) = sender {
            let request = KeyframeRequest { mid: sender.config.mid, rid: sender.config.rid };
            if !self.keyframe_requests.contains(&request) {
                self.keyframe_requests.push_back(request);
            }
        }
    }

    fn retransmit(&mut self, media: Ssrc, lost: impl Iterator<Item = SequenceNumber>) {
        for number in lost {
            let Some((srtp, _)) = &self.srtp else { return };
            let Some(sender) = self.senders.iter_mut().find(|s| s.config.ssrc == media) else {
                return;
            };
            let mut buffer = self.spare.pop().unwrap_or_default();
            buffer.resize(PACKET_BYTES_MAX, 0);
            let unsealed =
                sender.write_retransmission(number, self.transport_sequence, &mut buffer);
            let sealed = unsealed.and_then(|unsealed| seal(srtp, &unsealed, &mut buffer));
            self.transport_sequence = self.transport_sequence.wrapping_add(1);
            if self.queue(buffer, sealed) {
                self.counters.retransmitted += 1;
            }
        }
    }

    /// What arrived on each stream.
    pub fn received_streams(&self) -> impl Iterator<Item = ReceivedStream> {
        self.receivers.iter().filter_map(|receiver| receiver.stream.received())
    }

    /// Asks the server for a keyframe of the track in a section.
    pub fn request_keyframe(&mut self, mid: Mid) {
        let media: Vec<_> =
            self.receivers.iter().filter(|r| r.stream.mid == mid).map(|r| r.ssrc).collect();
        let mut compound = self.empty_report();
        for ssrc in media {
            rtcp::write_picture_loss_indication(&mut compound, self.local_ssrc, ssrc);
        }
        self.send_rtcp(compound);
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.srtp.as_ref()?;
        let feedback = (!self.arrivals.is_empty()).then_some(self.next_feedback);
        [Some(self.next_report), self.nack_due, feedback].into_iter().flatten().min()
    }

    pub fn handle_timeout(&mut self, now: Now) {
        if self.srtp.is_none() {
            return;
        }
        if self.nack_due.is_some_and(|due| due <= now.instant) {
            self.send_nacks(now.instant);
        }
        if self.next_feedback <= now.instant {
            self.next_feedback = now.instant + FEEDBACK_INTERVAL;
            self.send_transport_feedback();
        }
        if self.next_report <= now.instant {
            self.next_report = now.instant + REPORT_INTERVAL;
            self.send_reports(now);
        }
    }

    fn send_nacks(&mut self, now: Instant) {
        let mut compound = Vec::new();
        for Receiver { ssrc, stream, .. } in &mut self.receivers {
            self.nacks.clear();
            stream.take_nacks(now, &mut self.nacks);
            if !self.nacks.is_empty() {
                self.counters.nacked += self.nacks.len() as u64;
                rtcp::write_nack(&mut compound, self.local_ssrc, *ssrc, &self.nacks);
            }
        }
        self.nack_due = self.receivers.iter().filter_map(|r| r.stream.nack_due()).min();
        if !compound.is_empty() {
            let mut whole = self.empty_report();
            whole.extend(compound);
            self.send_rtcp(whole);
        }
    }

    fn send_transport_feedback(&mut self) {
        let Some(&(first, _)) = self.arrivals.first() else { return };
        let base = self.arrivals.iter().fold(first, |base, (number, _)| {
            if SequenceNumber(base).is_newer_than(SequenceNumber(*number)) { *number } else { base }
        });
        let span = |number: u16| usize::from(number.wrapping_sub(base));
        let len = self.arrivals.iter().map(|(number, _)| span(*number) + 1).max().unwrap_or(0);
        let mut arrivals_us = vec![None; len];
        for (number, at) in self.arrivals.drain(..) {
            arrivals_us[span(number)] = Some((at - self.epoch).as_micros() as i64);
        }
        let mut covered = 0;
        while covered < arrivals_us.len() {
            let fields = TransportFeedbackFields {
                ssrcs: FeedbackSsrcs { sender: self.local_ssrc, media: Ssrc(0) },
                base_sequence_number: base.wrapping_add(covered as u16),
                feedback_count: self.feedback_count,
            };
            let mut compound = self.empty_report();
            let count =
                rtcp::write_transport_feedback(&mut compound, &fields, &arrivals_us[covered..]);
            self.feedback_count = self.feedback_count.wrapping_add(1);
            self.send_rtcp(compound);
            if count == 0 {
                return;
            }
            covered += count;
        }
    }

    fn send_reports(&mut self, now: Now) {
        let blocks: Vec<_> = self
            .receivers
            .iter_mut()
            .filter_map(|receiver| receiver.stream.report(now.instant, receiver.ssrc))
            .collect();
        let mut compounds = Vec::new();
        for sender in &self.senders {
            if let Some(info) = sender.sender_info(now.unix) {
                let mut compound = Vec::new();
                rtcp::write_sender_report(&mut compound, sender.config.ssrc, &info, &[]);
                compounds.push(compound);
            }
        }
        for chunk in blocks.chunks(rtcp::MAX_COUNT) {
            let mut compound = Vec::new();
            rtcp::write_receiver_report(&mut compound, self.local_ssrc, chunk);
            rtcp::write_receiver_reference_time(
                &mut compound,
                self.local_ssrc,
                ntp_from_unix(now.unix),
            );
            compounds.push(compound);
        }
        compounds.into_iter().for_each(|compound| self.send_rtcp(compound));
    }

    pub fn send_remb(&mut self, bitrate: Bitrate) {
        let ssrcs: Vec<_> = self.receivers.iter().map(|receiver| receiver.ssrc).collect();
        let mut compound = self.empty_report();
        rtcp::write_remb(&mut compound, self.local_ssrc, bitrate, &ssrcs);
        self.send_rtcp(compound);
    }

    fn empty_report(&self) -> Vec<u8> {
        let mut compound = Vec::new();
        rtcp::write_receiver_report(&mut compound, self.local_ssrc, &[]);
        compound
    }

    fn watch(&mut self, incoming: bool, compound: &[u8]) {
        if let Some(watched) = &mut self.watched_rtcp {
            watched.push_back((incoming, compound.to_vec()));
        }
    }

    fn send_rtcp(&mut self, mut compound: Vec<u8>) {
        self.watch(false, &compound);
        let Some((srtp, _)) = &mut self.srtp else { return };
        let len = compound.len();
        compound.resize(len + parlor_srtp::MAX_RTCP_OVERHEAD_BYTES, 0);
        let sealed = srtp.seal_rtcp(&mut compound, len).ok();
        self.queue(compound, sealed);
    }
}

fn seal(srtp: &SrtpSender, unsealed: &Unsealed, buffer: &mut [u8]) -> Option<usize> {
    let Unsealed { header_len, len, ssrc, index } = *unsealed;
    srtp.seal_rtp_indexed(buffer, header_len, len, ssrc, index).ok()
}
