use std::time::Duration;

use parlor_model::{DataChannel, DtlsRole, Fingerprint, SrtpProfile};

use super::pair::*;
use crate::*;

const CHANNELS: [DataChannel; 3] =
    [DataChannel::Lossy, DataChannel::Reliable, DataChannel::DataTrack];

fn full_and_full(client_role: DtlsRole) -> Pair {
    let client = Options { controlling: true, open: livekit_channels(), ..Default::default() };
    Pair::new(client, Options::default(), client_role)
}

fn check_session(pair: &mut Pair) {
    pair.connect();
    let client = pair.client.keys.clone().unwrap();
    let server = pair.server.keys.clone().unwrap();
    assert_eq!(client.profile, SrtpProfile::AeadAes256Gcm);
    assert_eq!(client.profile, server.profile);
    assert_eq!(client.send, server.receive);
    assert_eq!(client.receive, server.send);
    assert_ne!(client.send, client.receive);
    assert_eq!(pair.client.states, [IceState::Checking, IceState::Connected]);
    assert_eq!(pair.server.paths, [address(CLIENT)]);
    for channel in CHANNELS {
        pair.exchange(channel);
    }
}

#[test]
fn a_client_and_a_lite_server_connect() {
    let mut pair = Pair::usual();
    check_session(&mut pair);
    assert!(pair.now - pair.start < Duration::from_millis(400), "{:?}", pair.now - pair.start);
}

#[test]
fn a_client_that_is_dtls_server_and_a_lite_server_connect() {
    let client = Options { controlling: true, open: livekit_channels(), ..Default::default() };
    let server = Options { lite: true, ..Default::default() };
    check_session(&mut Pair::new(client, server, DtlsRole::Server));
}

#[test]
fn two_full_agents_connect_in_both_dtls_roles() {
    check_session(&mut full_and_full(DtlsRole::Client));
    check_session(&mut full_and_full(DtlsRole::Server));
}

#[test]
fn a_server_opens_channels_too() {
    let client = Options { controlling: true, ..Default::default() };
    for client_role in [DtlsRole::Client, DtlsRole::Server] {
        let server = Options { lite: true, open: livekit_channels(), ..Default::default() };
        check_session(&mut Pair::new(client.clone(), server, client_role));
    }
}

#[test]
fn channels_opened_by_both_sides_meet() {
    let client = Options { controlling: true, open: livekit_channels(), ..Default::default() };
    let other = ChannelConfig {
        channel: Channel::from_label("mine"),
        ordered: true,
        max_retransmits: None,
    };
    let server = Options { lite: true, open: vec![other], ..Default::default() };
    let mut pair = Pair::new(client, server, DtlsRole::Client);
    assert!(pair.run_until(Duration::from_secs(5), |p| p.has_channels(4)));
    assert!(pair.client.open.contains(&Channel::Other("mine".into())));
    pair.exchange(DataChannel::Reliable);
}

#[test]
fn two_full_agents_find_each_other_by_candidates_both_ways() {
    let options = Options { open: livekit_channels(), ..Default::default() };
    let mut pair = Pair::new(Options::default(), options, DtlsRole::Client);
    // Both claim to be controlled, as after a role conflict; a tie breaker settles nothing here,
    // so make the server controlling as an offerer would.
    pair.server = End::new(
        pair.now,
        "server",
        SERVER,
        Options { controlling: true, open: livekit_channels(), ..Default::default() },
    );
    pair.introduce_again(DtlsRole::Client);
    let candidate = "a=candidate:1 1 UDP 2130706431 10.0.0.2 5000 typ host generation 0";
    pair.server.transport.add_remote_candidate(pair.now, candidate);
    pair.connect();
}

impl Pair {
    fn introduce_again(&mut self, client_role: DtlsRole) {
        self.client = End::new(self.now, "client", CLIENT, Options::default());
        self.introduce(client_role);
    }
}

#[test]
fn loss_does_not_stop_the_handshake() {
    for seed in 1..=30 {
        let mut pair = Pair::usual();
        pair.random = seed * 7919;
        pair.loss_percent = 20;
        let connected =
            pair.run_until(Duration::from_secs(30), |p| p.has_keys() && p.has_channels(3));
        assert!(connected, "seed {seed} {:?} {:?}", pair.client.failed, pair.server.failed);
    }
}

