//! What a shard tells those who receive on its port.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{collections::BTreeSet, net::SocketAddr};

use common::{SERVER, World, ms};
use parlor_model::{DtlsRole, IceCredentials, Path, PeerId, RemoteTransport, TransportAddress};
use parlor_sfu::{Claim, command::MediaCommand};
use parlor_transport::{DtlsIdentity, Transport, TransportConfig};

fn path(remote: SocketAddr) -> Path {
    Path::udp(SERVER.parse().unwrap(), remote)
}

fn world(ice_lite: bool) -> World {
    let mut world = World::new();
    world.ice_lite = ice_lite;
    world.shard.share_port();
    world
}

fn claims(world: &mut World) -> Vec<Claim> {
    std::iter::from_fn(|| world.shard.poll_claim()).collect()
}

/// What those who believe the claims hold for the shard's.
fn believe(believed: &mut BTreeSet<SocketAddr>, claims: Vec<Claim>) {
    for claim in claims {
        match claim {
            Claim::Named(path) | Claim::Validated(path) => _ = believed.insert(path.remote),
            Claim::Forgotten(path) => assert!(believed.remove(&path.remote), "{path:?}"),
            Claim::Asked(..) => {}
        }
    }
}

#[test]
fn an_address_is_claimed_by_a_check_then_by_an_answer() {
    let mut world = world(false);
    let alice = world.connect(1);
    let at = path(world.clients[alice].address);
    let claims = claims(&mut world);
    assert_eq!(claims[0], Claim::Named(at));
    let answered = claims.iter().position(|claim| *claim == Claim::Validated(at)).unwrap();
    let asked = |claim: &Claim| matches!(claim, Claim::Asked(path, _) if *path == at);
    assert!(claims[..answered].iter().any(asked), "{claims:?}");
}

#[test]
fn where_checks_are_left_to_the_client_its_own_is_enough_and_nothing_is_asked() {
    let mut world = world(true);
    let alice = world.connect(1);
    let at = path(world.clients[alice].address);
    let claims = claims(&mut world);
    assert!(claims.iter().all(|claim| *claim == Claim::Validated(at)), "{claims:?}");
    assert!(!claims.is_empty());
}

#[test]
fn what_is_forgotten_is_said_and_a_peer_has_few_addresses() {
    let mut world = world(true);
    let (alice, bob) = (world.connect(1), world.connect(2));
    let (first, other) = (world.clients[alice].address, world.clients[bob].address);
    let mut believed = BTreeSet::new();
    for port in 0..12 {
        world.rebind(alice, SocketAddr::from(([127, 0, 0, 1], 33_000 + port)));
        world.run(ms(7000));
        believe(&mut believed, claims(&mut world));
        assert!(believed.len() <= 8 + 1, "{believed:?}");
    }
    assert!(!believed.contains(&first) && believed.contains(&world.clients[alice].address));
    world.command(MediaCommand::ClosePeer { peer: PeerId(1) });
    believe(&mut believed, claims(&mut world));
    assert_eq!(believed.iter().collect::<Vec<_>>(), [&other]);
    world.command(MediaCommand::ClosePeer { peer: PeerId(2) });
    believe(&mut believed, claims(&mut world));
    assert_eq!(believed.len(), 0);
}

#[test]
fn a_check_that_is_not_authentic_claims_nothing() {
    for ice_lite in [false, true] {
        let mut world = world(ice_lite);
        world.connect(1);
        claims(&mut world);
        // All is right but the password.
        let stranger = SocketAddr::from(([127, 0, 0, 1], 44_444));
        let credentials = |name: &str| IceCredentials { ufrag: name.into(), pwd: "x".repeat(22) };
        let identity = DtlsIdentity::generate().unwrap();
        let remote = RemoteTransport {
            ice: credentials("server1"),
            ice_lite,
            fingerprints: vec![identity.fingerprint().clone()],
            dtls_role: DtlsRole::Client,
            sctp: None,
        };
        let config = TransportConfig {
            identity,
            ice: credentials("client1"),
            ice_lite: false,
            ice_controlling: true,
            seed: [3; 32],
            open_channels: vec![],
            local_addresses: vec![TransportAddress::udp(stranger)],
        };
        let mut forger = Transport::new(world.now, config);
        forger.set_remote(world.now, remote).unwrap();
        let candidate = "candidate:1 1 udp 2130706431 127.0.0.1 7882 typ host";
        forger.add_remote_candidate(world.now, candidate);
        let (mut buffer, mut sent) = ([0; 2000], 0);
        for _ in 0..100 {
            world.now += ms(10);
            forger.handle_timeout(world.now);
            while let Some(check) = forger.poll_transmit(&mut buffer) {
                sent += 1;
                world.shard.handle_datagram(world.now, path(stranger), &mut buffer[..check.len]);
            }
        }
        assert!(sent > 0);
        assert_eq!(claims(&mut world), []);
    }
}

#[test]
fn who_shares_no_port_claims_nothing() {
    let mut world = World::new();
    world.connect(1);
    world.command(MediaCommand::ClosePeer { peer: PeerId(1) });
    assert_eq!(claims(&mut world), []);
}
