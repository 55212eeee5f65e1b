//! ICE: finds a path, moves it when the peer's address moves, and notices when it is gone.
//!
//! The agent of the crate `is` does the checks. What it leaves open is here: consent with
//! LiveKit's times, a path that survives a restart, and a path that follows a peer whose NAT
//! gave it a new port (the agent would wait until the old pair has died of silence).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use is::stun::{StunMessage, StunPacket};
use is::{Candidate, IceAgent, IceAgentEvent, IceCreds, Protocol};
use parlor_model::{IceCredentials, Path, TransportAddress, TransportProtocol};

/// The least time between two steps of an agent (RFC 8445 section 14.2). The default of 50 ms is
/// for agents with many pairs on slow links; here each step is a datagram to one of a few peers,
/// and `is` holds answers to checks back for as long.
const TIMING_ADVANCE: Duration = Duration::from_millis(5);

/// The first and the longest time between two checks of ours while a path is looked for; between
/// answered ones, too, it doubles from the first to the longest.
const SEARCH_INTERVALS: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(3));

/// The same for the controlled agent of a path that works: it keeps consent (RFC 7675 section
/// 5.1), and looks for other paths when the peer does. Most that an idle peer costs is checks.
const CONSENT_INTERVALS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));

/// Once a path has been in use for so long, the controlling agent checks no others (RFC 8445
/// section 8.3), and the controlled one where the peer does: what is in reserve must not cost as
/// much as what is used.
const SETTLED_AFTER: Duration = Duration::from_secs(5);

/// Without a valid check for so long a peer counts as disconnected (as LiveKit has it).
pub const CONSENT_DISCONNECT: Duration = Duration::from_secs(10);

/// Disconnected for so long a peer has failed (as LiveKit has it).
pub const CONSENT_FAILURE: Duration = Duration::from_secs(5);

/// Without a first path for so long a peer has failed.
pub const CHECKING_FAILURE: Duration = Duration::from_secs(30);

/// How a STUN binding request begins (RFC 8489 section 5).
const BINDING_REQUEST: [u8; 2] = [0, 1];

/// Most candidates that a peer may name until ICE restarts.
pub const MAX_REMOTE_CANDIDATES: usize = 64;

/// Most addresses that a peer may send checks from, and most that it may say to see us at, until
/// ICE restarts.
pub const MAX_REMOTE_ADDRESSES: usize = 256;

/// A path that has carried no check for so long yields to another that the peer nominates.
const PATH_SILENCE: Duration = Duration::from_secs(6);

/// Whether there is a path to the peer (RFC 8445, W3C `RTCIceTransportState`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IceState {
    /// The peer's credentials are not known yet.
    New,
    /// Looking for a path.
    Checking,
    /// There is a path.
    Connected,
    /// The path has been silent for [`CONSENT_DISCONNECT`].
    Disconnected,
    /// The path has been silent for [`CONSENT_FAILURE`] more, or none was found in
    /// [`CHECKING_FAILURE`]. An ICE restart may bring the peer back, or a late check of its own.
    Failed,
}

/// A check of the peer that proved authentic.
#[derive(Clone, Copy, Debug)]
struct Check {
    path: Path,
    /// Its PRIORITY attribute: the same from one socket of the peer, whatever NATs do to it.
    priority: u32,
    nominates: bool,
}

pub(crate) enum IceOutput {
    State(IceState),
    Path(Path),
}

pub(crate) struct Ice {
    agent: IceAgent,
    /// Whether TCP connections are ours to make: then candidates that accept them are of use.
    connects: bool,
    local_addresses: Vec<TransportAddress>,
    remote: Option<IceCredentials>,
    /// The peer's credentials have changed and none of its checks has used them yet.
    remote_is_fresh: bool,
    remote_candidates: usize,
    remote_addresses: Vec<TransportAddress>,
    /// Where the peer has seen us.
    mapped_addresses: Vec<SocketAddr>,
    state: IceState,
    path: Option<Path>,
    path_priority: Option<u32>,
    path_heard: Option<Instant>,
    path_since: Option<Instant>,
    /// Where the peer has checked another path than the one in use.
    asked: Option<Path>,
    /// Where the peer seems to have moved, until the agent has found it viable.
    moving_to: Option<Check>,
    last_check: Option<Check>,
    consent: Option<Instant>,
    outputs: VecDeque<IceOutput>,
}

