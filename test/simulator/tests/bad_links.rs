//! Bad links to a subscriber: the rows of the issue *Bad networks*, with a camera of three layers.
#![allow(clippy::unwrap_used)]

use livekit_protocol as proto;
use livekit_protocol::signal_request::Message as Request;
use parlor_client::Model;
use parlor_model::PeerId;
use parlor_netem::{LinkConfig, Loss};
use parlor_sfu::MAX_DECISIONS;
use parlor_simulator::{Invitation, Kind, SourceKind, World};
use parlor_transport::DtlsIdentity;
use std::{fmt, sync::LazyLock, time::Duration};

const MS: Duration = Duration::from_millis(1);
const STEP: Duration = Duration::from_millis(10);
/// A picture that stands longer is frozen.
const FROZEN: Duration = Duration::from_millis(200);
const FRAMES_A_SECOND: f64 = 30.0;

static IDENTITY: LazyLock<DtlsIdentity> = LazyLock::new(|| DtlsIdentity::generate().unwrap());

fn link(rate_bps: Option<u64>, loss: Loss) -> LinkConfig {
    LinkConfig { delay: 20 * MS, rate_bps, queue: 200 * MS, loss, ..LinkConfig::default() }
}

fn rate(bps: u64) -> LinkConfig {
    link(Some(bps), Loss::None)
}

/// What a subscriber got in a while.
#[derive(Clone, Copy, Default, Debug)]
struct Got {
    seconds: f64,
    frames: u64,
    video_packets: u64,
    audio: u64,
    sent: u64,
    lost: u64,
    frozen: Duration,
    longest_freeze: Duration,
    freezes: u32,
}

impl Got {
    fn lost_share(&self) -> f64 {
        self.lost as f64 / self.sent.max(1) as f64
    }

    fn frame_share(&self) -> f64 {
        self.frames as f64 / (self.seconds * FRAMES_A_SECOND)
    }

    fn audio_share(&self) -> f64 {
        self.audio as f64 / (self.seconds * 50.0)
    }

    /// The layer, by the packets of its frames: 1, 2 and 8.
    fn height(&self) -> u32 {
        match self.video_packets as f64 / self.frames.max(1) as f64 {
            _ if self.frames == 0 => 0,
            per_frame if per_frame < 1.4 => 180,
            per_frame if per_frame < 4.0 => 360,
            _ => 720,
        }
    }
}

impl fmt::Display for Got {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}p ({:.1} packets a frame), {:.1} % of frames, {:.1} % of audio, {:.2} % lost, \
             {} freezes of {:?} in all, longest {:?}",
            self.height(),
            self.video_packets as f64 / self.frames.max(1) as f64,
            100.0 * self.frame_share(),
            100.0 * self.audio_share(),
            100.0 * self.lost_share(),
            self.freezes,
            self.frozen,
            self.longest_freeze,
        )
    }
}

struct Call {
    world: World,
    bob: usize,
}

impl Call {
    /// Alice has a microphone and a camera of three layers; Bob watches over `down`.
    fn new(seed: u64, model: Model, down: LinkConfig) -> Self {
        let mut world = World::new(seed, &IDENTITY);
        let alice = world.invite(Invitation::new("alice", Model::Single));
        let open = link(None, Loss::None);
        let bob = world.invite(Invitation {
            down: open.clone(),
            up: open.clone(),
            ..Invitation::new("bob", model)
        });
        assert!(world.run_until(10_000 * MS, |world| {
            world.guest(alice).is_connected() && world.guest(bob).is_connected()
        }));
        // The signatures of a handshake have random lengths, which a rate would turn into times.
        world.set_links(bob, open, down);
        let now = world.now();
        let bitrates_bps = vec![160_000, 450_000, 1_700_000];
        world.guest(alice).publish(now, "microphone", SourceKind::Audio);
        world.guest(alice).publish(now, "camera", SourceKind::Video { bitrates_bps });
        Self { world, bob }
    }

    /// Bob asks for a quality of the camera, as livekit-client numbers them.
    fn ask_for(&mut self, quality: i32) {
        let bob = self.world.guest(self.bob);
        let track_sids = bob.frames.keys().filter(|sid| sid.starts_with("TR_VC")).cloned();
        let settings = proto::UpdateTrackSettings {
            track_sids: track_sids.collect(),
            quality,
            ..Default::default()
        };
        bob.client().request(Request::TrackSetting(settings));
    }

    fn set_down(&mut self, down: LinkConfig) {
        self.world.set_links(self.bob, link(None, Loss::None), down);
    }

