//! One peer: ICE below, DTLS on it, SCTP on that.

use std::collections::VecDeque;
use std::time::Instant;

use parlor_model::{
    DataChannel, IceCredentials, Path, RemoteTransport, SctpParameters, SrtpProfile,
    TransportAddress,
};

use crate::channel::ChannelConfig;
use crate::dtls::{Dtls, DtlsOutput};
use crate::ice::{Ice, IceOutput, IceState};
use crate::identity::DtlsIdentity;
use crate::sctp::{Sctp, SctpOutput};
use crate::stun::DatagramKind;
use crate::{FailureReason, SendDataError, Transmit, TransportError, TransportEvent};

/// Datagrams of a handshake that are held until their path has proven good.
const EARLY_MAX: usize = 4;

/// What a transport is made from.
#[derive(Clone, Debug)]
pub struct TransportConfig {
    /// The certificate of this process.
    pub identity: DtlsIdentity,
    /// Our ICE credentials.
    pub ice: IceCredentials,
    /// Whether we only answer checks (RFC 8445 section 2.5).
    pub ice_lite: bool,
    /// Whether we choose the path; never together with `ice_lite`.
    pub ice_controlling: bool,
    /// The source of everything random that is drawn here.
    pub seed: [u8; 32],
    /// The data channels that we open.
    pub open_channels: Vec<ChannelConfig>,
    /// The addresses that datagrams arrive at. Wildcard addresses are of no use to ICE and are
    /// left out. Those of TCP are where connections are accepted; at a controlling transport
    /// those of connections that it has made (RFC 6544, passive and active).
    pub local_addresses: Vec<TransportAddress>,
}

/// What came in and was of no use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// STUN messages that were malformed, not authentic or not for us.
    pub stun_refused: u64,
    /// DTLS datagrams from addresses that had not passed a check.
    pub dtls_refused: u64,
    /// Datagrams that are neither STUN nor DTLS.
    pub unknown: u64,
    /// Candidates that are malformed, of no use (mDNS, TCP that
    /// does not accept), or one too many.
    pub candidates_refused: u64,
}

/// One peer's transport. See the page of this crate.
pub struct Transport {
    config: TransportConfig,
    ice: Ice,
    dtls: Option<Dtls>,
    sctp: Option<Sctp>,
    sctp_parameters: Option<SctpParameters>,
    srtp_profile: Option<SrtpProfile>,
    /// Where DTLS last came from: answered there until a path has been selected.
    dtls_from: Option<Path>,
    /// DTLS that came before the answer to our check: a client begins as soon as its own check is
    /// answered.
    early: Vec<(Path, Vec<u8>)>,
    over: bool,
    counters: Counters,
    transmits: VecDeque<(Path, Vec<u8>)>,
    events: VecDeque<TransportEvent>,
    deadline: Option<Instant>,
}

impl Transport {
    /// A transport that waits for its peer's description.
    pub fn new(now: Instant, mut config: TransportConfig) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = config.seed;
        config.local_addresses.retain(|local| !local.address.ip().is_unspecified());
        let ice = Ice::new(
            config.ice.clone(),
            config.ice_lite,
            config.ice_controlling,
            u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            config.local_addresses.clone(),
        );
        let mut transport = Self {
            config,
            ice,
            dtls: None,
            sctp: None,
            sctp_parameters: None,
            srtp_profile: None,
            dtls_from: None,
            early: Vec::new(),
            over: false,
            counters: Counters::default(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            deadline: None,
        };
        transport.handle_timeout(now);
        transport
    }

    /// Takes the peer's description, the first or a later one.
    ///
    /// Changed ICE credentials are an ICE restart by the peer; call [`Transport::restart_ice`]
    /// for our own new credentials too, in either order. The path in use stays until a new one
    /// has been validated. The DTLS role of a later description is ignored: it cannot change.
    ///
    /// # Errors
    /// [`TransportError::IceCredentials`] for malformed ones;
    /// [`TransportError::FingerprintChanged`] when a later description announces a certificate
    /// that the first did not.
    pub fn set_remote(
        &mut self,
        now: Instant,
        remote: RemoteTransport,
    ) -> Result<(), TransportError> {
        let RemoteTransport { ice, fingerprints, dtls_role, sctp, .. } = remote;
        if !(4..=256).contains(&ice.ufrag.len()) || !(22..=256).contains(&ice.pwd.len()) {
            return Err(TransportError::IceCredentials);
        }
        match &self.dtls {
            Some(dtls) => {
                if fingerprints.iter().any(|new| !dtls.fingerprints().contains(new)) {
                    return Err(TransportError::FingerprintChanged);
                }
            }
            None => {
                let identity = &self.config.identity;
                self.dtls = Some(Dtls::new(now, identity, dtls_role, fingerprints));
            }
        }
        self.sctp_parameters = self.sctp_parameters.or(sctp);
        self.ice.set_remote(now, &ice);
        self.drive(now);
        Ok(())
    }

