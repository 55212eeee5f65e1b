//! SCTP over DTLS with one peer, and the data channels on it (RFC 8831).

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parlor_model::{DataChannel, DtlsRole, SctpParameters};
use sctp_proto::{
    Association, AssociationHandle, ClientConfig, DatagramEvent, Endpoint, EndpointConfig, Event,
    Payload, PayloadProtocolIdentifier as Ppid, ReliabilityType, ServerConfig, StreamEvent,
    TransportConfig,
};

use crate::channel::{
    BUFFERED_AMOUNT_LOW_BYTES, Channel, ChannelConfig, MAX_CHANNELS, MAX_LOSSY_BUFFERED_BYTES,
    MAX_RELIABLE_BUFFERED_BYTES,
};
use crate::dcep::{self, DcepMessage, Reliability, parse_dcep};
use crate::{MAX_DATAGRAM_BYTES, SendDataError};

/// Largest message in bytes, both ways: what LiveKit announces as `max-message-size`.
pub const MAX_MESSAGE_BYTES: usize = 65_535;

/// Bytes that the peer may have under way to us.
const RECEIVE_WINDOW_BYTES: u32 = 256 * 1024;

/// Bytes of DTLS, SCTP and chunk headers around the data of a datagram.
const OVERHEAD_BYTES: usize = 80;

const INITIAL_RTO_MS: u64 = 500;
const MIN_RTO_MS: u64 = 400;
const MAX_RTO_MS: u64 = 2_000;

/// Stands for the peer where `sctp-proto` wants an address: DTLS has only one peer.
const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5000);

/// Where chunks begin in a packet, and the two that tell how far a handshake is.
const CHUNK_OFFSET: usize = 12;
const DATA: u8 = 0;
const INIT: u8 = 1;
const COOKIE_ECHO: u8 = 10;

pub(crate) enum SctpOutput {
    Open(Channel),
    Data { channel: Channel, binary: bool, data: Vec<u8> },
    BufferedAmountLow(Channel),
    Closed(Channel),
    Lost,
}

/// Translates between our time and that of an association. `Endpoint::connect` starts an
/// association's first timer by the real clock; this takes its word as the time that it is here.
#[derive(Clone, Copy)]
struct Clock {
    ours: Instant,
    theirs: Instant,
}

impl Clock {
    fn theirs(self, ours: Instant) -> Instant {
        self.theirs + ours.saturating_duration_since(self.ours)
    }