    fn counts(&mut self) -> (u64, u64, u64) {
        let sids: Vec<_> = self.world.guest(self.bob).frames.keys().cloned().collect();
        let mut counts = (0, 0, 0);
        for sid in sids {
            let frames = &self.world.guest(self.bob).frames[&sid];
            if sid.starts_with("TR_VC") {
                counts.0 += frames.complete;
                counts.1 += frames.packets;
            } else {
                counts.2 += frames.complete;
            }
        }
        counts
    }

    fn watch(&mut self, name: &str, time: Duration) -> Got {
        let (before, link_before) = (self.counts(), self.world.down_counters(self.bob));
        let mut got = Got { seconds: time.as_secs_f64(), ..Got::default() };
        let (mut still, mut last) = (Duration::ZERO, before.0);
        let mut end = |still: &mut Duration| {
            if *still > FROZEN {
                got.freezes += 1;
                got.frozen += *still;
                got.longest_freeze = got.longest_freeze.max(*still);
            }
            *still = Duration::ZERO;
        };
        for step in 1..=time.as_millis() / STEP.as_millis() {
            self.world.run(STEP);
            let frames = self.counts().0;
            still += STEP;
            if frames != last {
                end(&mut still);
                last = frames;
            }
            if std::env::var_os("TRACE").is_some() && step % 20 == 0 {
                let state = self.state();
                println!("{name} {:6.1} s: {frames} {state}", step as f64 * 0.01);
            }
        }
        end(&mut still);
        let (after, link_after) = (self.counts(), self.world.down_counters(self.bob));
        got.frames = after.0 - before.0;
        got.video_packets = after.1 - before.1;
        got.audio = after.2 - before.2;
        got.sent = link_after.sent - link_before.sent;
        let lost = |counters: parlor_netem::LinkCounters| counters.lost + counters.overflowed;
        got.lost = lost(link_after) - lost(link_before);
        println!("{name}: {got}; {}", self.state());
        got
    }

    fn state(&self) -> String {
        let mut states = (0..16).filter_map(|id| self.world.shard().peer_state(PeerId(id)));
        let state = states.rfind(|state| state.is_limited);
        state.map_or(String::new(), |state| {
            format!(
                "{}, {} bytes wait, rtt {:?}",
                state.estimator, state.queued_bytes, state.estimator.rtt
            )
        })
    }

    fn missing(&mut self) -> u64 {
        self.world.guest(self.bob).missing()
    }

    /// Why Bob's camera picture is as it is, and the changes that led to it.
    fn explanation(&self) -> (String, Vec<String>) {
        let now = self.world.now().instant;
        let link = self.world.shard().explain(now).pop().unwrap();
        let why = link.subscriptions.iter().map(|(_, why)| why.clone()).collect::<Vec<_>>();
        assert!(link.decisions.len() <= MAX_DECISIONS);
        (why.join("; "), link.decisions.into_iter().map(|decision| decision.reason).collect())
    }

    fn round_trip(&self) -> Duration {
        let mut states = (0..16).filter_map(|id| self.world.shard().peer_state(PeerId(id)));
        states.rfind(|state| state.is_limited).unwrap().estimator.rtt
    }

    /// Whether Bob was told last that the camera is paused.
    fn is_paused(&mut self) -> Option<bool> {
        let bob = self.bob;
        let told = self.world.trace().entries.iter().rev().find_map(|entry| {
            let is_signal = entry.guest == bob && entry.kind == Kind::Signal;
            let text = std::str::from_utf8(&entry.bytes).ok().filter(|_| is_signal)?;
            text.contains("streamStates").then(|| text.to_owned())
        });
        told.map(|text| text.contains("PAUSED"))
    }

    fn assert_clean(&self) {
        assert_eq!(self.world.violations(), Vec::<String>::new());
    }
}

#[test]
fn an_open_link_has_all_layers_soon_and_keeps_them() {
    for model in [Model::Single, Model::Pair] {
        let mut call = Call::new(1, model, link(None, Loss::None));
        call.watch("open, first 3 s", 3000 * MS);
        let got = call.watch("open", 10_000 * MS);
        assert_eq!(got.height(), 720, "{got}");
        assert!(got.frame_share() > 0.99 && got.freezes == 0 && got.lost == 0, "{got}");
        call.assert_clean();
    }
}

#[test]
fn seven_hundred_kilobits_carry_360p_whole() {
    for seed in 1..=3 {
        let mut call = Call::new(seed, Model::Single, rate(700_000));
        call.watch("700 kbit/s, first 12 s", 12_000 * MS);
        let got = call.watch("700 kbit/s", 20_000 * MS);
        assert_eq!(got.height(), 360, "{got}");
        assert!(got.frame_share() > 0.99 && got.freezes == 0, "{got}");
        assert!(got.lost_share() < 0.005 && got.audio_share() > 0.99, "{got}");
        let (why, decisions) = call.explanation();
        assert!(why.contains("360p because the estimate is"), "{why}");
        assert!(decisions.iter().any(|why| why.starts_with("360p because")), "{decisions:?}");
        call.assert_clean();
    }
}