#[test]
fn a_wrong_fingerprint_yields_no_key() {
    let wrong = Fingerprint { algorithm: "sha-256".into(), digest: vec![7; 32] };
    let unknown = Fingerprint { algorithm: "md5".into(), digest: vec![7; 16] };
    for fingerprints in [vec![wrong.clone()], vec![unknown], vec![]] {
        for server_is_deceived in [true, false] {
            let client = Options { controlling: true, ..Default::default() };
            let mut pair = Pair::strangers(client, Options { lite: true, ..Default::default() });
            let mut of_client = remote("client", &pair.client.fingerprint, DtlsRole::Server);
            let mut of_server = remote("server", &pair.server.fingerprint, DtlsRole::Client);
            let deceived = if server_is_deceived { &mut of_client } else { &mut of_server };
            deceived.fingerprints = fingerprints.clone();
            pair.server.transport.set_remote(pair.now, of_client).unwrap();
            pair.client.transport.set_remote(pair.now, of_server).unwrap();
            let candidate = "candidate:1 1 udp 1 10.0.0.1 7882 typ host";
            pair.client.transport.add_remote_candidate(pair.now, candidate);
            pair.run_for(Duration::from_secs(5));
            let end = if server_is_deceived { &pair.server } else { &pair.client };
            assert_eq!(end.failed, Some(FailureReason::FingerprintMismatch));
            assert_eq!(end.keys, None);
            assert!(end.open.is_empty());
            assert_eq!(end.transport.poll_timeout(), None);
        }
    }
}

#[test]
fn any_announced_digest_will_do() {
    let client = Options { controlling: true, open: livekit_channels(), ..Default::default() };
    let mut pair = Pair::strangers(client, Options { lite: true, ..Default::default() });
    pair.introduce(DtlsRole::Client);
    let identity = DtlsIdentity::generate().unwrap();
    let digest = |algorithm| {
        aws_lc_rs::digest::digest(algorithm, identity.certificate_der()).as_ref().to_vec()
    };
    let matches = |algorithm: &str, digest: Vec<u8>| {
        let wrong = Fingerprint { algorithm: "sha-256".into(), digest: vec![1; 32] };
        let right = Fingerprint { algorithm: algorithm.into(), digest };
        crate::identity::matches_fingerprint(identity.certificate_der(), &[wrong, right])
    };
    assert!(matches("sha-256", digest(&aws_lc_rs::digest::SHA256)));
    assert!(matches("sha-384", digest(&aws_lc_rs::digest::SHA384)));
    assert!(matches("sha-512", digest(&aws_lc_rs::digest::SHA512)));
    assert!(!matches("sha-512", digest(&aws_lc_rs::digest::SHA256)));
}

#[test]
fn a_later_description_may_not_change_the_certificate() {
    let mut pair = Pair::usual();
    pair.connect();
    let same = remote("client", &pair.client.fingerprint, DtlsRole::Server);
    pair.server.transport.set_remote(pair.now, same.clone()).unwrap();
    let other = Fingerprint { algorithm: "sha-256".into(), digest: vec![7; 32] };
    let changed = parlor_model::RemoteTransport { fingerprints: vec![other], ..same };
    assert_eq!(
        pair.server.transport.set_remote(pair.now, changed),
        Err(TransportError::FingerprintChanged)
    );
    pair.exchange(DataChannel::Reliable);
}

#[test]
fn a_close_reaches_the_peer() {
    let mut pair = Pair::usual();
    pair.connect();
    pair.client.transport.close();
    pair.run_for(Duration::from_millis(100));
    assert!(pair.server.closed);
    assert_eq!(pair.server.failed, None);
    assert_eq!(
        pair.server.transport.send_data(pair.now, DataChannel::Reliable, b"x"),
        Err(SendDataError::NotOpen)
    );
}

#[test]
fn a_megabyte_arrives_whole_and_in_order() {
    let mut pair = Pair::usual();
    pair.connect();
    let message = |n: usize| vec![n as u8; 16_000];
    let (mut queued, total) = (0, 66);
    let begin = pair.now;
    while pair.server.received.len() < total {
        while queued < total
            && pair
                .client
                .transport
                .send_data(pair.now, DataChannel::Reliable, &message(queued))
                .is_ok()
        {
            queued += 1;
        }
        pair.step(begin + Duration::from_secs(60));
        assert!(pair.now - begin < Duration::from_secs(60), "{}", pair.server.received.len());
    }
    for (n, (channel, binary, data)) in pair.server.received.iter().enumerate() {
        assert_eq!((channel, binary), (&DataChannel::Reliable.into(), &true));
        assert!(*data == message(n), "message {n}");
    }
    pair.run_for(Duration::from_secs(1));
    assert!(pair.client.low > 0);
    assert_eq!(pair.client.transport.buffered_amount_bytes(DataChannel::Reliable), 0);
}