    fn ours(self, theirs: Instant) -> Instant {
        self.ours + theirs.saturating_duration_since(self.theirs)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum StreamState {
    /// Ours, and the peer has not acknowledged it.
    Opening,
    Open,
}

struct Stream {
    id: u16,
    channel: Channel,
    state: StreamState,
    reliable: bool,
    buffered_bytes: usize,
}

pub(crate) struct Sctp {
    endpoint: Endpoint,
    association: Option<(AssociationHandle, Association, Clock)>,
    /// The tag of our own INIT.
    initiate_tag: Option<u32>,
    /// We have answered the peer's part of the handshake: its own initiative comes too late.
    cookie_echoed: bool,
    established: bool,
    lost: bool,
    max_send_bytes: usize,
    /// Opened once the association is up.
    wanted: Vec<ChannelConfig>,
    next_stream_id: u16,
    streams: Vec<Stream>,
    /// Reliable messages of the peer stay unread, so that its window closes.
    on_hold: bool,
    /// The last datagram with data that came on hold.
    last_on_hold: Vec<u8>,
    outputs: VecDeque<SctpOutput>,
    datagrams: VecDeque<Bytes>,
}

impl Sctp {
    /// DTLS is up. Its client takes the initiative; its server waits for it, and every known
    /// implementation takes it. Should both, the higher initiate tag wins; a peer that keeps to
    /// RFC 9260 section 5.2.1 is content with either.
    pub fn new(
        now: Instant,
        role: DtlsRole,
        remote: SctpParameters,
        wanted: Vec<ChannelConfig>,
    ) -> Self {
        let max_send_bytes = match remote.max_message_size_bytes {
            0 => MAX_MESSAGE_BYTES,
            limit => MAX_MESSAGE_BYTES.min(limit as usize),
        };
        let transport = Arc::new(
            TransportConfig::default()
                .with_max_init_retransmits(None)
                .with_max_data_retransmits(None)
                .with_max_receive_buffer_size(RECEIVE_WINDOW_BYTES)
                .with_max_receive_message_size(MAX_MESSAGE_BYTES as u32)
                .with_max_send_message_size(max_send_bytes as u32)
                .with_rto_initial_ms(INITIAL_RTO_MS)
                .with_rto_min_ms(MIN_RTO_MS)
                .with_rto_max_ms(MAX_RTO_MS)
                .with_remote_port(if remote.port == 0 { 5000 } else { remote.port }),
        );
        let mut config = EndpointConfig::default();
        config.max_payload_size((MAX_DATAGRAM_BYTES - OVERHEAD_BYTES) as u32);
        let mut server = ServerConfig::default();
        server.transport = transport.clone();
        let mut sctp = Self {
            endpoint: Endpoint::new(Arc::new(config), Some(Arc::new(server))),
            association: None,
            initiate_tag: None,
            cookie_echoed: false,
            established: false,
            lost: false,
            max_send_bytes,
            wanted,
            next_stream_id: if role == DtlsRole::Client { 0 } else { 1 },
            streams: Vec::new(),
            on_hold: false,
            last_on_hold: Vec::new(),
            outputs: VecDeque::new(),
            datagrams: VecDeque::new(),
        };
        if role == DtlsRole::Client {
            sctp.connect(now, transport);
        }
        sctp
    }

    fn connect(&mut self, now: Instant, transport: Arc<TransportConfig>) {
        let mut config = ClientConfig::default();
        config.transport = transport;
        if let Ok((handle, association)) = self.endpoint.connect(config, PEER) {
            let first = association.poll_timeout();
            let started = first
                .and_then(|first| first.checked_sub(Duration::from_millis(INITIAL_RTO_MS)))
                .unwrap_or(now);
            self.association = Some((handle, association, Clock { ours: now, theirs: started }));
            self.drive(now);
        }
    }

    pub fn poll_output(&mut self) -> Option<SctpOutput> {
        self.outputs.pop_front()
    }

    /// The next packet for DTLS.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        self.datagrams.pop_front()
    }

    pub fn deadline(&self) -> Option<Instant> {
        let (_, association, clock) = self.association.as_ref()?;
        association.poll_timeout().map(|deadline| clock.ours(deadline))
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        if self.lost {
            return;
        }
        if let Some((_, association, clock)) = &mut self.association {
            association.handle_timeout(clock.theirs(now));
        }
        self.drive(now);
    }

    pub fn handle_datagram(&mut self, now: Instant, datagram: Vec<u8>) {
        if self.lost || self.initiate_tag > initiate_tag(&datagram) && is_init(&datagram) {
            return;
        }
        if self.on_hold && has_data(&datagram) {
            self.last_on_hold.clone_from(&datagram);
        }
        self.take_datagram(now, datagram);
        self.drive(now);
    }

    fn take_datagram(&mut self, now: Instant, datagram: Vec<u8>) {
        let their_now = self.association.as_ref().map_or(now, |(_, _, clock)| clock.theirs(now));
        match self.endpoint.handle(their_now, PEER, None, None, datagram.into()) {
            Some((handle, DatagramEvent::NewAssociation(association))) => {
                if self.association.is_none() || !(self.established || self.cookie_echoed) {
                    let clock = Clock { ours: now, theirs: their_now };
                    self.association = Some((handle, association, clock));
                    self.initiate_tag = None;
                    self.datagrams.clear();
                }
                // Whatever comes of it, one is enough: the endpoint keeps state for each.
                self.endpoint.reject_new_associations();
            }
            Some((handle, DatagramEvent::AssociationEvent(event))) => {
                if let Some((ours, association, _)) = &mut self.association
                    && *ours == handle
                {
                    association.handle_event(event);
                }
            }
            None => {}
        }
    }

    /// Leaves what comes on reliable channels unread, or reads on.
    pub fn hold(&mut self, now: Instant, on_hold: bool) {
        if std::mem::replace(&mut self.on_hold, on_hold) == on_hold || on_hold {
            return;
        }
        let ids: Vec<u16> = self.streams.iter().filter(|s| s.reliable).map(|s| s.id).collect();
        for id in ids {
            self.read(id);
        }
        // Reading opens the window, but the association tells it with its next acknowledgement
        // only. What has come already is acknowledged at its second coming (RFC 9260 section 6.2).
        let last = std::mem::take(&mut self.last_on_hold);
        if !last.is_empty() && !self.lost {
            for _ in 0..2 {
                self.take_datagram(now, last.clone());
            }
        }
        self.drive(now);
    }

    /// Queues a message.
    pub fn send(
        &mut self,
        now: Instant,
        channel: DataChannel,
        data: &[u8],
    ) -> Result<(), SendDataError> {
        if data.len() > self.max_send_bytes {
            return Err(SendDataError::TooLarge);
        }
        let is_wanted =
            |s: &&mut Stream| s.state == StreamState::Open && s.channel == Channel::Known(channel);
        let stream = self.streams.iter_mut().find(is_wanted).ok_or(SendDataError::NotOpen)?;
        let limit =
            if stream.reliable { MAX_RELIABLE_BUFFERED_BYTES } else { MAX_LOSSY_BUFFERED_BYTES };
        if stream.buffered_bytes + data.len() > limit {
            return Err(SendDataError::BufferFull);
        }
        let (_, association, _) = self.association.as_mut().ok_or(SendDataError::NotOpen)?;
        // An empty message travels as one byte under a name of its own (RFC 8831 section 6.6).
        let (data, ppid) =
            if data.is_empty() { (&[0][..], Ppid::BinaryEmpty) } else { (data, Ppid::Binary) };
        association
            .stream(stream.id)
            .and_then(|mut stream| stream.write_with_ppi(data, ppid))
            .map_err(|_| SendDataError::NotOpen)?;
        self.drive(now);
        Ok(())
    }

    pub fn buffered_bytes(&self, channel: DataChannel) -> usize {
        let channel = Channel::Known(channel);
        self.streams.iter().filter(|s| s.channel == channel).map(|s| s.buffered_bytes).sum()
    }

    /// Moves everything between the association, the endpoint and our queues.
    fn drive(&mut self, now: Instant) {
        self.collect_datagrams(now);
        let mut events = self.collect_events();
        while !events.is_empty() && !self.lost {
            self.handle_events(events);
            self.collect_datagrams(now);
            events = self.collect_events();
        }
        let Some((_, association, _)) = &mut self.association else { return };
        for stream in &mut self.streams {
            stream.buffered_bytes =
                association.stream(stream.id).and_then(|s| s.buffered_amount()).unwrap_or(0);
        }
    }

    fn collect_datagrams(&mut self, now: Instant) {
        while let Some(transmit) = self.endpoint.poll_transmit() {
            if let Payload::RawEncode(packets) = transmit.payload {
                self.datagrams.extend(packets);
            }
        }
        let Some((handle, association, clock)) = &mut self.association else { return };
        while let Some(event) = association.poll_endpoint_event() {
            if let Some(event) = self.endpoint.handle_event(*handle, event) {
                association.handle_event(event);
            }
        }
        while let Some(transmit) = association.poll_transmit(clock.theirs(now)) {
            let Payload::RawEncode(packets) = transmit.payload else { continue };
            for packet in packets {
                if is_init(&packet) {
                    self.initiate_tag = initiate_tag(&packet);
                }
                self.cookie_echoed |= packet.get(CHUNK_OFFSET) == Some(&COOKIE_ECHO);
                self.datagrams.push_back(packet);
            }
        }
    }

    /// The association's events. It keeps counts per stream in a hash map, so that events of one
    /// moment come in any order; sorted, they come in one.
    fn collect_events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        if let Some((_, association, _)) = &mut self.association {
            while let Some(event) = association.poll() {
                events.push(event);
            }
        }
        events.sort_by_key(|event| match event {
            Event::Stream(StreamEvent::BufferedAmountLow { id }) => (1, *id),
            _ => (0, 0),
        });
        events
    }

