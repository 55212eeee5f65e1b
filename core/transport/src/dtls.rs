//! DTLS 1.2 with one peer, whose certificate is checked before anything is believed.

use std::collections::VecDeque;
use std::time::Instant;

use dimpl::{Dtls as Engine, KeyingMaterial, Output};
use parlor_model::{DtlsRole, Fingerprint, SrtpKeys, SrtpMasterKey, SrtpProfile};

use crate::identity::{DtlsIdentity, matches_fingerprint};
use crate::{FailureReason, MAX_DATAGRAM_BYTES};

/// What DTLS has for its owner.
pub(crate) enum DtlsOutput {
    Datagram(Vec<u8>),
    Keys(SrtpKeys),
    Connected,
    Data(Vec<u8>),
    Closed,
    Failed(FailureReason),
}

pub(crate) struct Dtls {
    engine: Engine,
    role: DtlsRole,
    fingerprints: Vec<Fingerprint>,
    started: bool,
    verified: bool,
    connected: bool,
    /// After a failure or a close nothing goes in or out.
    over: bool,
    deadline: Option<Instant>,
    outputs: VecDeque<DtlsOutput>,
    buffer: Vec<u8>,
}

impl Dtls {
    pub fn new(
        now: Instant,
        identity: &DtlsIdentity,
        role: DtlsRole,
        fingerprints: Vec<Fingerprint>,
    ) -> Self {
        let mut engine = Engine::new_12(identity.config(), identity.certificate(), now);
        engine.set_active(role == DtlsRole::Client);
        Self {
            engine,
            role,
            fingerprints,
            started: false,
            verified: false,
            connected: false,
            over: false,
            deadline: None,
            outputs: VecDeque::new(),
            buffer: vec![0; MAX_DATAGRAM_BYTES],
        }
    }

    pub fn role(&self) -> DtlsRole {
        self.role
    }

    pub fn fingerprints(&self) -> &[Fingerprint] {
        &self.fingerprints
    }

    pub fn is_connected(&self) -> bool {
        self.connected && !self.over
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.deadline.filter(|_| !self.over)
    }

    pub fn poll_output(&mut self) -> Option<DtlsOutput> {
        self.outputs.pop_front()
    }

    /// There is a path: a client sends its first flight.
    pub fn start(&mut self, now: Instant) {
        if !self.started {
            self.started = true;
            self.handle_timeout(now);
        }
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        if self.started && !self.over {
            let result = self.engine.handle_timeout(now);
            self.settle(result);
        }
    }

    /// Takes a datagram from a validated address.
    pub fn handle_datagram(&mut self, now: Instant, datagram: &[u8]) {
        if self.over || has_cleartext_alert(datagram) {
            return;
        }
        self.started = true;
        let result =
            self.engine.handle_timeout(now).and_then(|()| self.engine.handle_packet(datagram));
        self.settle(result);
    }

    pub fn send(&mut self, data: &[u8]) {
        if self.is_connected() {
            let result = self.engine.send_application_data(data).map(|_| ());
            self.settle(result);
        }
    }

    /// Tells the peer that we leave.
    pub fn close(&mut self) {
        if self.is_connected() {
            let result = self.engine.close();
            self.settle(result);
        }
        self.over = true;
    }

    fn settle(&mut self, result: Result<(), dimpl::Error>) {
        self.drain();
        if result.is_err() {
            self.fail(FailureReason::Dtls);
        }
    }

    fn fail(&mut self, reason: FailureReason) {
        if !self.over {
            self.over = true;
            self.outputs.push_back(DtlsOutput::Failed(reason));
        }
    }

    fn drain(&mut self) {
        while !self.over {
            match self.engine.poll_output(&mut self.buffer) {
                Output::Packet(packet) => {
                    self.outputs.push_back(DtlsOutput::Datagram(packet.to_vec()));
                }
                Output::BufferTooSmall { needed } => {
                    let needed = needed.max(self.buffer.len() + 1);
                    self.buffer.resize(needed, 0);
                }
                Output::Timeout(deadline) => {
                    self.deadline = Some(deadline);
                    return;
                }
                Output::PeerCert(certificate) => {
                    self.verified = matches_fingerprint(certificate, &self.fingerprints);
                    if !self.verified {
                        self.fail(FailureReason::FingerprintMismatch);
                    }
                }
                Output::Connected => {
                    self.connected = true;
                    self.outputs.push_back(DtlsOutput::Connected);
                }
                Output::KeyingMaterial(material, profile) => self.keys(&material, profile),
                Output::ApplicationData(data) if self.verified => {
                    self.outputs.push_back(DtlsOutput::Data(data.to_vec()));
                }
                Output::CloseNotify => {
                    self.over = true;
                    self.outputs.push_back(DtlsOutput::Closed);
                }
                _ => {}
            }
            // A handshake without a certificate, or whose certificate is not the announced one,
            // never gets as far as `Connected` for our owner.
            if self.connected && !self.verified {
                self.connected = false;
                self.fail(FailureReason::FingerprintMismatch);
            }
        }
    }

    fn keys(&mut self, material: &KeyingMaterial, profile: dimpl::SrtpProfile) {
        if !self.verified {
            return self.fail(FailureReason::FingerprintMismatch);
        }
        match split_keys(material, profile, self.role) {
            Some(keys) => self.outputs.push_back(DtlsOutput::Keys(keys)),
            None => self.fail(FailureReason::NoSrtpProfile),
        }
    }
}

/// Client key, server key, client salt, server salt (RFC 5764 section 4.2).
fn split_keys(material: &[u8], profile: dimpl::SrtpProfile, role: DtlsRole) -> Option<SrtpKeys> {
    let profile = match profile {
        dimpl::SrtpProfile::AEAD_AES_128_GCM => SrtpProfile::AeadAes128Gcm,
        dimpl::SrtpProfile::AEAD_AES_256_GCM => SrtpProfile::AeadAes256Gcm,
        dimpl::SrtpProfile::AES128_CM_SHA1_80 => SrtpProfile::AesCm128HmacSha1_80,
        _ => return None,
    };
    let (client_key, rest) = material.split_at_checked(profile.key_len())?;
    let (server_key, rest) = rest.split_at_checked(profile.key_len())?;
    let (client_salt, rest) = rest.split_at_checked(profile.salt_len())?;
    let server_salt = rest.get(..profile.salt_len())?;
    let client = SrtpMasterKey { key: client_key.to_vec(), salt: client_salt.to_vec() };
    let server = SrtpMasterKey { key: server_key.to_vec(), salt: server_salt.to_vec() };
    Some(match role {
        DtlsRole::Client => SrtpKeys { profile, send: client, receive: server },
        DtlsRole::Server => SrtpKeys { profile, send: server, receive: client },
    })
}

/// Whether a datagram holds an alert that nobody has authenticated. Such an alert must not end
/// anything (RFC 6347 section 4.1.2.7), and the engine would let it end a handshake.
fn has_cleartext_alert(mut datagram: &[u8]) -> bool {
    const ALERT: u8 = 21;
    while let Some((header, rest)) = datagram.split_first_chunk::<13>() {
        if header[0] == ALERT && header[3..5] == [0, 0] {
            return true;
        }
        let len = usize::from(u16::from_be_bytes([header[11], header[12]]));
        datagram = rest.get(len..).unwrap_or_default();
    }
    false
}