#[test]
fn a_reliable_channel_survives_loss_and_a_lossy_one_does_not_block() {
    let mut pair = Pair::usual();
    pair.connect();
    pair.loss_percent = 10;
    for n in 0..100_u8 {
        pair.client.transport.send_data(pair.now, DataChannel::Reliable, &[n]).unwrap();
        let _ = pair.client.transport.send_data(pair.now, DataChannel::Lossy, &[n]);
        pair.run_for(Duration::from_millis(20));
    }
    pair.loss_percent = 0;
    pair.run_for(Duration::from_secs(5));
    let of = |channel: DataChannel| {
        let received = pair.server.received.iter();
        let own = received.filter(move |(c, ..)| *c == channel.into());
        own.map(|(.., data)| data[0]).collect::<Vec<_>>()
    };
    assert_eq!(of(DataChannel::Reliable), (0..100).collect::<Vec<_>>());
    let lossy = of(DataChannel::Lossy).len();
    assert!((60..100).contains(&lossy), "{lossy}");
}

#[test]
fn sizes_and_buffers_are_bounded() {
    let mut pair = Pair::usual();
    assert_eq!(
        pair.client.transport.send_data(pair.now, DataChannel::Reliable, b"x"),
        Err(SendDataError::NotOpen)
    );
    pair.connect();
    pair.run_for(Duration::from_secs(1));
    let now = pair.now;
    let client = &mut pair.client.transport;
    let largest = vec![1; MAX_MESSAGE_BYTES];
    assert_eq!(
        client.send_data(now, DataChannel::Reliable, &vec![1; MAX_MESSAGE_BYTES + 1]),
        Err(SendDataError::TooLarge)
    );
    client.send_data(now, DataChannel::Reliable, &largest).unwrap();
    client.send_data(now, DataChannel::Reliable, b"").unwrap();
    let mut accepted = largest.len() + 1;
    loop {
        match client.send_data(now, DataChannel::Reliable, &largest) {
            Ok(()) => accepted += largest.len(),
            refused => break assert_eq!(refused, Err(SendDataError::BufferFull)),
        }
    }
    assert!(accepted <= MAX_RELIABLE_BUFFERED_BYTES);
    assert!(accepted + largest.len() > MAX_RELIABLE_BUFFERED_BYTES);
    assert_eq!(client.buffered_amount_bytes(DataChannel::Reliable), accepted);
    while client.send_data(now, DataChannel::Lossy, &[0; 1000]).is_ok() {}
    assert!(client.buffered_amount_bytes(DataChannel::Lossy) <= MAX_LOSSY_BUFFERED_BYTES);
    pair.run_for(Duration::from_secs(30));
    let received = &pair.server.received;
    assert!(received.iter().any(|(.., data)| *data == largest));
    assert!(received.iter().any(|(.., data)| data.is_empty()));
    pair.exchange(DataChannel::Reliable);
}

#[test]
fn on_hold_the_window_closes_and_everything_comes_once_it_is_over() {
    const MESSAGES: usize = 60;
    let mut pair = Pair::usual();
    pair.connect();
    pair.run_for(Duration::from_secs(1));
    pair.server.transport.hold_reliable(pair.now, true);
    for number in 0..MESSAGES {
        let message = vec![number as u8; 16_000];
        pair.client.transport.send_data(pair.now, DataChannel::Reliable, &message).unwrap();
    }
    pair.run_for(Duration::from_secs(5));
    assert_eq!(pair.server.received, []);
    let left = pair.client.transport.buffered_amount_bytes(DataChannel::Reliable);
    let taken = MESSAGES * 16_000 - left;
    assert!((200 * 1024..=257 * 1024).contains(&taken), "{taken}");
    // It costs no deadlock and no wait for a retransmission of the peer's.
    pair.server.transport.hold_reliable(pair.now, false);
    pair.server.collect();
    assert!(pair.server.received.len() >= 13, "{}", pair.server.received.len());
    pair.run_for(Duration::from_millis(300));
    assert!(pair.server.received.len() > 20, "{}", pair.server.received.len());
    for _ in 0..20 {
        pair.server.transport.hold_reliable(pair.now, true);
        pair.run_for(Duration::from_millis(30));
        pair.server.transport.hold_reliable(pair.now, false);
        pair.run_for(Duration::from_millis(30));
    }
    let numbers: Vec<_> = pair.server.received.iter().map(|(.., data)| data[0]).collect();
    assert_eq!(numbers, (0..MESSAGES as u8).collect::<Vec<_>>());
    pair.exchange(DataChannel::Reliable);
    assert_eq!(pair.server.failed, None);
}

