use parlor_model::{SrtpProfile, Ssrc};
use proptest::prelude::*;

use crate::index::REPLAY_WINDOW_PACKETS;
use crate::key::{CmKey, GcmKey, derive_for_test};
use crate::{MAX_SOURCES, SrtpError, SrtpReceiver, SrtpSender};

const PROFILES: [SrtpProfile; 3] =
    [SrtpProfile::AeadAes128Gcm, SrtpProfile::AeadAes256Gcm, SrtpProfile::AesCm128HmacSha1_80];

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

fn pair(profile: SrtpProfile) -> (SrtpSender, SrtpReceiver) {
    let key: Vec<u8> = (0..profile.key_len() as u8).collect();
    let salt: Vec<u8> = (100..100 + profile.salt_len() as u8).collect();
    let sender = SrtpSender::new(profile, &key, &salt).unwrap();
    (sender, SrtpReceiver::new(profile, &key, &salt).unwrap())
}

fn rtp(ssrc: u32, sequence: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x80, 96];
    packet.extend(sequence.to_be_bytes());
    packet.extend([0; 4]);
    packet.extend(ssrc.to_be_bytes());
    packet.extend(payload);
    packet
}

fn seal(sender: &mut SrtpSender, packet: &[u8]) -> Vec<u8> {
    let mut slot = packet.to_vec();
    slot.resize(packet.len() + 16, 0);
    let len = sender.seal_rtp(&mut slot, packet.len()).unwrap();
    slot.truncate(len);
    slot
}

fn seal_rtcp(sender: &mut SrtpSender, packet: &[u8]) -> Vec<u8> {
    let mut slot = packet.to_vec();
    slot.resize(packet.len() + 20, 0);
    let len = sender.seal_rtcp(&mut slot, packet.len()).unwrap();
    slot.truncate(len);
    slot
}

fn receiver_report(ssrc: u32) -> Vec<u8> {
    let mut packet = hex("81c90007");
    packet.extend(ssrc.to_be_bytes());
    packet.extend([5; 24]);
    packet
}

/// RFC 3711 appendix B.2.
#[test]
fn counter_mode_keystream_of_rfc_3711() {
    let key = hex("2B7E151628AED2A6ABF7158809CF4F3C");
    let salt = hex("F0F1F2F3F4F5F6F7F8F9FAFBFCFD").try_into().unwrap();
    let cm = CmKey::new(&key, salt, &[0; 20]).unwrap();
    let mut stream = [0; 48];
    cm.apply(0, 0, &mut stream).unwrap();
    let expected = "E03EAD0935C95E80E166B16DD92B4EB4 D23513162B02D0F72A43A2FE4A5F97AB
        41E95B3BB0A2E8DD477901E4FCA894C0";
    assert_eq!(stream.to_vec(), hex(expected));
}

/// RFC 3711 appendix B.3.
#[test]
fn key_derivation_of_rfc_3711() {
    let key = hex("E1F97A0D3E018BE0D64FA32C06DE4139");
    let salt = hex("0EC675AD498AFEEBB6960B3AABE6");
    let derive = |label, len| {
        let mut out = vec![0; len];
        derive_for_test(&key, &salt, label, &mut out);
        out
    };
    assert_eq!(derive(0, 16), hex("C61E7A93744F39EE10734AFE3FF7A087"));
    assert_eq!(derive(2, 14), hex("30CBBC08863D8C85D49DB34A9AE1"));
    let authentication = "CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4 8F0A0ACF3C34E2359E6CDBCE
        E049646C43D9327AD175578EF72270986371C10C9A369AC2F94A8C5FBCDDDC25
        6D6E919A48B610EF17C2041E47403576 6B68642C59BBFC2F34DB60DBDFB2DC68";
    let expected = hex(authentication);
    assert_eq!(derive(1, 94), expected[..94]);
}

const GALLIA: &str = "47616c6c69612065 7374206f6d6e6973 2064697669736120
    696e207061727465 7320747265 73";