    fn handle_events(&mut self, events: Vec<Event>) {
        for event in events {
            match event {
                Event::Connected => {
                    self.established = true;
                    self.endpoint.reject_new_associations();
                    self.open_wanted();
                }
                Event::HandshakeFailed { .. } | Event::AssociationLost { .. } => {
                    self.lost = true;
                    self.outputs.push_back(SctpOutput::Lost);
                    return;
                }
                Event::Stream(StreamEvent::Readable { id }) => {
                    let stays =
                        |s: &Stream| s.id == id && s.reliable && s.state == StreamState::Open;
                    if !(self.on_hold && self.streams.iter().any(stays)) {
                        self.read(id);
                    }
                }
                Event::Stream(StreamEvent::Finished { id } | StreamEvent::Stopped { id, .. }) => {
                    self.read(id);
                    self.close(id);
                }
                Event::Stream(StreamEvent::BufferedAmountLow { id }) => {
                    if let Some(stream) = self.streams.iter().find(|stream| stream.id == id) {
                        let channel = stream.channel.clone();
                        self.outputs.push_back(SctpOutput::BufferedAmountLow(channel));
                    }
                }
                _ => {}
            }
        }
    }

    fn open_wanted(&mut self) {
        let Some((_, association, _)) = &mut self.association else { return };
        for config in std::mem::take(&mut self.wanted) {
            let id = self.next_stream_id;
            self.next_stream_id = id.saturating_add(2);
            let reliability = config.max_retransmits.map_or(Reliability::Reliable, |retransmits| {
                Reliability::MaxRetransmits(retransmits.into())
            });
            let open = dcep::write_open(config.ordered, reliability, config.channel.label());
            let opened = association.open_stream(id, Ppid::Binary).and_then(|mut stream| {
                set_reliability(&mut stream, config.ordered, reliability)?;
                stream.write_with_ppi(&open, Ppid::Dcep)
            });
            if opened.is_ok() {
                self.streams.push(Stream {
                    id,
                    channel: config.channel,
                    state: StreamState::Opening,
                    reliable: reliability == Reliability::Reliable,
                    buffered_bytes: 0,
                });
            }
        }
    }