impl Ice {
    pub fn new(
        credentials: IceCredentials,
        lite: bool,
        controlling: bool,
        tie_breaker: u64,
        local_addresses: Vec<TransportAddress>,
    ) -> Self {
        let mut agent = IceAgent::new(agent_credentials(credentials));
        agent.set_timing_advance(TIMING_ADVANCE);
        agent.set_ice_lite(lite);
        agent.set_controlling(controlling);
        agent.set_control_tie_breaker(tie_breaker);
        add_hosts(&mut agent, &local_addresses);
        Self {
            agent,
            connects: controlling,
            local_addresses,
            remote: None,
            remote_is_fresh: false,
            remote_candidates: 0,
            remote_addresses: Vec::new(),
            mapped_addresses: Vec::new(),
            state: IceState::New,
            path: None,
            path_priority: None,
            path_heard: None,
            path_since: None,
            asked: None,
            moving_to: None,
            last_check: None,
            consent: None,
            outputs: VecDeque::new(),
        }
    }

    pub fn state(&self) -> IceState {
        self.state
    }

    pub fn path(&self) -> Option<Path> {
        self.path
    }

    /// Whether datagrams over `path` are the peer's: an authenticated check came from its end.
    pub fn is_validated(&self, path: Path) -> bool {
        self.path.is_some_and(|used| used.remote_address() == path.remote_address())
            || self.is_viable(path)
    }

    /// Whether an authentic check or answer of the peer came over `path`: it may be there, or have
    /// forged where it is.
    pub fn was_named(&self, path: Path) -> bool {
        self.remote_addresses.contains(&path.remote_address())
    }

    /// Whether a check of ours has found the other end of `path`, or (where we are lite) one came.
    fn is_viable(&self, path: Path) -> bool {
        // The agent looks at addresses only, not at what carries datagrams to them.
        self.agent.has_viable_remote_candidate(path.remote)
            && self.remote_addresses.contains(&path.remote_address())
    }

    pub fn poll_output(&mut self) -> Option<IceOutput> {
        self.outputs.pop_front()
    }

    pub fn poll_transmit(&mut self, now: Instant) -> Option<(Path, Vec<u8>)> {
        loop {
            let transmit = self.agent.poll_transmit()?;
            let protocol = our_protocol(transmit.proto);
            let path = Path { protocol, local: transmit.source, remote: transmit.destination };
            let is_check = transmit.contents.starts_with(&BINDING_REQUEST);
            if !is_check || self.may_check(now, path) {
                return Some((path, transmit.contents.to_vec()));
            }
        }
    }

    fn may_check(&mut self, now: Instant, path: Path) -> bool {
        let is_settled = self.path_since.is_some_and(|since| now >= since + SETTLED_AFTER);
        let is_used = self.path == Some(path) || self.moving_to.is_some_and(|it| it.path == path);
        if is_used || self.state != IceState::Connected || !is_settled {
            return true;
        }
        // Were both to follow the other, they would never stop.
        !self.agent.controlling() && self.asked.take_if(|asked| *asked == path).is_some()
    }

    pub fn set_remote(&mut self, now: Instant, remote: &IceCredentials) {
        if self.remote.as_ref() == Some(remote) {
            return;
        }
        if self.remote.is_some() && self.agent.remote_credentials().is_some() {
            // The peer restarts while we keep our credentials, for now at least.
            let local = self.agent.local_credentials().clone();
            self.flush(local);
            self.remote_is_fresh = true;
        }
        self.remote = Some(remote.clone());
        self.agent.set_remote_credentials(agent_credentials(remote.clone()));
        if self.state != IceState::Connected {
            self.begin_checking(now);
        }
        self.handle_timeout(now);
    }