#[test]
fn the_number_of_channels_is_bounded() {
    let open = (0..MAX_CHANNELS + 4)
        .map(|n| ChannelConfig {
            channel: Channel::Other(format!("c{n}")),
            ordered: true,
            max_retransmits: None,
        })
        .collect();
    let client = Options { controlling: true, open, ..Default::default() };
    let mut pair =
        Pair::new(client, Options { lite: true, ..Default::default() }, DtlsRole::Client);
    pair.run_for(Duration::from_secs(5));
    assert_eq!(pair.server.open.len(), MAX_CHANNELS);
    assert_eq!(pair.server.failed, None);
}

#[test]
fn a_simulation_repeats_in_time() {
    let seeded = |seed| {
        let identity = DtlsIdentity::generate().unwrap();
        let (certificate, key) = (identity.certificate_der(), identity.private_key_der());
        DtlsIdentity::from_der(certificate.to_vec(), key.to_vec(), Some(seed)).ok()
    };
    let (of_client, of_server) = (seeded(1), seeded(2));
    let run = |loss_percent, random| {
        let client = Options {
            controlling: true,
            open: livekit_channels(),
            identity: of_client.clone(),
            ..Default::default()
        };
        let server = Options { lite: true, identity: of_server.clone(), ..Default::default() };
        let mut pair = Pair::new(client, server, DtlsRole::Client);
        (pair.loss_percent, pair.random) = (loss_percent, random);
        pair.connect();
        for n in 0..20 {
            pair.client.transport.send_data(pair.now, DataChannel::Reliable, &[n; 3000]).unwrap();
            let _ = pair.server.transport.send_data(pair.now, DataChannel::Lossy, &[n; 100]);
            pair.run_for(Duration::from_millis(100));
        }
        pair.run_for(Duration::from_secs(20));
        pair.trace.iter().map(|(at, from_client, _)| (*at, *from_client)).collect::<Vec<_>>()
    };
    for random in 1..10 {
        assert_eq!(run(0, random), run(0, random));
        assert_eq!(run(15, random), run(15, random));
    }
}

/// Both ends take the initiative, as pion and libwebrtc do.
#[test]
fn two_associations_that_cross_become_one() {
    use crate::sctp::{Sctp, SctpOutput};
    use parlor_model::SctpParameters;
    let parameters = SctpParameters { port: 5000, max_message_size_bytes: 65_535 };
    let mut now = std::time::Instant::now();
    for delay_ms in [0, 5, 10, 15, 20, 25, 40] {
        let mut ends =
            [Some(Sctp::new(now, DtlsRole::Client, parameters, livekit_channels())), None];
        let started = now;
        let mut flying: Vec<(std::time::Instant, usize, Vec<u8>)> = vec![];
        let mut open = [0, 0];
        while now < started + Duration::from_secs(5) {
            if ends[1].is_none() && now >= started + Duration::from_millis(delay_ms) {
                ends[1] = Some(Sctp::new(now, DtlsRole::Client, parameters, vec![]));
            }
            for from in 0..2 {
                let Some(end) = &mut ends[from] else { continue };
                end.handle_timeout(now);
                while let Some(packet) = end.poll_transmit() {
                    flying.push((now + Duration::from_millis(10), 1 - from, packet.to_vec()));
                }
                while let Some(output) = end.poll_output() {
                    match output {
                        SctpOutput::Open(_) => open[from] += 1,
                        SctpOutput::Lost => panic!("lost with a delay of {delay_ms} ms"),
                        _ => {}
                    }
                }
            }
            now += Duration::from_millis(5);
            let due = flying.extract_if(.., |(at, ..)| *at <= now).collect::<Vec<_>>();
            for (_, to, packet) in due {
                if let Some(end) = &mut ends[to] {
                    end.handle_datagram(now, packet);
                }
            }
        }
        assert_eq!(open, [3, 3], "with a delay of {delay_ms} ms");
    }
}
