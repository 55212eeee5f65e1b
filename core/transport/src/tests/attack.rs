use std::time::Duration;

use parlor_model::{DataChannel, DtlsRole};
use proptest::prelude::*;

use super::pair::*;
use crate::stun::DatagramKind;
use crate::*;

fn record(kind: u8, epoch: u16, sequence: u64, content: &[u8]) -> Vec<u8> {
    let mut record = vec![kind, 0xfe, 0xfd];
    record.extend(epoch.to_be_bytes());
    record.extend(&sequence.to_be_bytes()[2..]);
    record.extend((content.len() as u16).to_be_bytes());
    record.extend(content);
    record
}

/// What someone on the path can say without any key.
fn forgeries() -> Vec<Vec<u8>> {
    let alerts = [[2, 0], [1, 0], [2, 40], [2, 80], [1, 90]];
    let mut forged: Vec<_> = alerts.iter().map(|alert| record(21, 0, 99, alert)).collect();
    let handshake = |kind: u8, sequence: u8, len: usize| {
        let mut message = vec![kind, 0, 0, len as u8, 0, sequence, 0, 0, 0, 0, 0, len as u8];
        message.extend(vec![0xab; len]);
        message
    };
    for kind in 0..=25 {
        for sequence in 0..8 {
            forged.push(record(22, 0, 100 + u64::from(kind), &handshake(kind, sequence, 60)));
            forged.push(record(22, 1, 100 + u64::from(kind), &handshake(kind, sequence, 60)));
        }
    }
    for epoch in [0, 1, 2, 0xffff] {
        for content in [&b""[..], b"x", &[0; 200]] {
            for kind in [20, 21, 22, 23, 24, 25] {
                forged.push(record(kind, epoch, 200, content));
                forged.push(record(kind, epoch, (1 << 48) - 1, content));
            }
        }
    }
    let mut two = record(23, 0, 1, b"hello");
    two.extend(record(21, 0, 2, &[2, 0]));
    forged.push(two);
    forged.push(record(22, 0, 3, &[])[..9].to_vec());
    forged
}

#[test]
fn cleartext_records_from_the_peers_address_change_nothing() {
    for client_role in [DtlsRole::Client, DtlsRole::Server] {
        let client = Options { controlling: true, open: livekit_channels(), ..Default::default() };
        let server = Options { lite: true, ..Default::default() };
        let mut pair = Pair::new(client, server, client_role);
        pair.connect();
        for forged in forgeries() {
            let now = pair.now;
            pair.server.transport.handle_datagram(now, at_server(address(CLIENT)), &forged);
            pair.client.transport.handle_datagram(now, at_client(), &forged);
            pair.run_for(Duration::from_millis(1));
            assert_eq!((pair.server.failed, pair.client.failed), (None, None), "{forged:?}");
        }
        assert!(!pair.server.closed && !pair.client.closed);
        for channel in [DataChannel::Reliable, DataChannel::Lossy] {
            pair.exchange(channel);
        }
        pair.run_for(Duration::from_secs(30));
        pair.exchange(DataChannel::Reliable);
    }
}

#[test]
fn cleartext_alerts_do_not_end_a_handshake() {
    for delay_ms in (0..100).step_by(5) {
        let mut pair = Pair::usual();
        pair.run_for(Duration::from_millis(delay_ms));
        for forged in forgeries().iter().take(5) {
            let now = pair.now;
            pair.server.transport.handle_datagram(now, at_server(address(CLIENT)), forged);
            pair.client.transport.handle_datagram(now, at_client(), forged);
        }
        pair.connect();
    }
}

#[test]
fn junk_does_no_harm() {
    let mut pair = Pair::usual();
    for round in 0..2 {
        let mut junk = Vec::new();
        for n in 0..1000_u64 {
            junk.clear();
            let len = pair.draw(300) as usize;
            junk.extend((0..len).map(|_| pair.draw(256) as u8));
            if let Some(first) = junk.first_mut() {
                *first = (n % 64) as u8;
            }
            let from = if n % 2 == 0 { CLIENT } else { "10.6.6.6:6" };
            let now = pair.now;
            pair.server.transport.handle_datagram(now, at_server(address(from)), &junk);
            pair.client.transport.handle_datagram(now, at_client(), &junk);
        }
        assert_eq!(pair.server.failed, None, "round {round}");
        pair.connect();
    }
    pair.exchange(DataChannel::Reliable);
}