    /// Takes new credentials of ours. The path stays until another one has been validated.
    pub fn restart(&mut self, now: Instant, credentials: IceCredentials) {
        self.flush(agent_credentials(credentials));
        // Their new credentials may have come before ours.
        if self.remote_is_fresh
            && let Some(remote) = self.remote.clone()
        {
            self.agent.set_remote_credentials(agent_credentials(remote));
        }
        if matches!(self.state, IceState::Disconnected | IceState::Failed) {
            self.begin_checking(now);
        }
        self.handle_timeout(now);
    }

    fn begin_checking(&mut self, now: Instant) {
        self.consent = Some(now);
        self.set_state(IceState::Checking);
    }

    fn flush(&mut self, local: IceCreds) {
        self.agent.ice_restart(local, false);
        add_hosts(&mut self.agent, &self.local_addresses);
        self.remote_candidates = 0;
        self.remote_addresses.clear();
        self.mapped_addresses.clear();
        self.moving_to = None;
        self.last_check = None;
        self.path_since = None;
    }

    /// Adds a candidate; false when it is of no use or one too many.
    pub fn add_remote_candidate(&mut self, now: Instant, candidate: &str) -> bool {
        let candidate = candidate.strip_prefix("a=").unwrap_or(candidate);
        if self.remote_candidates >= MAX_REMOTE_CANDIDATES {
            return false;
        }
        let Ok(candidate) = Candidate::from_sdp_string(candidate) else {
            return false;
        };
        let address = candidate.addr();
        // One that connects has nothing to be checked: it is met when it comes (RFC 6544).
        let is_of_use = match candidate.proto() {
            Protocol::Udp => true,
            Protocol::Tcp => {
                self.connects
                    && candidate.tcptype().is_some_and(|role| role.to_string() == "passive")
            }
            _ => false,
        };
        if !is_of_use || address.port() == 0 || is_nowhere(address) {
            return false;
        }
        self.remote_candidates += 1;
        self.agent.add_remote_candidate(candidate);
        self.handle_timeout(now);
        true
    }

    /// Takes a STUN message; false when it is not for us or not authentic.
    pub fn handle_datagram(&mut self, now: Instant, path: Path, datagram: &[u8]) -> bool {
        let Ok(message) = StunMessage::parse(datagram) else {
            return false;
        };
        if !self.local_addresses.contains(&path.local_address()) {
            return false;
        }
        let is_known = self.remote_addresses.contains(&path.remote_address());
        if !is_known && self.remote_addresses.len() >= MAX_REMOTE_ADDRESSES {
            return false;
        }
        let check = message.is_binding_request().then(|| Check {
            path,
            priority: message.prio().unwrap_or_default(),
            nominates: message.use_candidate(),
        });
        let answers_us = message.is_successful_binding_response();
        let mapped = message.mapped_address().filter(|_| answers_us);
        let is_new = |mapped: &SocketAddr| !self.mapped_addresses.contains(mapped);
        let new_mapped = mapped.filter(is_new);
        if new_mapped.is_some() && self.mapped_addresses.len() >= MAX_REMOTE_ADDRESSES {
            return false;
        }
        let is_settled = self.agent.remote_credentials().is_some();
        let packet = StunPacket {
            proto: their_protocol(path.protocol),
            source: path.remote,
            destination: path.local,
            message,
        };
        if !self.agent.handle_packet(now, packet) {
            return false;
        }
        if !is_known {
            self.remote_addresses.push(path.remote_address());
        }
        self.mapped_addresses.extend(new_mapped);
        if let Some(check) = check.filter(|_| is_settled) {
            self.remote_is_fresh = false;
            self.handle_check(now, check);
        }
        if is_settled && (check.is_some() || answers_us) {
            self.consent = Some(now);
        }
        self.handle_timeout(now);
        true
    }

