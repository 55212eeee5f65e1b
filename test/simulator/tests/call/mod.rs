//! A call with one subscriber on a bad link, and what it got.
#![allow(dead_code)]

use livekit_protocol as proto;
use livekit_protocol::signal_request::Message as Request;
use parlor_client::Model;
use parlor_netem::{LinkConfig, Loss};
use parlor_sfu::{MAX_DECISIONS, PeerState};
use parlor_simulator::{Invitation, Kind, SourceKind, World};
use parlor_transport::DtlsIdentity;
use std::{fmt, sync::LazyLock, time::Duration};

pub const MS: Duration = Duration::from_millis(1);
const STEP: Duration = Duration::from_millis(10);
/// A picture that stands longer is frozen.
const FROZEN: Duration = Duration::from_millis(200);
const FRAMES_A_SECOND: f64 = 30.0;

pub static IDENTITY: LazyLock<DtlsIdentity> = LazyLock::new(|| DtlsIdentity::generate().unwrap());

pub fn link(rate_bps: Option<u64>, loss: Loss) -> LinkConfig {
    LinkConfig { delay: 20 * MS, rate_bps, queue: 200 * MS, loss, ..LinkConfig::default() }
}

pub fn rate(bps: u64) -> LinkConfig {
    link(Some(bps), Loss::None)
}

/// The camera of the issue.
pub fn camera() -> SourceKind {
    SourceKind::Video { bitrates_bps: vec![160_000, 450_000, 1_700_000] }
}

/// What a subscriber got in a while.
#[derive(Clone, Copy, Default, Debug)]
pub struct Got {
    pub seconds: f64,
    pub frames: u64,
    pub video_packets: u64,
    pub audio: u64,
    pub sent: u64,
    pub lost: u64,
    pub frozen: Duration,
    pub longest_freeze: Duration,
    pub freezes: u32,
    /// Times that a decoder, which needs each frame after the one before, had none for so long.
    pub stalls: u32,
}

impl Got {
    /// As if what came after were part of it.
    pub fn add(&mut self, after: &Self) {
        self.seconds += after.seconds;
        self.frames += after.frames;
        self.video_packets += after.video_packets;
        self.audio += after.audio;
        self.sent += after.sent;
        self.lost += after.lost;
        self.frozen += after.frozen;
        self.longest_freeze = self.longest_freeze.max(after.longest_freeze);
        self.freezes += after.freezes;
        self.stalls += after.stalls;
    }

    pub fn lost_share(&self) -> f64 {
        self.lost as f64 / self.sent.max(1) as f64
    }

    pub fn frame_share(&self) -> f64 {
        self.frames as f64 / (self.seconds * FRAMES_A_SECOND)
    }

    pub fn audio_share(&self) -> f64 {
        self.audio as f64 / (self.seconds * 50.0)
    }

    /// The layer, by the packets of its frames: 1, 2 and 8.
    pub fn height(&self) -> u32 {
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
             {} freezes of {:?} in all, longest {:?}, {} stalls of a decoder",
            self.height(),
            self.video_packets as f64 / self.frames.max(1) as f64,
            100.0 * self.frame_share(),
            100.0 * self.audio_share(),
            100.0 * self.lost_share(),
            self.freezes,
            self.frozen,
            self.longest_freeze,
            self.stalls,
        )
    }
}

pub struct Call {
    pub world: World,
    pub bob: usize,
}

impl Call {
    /// Alice has a microphone and a camera of three layers; Bob watches over `down`.
    pub fn new(seed: u64, model: Model, down: LinkConfig) -> Self {
        Self::with_camera(seed, model, down, camera())
    }

    /// The same with another camera.
    pub fn with_camera(seed: u64, model: Model, down: LinkConfig, camera: SourceKind) -> Self {
        Self::with_bob(seed, Invitation::new("bob", model), down, camera)
    }

    /// The same with a Bob of some kind.
    pub fn with_bob(seed: u64, bob: Invitation, down: LinkConfig, camera: SourceKind) -> Self {
        let mut world = World::new(seed, &IDENTITY);
        let alice = world.invite(Invitation::new("alice", Model::Single));
        let open = link(None, Loss::None);
        let bob = world.invite(Invitation { down: open.clone(), up: open.clone(), ..bob });
        assert!(world.run_until(10_000 * MS, |world| {
            world.guest(alice).is_connected() && world.guest(bob).is_connected()
        }));
        // The signatures of a handshake have random lengths, which a rate would turn into times.
        world.set_links(bob, open, down);
        let now = world.now();
        world.guest(alice).publish(now, "microphone", SourceKind::Audio);
        world.guest(alice).publish(now, "camera", camera);
        Self { world, bob }
    }