#[test]
fn sctp_junk_does_no_harm() {
    use crate::sctp::Sctp;
    use parlor_model::SctpParameters;
    let parameters = SctpParameters { port: 5000, max_message_size_bytes: 65_535 };
    let mut pair = Pair::usual();
    for role in [DtlsRole::Client, DtlsRole::Server] {
        let mut sctp = Sctp::new(pair.now, role, parameters, livekit_channels());
        for n in 0..5000_u64 {
            let len = 12 + pair.draw(100) as usize;
            let mut junk: Vec<u8> = (0..len).map(|_| pair.draw(256) as u8).collect();
            junk[..4].copy_from_slice(&[0x13, 0x88, 0x13, 0x88]);
            if n % 2 == 0 && len >= 32 {
                junk[4..8].fill(0); // no verification tag: an INIT
                junk[12] = 1;
                junk[14..16].copy_from_slice(&((len - 12) as u16).to_be_bytes());
            }
            junk[8..12].fill(0);
            let checksum = crc32c(&junk);
            junk[8..12].copy_from_slice(&checksum.to_le_bytes());
            sctp.handle_datagram(pair.now, junk);
            while sctp.poll_transmit().is_some() {}
            while sctp.poll_output().is_some() {}
            sctp.handle_timeout(pair.now + Duration::from_millis(n));
        }
    }
}

fn crc32c(data: &[u8]) -> u32 {
    !data.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
        })
    })
}

#[test]
fn the_number_of_addresses_is_bounded() {
    let mut pair = Pair::usual();
    pair.connect();
    // Honest checks of the client, seen from ever new addresses.
    let mut checks = Vec::new();
    let mut datagram = [0; MAX_DATAGRAM_BYTES];
    while checks.is_empty() {
        let due = pair.client.transport.poll_timeout().unwrap();
        pair.now = pair.now.max(due);
        pair.client.transport.handle_timeout(pair.now);
        while let Some(sent) = pair.client.transport.poll_transmit(&mut datagram) {
            if DatagramKind::of(&datagram[..sent.len]) == DatagramKind::Stun {
                checks.push(datagram[..sent.len].to_vec());
            }
        }
    }
    for port in 1..=2 * MAX_REMOTE_ADDRESSES as u16 {
        let from = std::net::SocketAddr::from(([10, 7, 7, 7], port));
        pair.server.transport.handle_datagram(pair.now, at_server(from), &checks[0]);
        while pair.server.transport.poll_transmit(&mut datagram).is_some() {}
    }
    let refused = pair.server.transport.counters().stun_refused;
    assert_eq!(refused, MAX_REMOTE_ADDRESSES as u64 + 1);
}

#[test]
fn the_ufrag_of_a_check_is_read() {
    let mut pair = Pair::usual();
    let mut datagram = [0; MAX_DATAGRAM_BYTES];
    pair.now += Duration::from_millis(100);
    pair.client.transport.handle_timeout(pair.now);
    let sent = pair.client.transport.poll_transmit(&mut datagram).unwrap();
    let check = &datagram[..sent.len];
    assert_eq!(stun_username_ufrag(check), Some("ufserver"));
    for len in 0..check.len() {
        let _ = stun_username_ufrag(&check[..len]);
    }
    assert_eq!(stun_username_ufrag(b"not a check, but long enough"), None);
}

proptest! {
    #[test]
    fn parsers_stand_junk(junk in proptest::collection::vec(any::<u8>(), 0..300), open: bool) {
        let _ = stun_username_ufrag(&junk);
        let mut stun = junk.clone();
        if let Some(head) = stun.get_mut(..8) {
            head.copy_from_slice(&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42]);
        }
        let _ = stun_username_ufrag(&stun);
        let mut dcep = junk.clone();
        if let (true, Some(first)) = (open, dcep.first_mut()) {
            *first = 3;
        }
        let _ = parse_dcep(&dcep);
    }

    #[test]
    fn an_open_reads_as_written(ordered: bool, retransmits: u16, label in "[a-z_]{0,40}") {
        for reliability in [
            Reliability::Reliable,
            Reliability::MaxRetransmits(retransmits.into()),
            Reliability::MaxLifetimeMs(retransmits.into()),
        ] {
            let written = crate::dcep::write_open(ordered, reliability, &label);
            let expected = DcepMessage::Open { ordered, reliability, label: label.clone() };
            prop_assert_eq!(parse_dcep(&written), Some(expected));
        }
    }
}