    fn handle_check(&mut self, now: Instant, check: Check) {
        self.last_check = Some(check);
        let Some(current) = self.path else { return };
        if check.path == current {
            self.path_heard = Some(now);
            if check.nominates {
                self.path_priority = Some(check.priority);
                self.moving_to = None;
            }
            return;
        }
        self.asked = Some(check.path);
        if check.nominates && !self.agent.controlling() {
            let same_socket = check.path.local_address() == current.local_address()
                && self.path_priority == Some(check.priority);
            let is_silent = self.path_heard.is_none_or(|heard| now - heard >= PATH_SILENCE);
            if same_socket || is_silent {
                self.moving_to = Some(check);
            }
        }
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.agent.handle_timeout(now);
        while let Some(event) = self.agent.poll_event() {
            if let IceAgentEvent::NominatedSend { proto, source, destination } = event {
                let protocol = our_protocol(proto);
                self.select(now, Path { protocol, local: source, remote: destination });
            }
        }
        if let Some(check) = self.moving_to
            && self.is_viable(check.path)
        {
            self.select(now, check.path);
        }
        self.evaluate_consent(now);
    }

    fn select(&mut self, now: Instant, path: Path) {
        self.moving_to = None;
        self.path_heard = Some(now);
        self.path_priority =
            self.last_check.filter(|check| check.path == path).map(|check| check.priority);
        if self.path != Some(path) || self.path_since.is_none() {
            self.path_since = Some(now);
        }
        if self.path != Some(path) {
            self.path = Some(path);
            self.outputs.push_back(IceOutput::Path(path));
        }
        if matches!(self.state, IceState::Checking | IceState::Failed) {
            self.consent = Some(now);
            self.set_state(IceState::Connected);
        }
    }

    fn evaluate_consent(&mut self, now: Instant) {
        let Some(consent) = self.consent else { return };
        let silence = now.saturating_duration_since(consent);
        let state = match self.state {
            IceState::New => return,
            IceState::Checking if silence >= self.checking_limit() => IceState::Failed,
            IceState::Checking => return, // until a path is selected
            _ if self.path.is_none() => return,
            _ if silence >= CONSENT_DISCONNECT + CONSENT_FAILURE => IceState::Failed,
            _ if silence >= CONSENT_DISCONNECT => IceState::Disconnected,
            _ => IceState::Connected,
        };
        self.set_state(state);
    }

    /// How long checks may go on without one that succeeds.
    fn checking_limit(&self) -> Duration {
        if self.path.is_none() { CHECKING_FAILURE } else { CONSENT_DISCONNECT + CONSENT_FAILURE }
    }

    pub fn deadline(&mut self) -> Option<Instant> {
        let consent = match (self.state, self.consent) {
            (IceState::Connected, Some(consent)) => Some(consent + CONSENT_DISCONNECT),
            (IceState::Checking, Some(consent)) => Some(consent + self.checking_limit()),
            (IceState::Disconnected, Some(consent)) => {
                Some(consent + CONSENT_DISCONNECT + CONSENT_FAILURE)
            }
            _ => None,
        };
        [self.agent.poll_timeout(), consent].into_iter().flatten().min()
    }

    fn set_state(&mut self, state: IceState) {
        if self.state != state {
            self.state = state;
            let keeps = state == IceState::Connected && !self.agent.controlling();
            let (first, longest) = if keeps { CONSENT_INTERVALS } else { SEARCH_INTERVALS };
            self.agent.set_initial_stun_rto(first);
            self.agent.set_max_stun_rto(longest);
            self.outputs.push_back(IceOutput::State(state));
        }
    }
}

fn add_hosts(agent: &mut IceAgent, addresses: &[TransportAddress]) {
    for local in addresses {
        if let Ok(candidate) = Candidate::host(local.address, their_protocol(local.protocol)) {
            agent.add_local_candidate(candidate);
        }
    }
}

fn our_protocol(protocol: Protocol) -> TransportProtocol {
    match protocol {
        Protocol::Udp => TransportProtocol::Udp,
        _ => TransportProtocol::Tcp,
    }
}

fn their_protocol(protocol: TransportProtocol) -> Protocol {
    match protocol {
        TransportProtocol::Udp => Protocol::Udp,
        TransportProtocol::Tcp => Protocol::Tcp,
    }
}

fn agent_credentials(credentials: IceCredentials) -> IceCreds {
    IceCreds { ufrag: credentials.ufrag, pass: credentials.pwd }
}

/// Whether no datagram should ever go there.
fn is_nowhere(address: SocketAddr) -> bool {
    let ip = address.ip();
    ip.is_unspecified() || ip.is_multicast()
}
