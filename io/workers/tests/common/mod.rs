//! Peers of a worker, and the ICE agents in this process that are to meet them.

#[allow(dead_code)] // Not every test has clients over UDP.
pub mod client;

use parlor_model::{
    DtlsRole, IceCredentials, PeerId, RemoteTransport, SctpParameters, TransportAddress,
};
use parlor_sfu::command::{LocalTransport, MediaCommand};
use parlor_transport::{DtlsIdentity, Transport, TransportConfig};
use parlor_workers::WorkerHandle;
use std::time::{Duration, Instant};

pub const PATIENCE: Duration = Duration::from_secs(20);

fn credentials(name: &str) -> IceCredentials {
    IceCredentials { ufrag: format!("{name}ufrag"), pwd: format!("{name}-password-0123456789") }
}

fn remote(name: &str, identity: &DtlsIdentity, dtls_role: DtlsRole) -> RemoteTransport {
    RemoteTransport {
        ice: credentials(name),
        ice_lite: false,
        fingerprints: vec![identity.fingerprint().clone()],
        dtls_role,
        sctp: Some(SctpParameters { port: 5000, max_message_size_bytes: 65_536 }),
    }
}

/// Opens a peer, whose ufrag begins with `ours`, and returns the full, controlling agent at
/// `address` that is to reach it by `candidate`.
pub fn open_peer(
    worker: &mut WorkerHandle,
    peer: PeerId,
    server: &DtlsIdentity,
    (ours, ice_lite): (&str, bool),
    address: TransportAddress,
    candidate: &str,
) -> Transport {
    let identity = DtlsIdentity::generate().unwrap();
    let local = LocalTransport { ice: credentials(ours), ice_lite, opens_channels: true };
    worker.send(MediaCommand::OpenPeer { peer, local: Box::new(local) }).unwrap();
    let described = Box::new(remote("client", &identity, DtlsRole::Server));
    worker.send(MediaCommand::SetRemote { peer, remote: described }).unwrap();

    let now = Instant::now();
    let config = TransportConfig {
        identity,
        ice: credentials("client"),
        ice_lite: false,
        ice_controlling: true,
        seed: [9; 32],
        open_channels: vec![],
        local_addresses: vec![address],
    };
    let mut transport = Transport::new(now, config);
    transport.set_remote(now, remote(ours, server, DtlsRole::Client)).unwrap();
    transport.add_remote_candidate(now, candidate);
    transport
}