#[test]
fn a_link_that_falls_and_recovers() {
    for seed in 1..=3 {
        let mut call = Call::new(seed, Model::Single, rate(4_000_000));
        call.watch("4 Mbit/s, first 5 s", 5000 * MS);
        let before = call.watch("4 Mbit/s", 10_000 * MS);
        assert_eq!(before.height(), 720, "{before}");
        assert!(before.freezes == 0 && before.frame_share() > 0.99, "{before}");
        call.set_down(rate(600_000));
        let missed = call.missing();
        let fall = call.watch("600 kbit/s, first 8 s", 8000 * MS);
        // What waited when the layer was given up leaves no holes behind.
        let missed = call.missing() - missed;
        println!("{missed} numbers missing, {} packets lost", fall.lost);
        assert!(missed <= fall.lost + 2, "{missed} numbers are missing, {fall}");
        assert!(fall.lost_share() < 0.06, "{fall}");
        assert!(fall.frozen <= 600 * MS, "{fall}");
        assert!(fall.audio_share() > 0.97, "{fall}");
        let after = call.watch("600 kbit/s", 12_000 * MS);
        assert_eq!(after.height(), 360, "{after}");
        assert!(after.frame_share() > 0.99 && after.freezes == 0 && after.lost == 0, "{after}");
        call.set_down(rate(4_000_000));
        let rise = call.watch("4 Mbit/s again, first 8 s", 8000 * MS);
        assert_eq!(rise.freezes, 0, "{rise}");
        let again = call.watch("4 Mbit/s again", 3000 * MS);
        assert_eq!(again.height(), 720, "{again}");
        call.assert_clean();
    }
}

#[test]
fn ninety_kilobits_pause_the_video_and_say_so() {
    for seed in 1..=3 {
        let mut call = Call::new(seed, Model::Single, rate(4_000_000));
        call.watch("4 Mbit/s", 8000 * MS);
        call.set_down(rate(90_000));
        call.watch("90 kbit/s, first 8 s", 8000 * MS);
        assert_eq!(call.is_paused(), Some(true));
        let got = call.watch("90 kbit/s", 15_000 * MS);
        assert_eq!(got.frames, 0, "{got}");
        assert_eq!(call.is_paused(), Some(true));
        assert!(call.round_trip() < 150 * MS, "{:?}", call.round_trip());
        assert!(got.audio_share() > 0.99, "{got}");
        call.set_down(rate(4_000_000));
        call.watch("4 Mbit/s again, first 3 s", 3000 * MS);
        assert_eq!(call.is_paused(), Some(false));
        let again = call.watch("4 Mbit/s again", 1000 * MS);
        assert!(again.frame_share() > 0.9, "{again}");
        call.assert_clean();
    }
}

#[test]
fn random_loss_does_not_freeze_the_picture() {
    for (loss, least, freezes) in [(0.05, 0.96, 0), (0.15, 0.94, 1)] {
        for seed in 1..=3 {
            let lossy = link(None, Loss::Independent(loss));
            let mut call = Call::new(seed, Model::Single, link(None, Loss::None));
            call.watch("no loss", 5000 * MS);
            call.set_down(lossy);
            let got = call.watch("random loss", 20_000 * MS);
            assert!(got.frame_share() >= least, "{got}");
            assert!(got.freezes <= freezes && got.longest_freeze < 300 * MS, "{got}");
            call.assert_clean();
        }
    }
}

#[test]
fn a_quality_that_is_asked_for_takes_one_keyframe() {
    for (seed, jitter_ms) in [(1, 0), (2, 5), (3, 15)] {
        let jittery = LinkConfig { jitter: jitter_ms * MS, ..link(None, Loss::None) };
        let mut call = Call::new(seed, Model::Single, jittery);
        call.watch("all layers", 6000 * MS);
        for _ in 0..4 {
            for (quality, height) in [(0, 180), (1, 360), (2, 720), (1, 360)] {
                let before = call.world.shard().counters().plis_sent;
                call.ask_for(quality);
                call.watch("the switch", 600 * MS);
                let got = call.watch("switched", 300 * MS);
                assert_eq!(got.height(), height, "{got}");
                assert_eq!(call.world.shard().counters().plis_sent - before, 1, "{got}");
            }
        }
        call.assert_clean();
    }
}

#[test]
fn a_run_repeats() {
    let run = || {
        let mut call = Call::new(9, Model::Pair, rate(700_000));
        call.watch("repeated", 6000 * MS);
        call.world.trace().clone()
    };
    let (one, other) = (run(), run());
    if let Some(difference) = one.first_difference(&other) {
        panic!("two runs of one seed differ at {difference}");
    }
}