    /// Reads every message that waits on a stream.
    fn read(&mut self, id: u16) {
        loop {
            let Some((_, association, _)) = &mut self.association else { return };
            let message = association.stream(id).and_then(|mut stream| stream.read_sctp());
            let Ok(Some(chunks)) = message else { return };
            let mut data = vec![0; chunks.len()];
            if chunks.read(&mut data).is_err() {
                continue;
            }
            let binary = match chunks.ppi {
                Ppid::Dcep => {
                    self.handle_dcep(id, &data);
                    continue;
                }
                Ppid::String => false,
                Ppid::Binary => true,
                Ppid::StringEmpty | Ppid::BinaryEmpty => {
                    data.clear();
                    chunks.ppi == Ppid::BinaryEmpty
                }
                Ppid::Unknown => continue,
            };
            match self.streams.iter().find(|stream| stream.id == id) {
                Some(stream) => {
                    let channel = stream.channel.clone();
                    self.outputs.push_back(SctpOutput::Data { channel, binary, data });
                }
                None => self.close(id), // never opened
            }
        }
    }

    fn handle_dcep(&mut self, id: u16, message: &[u8]) {
        let has_room = self.streams.len() < MAX_CHANNELS;
        let known = self.streams.iter_mut().find(|stream| stream.id == id);
        match (parse_dcep(message), known) {
            (Some(DcepMessage::Ack), Some(stream)) => {
                if stream.state == StreamState::Opening {
                    stream.state = StreamState::Open;
                    let channel = stream.channel.clone();
                    self.opened(id, channel);
                }
            }
            (Some(DcepMessage::Open { ordered, reliability, label }), None) if has_room => {
                self.accept(id, ordered, reliability, &label);
            }
            (_, None) => self.close(id),
            (_, Some(_)) => {}
        }
    }