    /// Takes new ICE credentials of ours: an ICE restart by us, or our part of the peer's.
    /// Credentials that we have already change nothing.
    pub fn restart_ice(&mut self, now: Instant, ice: IceCredentials) {
        if ice != self.config.ice {
            self.config.ice = ice.clone();
            self.ice.restart(now, ice);
            self.drive(now);
        }
    }

    /// Takes a candidate of the peer: `candidate:...`, with or without `a=`. One that is
    /// malformed, of no use or one too many is counted.
    pub fn add_remote_candidate(&mut self, now: Instant, candidate: &str) {
        if !self.ice.add_remote_candidate(now, candidate) {
            self.counters.candidates_refused += 1;
        }
        self.drive(now);
    }

    /// Takes a STUN or DTLS datagram that came over `path`. Media goes elsewhere, if
    /// [`Transport::is_validated`].
    pub fn handle_datagram(&mut self, now: Instant, path: Path, datagram: &[u8]) {
        if self.over {
            return;
        }
        let counter = match DatagramKind::of(datagram) {
            DatagramKind::Stun => {
                if self.ice.handle_datagram(now, path, datagram) {
                    self.handle_early(now);
                    return self.drive(now);
                }
                &mut self.counters.stun_refused
            }
            DatagramKind::Dtls => match &mut self.dtls {
                Some(dtls) if self.ice.is_validated(path) => {
                    self.dtls_from = Some(path);
                    dtls.handle_datagram(now, datagram);
                    return self.drive(now);
                }
                Some(_) if self.ice.was_named(path) && self.early.len() < EARLY_MAX => {
                    return self.early.push((path, datagram.to_vec()));
                }
                _ => &mut self.counters.dtls_refused,
            },
            DatagramKind::Other => &mut self.counters.unknown,
        };
        *counter += 1;
    }

    fn handle_early(&mut self, now: Instant) {
        let Some(dtls) = &mut self.dtls else { return };
        for (path, datagram) in self.early.extract_if(.., |(path, _)| self.ice.is_validated(*path))
        {
            self.dtls_from = Some(path);
            dtls.handle_datagram(now, &datagram);
        }
    }

