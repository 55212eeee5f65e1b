//! Runs a case and measures it.

use super::cases::{Case, at};
use crate::{Invitation, SourceKind, World, run::identity};
use livekit_protocol as proto;
use parlor_client::Model;
use parlor_model::PeerId;
use parlor_netem::LinkConfig;
use proto::signal_request::Message as Request;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::time::Duration;

/// The camera's layers, lowest first.
const LAYERS_BPS: [u64; 3] = [200_000, 700_000, 2_500_000];
/// What a layer takes beside its bitrate: headers, and a keyframe now and then.
const LAYER_OVERHEAD: f64 = 1.08;
const AUDIO_BPS: f64 = 54_000.0;
const QUEUE: Duration = Duration::from_millis(300);
/// Flows that come together come within so many milliseconds.
const TOGETHER_MS: u64 = 50;
const STEP: Duration = Duration::from_millis(20);
/// Seconds after a change that are left out of what is asked of a settled flow.
const SETTLING_S: u32 = 8;

/// One second of a flow.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Second {
    pub estimate_bps: u64,
    pub received_bps: u64,
    layer: Option<usize>,
}

/// What a case gave.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Of each flow, by second.
    pub(super) flows: Vec<Vec<Second>>,
    /// Mean of the estimate over the flow's part of the link.
    pub estimate_of_part: f64,
    /// Mean of the estimate over what the others leave of the link, or the part where that is more.
    pub estimate_of_left: f64,
    /// Share of the time that it is between 85 % of the first and 100 % of the second.
    pub estimate_within: f64,
    /// Share of the time that the best layer comes.
    pub best_share: f64,
    /// Share of the bytes that came for their size only.
    pub padding_share: f64,
    /// 95th percentile of the queue before the bottleneck.
    pub queue_p95_ms: f64,
    /// Share of the audio that came, while all flows are there.
    pub audio_share: f64,
    /// Jain's index over what was received while all flows were there.
    pub jain_received: Option<f64>,
    /// The same over the estimates.
    pub jain_estimates: Option<f64>,
}

struct Flow {
    place: usize,
    peer: PeerId,
    bytes: u64,
    packets: u64,
    frames: u64,
    audio: u64,
    audio_expected: u64,
}

struct Stage {
    case: Case,
    rng: ChaCha8Rng,
    world: World,
    flows: Vec<Option<Flow>>,
    seconds: Vec<Vec<Second>>,
    queue_ms: Vec<f64>,
}

/// Runs a case.
pub fn measure(case: &Case, seed: u64) -> Measured {
    let mut world = World::new(seed, &identity());
    world.keep_hash_only();
    let alice = world.invite(Invitation::new("alice", Model::Single));
    world.run_until(Duration::from_secs(5), |world| world.guest(alice).is_connected());
    let now = world.now();
    world.guest(alice).publish(now, "microphone", SourceKind::Audio);
    let bitrates_bps = LAYERS_BPS.to_vec();
    world.guest(alice).publish(now, "camera", SourceKind::Video { bitrates_bps });
    world.run(Duration::from_secs(2));
    world.share_link(bottleneck(case.capacity_at(0)));
    for (starts, bytes) in &case.tcp {
        let after = Duration::from_secs(u64::from(*starts));
        world.add_tcp(Duration::from_millis(100), after, *bytes);
    }
    let count = case.flows.len();
    let mut stage = Stage {
        case: case.clone(),
        rng: ChaCha8Rng::seed_from_u64(seed),
        world,
        flows: (0..count).map(|_| None).collect(),
        seconds: vec![Vec::new(); count],
        queue_ms: Vec::new(),
    };
    for second in 0..case.seconds {
        stage.begin(second);
        stage.pass(second);
    }
    stage.measured()
}

fn bottleneck(bps: u64) -> LinkConfig {
    LinkConfig { rate_bps: Some(bps), queue: QUEUE, ..LinkConfig::default() }
}