    /// Bob asks for a quality of the camera, as livekit-client numbers them.
    pub fn ask_for(&mut self, quality: i32) {
        let bob = self.world.guest(self.bob);
        let track_sids = bob.frames.keys().filter(|sid| sid.starts_with("TR_VC")).cloned();
        let settings = proto::UpdateTrackSettings {
            track_sids: track_sids.collect(),
            quality,
            ..Default::default()
        };
        bob.client().request(Request::TrackSetting(settings));
    }

    pub fn set_down(&mut self, down: LinkConfig) {
        self.set_links(link(None, Loss::None), down);
    }

    pub fn set_links(&mut self, up: LinkConfig, down: LinkConfig) {
        self.world.set_links(self.bob, up, down);
    }

    fn decoded(&mut self) -> u64 {
        let frames = self.world.guest(self.bob).frames.iter();
        let videos = frames.filter(|(sid, _)| sid.starts_with("TR_VC"));
        videos.map(|(_, frames)| frames.decoded).sum()
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

    pub fn watch(&mut self, name: &str, time: Duration) -> Got {
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
        let mut decoded = (self.decoded(), Duration::ZERO);
        let mut stalls = 0;
        for step in 1..=time.as_millis() / STEP.as_millis() {
            self.world.run(STEP);
            let now = self.decoded();
            decoded =
                if now == decoded.0 { (now, decoded.1 + STEP) } else { (now, Duration::ZERO) };
            stalls += u32::from(decoded.1 == FROZEN + STEP);
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
        got.stalls = stalls;
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

    /// The last peer whose link is limited.
    fn limited(&self) -> Option<PeerState> {
        let shard = self.world.shard();
        let states = shard.peers().filter_map(|peer| shard.peer_state(peer));
        states.filter(|state| state.is_limited).last()
    }

    pub fn state(&self) -> String {
        let state = self.limited();
        state.map_or(String::new(), |state| {
            format!(
                "{}, {} bytes wait, rtt {:?}",
                state.estimator, state.queued_bytes, state.estimator.rtt
            )
        })
    }

    pub fn missing(&mut self) -> u64 {
        self.world.guest(self.bob).missing()
    }

    /// Why Bob's camera picture is as it is, and the changes that led to it.
    pub fn explanation(&self) -> (String, Vec<String>) {
        let now = self.world.now().instant;
        let link = self.world.shard().explain(now).pop().unwrap();
        let why = link.subscriptions.iter().map(|(_, why)| why.clone()).collect::<Vec<_>>();
        assert!(link.decisions.len() <= MAX_DECISIONS);
        (why.join("; "), link.decisions.into_iter().map(|decision| decision.reason).collect())
    }

    pub fn round_trip(&self) -> Duration {
        self.limited().unwrap().estimator.rtt
    }

    /// Whether Bob was told last that the camera is paused.
    pub fn is_paused(&mut self) -> Option<bool> {
        let bob = self.bob;
        let told = self.world.trace().entries.iter().rev().find_map(|entry| {
            let is_signal = entry.guest == bob && entry.kind == Kind::Signal;
            let text = std::str::from_utf8(&entry.bytes).ok().filter(|_| is_signal)?;
            text.contains("streamStates").then(|| text.to_owned())
        });
        told.map(|text| text.contains("PAUSED"))
    }

    /// After a fall to 600 kbit/s: 360p whole for as long as that lasts, 720p once there is room.
    pub fn assert_settles_and_recovers(&mut self) {
        let after = self.watch("600 kbit/s", 12_000 * MS);
        assert_eq!(after.height(), 360, "{after}");
        assert!(after.frame_share() > 0.99 && after.freezes == 0 && after.lost == 0, "{after}");
        self.set_down(rate(4_000_000));
        let rise = self.watch("4 Mbit/s again, first 8 s", 8000 * MS);
        assert_eq!(rise.freezes, 0, "{rise}");
        let again = self.watch("4 Mbit/s again", 3000 * MS);
        assert_eq!(again.height(), 720, "{again}");
    }

    pub fn assert_clean(&self) {
        assert_eq!(self.world.violations(), Vec::<String>::new());
    }
}
