//! Sessions that go on with new sockets.
#![allow(clippy::unwrap_used)]

use livekit_protocol as proto;
use parlor_client::Model;
use parlor_model::DataChannel;
use parlor_simulator::{Invitation, SourceKind, World};
use parlor_transport::DtlsIdentity;
use std::time::Duration;

const RESUMES: u32 = 100;
const LIMIT: Duration = Duration::from_secs(10);

fn say(world: &mut World, guest: usize, number: u32) {
    let user = proto::UserPacket { payload: number.to_be_bytes().to_vec(), ..Default::default() };
    let value = Some(proto::data_packet::Value::User(user));
    let packet = proto::DataPacket { value, ..Default::default() };
    let now = world.now();
    assert!(world.guest(guest).client().send_data(now, DataChannel::Reliable, packet));
}

#[test]
fn a_hundred_resumes_lose_no_reliable_message() {
    let identity = DtlsIdentity::generate().unwrap();
    for model in [Model::Single, Model::Pair] {
        let mut world = World::new(7, &identity);
        let guests = ["alice", "bob"].map(|name| world.invite(Invitation::new(name, model)));
        let ready =
            |world: &mut World| guests.iter().all(|guest| world.guest(*guest).is_connected());
        assert!(world.run_until(LIMIT, ready));
        world.run(Duration::from_secs(1));
        let now = world.now();
        world.guest(guests[0]).publish(now, "mic", SourceKind::Audio);
        world.run(Duration::from_secs(1));
        for round in 0..RESUMES {
            for guest in guests {
                say(&mut world, guest, round);
            }
            world.resume(guests[1]);
            for guest in guests {
                say(&mut world, guest, round + 1_000);
            }
            world.run(Duration::from_millis(300));
        }
        let heard_before = world.guest(guests[1]).complete_frames();
        world.run(Duration::from_secs(3));
        let expected: Vec<u32> = (0..RESUMES).flat_map(|round| [round, round + 1_000]).collect();
        for guest in guests {
            let got = world.guest(guest).data.iter().map(|(_, packet)| match &packet.value {
                Some(proto::data_packet::Value::User(user)) => {
                    u32::from_be_bytes(user.payload[..].try_into().unwrap())
                }
                other => panic!("{other:?}"),
            });
            assert_eq!(got.collect::<Vec<_>>(), expected, "{model:?} {guest}");
        }
        assert!(world.guest(guests[1]).complete_frames() > heard_before, "{model:?}: media flows");
        assert_eq!(world.node().counts().participants, 2);
    }
}