    /// Lets time pass. Call it when [`Transport::poll_timeout`] is due; sooner does no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.over {
            return;
        }
        self.ice.handle_timeout(now);
        if let Some(dtls) = &mut self.dtls {
            dtls.handle_timeout(now);
        }
        if let Some(sctp) = &mut self.sctp {
            sctp.handle_timeout(now);
        }
        self.drive(now);
    }

    /// When [`Transport::handle_timeout`] must be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether [`Self::poll_transmit`] has something.
    #[inline]
    pub fn has_transmits(&self) -> bool {
        !self.transmits.is_empty()
    }

    /// Writes the next datagram to send into `out`, which should hold
    /// [`MAX_DATAGRAM_BYTES`](crate::MAX_DATAGRAM_BYTES); a datagram that does not fit is lost.
    pub fn poll_transmit(&mut self, out: &mut [u8]) -> Option<Transmit> {
        while let Some((path, datagram)) = self.transmits.pop_front() {
            if let Some(out) = out.get_mut(..datagram.len()) {
                out.copy_from_slice(&datagram);
                return Some(Transmit { path, len: datagram.len() });
            }
        }
        None
    }

    /// The next thing that happened. Poll until there is none after every other call.
    pub fn poll_event(&mut self) -> Option<TransportEvent> {
        self.events.pop_front()
    }

    /// Queues a binary message on a channel that is open.
    ///
    /// # Errors
    /// [`SendDataError`], of which `BufferFull` passes with time.
    pub fn send_data(
        &mut self,
        now: Instant,
        channel: DataChannel,
        data: &[u8],
    ) -> Result<(), SendDataError> {
        if self.over {
            return Err(SendDataError::NotOpen);
        }
        self.sctp.as_mut().ok_or(SendDataError::NotOpen)?.send(now, channel, data)?;
        self.drive(now);
        Ok(())
    }

    /// Leaves what the peer sends on reliable channels unread, or reads on. On hold, its receive
    /// window closes by and by, and its messages wait with it.
    pub fn hold_reliable(&mut self, now: Instant, on_hold: bool) {
        if let (false, Some(sctp)) = (self.over, &mut self.sctp) {
            sctp.hold(now, on_hold);
            self.drive(now);
        }
    }

    /// Bytes that wait on a channel to be sent or acknowledged.
    pub fn buffered_amount_bytes(&self, channel: DataChannel) -> usize {
        self.sctp.as_ref().map_or(0, |sctp| sctp.buffered_bytes(channel))
    }

    /// The path in use.
    pub fn selected_path(&self) -> Option<Path> {
        self.ice.path()
    }

    /// Whether the peer has proven, by an authenticated check, to be at the other end of `path`.
    /// Media from anywhere else is not the peer's.
    pub fn is_validated(&self, path: Path) -> bool {
        !self.over && self.ice.is_validated(path)
    }

    /// Whether an authenticated check came over `path`, from its other end or with a forged source.
    pub fn was_named(&self, path: Path) -> bool {
        !self.over && self.ice.was_named(path)
    }

    /// Whether there is a path.
    pub fn ice_state(&self) -> IceState {
        self.ice.state()
    }

    /// The SRTP profile, once the handshake is done.
    pub fn srtp_profile(&self) -> Option<SrtpProfile> {
        self.srtp_profile
    }

    /// What came in and was of no use.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Tells the peer that we leave. Poll for what is left to send; nothing else follows.
    pub fn close(&mut self) {
        if let (Some(dtls), Some(path)) = (&mut self.dtls, self.ice.path()) {
            dtls.close();
            while let Some(output) = dtls.poll_output() {
                if let DtlsOutput::Datagram(datagram) = output {
                    self.transmits.push_back((path, datagram));
                }
            }
        }
        self.end();
    }

    fn end(&mut self) {
        self.over = true;
        self.deadline = None;
        self.sctp = None;
    }

    fn fail(&mut self, reason: FailureReason) {
        if !self.over {
            self.end();
            self.events.push_back(TransportEvent::Failed(reason));
        }
    }

    /// Moves everything between the layers until they rest.
    fn drive(&mut self, now: Instant) {
        if self.over {
            return;
        }
        self.drive_ice(now);
        self.drive_dtls(now);
        self.drive_sctp(now);
        if !self.over {
            let dtls = self.dtls.as_ref().and_then(Dtls::deadline);
            let sctp = self.sctp.as_ref().and_then(Sctp::deadline);
            self.deadline = [self.ice.deadline(), dtls, sctp].into_iter().flatten().min();
        }
    }

    fn drive_ice(&mut self, now: Instant) {
        while let Some(transmit) = self.ice.poll_transmit(now) {
            self.transmits.push_back(transmit);
        }
        while let Some(output) = self.ice.poll_output() {
            self.events.push_back(match output {
                IceOutput::State(state) => TransportEvent::Ice(state),
                IceOutput::Path(path) => TransportEvent::PathSelected(path),
            });
        }
        if let (Some(_), Some(dtls)) = (self.ice.path(), &mut self.dtls) {
            dtls.start(now);
        }
        self.start_sctp(now);
    }

    fn start_sctp(&mut self, now: Instant) {
        if let (None, Some(parameters), Some(dtls)) = (&self.sctp, self.sctp_parameters, &self.dtls)
            && dtls.is_connected()
        {
            let wanted = std::mem::take(&mut self.config.open_channels);
            self.sctp = Some(Sctp::new(now, dtls.role(), parameters, wanted));
        }
    }

    fn drive_dtls(&mut self, now: Instant) {
        while let Some(output) = self.dtls.as_mut().and_then(Dtls::poll_output) {
            match output {
                DtlsOutput::Datagram(datagram) => {
                    if let Some(path) = self.ice.path().or(self.dtls_from) {
                        self.transmits.push_back((path, datagram));
                    }
                }
                DtlsOutput::Keys(keys) => {
                    self.srtp_profile = Some(keys.profile);
                    self.events.push_back(TransportEvent::SrtpKeys(keys));
                }
                DtlsOutput::Connected => self.start_sctp(now),
                DtlsOutput::Data(data) => {
                    if let Some(sctp) = &mut self.sctp {
                        sctp.handle_datagram(now, data);
                    }
                }
                DtlsOutput::Closed => {
                    self.end();
                    self.events.push_back(TransportEvent::Closed);
                }
                DtlsOutput::Failed(reason) => self.fail(reason),
            }
        }
    }

    fn drive_sctp(&mut self, now: Instant) {
        while let Some(packet) = self.sctp.as_mut().and_then(Sctp::poll_transmit) {
            if let Some(dtls) = &mut self.dtls {
                dtls.send(&packet);
            }
            self.drive_dtls(now);
        }
        while let Some(output) = self.sctp.as_mut().and_then(Sctp::poll_output) {
            let event = match output {
                SctpOutput::Open(channel) => TransportEvent::ChannelOpen { channel },
                SctpOutput::Data { channel, binary, data } => {
                    TransportEvent::Data { channel, binary, data }
                }
                SctpOutput::BufferedAmountLow(channel) => {
                    TransportEvent::BufferedAmountLow { channel }
                }
                SctpOutput::Closed(channel) => TransportEvent::ChannelClosed { channel },
                SctpOutput::Lost => return self.fail(FailureReason::Sctp),
            };
            self.events.push_back(event);
        }
    }
}