impl Stage {
    fn begin(&mut self, second: u32) {
        if self.case.capacity.iter().any(|(from, _)| *from == second) {
            self.world.share_link(bottleneck(self.case.capacity_at(second)));
        }
        for nth in 0..self.case.flows.len() {
            let plan = self.case.flows[nth];
            if plan.joins_s == second {
                self.join(nth, plan.delay_ms);
            }
            let Some(place) = self.flows[nth].as_ref().map(|flow| flow.place) else { continue };
            if let Some((from, to)) = plan.pause_s
                && (second == from || second == to)
            {
                self.enable(place, second == to);
            }
            if self.case.feedback.iter().any(|(from, _)| *from == second) {
                let (up, down) = (self.up(second, plan.delay_ms), delay(plan.delay_ms));
                self.world.set_links(place, up, down);
            }
        }
    }

    fn up(&self, second: u32, delay_ms: u64) -> LinkConfig {
        LinkConfig { rate_bps: at(&self.case.feedback, second), queue: QUEUE, ..delay(delay_ms) }
    }

    fn join(&mut self, nth: usize, delay_ms: u64) {
        self.world.run(Duration::from_millis(self.rng.random_range(0..TOGETHER_MS)));
        let before = self.world.shard().peers().collect::<Vec<_>>();
        let place = self.world.invite(Invitation {
            up: self.up(self.case.flows[nth].joins_s, delay_ms),
            down: delay(delay_ms),
            shares_link: true,
            ..Invitation::new(&format!("flow {nth}"), Model::Single)
        });
        let peer = self.world.shard().peers().find(|peer| !before.contains(peer));
        let peer = peer.expect("a session of one connection has its peer at once");
        if !self.case.feedback.is_empty() {
            let now = self.world.now();
            let bitrates_bps = vec![600_000];
            self.world.guest(place).publish(now, "own", SourceKind::Video { bitrates_bps });
        }
        self.flows[nth] = Some(Flow {
            place,
            peer,
            bytes: 0,
            packets: 0,
            frames: 0,
            audio: 0,
            audio_expected: 0,
        });
    }

    fn enable(&mut self, place: usize, is_enabled: bool) {
        let track_sids: Vec<_> = self.world.guest(place).frames.keys().cloned().collect();
        let settings = proto::UpdateTrackSettings {
            track_sids,
            disabled: !is_enabled,
            quality: 2,
            ..Default::default()
        };
        self.world.guest(place).client().request(Request::TrackSetting(settings));
    }

    fn pass(&mut self, second: u32) {
        for _ in 0..Duration::from_secs(1).as_nanos() / STEP.as_nanos() {
            self.world.run(STEP);
            self.queue_ms.push(self.world.backlog().as_secs_f64() * 1000.0);
        }
        for nth in 0..self.flows.len() {
            let plan = self.case.flows[nth];
            let found = self.flows[nth].as_mut().map(|flow| {
                let state = self.world.shard().peer_state(flow.peer);
                let estimate_bps = state.map_or(0, |state| state.estimator.estimate_bps);
                let now = self.world.now();
                let guest = self.world.guest(flow.place);
                guest.ask_for_keyframes(now.instant);
                let bytes = std::mem::replace(&mut flow.bytes, guest.bytes);
                let received_bps = 8 * (guest.bytes - bytes);
                let (mut frames, mut packets, mut audio) = (0, 0, 0);
                for (sid, of) in &guest.frames {
                    if sid.starts_with("TR_A") {
                        audio += of.complete;
                    } else {
                        (frames, packets) = (frames + of.decoded, packets + of.packets);
                    }
                }
                let new_frames = frames - std::mem::replace(&mut flow.frames, frames);
                let new_packets = packets - std::mem::replace(&mut flow.packets, packets);
                let new_audio = audio - std::mem::replace(&mut flow.audio, audio);
                // From the second after it came, which takes a while to begin.
                if plan.is_present(second) && second > plan.joins_s + 2 {
                    flow.audio_expected += 50;
                } else {
                    flow.audio_expected += new_audio;
                }
                let layer = layer(new_frames, new_packets);
                Second { estimate_bps, received_bps, layer }
            });
            self.seconds[nth].push(found.unwrap_or_default());
        }
    }

