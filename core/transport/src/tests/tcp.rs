use std::time::Duration;

use parlor_model::{DataChannel, DtlsRole, Path, TransportProtocol};

use super::pair::*;
use crate::*;

const SERVER_TCP: &str = "10.0.0.1:7881";
const CLIENT_TCP: &str = "10.0.0.2:41000";
const PASSIVE: &str = "candidate:2 1 tcp 1671430143 10.0.0.1 7881 typ host tcptype passive";

fn pair(lite: bool) -> Pair {
    let open = livekit_channels();
    let tcp = Some(CLIENT_TCP);
    let client = Options { controlling: true, open, tcp, ..Default::default() };
    let server = Options { lite, tcp: Some(SERVER_TCP), ..Default::default() };
    Pair::new(client, server, DtlsRole::Client)
}

fn over_tcp() -> Path {
    Path::tcp(address(SERVER_TCP), address(CLIENT_TCP))
}

#[test]
fn where_udp_is_cut_tcp_carries_everything() {
    for lite in [false, true] {
        let mut pair = pair(lite);
        pair.cut = true;
        pair.client.transport.add_remote_candidate(pair.now, PASSIVE);
        pair.connect();
        assert_eq!(pair.server.transport.selected_path(), Some(over_tcp()));
        for channel in [DataChannel::Reliable, DataChannel::Lossy] {
            pair.exchange(channel);
        }
        pair.run_for(Duration::from_secs(60));
        assert_eq!(pair.server.states, [IceState::Checking, IceState::Connected]);
        let counters = pair.server.transport.counters();
        assert_eq!((counters.stun_refused, counters.candidates_refused), (0, 0));
    }
}

#[test]
fn where_both_ways_lead_to_the_server_udp_is_taken() {
    for lite in [false, true] {
        let mut pair = pair(lite);
        pair.client.transport.add_remote_candidate(pair.now, PASSIVE);
        pair.connect();
        pair.run_for(Duration::from_secs(10));
        let path = pair.server.transport.selected_path().unwrap();
        assert_eq!(path.protocol, TransportProtocol::Udp);
    }
}

#[test]
fn the_way_that_is_not_taken_is_left_alone() {
    let mut pair = pair(false);
    pair.client.transport.add_remote_candidate(pair.now, PASSIVE);
    pair.connect();
    pair.run_for(Duration::from_secs(10));
    let before = pair.tcp_trace.len();
    pair.run_for(Duration::from_secs(100));
    assert!(before > 0);
    assert_eq!(pair.tcp_trace.len(), before);
}

/// `switch_candidate_protocol`: an ICE restart that names TCP alone.
#[test]
fn a_restart_moves_to_tcp_and_the_old_path_carries_until_then() {
    for lite in [false, true] {
        let mut pair = pair(lite);
        pair.connect();
        let udp = at_server(address(CLIENT));
        assert_eq!(pair.server.transport.selected_path(), Some(udp));

        let server = remote("server2", &pair.server.fingerprint, DtlsRole::Client);
        let client = remote("client2", &pair.client.fingerprint, DtlsRole::Server);
        let now = pair.now;
        pair.server.transport.restart_ice(now, credentials("server2"));
        pair.server.transport.set_remote(now, client).unwrap();
        pair.client.transport.restart_ice(now, credentials("client2"));
        pair.client.transport.set_remote(now, server).unwrap();
        pair.exchange(DataChannel::Reliable);
        assert_eq!(pair.server.transport.selected_path(), Some(udp));
        assert!(pair.server.transport.is_validated(udp));
        assert!(!pair.server.transport.is_validated(over_tcp()));
        assert!(pair.tcp_trace.is_empty());

        pair.client.transport.add_remote_candidate(pair.now, PASSIVE);
        let moved = pair.run_until(Duration::from_secs(3), |pair| {
            pair.server.transport.selected_path() == Some(over_tcp())
        });
        assert!(moved, "{:?}", pair.server.paths);
        pair.cut = true; // UDP is not missed
        pair.exchange(DataChannel::Lossy);
        pair.run_for(Duration::from_secs(30));
        assert_eq!(pair.server.states.last(), Some(&IceState::Connected));
        assert_eq!(pair.client.states.last(), Some(&IceState::Connected));
    }
}

#[test]
fn the_same_address_over_another_protocol_has_proven_nothing() {
    let mut pair = pair(false);
    pair.connect();
    let udp = at_server(address(CLIENT));
    assert!(pair.server.transport.is_validated(udp));
    let tcp = Path { protocol: TransportProtocol::Tcp, local: address(SERVER_TCP), ..udp };
    assert!(!pair.server.transport.is_validated(tcp));
    let refused = pair.server.transport.counters().dtls_refused;
    pair.server.transport.handle_datagram(pair.now, tcp, &[22; 40]);
    assert_eq!(pair.server.transport.counters().dtls_refused, refused + 1);
}
