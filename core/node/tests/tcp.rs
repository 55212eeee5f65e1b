//! Which candidates a client is offered: all, or those of TCP alone.
#![allow(clippy::unwrap_used)]

mod world;

use livekit_protocol as proto;
use parlor_model::{PeerId, TransportAddress};
use parlor_node::{NodeConfig, PREFERENCE_TTL, io::SessionId};
use parlor_sfu::command::{MediaCommand, MediaEvent, PeerFailure};
use proto::{
    CandidateProtocol, signal_request::Message as Request, signal_response::Message,
    simulate_scenario::Scenario,
};
use std::time::Duration;
use world::{Options, World};

fn with_tcp(config: &mut NodeConfig) {
    let tcp = TransportAddress::tcp("192.0.2.1:7881".parse().unwrap());
    config.shards[0].1.push(tcp);
}

/// Protocol, priority and whether it is the last, of each candidate that a client was told.
fn offered(world: &World, session: SessionId) -> Vec<(String, String, bool)> {
    let said = world.said(session).iter();
    said.filter_map(|message| match message {
        Message::Trickle(trickle) => {
            let parts: Vec<_> = trickle.candidate_init.split(' ').collect();
            Some((parts[2].to_owned(), parts[3].to_owned(), trickle.r#final))
        }
        _ => None,
    })
    .collect()
}

fn udp(last: bool) -> (String, String, bool) {
    ("udp".into(), "2130706431".into(), last)
}

fn tcp() -> (String, String, bool) {
    ("tcp".into(), "1671430143".into(), true)
}

fn switch(world: &mut World, session: SessionId, protocol: CandidateProtocol) {
    let scenario = Some(Scenario::SwitchCandidateProtocol(protocol.into()));
    world.request(session, Request::Simulate(proto::SimulateScenario { scenario }));
}

/// Whether the join says that this is not the first choice.
fn is_fallback(world: &World, session: SessionId) -> bool {
    let join = world.said(session).iter().find_map(|message| match message {
        Message::Join(join) => Some((join.fast_publish, join.client_configuration.is_some())),
        _ => None,
    });
    match join.unwrap() {
        (true, false) => false,
        (false, true) => true,
        mixed => panic!("{mixed:?}"),
    }
}

#[test]
fn tcp_comes_last_with_livekits_priority() {
    let mut world = World::with(with_tcp);
    let alice = world.join("room", "alice", Options::default());
    assert_eq!(offered(&world, alice), [udp(false), tcp()]);
    let line = world.said(alice).iter().find_map(|message| match message {
        Message::Trickle(trickle) if trickle.r#final => Some(trickle.candidate_init.clone()),
        _ => None,
    });
    assert!(line.unwrap().contains(" 192.0.2.1 7881 typ host tcptype passive ufrag aaa"));
}

#[test]
fn who_switches_is_offered_tcp_alone_in_the_next_session_and_for_a_while() {
    for protocol in [CandidateProtocol::Tcp, CandidateProtocol::Tls] {
        let mut world = World::with(with_tcp);
        let bob = world.join_active("room", "bob");
        let alice = world.join_active("room", "alice");
        let before = world.said(alice).len();
        switch(&mut world, alice, protocol);
        // As recorded: nothing at once.
        assert_eq!(world.said(alice).len(), before);
        assert!(!is_fallback(&world, alice));

        let again = world.join("room", "alice", Options::default());
        assert_eq!(offered(&world, again), [tcp()]);
        assert!(is_fallback(&world, again));
        let other = world.join("room", "carol", Options::default());
        assert_eq!(offered(&world, other), [udp(false), tcp()]);

        switch(&mut world, again, CandidateProtocol::Udp);
        let again = world.join("room", "alice", Options::default());
        assert_eq!(offered(&world, again), [udp(false), tcp()]);
        switch(&mut world, again, protocol);
        for _ in 0..PREFERENCE_TTL.as_secs() / 10 {
            world.request(bob, Request::Ping(1));
            world.pass(Duration::from_secs(10));
        }
        let again = world.join("room", "alice", Options::default());
        assert_eq!(offered(&world, again), [udp(false), tcp()]);
    }
}

#[test]
fn candidates_of_udp_are_not_passed_on_from_who_uses_tcp_alone() {
    let mut world = World::with(|config| {
        with_tcp(config);
        config.tcp.only = true;
    });
    let alice = world.join("room", "alice", Options::default());
    assert_eq!(offered(&world, alice), [tcp()]);
    assert!(!is_fallback(&world, alice));
    world.commands.clear();
    for line in [
        "candidate:1 1 udp 1 10.0.0.9 5 typ host",
        "candidate:2 1 TCP 1 10.0.0.9 9 typ host tcptype active",
    ] {
        let init = serde_json::json!({ "candidate": line, "sdpMid": "0" }).to_string();
        let trickle = proto::TrickleRequest { candidate_init: init, ..Default::default() };
        world.request(alice, Request::Trickle(trickle));
    }
    let passed: Vec<_> = world
        .commands
        .iter()
        .filter_map(|command| match command {
            MediaCommand::AddRemoteCandidate { candidate, .. } => Some(candidate.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(passed, ["candidate:2 1 TCP 1 10.0.0.9 9 typ host tcptype active"]);
}

fn lose(world: &mut World, peer: PeerId) {
    let reason = PeerFailure::ConnectionTimeout;
    world.media(MediaEvent::PeerFailed { peer, reason });
}

#[test]
fn a_path_that_is_lost_soon_is_tried_over_tcp_next() {
    for (fallback, threshold, rtt, expected) in [
        (true, 0, 40, vec![tcp()]),
        (true, 100, 40, vec![tcp()]),
        (true, 100, 100, vec![udp(false), tcp()]),
        (false, 0, 40, vec![udp(false), tcp()]),
    ] {
        let mut world = World::with(|config| {
            with_tcp(config);
            config.tcp.fallback = fallback;
            config.tcp.fallback_rtt_threshold_ms = threshold;
        });
        let alice = world.join_active("room", "alice");
        world.request(alice, Request::PingReq(proto::Ping { timestamp: 1, rtt }));
        let peer = world.peer_of("alice");
        lose(&mut world, peer);
        let again = world.join("room", "alice", Options::default());
        assert_eq!(offered(&world, again), expected, "{fallback} {threshold} {rtt}");
    }
}

#[test]
fn a_long_connection_that_ends_or_a_silent_client_says_nothing_against_udp() {
    for pings in [true, false] {
        let mut world = World::with(with_tcp);
        let alice = world.join_active("room", "alice");
        for _ in 0..10 {
            world.pass(Duration::from_secs(10));
            if pings {
                world.request(alice, Request::PingReq(proto::Ping { timestamp: 1, rtt: 1 }));
            }
        }
        let peer = world.peer_of("alice");
        lose(&mut world, peer);
        let again = world.join("room", "alice", Options::default());
        assert_eq!(offered(&world, again), [udp(false), tcp()]);
    }
}
