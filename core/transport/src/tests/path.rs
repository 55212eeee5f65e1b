use std::time::Duration;

use parlor_model::{DataChannel, DtlsRole, Path, TransportAddress};

use super::pair::*;
use crate::*;

fn full_pair() -> Pair {
    let client = Options { controlling: true, open: livekit_channels(), ..Default::default() };
    Pair::new(client, Options::default(), DtlsRole::Client)
}

#[test]
fn the_path_follows_a_peer_whose_nat_rebinds() {
    for mut pair in [Pair::usual(), full_pair()] {
        pair.connect();
        pair.run_for(Duration::from_secs(10));
        let moved = address("10.0.0.2:6000");
        pair.client_seen_at = moved;
        assert!(!pair.server.transport.is_validated(at_server(moved)));
        let followed =
            pair.run_until(Duration::from_secs(5), |p| p.server.paths.last() == Some(&moved));
        assert!(followed, "{:?}", pair.server.paths);
        assert_eq!(pair.server.transport.selected_path(), Some(at_server(moved)));
        assert!(pair.server.transport.is_validated(at_server(moved)));
        pair.exchange(DataChannel::Reliable);
        pair.run_for(Duration::from_secs(40));
        assert_eq!(pair.server.states, [IceState::Checking, IceState::Connected]);
        assert_eq!(pair.server.paths.len(), 2, "{:?}", pair.server.paths);
        pair.exchange(DataChannel::Reliable);
    }
}

#[test]
fn only_a_check_moves_the_path() {
    let mut pair = Pair::usual();
    pair.connect();
    let elsewhere = address("10.0.0.66:666");
    pair.client.transport.send_data(pair.now, DataChannel::Reliable, b"seen elsewhere").unwrap();
    let mut datagram = [0; MAX_DATAGRAM_BYTES];
    let sent = pair.client.transport.poll_transmit(&mut datagram).unwrap();
    let server = &mut pair.server.transport;
    server.handle_datagram(pair.now, at_server(elsewhere), &datagram[..sent.len]);
    server.handle_datagram(pair.now, at_server(elsewhere), &[0x80; 40]);
    assert_eq!(server.counters().dtls_refused, 1);
    assert_eq!(server.counters().unknown, 1);
    assert!(!server.is_validated(at_server(elsewhere)));
    pair.run_for(Duration::from_secs(5));
    assert_eq!(pair.server.transport.selected_path(), Some(at_server(address(CLIENT))));
    // SCTP sent the message again over the path.
    assert_eq!(pair.server.received.last().unwrap().2, b"seen elsewhere");
}

#[test]
fn consent_is_lost_in_livekits_times() {
    for mut pair in [Pair::usual(), full_pair()] {
        pair.connect();
        pair.run_for(Duration::from_secs(20));
        pair.cut = true;
        pair.flying.clear();
        let begin = pair.now;
        assert!(pair.run_until(Duration::from_secs(30), |p| {
            p.server.states.last() == Some(&IceState::Disconnected)
        }));
        let disconnected = pair.now - begin;
        assert!((5..=11).contains(&disconnected.as_secs()), "{disconnected:?}");
        let disconnected_at = pair.now;
        assert!(pair.run_until(Duration::from_secs(30), |p| {
            p.server.states.last() == Some(&IceState::Failed)
        }));
        assert_eq!((pair.now - disconnected_at).as_secs(), 5);
        pair.run_for(Duration::from_secs(10));
        assert_eq!(pair.client.states.last(), Some(&IceState::Failed));
    }
}

#[test]
fn a_short_silence_heals() {
    let mut pair = Pair::usual();
    pair.connect();
    pair.cut = true;
    pair.run_for(Duration::from_secs(12));
    assert_eq!(pair.server.states.last(), Some(&IceState::Disconnected));
    pair.cut = false;
    assert!(pair.run_until(Duration::from_secs(5), |p| {
        p.server.states.last() == Some(&IceState::Connected)
    }));
    pair.exchange(DataChannel::Reliable);
}