    fn measured(mut self) -> Measured {
        let case = &self.case;
        let (mut of_part, mut of_left) = (0.0, 0.0);
        let (mut count, mut best, mut within) = (0, 0, 0);
        for second in (0..case.seconds).filter(|at| !case.is_unsettled(*at, SETTLING_S)) {
            let part = case.capacity_at(second) as f64 / case.present_at(second).max(1) as f64;
            for (nth, plan) in case.flows.iter().enumerate() {
                if !plan.is_present(second) {
                    continue;
                }
                let got = self.seconds[nth][second as usize];
                let estimate_bps = got.estimate_bps as f64;
                let left = self.left_by_others(nth, second).max(part);
                of_part += estimate_bps / part;
                of_left += estimate_bps / left;
                count += 1;
                within += u32::from((0.85 * part..=left).contains(&estimate_bps));
                best += u32::from(got.layer >= best_layer(part));
            }
        }
        let count = f64::from(count.max(1));
        let last = self.flows.iter().flatten();
        let (mut audio, mut expected, mut bytes, mut padding) = (0, 0, 0, 0);
        for flow in last {
            let guest = &self.world.guests[flow.place];
            (audio, expected) = (audio + flow.audio, expected + flow.audio_expected);
            (bytes, padding) = (bytes + guest.bytes, padding + guest.padding_bytes);
        }
        self.queue_ms.sort_by(f64::total_cmp);
        let p95 = self.queue_ms.get(self.queue_ms.len() * 95 / 100).copied();
        let all_there: Vec<_> = (0..case.seconds)
            .filter(|at| !case.is_unsettled(*at, SETTLING_S))
            .filter(|at| case.flows.iter().all(|flow| flow.is_present(*at)))
            .collect();
        let mean = |of: fn(&Second) -> u64| -> Option<f64> {
            let sum = |seconds: &Vec<Second>| -> f64 {
                all_there.iter().map(|at| of(&seconds[*at as usize]) as f64).sum()
            };
            let sums: Vec<f64> = self.seconds.iter().map(sum).collect();
            (sums.len() > 1).then(|| jain(&sums))
        };
        Measured {
            estimate_of_part: of_part / count,
            estimate_of_left: of_left / count,
            estimate_within: f64::from(within) / count,
            best_share: f64::from(best) / count,
            padding_share: padding as f64 / bytes.max(1) as f64,
            queue_p95_ms: p95.unwrap_or(0.0),
            audio_share: audio as f64 / expected.max(1) as f64,
            jain_received: mean(|second| second.received_bps),
            jain_estimates: mean(|second| second.estimate_bps),
            flows: self.seconds,
        }
    }

    /// What the other flows did not receive of the link, over three seconds up to `second`, in bits a second.
    fn left_by_others(&self, nth: usize, second: u32) -> f64 {
        let others = self.seconds.iter().enumerate().filter(|(other, _)| *other != nth);
        let latest = second.saturating_sub(2) as usize..=second as usize;
        let received = others.flat_map(|(_, seconds)| &seconds[latest.clone()]);
        let received_bps = received.map(|second| second.received_bps).sum::<u64>() as f64 / 3.0;
        self.case.capacity_at(second) as f64 - received_bps
    }
}

fn delay(delay_ms: u64) -> LinkConfig {
    LinkConfig { delay: Duration::from_millis(delay_ms), ..LinkConfig::default() }
}

/// The layer that came, by the packets of its frames: 1, 3 and 11.
fn layer(frames: u64, packets: u64) -> Option<usize> {
    match packets as f64 / frames as f64 {
        _ if frames < 10 => None,
        per_frame if per_frame < 2.0 => Some(0),
        per_frame if per_frame < 6.0 => Some(1),
        _ => Some(2),
    }
}

fn best_layer(part_bps: f64) -> Option<usize> {
    LAYERS_BPS.iter().rposition(|bps| *bps as f64 * LAYER_OVERHEAD + AUDIO_BPS <= part_bps)
}

/// Jain's index of fairness: 1 where all have the same.
fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    if squares == 0.0 { 1.0 } else { sum * sum / (shares.len() as f64 * squares) }
}