/// RFC 7714 section 16.1.1.
#[test]
fn gcm_128_rtp_of_rfc_7714() {
    let key = hex("000102030405060708090a0b0c0d0e0f");
    let salt = hex("517569642070726f2071756f").try_into().unwrap();
    let gcm = GcmKey::new(&key, salt);
    let header = hex("8040f17b8041f8d35501a0b2");
    let mut payload = hex(GALLIA);
    let tag = gcm.seal(0x5501_a0b2, 0xf17b, &header, &mut payload).unwrap();
    payload.extend(tag);
    let sealed = hex("f24de3a3fb34de6cacba861c9d7e4bca be633bd50d294e6f42a5f47a51c7d19b
        36de3adf8833 899d7f27beb16a9152cf765ee4390cce");
    assert_eq!(payload, sealed);
    gcm.open(0x5501_a0b2, 0xf17b, &header, &mut payload).unwrap();
    assert_eq!(payload[..38], hex(GALLIA));
}

/// RFC 7714 section 16.2.1.
#[test]
fn gcm_256_rtp_of_rfc_7714() {
    let key: Vec<u8> = (0..32).collect();
    let salt = hex("517569642070726f2071756f").try_into().unwrap();
    let gcm = GcmKey::new(&key, salt);
    let header = hex("8040f17b8041f8d35501a0b2");
    let mut payload = hex(GALLIA);
    let tag = gcm.seal(0x5501_a0b2, 0xf17b, &header, &mut payload).unwrap();
    payload.extend(tag);
    let sealed = hex("32b1de78a822fe12ef9f78fa332e33aa b18012389a58e2f3b50b2a0276ffae0f
        1ba63799b87b 7aa3db36dfffd6b0f9bb7878d7a76c13");
    assert_eq!(payload, sealed);
}

/// RFC 7714 section 17.1.
#[test]
fn gcm_128_rtcp_of_rfc_7714() {
    let key: Vec<u8> = (0..16).collect();
    let salt = hex("517569642070726f2071756f").try_into().unwrap();
    let gcm = GcmKey::new(&key, salt);
    let mut associated = hex("81c8000d4d617273");
    associated.extend(hex("800005d4"));
    let mut body = hex("4e545031 4e545032 52545020 0000042a 0000e930 4c756e61
        deadbeef deadbeef deadbeef deadbeef deadbeef");
    let tag = gcm.seal(0x4d61_7273, 0x5d4, &associated, &mut body).unwrap();
    body.extend(tag);
    let sealed = hex("63e94885 dcdab67c a727d766 2f6b7e99 7ff5c0f7 6c06f32d c676a5f1
        730d6fda 4ce09b46 86303ded 0bb9275b c84aa458 96cf4d2f c5abf872 45d9eade");
    assert_eq!(body, sealed);
}

#[test]
fn rtp_survives_the_way_there() {
    for profile in PROFILES {
        let (mut sender, mut receiver) = pair(profile);
        let mut packet = rtp(7, 1, b"");
        packet[0] |= 0x12; // two CSRCs and a header extension of one word
        packet.extend([1; 8]);
        packet.extend(hex("bede0001 10aabbcc"));
        packet.extend(b"payload");
        let mut sealed = seal(&mut sender, &packet);
        assert_eq!(sealed[..28], packet[..28], "the header stays in the clear");
        assert_ne!(sealed[28..35], packet[28..]);
        let len = receiver.open_rtp(&mut sealed).unwrap();
        assert_eq!(sealed[..len], packet);
    }
}

#[test]
fn rtcp_survives_the_way_there() {
    for profile in PROFILES {
        let (mut sender, mut receiver) = pair(profile);
        for _ in 0..3 {
            let mut sealed = seal_rtcp(&mut sender, &receiver_report(9));
            assert_eq!(sealed[..8], receiver_report(9)[..8]);
            assert_ne!(sealed[8..32], receiver_report(9)[8..]);
            let len = receiver.open_rtcp(&mut sealed).unwrap();
            assert_eq!(sealed[..len], receiver_report(9));
        }
    }
}

#[test]
fn every_changed_bit_is_noticed() {
    for profile in PROFILES {
        let (mut sender, mut receiver) = pair(profile);
        let sealed = seal(&mut sender, &rtp(7, 1, b"hello"));
        let sealed_rtcp = seal_rtcp(&mut sender, &receiver_report(7));
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(receiver.open_rtp(&mut changed).is_err(), "{profile:?} bit {bit}");
        }
        for bit in 0..sealed_rtcp.len() * 8 {
            let mut changed = sealed_rtcp.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(receiver.open_rtcp(&mut changed).is_err(), "{profile:?} bit {bit}");
        }
        assert_eq!(receiver.rtp.len() + receiver.rtcp.len(), 0, "forgeries leave no state");
        receiver.open_rtp(&mut sealed.clone()).unwrap();
        receiver.open_rtcp(&mut sealed_rtcp.clone()).unwrap();
    }
}

#[test]
fn a_wrong_key_or_salt_opens_nothing() {
    for profile in PROFILES {
        let (mut sender, _) = pair(profile);
        let sealed = seal(&mut sender, &rtp(7, 1, b"hello"));
        let key = vec![3; profile.key_len()];
        let mut other = SrtpReceiver::new(profile, &key, &vec![0; profile.salt_len()]).unwrap();
        assert_eq!(other.open_rtp(&mut sealed.clone()), Err(SrtpError::Unauthentic));
        let short = &key[1..];
        assert_eq!(
            SrtpSender::new(profile, short, &vec![0; profile.salt_len()]).err(),
            Some(SrtpError::KeyLength)
        );
        assert_eq!(
            SrtpSender::new(profile, &key, &vec![0; profile.salt_len() + 1]).err(),
            Some(SrtpError::KeyLength)
        );
    }
}

#[test]
fn replays_are_refused() {
    for profile in PROFILES {
        let (mut sender, mut receiver) = pair(profile);
        let sealed: Vec<_> = (0..50).map(|n| seal(&mut sender, &rtp(7, n, b"x"))).collect();
        for n in [3, 1, 2, 49, 0] {
            receiver.open_rtp(&mut sealed[n].clone()).unwrap();
        }
        for n in [0, 1, 2, 3, 49] {
            assert_eq!(receiver.open_rtp(&mut sealed[n].clone()), Err(SrtpError::Replayed));
        }
        receiver.open_rtp(&mut sealed[20].clone()).unwrap();
        let report = seal_rtcp(&mut sender, &receiver_report(7));
        receiver.open_rtcp(&mut report.clone()).unwrap();
        assert_eq!(receiver.open_rtcp(&mut report.clone()), Err(SrtpError::Replayed));
    }
}

#[test]
fn a_late_packet_is_admitted_up_to_the_window() {
    let (mut sender, mut receiver) = pair(SrtpProfile::AeadAes128Gcm);
    let window = REPLAY_WINDOW_PACKETS as u16;
    let sealed: Vec<_> = (0..=window).map(|n| seal(&mut sender, &rtp(7, n, b"x"))).collect();
    receiver.open_rtp(&mut sealed[usize::from(window)].clone()).unwrap();
    assert_eq!(receiver.open_rtp(&mut sealed[0].clone()), Err(SrtpError::Replayed));
    receiver.open_rtp(&mut sealed[1].clone()).unwrap();
}

#[test]
fn the_roll_over_counter_survives_loss_and_reordering() {
    for profile in PROFILES {
        let (mut sender, mut receiver) = pair(profile);
        let mut held: Option<Vec<u8>> = None;
        for index in 60_000_u32..400_000 {
            let every_second = index % 2 == 0;
            let near_wrap = (index as u16).wrapping_add(30) < 60;
            if !(near_wrap || index % 997 == 0) {
                continue; // lost, yet the sender has seen it go
            }
            let sealed = seal(&mut sender, &rtp(7, index as u16, &index.to_be_bytes()));
            // Swap neighbours.
            if every_second {
                held = Some(sealed);
                continue;
            }
            for mut packet in [Some(sealed), held.take()].into_iter().flatten() {
                receiver.open_rtp(&mut packet).unwrap();
            }
        }
    }
}

#[test]
fn a_forgery_from_far_ahead_does_not_move_the_window() {
    let (mut sender, mut receiver) = pair(SrtpProfile::AeadAes128Gcm);
    let first = seal(&mut sender, &rtp(7, 100, b"x"));
    receiver.open_rtp(&mut first.clone()).unwrap();
    let mut forged = first.clone();
    forged[2..4].copy_from_slice(&30_000_u16.to_be_bytes());
    assert_eq!(receiver.open_rtp(&mut forged), Err(SrtpError::Unauthentic));
    let second = seal(&mut sender, &rtp(7, 90, b"x"));
    receiver.open_rtp(&mut second.clone()).unwrap();
}

#[test]
fn an_indexed_seal_equals_a_counted_one() {
    for profile in PROFILES {
        let (mut sender, _) = pair(profile);
        for index in [65_535_u64, 65_536, 65_537] {
            let packet = rtp(7, index as u16, b"abc");
            let counted = seal(&mut sender, &packet);
            let mut slot = packet.clone();
            slot.resize(64, 0);
            let len = sender.seal_rtp_indexed(&mut slot, 12, packet.len(), Ssrc(7), index).unwrap();
            assert_eq!(slot[..len], counted);
        }
        let too_far = sender.seal_rtp_indexed(&mut [0; 64], 12, 20, Ssrc(7), 1 << 48);
        assert_eq!(too_far, Err(SrtpError::IndexExhausted));
    }
}

#[test]
fn a_packet_in_parts_seals_as_in_one_piece() {
    for profile in PROFILES {
        let (sender, _) = pair(profile);
        let payload: Vec<u8> = (0..200).map(|byte| byte as u8).collect();
        let packet = rtp(7, 5, &payload);
        let len = packet.len();
        let mut whole = packet.clone();
        whole.resize(len + 16, 0);
        let sealed = sender.seal_rtp_indexed(&mut whole, 12, len, Ssrc(7), 5).unwrap();
        for cut in [12, 13, 28, 100, len - 1, len] {
            let mut slot = vec![0; 300];
            slot[..cut].copy_from_slice(&packet[..cut]);
            let rest = &packet[cut..];
            let len = sender.seal_rtp_parts(&mut slot, 12, cut, rest, Ssrc(7), 5).unwrap();
            assert_eq!(slot[..len], whole[..sealed], "{profile:?} cut at {cut}");
        }
        let short = sender.seal_rtp_parts(&mut [0; 30], 12, 20, &payload, Ssrc(7), 5);
        assert_eq!(short, Err(SrtpError::NoRoom));
    }
}

#[test]
fn the_number_of_sources_is_bounded() {
    let (mut sender, mut receiver) = pair(SrtpProfile::AeadAes128Gcm);
    for ssrc in 0..MAX_SOURCES as u32 {
        let mut sealed = seal(&mut sender, &rtp(ssrc, 1, b"x"));
        receiver.open_rtp(&mut sealed).unwrap();
    }
    let mut slot = rtp(u32::MAX, 1, b"x");
    slot.resize(64, 0);
    assert_eq!(sender.seal_rtp(&mut slot, 13), Err(SrtpError::TooManySources));
    let mut sealed = seal(&mut sender, &rtp(0, 2, b"x"));
    receiver.open_rtp(&mut sealed).unwrap();

    let (mut another, _) = pair(SrtpProfile::AeadAes128Gcm);
    let mut sealed = seal(&mut another, &rtp(u32::MAX, 1, b"x"));
    receiver.open_rtp(&mut sealed).unwrap();
    assert_eq!(receiver.rtp.len(), MAX_SOURCES);
    assert!(receiver.rtp.get(0).is_some(), "used lately");
    assert!(receiver.rtp.get(1).is_none(), "silent longest");
}

#[test]
fn wrong_lengths_are_refused() {
    for profile in PROFILES {
        let (mut sender, mut receiver) = pair(profile);
        let mut slot = rtp(7, 1, b"x");
        let len = slot.len();
        assert_eq!(sender.seal_rtp(&mut slot, len), Err(SrtpError::NoRoom));
        assert_eq!(sender.seal_rtp(&mut slot, len + 1), Err(SrtpError::Malformed));
        assert_eq!(sender.seal_rtp(&mut [], 0), Err(SrtpError::Malformed));
        let header_beyond = sender.seal_rtp_indexed(&mut [0x80; 64], 21, 20, Ssrc(7), 1);
        assert_eq!(header_beyond, Err(SrtpError::Malformed));
        let mut report = receiver_report(7);
        let len = report.len();
        assert_eq!(sender.seal_rtcp(&mut report, len), Err(SrtpError::NoRoom));
        assert_eq!(sender.seal_rtcp(&mut [0x80; 64], 7), Err(SrtpError::Malformed));

        let sealed = seal(&mut sender, &rtp(8, 1, b"x"));
        for len in 0..sealed.len() {
            assert!(receiver.open_rtp(&mut sealed[..len].to_vec()).is_err());
        }
        let sealed = seal_rtcp(&mut sender, &receiver_report(8));
        for len in 0..sealed.len() {
            assert!(receiver.open_rtcp(&mut sealed[..len].to_vec()).is_err());
        }
    }
}

proptest! {
    #[test]
    fn junk_is_refused(mut junk in proptest::collection::vec(any::<u8>(), 0..200), rtp: bool) {
        if rtp && let Some(first) = junk.first_mut() {
            *first = 0x80 | *first & 0x3f;
        }
        for profile in PROFILES {
            let (mut sender, mut receiver) = pair(profile);
            prop_assert!(receiver.open_rtp(&mut junk.clone()).is_err());
            prop_assert!(receiver.open_rtcp(&mut junk.clone()).is_err());
            let len = junk.len() / 2;
            let _ = sender.seal_rtp(&mut junk.clone(), len);
            let _ = sender.seal_rtcp(&mut junk.clone(), len);
        }
    }

    #[test]
    fn what_is_sealed_opens(
        payload in proptest::collection::vec(any::<u8>(), 0..1200),
        ssrc: u32,
        sequence: u16,
    ) {
        for profile in PROFILES {
            let (mut sender, mut receiver) = pair(profile);
            let packet = rtp(ssrc, sequence, &payload);
            let mut sealed = seal(&mut sender, &packet);
            let len = receiver.open_rtp(&mut sealed).unwrap();
            prop_assert_eq!(&sealed[..len], &packet[..]);
        }
    }
}