    fn accept(&mut self, id: u16, ordered: bool, reliability: Reliability, label: &str) {
        let Some((_, association, _)) = &mut self.association else { return };
        let accepted = association.stream(id).and_then(|mut stream| {
            set_reliability(&mut stream, ordered, reliability)?;
            stream.write_with_ppi(&dcep::ACK_MESSAGE, Ppid::Dcep)
        });
        if accepted.is_ok() {
            let channel = Channel::from_label(label);
            self.streams.push(Stream {
                id,
                channel: channel.clone(),
                state: StreamState::Open,
                reliable: reliability == Reliability::Reliable,
                buffered_bytes: 0,
            });
            self.opened(id, channel);
        }
    }

    fn opened(&mut self, id: u16, channel: Channel) {
        if let Some((_, association, _)) = &mut self.association
            && let Ok(mut stream) = association.stream(id)
        {
            let _ = stream.set_buffered_amount_low_threshold(BUFFERED_AMOUNT_LOW_BYTES);
        }
        self.outputs.push_back(SctpOutput::Open(channel));
    }

    /// Closes a stream, and its channel if it had one.
    fn close(&mut self, id: u16) {
        if let Some((_, association, _)) = &mut self.association
            && let Ok(mut stream) = association.stream(id)
        {
            let _ = stream.close();
        }
        if let Some(position) = self.streams.iter().position(|stream| stream.id == id) {
            let stream = self.streams.remove(position);
            self.outputs.push_back(SctpOutput::Closed(stream.channel));
        }
    }
}

fn is_init(packet: &[u8]) -> bool {
    packet.get(CHUNK_OFFSET) == Some(&INIT)
}

fn has_data(packet: &[u8]) -> bool {
    let mut rest = packet.get(CHUNK_OFFSET..).unwrap_or(&[]);
    while let [kind, _, high, low, ..] = rest {
        if *kind == DATA {
            return true;
        }
        let bytes = usize::from(u16::from_be_bytes([*high, *low])).max(4);
        rest = rest.get(bytes.next_multiple_of(4)..).unwrap_or(&[]);
    }
    false
}

/// The tag in an INIT (RFC 9260 section 3.3.2).
fn initiate_tag(packet: &[u8]) -> Option<u32> {
    packet.get(CHUNK_OFFSET + 4..)?.first_chunk().copied().map(u32::from_be_bytes)
}

fn set_reliability(
    stream: &mut sctp_proto::Stream<'_>,
    ordered: bool,
    reliability: Reliability,
) -> Result<(), sctp_proto::Error> {
    let (kind, value) = match reliability {
        Reliability::Reliable => (ReliabilityType::Reliable, 0),
        Reliability::MaxRetransmits(retransmits) => (ReliabilityType::Rexmit, retransmits),
        Reliability::MaxLifetimeMs(lifetime_ms) => (ReliabilityType::Timed, lifetime_ms),
    };
    stream.set_reliability_params(!ordered, kind, value)
}
