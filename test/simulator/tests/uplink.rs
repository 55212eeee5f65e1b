//! A publisher whose way to the server loses packets: what is missing is asked for again, and what
//! cannot be repaired is asked for anew, without storms of either.
#![allow(clippy::unwrap_used)]

use parlor_client::Model;
use parlor_netem::{LinkConfig, Loss};
use parlor_simulator::{Invitation, SourceKind, World};
use parlor_transport::DtlsIdentity;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const SECONDS: u64 = 20;

fn link(loss: Loss) -> LinkConfig {
    LinkConfig { delay: Duration::from_millis(20), loss, ..LinkConfig::default() }
}

#[test]
fn a_lossy_uplink_is_repaired_without_storms() {
    let identity = DtlsIdentity::generate().unwrap();
    for (loss, least) in [(0.05, 0.99), (0.15, 0.97)] {
        for seed in 1..=3 {
            let mut world = World::new(seed, &identity);
            let open = || link(Loss::None);
            let invite = |world: &mut World, name| {
                let invitation = Invitation::new(name, Model::Single);
                world.invite(Invitation { up: open(), down: open(), ..invitation })
            };
            let (alice, bob) = (invite(&mut world, "alice"), invite(&mut world, "bob"));
            assert!(world.run_until(10 * SECOND, |world| {
                world.guest(alice).is_connected() && world.guest(bob).is_connected()
            }));
            let now = world.now();
            let bitrates_bps = vec![160_000, 450_000, 1_700_000];
            world.guest(alice).publish(now, "microphone", SourceKind::Audio);
            world.guest(alice).publish(now, "camera", SourceKind::Video { bitrates_bps });
            world.run(5 * SECOND);
            world.set_links(alice, link(Loss::Independent(loss)), open());
            let frames = |world: &mut World| {
                let found =
                    world.guest(bob).frames.iter().filter(|(sid, _)| sid.starts_with("TR_VC"));
                found.map(|(_, frames)| frames.decoded).sum::<u64>()
            };
            let (before, decoded) = (*world.shard().counters(), frames(&mut world));
            world.run(SECOND * SECONDS as u32);
            let after = *world.shard().counters();
            let share = (frames(&mut world) - decoded) as f64 / (30 * SECONDS) as f64;
            let nacks = after.nacks_sent - before.nacks_sent;
            let plis = after.plis_sent - before.plis_sent;
            let repaired = after.repaired - before.repaired;
            println!(
                "{:.0} % lost, seed {seed}: {nacks} NACKs, {plis} PLIs, {repaired} repaired, {:.1} % of \
                 the frames decoded",
                100.0 * loss,
                100.0 * share
            );
            let came = (after.rtp_received - before.rtp_received) as f64;
            let lost = came * loss / (1.0 - loss);
            // What is asked for may be lost again, or its request may be late once.
            assert!((nacks as f64) < 1.5 * lost / (1.0 - loss), "{nacks} for {lost}");
            // Audio is not asked for again.
            assert!(repaired as f64 > 0.7 * lost, "{repaired} of {lost}");
            assert!(plis <= SECONDS / 4, "{plis}");
            assert!(share >= least, "{share}");
            assert_eq!(world.violations(), Vec::<String>::new());
        }
    }
}