pub fn restart(pair: &mut Pair, remote_first: bool) {
    let server = remote("server2", &pair.server.fingerprint, DtlsRole::Client);
    let client = remote("client2", &pair.client.fingerprint, DtlsRole::Server);
    let (now, end) = (pair.now, &mut pair.server.transport);
    if remote_first {
        end.set_remote(now, client).unwrap();
        end.restart_ice(now, credentials("server2"));
    } else {
        end.restart_ice(now, credentials("server2"));
        end.set_remote(now, client).unwrap();
    }
    pair.client.transport.restart_ice(now, credentials("client2"));
    pair.client.transport.set_remote(now, server).unwrap();
    let candidate = "candidate:1 1 udp 2130706431 10.0.0.1 7882 typ host ufrag ufserver2";
    pair.client.transport.add_remote_candidate(now, candidate);
}

#[test]
fn an_ice_restart_keeps_the_session() {
    for remote_first in [false, true] {
        for mut pair in [Pair::usual(), full_pair()] {
            pair.connect();
            restart(&mut pair, remote_first);
            // The old path still carries data.
            assert!(pair.server.transport.selected_path().is_some());
            assert!(pair.server.transport.is_validated(at_server(address(CLIENT))));
            pair.exchange(DataChannel::Reliable);
            pair.run_for(Duration::from_secs(30));
            assert_eq!(pair.server.states.last(), Some(&IceState::Connected));
            assert_eq!(pair.client.states.last(), Some(&IceState::Connected));
            pair.exchange(DataChannel::Lossy);
        }
    }
}

#[test]
fn an_ice_restart_brings_a_failed_peer_back_from_another_address() {
    for mut pair in [Pair::usual(), full_pair()] {
        pair.connect();
        pair.cut = true;
        pair.run_for(Duration::from_secs(20));
        assert_eq!(pair.server.states.last(), Some(&IceState::Failed));
        pair.cut = false;
        pair.client_seen_at = address("10.9.9.9:999");
        restart(&mut pair, false);
        assert_eq!(pair.server.transport.ice_state(), IceState::Checking);
        let back = pair.run_until(Duration::from_secs(5), |p| {
            p.server.states.last() == Some(&IceState::Connected)
                && p.client.states.last() == Some(&IceState::Connected)
        });
        assert!(back, "{:?} {:?}", pair.server.states, pair.client.states);
        pair.exchange(DataChannel::Reliable);
    }
}

#[test]
fn useless_candidates_are_counted_and_their_number_is_bounded() {
    let mut pair = Pair::usual();
    let client = &mut pair.client.transport;
    let useless = [
        "",
        "candidate:",
        "candidate:1 1 udp 1 4c0ffee-1234.local 5000 typ host",
        "candidate:1 1 tcp 1 10.0.0.1 9 typ host tcptype active",
        "candidate:1 1 tcp 1 10.0.0.1 7881 typ host",
        "candidate:1 1 udp 1 0.0.0.0 7881 typ host",
        "candidate:1 1 udp 1 10.0.0.1 0 typ host",
        "candidate:1 1 udp 99999999999 10.0.0.1 1 typ host",
        "candidate:\u{0}\u{ffff} \n\n",
    ];
    for candidate in useless {
        client.add_remote_candidate(pair.now, candidate);
    }
    assert_eq!(client.counters().candidates_refused, useless.len() as u64);
    for n in 0..MAX_REMOTE_CANDIDATES as u64 + 10 {
        let candidate = format!("candidate:1 1 udp {n} 10.1.0.1 {} typ host", n + 1);
        client.add_remote_candidate(pair.now, &candidate);
    }
    // One candidate came with the introduction.
    assert_eq!(client.counters().candidates_refused, useless.len() as u64 + 11);
    pair.connect();
}

