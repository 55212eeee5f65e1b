//! What a publisher needs to ramp up: news of each packet, soon.
#![allow(clippy::unwrap_used)]

use parlor_client::Model;
use parlor_rtp::rtcp::{self, Rtcp};
use parlor_simulator::{Direction, Invitation, Kind, SourceKind, World, identity};
use std::{collections::BTreeSet, time::Duration};

const MS: Duration = Duration::from_millis(1);

/// libwebrtc raises its rate, and reads its probes of 15 ms, by transport-wide feedback alone; its
/// own receivers give it every 50 to 250 ms. The ramp itself is seen with Chromium only.
#[test]
fn every_packet_is_told_of_within_a_tenth_of_a_second() {
    for model in [Model::Single, Model::Pair] {
        for bitrates_bps in [vec![100_000], vec![160_000, 450_000, 1_700_000]] {
            let mut world = World::new(1, &identity());
            let alice = world.invite(Invitation::new("alice", model));
            // Dynacast stops what nobody watches.
            world.invite(Invitation::new("bob", Model::Single));
            let connected = |world: &mut World| world.guest(alice).is_connected();
            assert!(world.run_until(5000 * MS, connected));
            let now = world.now();
            world.guest(alice).publish(now, "microphone", SourceKind::Audio);
            world.guest(alice).publish(now, "camera", SourceKind::Video { bitrates_bps });
            world.run(5000 * MS);
            let entries = &world.trace().entries;
            let of_alice = |entry: &&parlor_simulator::Entry| entry.guest == alice;
            let is_sent = |entry: &&parlor_simulator::Entry| {
                entry.kind == Kind::Rtp && entry.direction == Direction::ToServer
            };
            let sent = entries.iter().filter(of_alice).filter(is_sent).count();
            let first_sent = entries.iter().filter(of_alice).find(is_sent).unwrap().at;
            let (mut told, mut last, mut longest) = (BTreeSet::new(), first_sent, Duration::ZERO);
            for entry in entries.iter().filter(of_alice) {
                if entry.kind != Kind::Rtcp || entry.direction != Direction::ToGuest {
                    continue;
                }
                for packet in rtcp::packets(&entry.bytes) {
                    let Rtcp::TransportFeedback(feedback) = packet else { continue };
                    longest = longest.max(entry.at - last);
                    last = entry.at;
                    let arrived = feedback.arrivals_us().filter(|(_, at)| at.is_some());
                    told.extend(arrived.map(|(number, _)| number));
                }
            }
            println!("{model:?}: {sent} sent, {} told of, {longest:?} at most between", told.len());
            assert!(longest <= 100 * MS, "{longest:?}");
            assert!(told.len() + 60 >= sent, "{} of {sent}", told.len());
        }
    }
}