#[test]
fn checks_before_the_description_are_answered_after_it() {
    let client = Options { controlling: true, open: livekit_channels(), ..Default::default() };
    let mut pair = Pair::strangers(client, Options { lite: true, ..Default::default() });
    let server = remote("server", &pair.server.fingerprint, DtlsRole::Client);
    pair.client.transport.set_remote(pair.now, server).unwrap();
    let candidate = "candidate:1 1 udp 2130706431 10.0.0.1 7882 typ host";
    pair.client.transport.add_remote_candidate(pair.now, candidate);
    pair.run_for(Duration::from_secs(2));
    assert_eq!(pair.server.transport.ice_state(), IceState::New);
    let client = remote("client", &pair.client.fingerprint, DtlsRole::Server);
    pair.server.transport.set_remote(pair.now, client).unwrap();
    pair.connect();
}

#[test]
fn a_peer_that_never_checks_fails_in_time() {
    let mut pair = Pair::usual();
    pair.cut = true;
    assert!(pair.run_until(Duration::from_secs(40), |p| {
        p.server.states.last() == Some(&IceState::Failed)
            && p.client.states.last() == Some(&IceState::Failed)
    }));
    assert_eq!((pair.now - pair.start).as_secs(), CHECKING_FAILURE.as_secs());
}

#[test]
fn a_restart_that_nobody_answers_fails_in_time() {
    let mut pair = Pair::usual();
    pair.connect();
    pair.cut = true;
    pair.run_for(Duration::from_secs(12));
    pair.server.transport.restart_ice(pair.now, credentials("server2"));
    assert_eq!(pair.server.transport.ice_state(), IceState::Checking);
    pair.run_for(CONSENT_DISCONNECT + CONSENT_FAILURE + Duration::from_secs(1));
    assert_eq!(pair.server.transport.ice_state(), IceState::Failed);
}

/// A server that answers each check with another mapped address.
#[test]
fn where_the_peer_sees_us_is_bounded() {
    use crate::ice::Ice;
    use is::stun::StunMessage;
    use is::{DefaultSha1HmacProvider, Sha1HmacProvider};

    let mut now = std::time::Instant::now();
    let (client, server) = (address(CLIENT), address(SERVER));
    let mut ice =
        Ice::new(credentials("client"), false, true, 7, vec![TransportAddress::udp(client)]);
    ice.set_remote(now, &credentials("server"));
    assert!(ice.add_remote_candidate(now, "candidate:1 1 udp 1 10.0.0.1 7882 typ host"));
    let hmac = |key: &[u8], parts: &[&[u8]]| DefaultSha1HmacProvider.sha1_hmac(key, parts);
    let mut answers = vec![];
    let mut port = 0;
    let begin = now;
    while answers.len() < MAX_REMOTE_ADDRESSES + 3 && now < begin + Duration::from_secs(3600) {
        while let Some((_, check)) = ice.poll_transmit(now) {
            port += 1;
            let mapped = std::net::SocketAddr::from(([10, 8, 8, 8], port));
            let check = StunMessage::parse(&check).unwrap();
            let reply = StunMessage::binding_reply(check.trans_id(), mapped);
            let mut out = [0; 200];
            let pwd = credentials("server").pwd;
            let len = reply.to_bytes(Some(pwd.as_bytes()), &mut out, hmac).unwrap();
            let path = Path::udp(client, server);
            answers.push(ice.handle_datagram(now, path, &out[..len]));
        }
        now += Duration::from_millis(50);
        ice.handle_timeout(now);
    }
    assert!(answers.len() > MAX_REMOTE_ADDRESSES);
    let accepted = answers.iter().take_while(|accepted| **accepted).count();
    assert_eq!(accepted, MAX_REMOTE_ADDRESSES);
    assert!(!answers[accepted..].contains(&true));
}

/// A client begins with DTLS as soon as its own check is answered, which is before ours is.
#[test]
fn a_handshake_that_comes_before_the_answer_to_our_check_is_not_lost() {
    let mut pair = full_pair();
    let connected = pair.run_until(Duration::from_secs(5), |p| p.has_keys());
    assert!(connected);
    assert_eq!(pair.server.transport.counters().dtls_refused, 0);
    let took = pair.now - pair.start;
    assert!(took < Duration::from_millis(200), "{took:?}");
}
