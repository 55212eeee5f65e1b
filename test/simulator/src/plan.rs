//! What shall happen in a world, as a plain value drawn from a seed.

use crate::SourceKind;
use parlor_netem::{LinkConfig, Loss};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};

/// Names a guest of a plan.
pub type Seat = u8;

/// Everything that happens in a world. Of one seed there is one plan, and of one plan one trace.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// What the world draws from.
    pub seed: u64,
    /// Media threads of the server.
    pub shards: u16,
    /// When all faults end, in ms since the world began.
    pub until_ms: u32,
    /// Who is there.
    pub guests: BTreeMap<Seat, PlannedGuest>,
    /// What happens, in order of time.
    pub actions: Vec<Action>,
}

/// Who comes, and how.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PlannedGuest {
    /// Whether it uses the model of two connections.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pair: bool,
    /// Which room it goes to.
    #[serde(default, skip_serializing_if = "is_default")]
    pub room: u8,
    /// When it comes, in ms since the world began.
    pub joins_ms: u32,
    /// Microseconds that its clock gains in each second.
    #[serde(default, skip_serializing_if = "is_default")]
    pub drift_ppm: i32,
    /// Its link to the server.
    #[serde(default, skip_serializing_if = "is_default")]
    pub up: PlannedLink,
    /// The server's link to it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub down: PlannedLink,
    /// What it publishes when it comes.
    pub sources: Vec<SourceKind>,
}

/// A link in whole numbers. The default is an open link of 20 ms.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct PlannedLink {
    /// Thousands of bits a second; 0 for no limit.
    #[serde(skip_serializing_if = "is_default")]
    pub kbps: u32,
    /// The queue before the bottleneck.
    pub queue_ms: u16,
    /// From one end to the other.
    pub delay_ms: u16,
    /// What is added to the delay at most.
    #[serde(skip_serializing_if = "is_default")]
    pub jitter_ms: u16,
    /// Whether jitter reorders.
    #[serde(skip_serializing_if = "is_default")]
    pub reorders: bool,
    /// Lost each by itself, of a thousand.
    #[serde(skip_serializing_if = "is_default")]
    pub loss_permille: u16,
    /// Lost in bursts that begin so often, of a thousand, and last five on average.
    #[serde(skip_serializing_if = "is_default")]
    pub bursts_permille: u16,
    /// Arriving twice, of a thousand.
    #[serde(skip_serializing_if = "is_default")]
    pub twice_permille: u16,
    /// Largest datagram.
    pub mtu_bytes: u16,
}

impl Default for PlannedLink {
    fn default() -> Self {
        Self {
            kbps: 0,
            queue_ms: 200,
            delay_ms: 20,
            jitter_ms: 0,
            reorders: false,
            loss_permille: 0,
            bursts_permille: 0,
            twice_permille: 0,
            mtu_bytes: 1500,
        }
    }
}

/// Something that happens.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Action {
    /// When, in ms since the world began.
    pub at_ms: u32,
    /// To whom, or by whom.
    pub guest: Seat,
    /// What.
    pub what: What,
}

/// What happens.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// It says goodbye.
    Leave,
    /// Its process ends; whether its signal socket ends with it.
    Crash(bool),
    /// It comes back, after it has left or crashed.
    Return,
    /// It publishes one more.
    Publish(SourceKind),
    /// It ends the track in this place among its tracks.
    Unpublish(u8),
    /// It mutes the track in this place, or unmutes it.
    Mute(u8, bool),
    /// It loses its signal socket and resumes, with ICE restarted.
    Resume,
    /// Its NAT forgets its sockets.
    Rebind,
    /// Its link to the server becomes another.
    Up(PlannedLink),
    /// The server's link to it becomes another.
    Down(PlannedLink),
    /// It is cut off for so many ms: its media, or its signal socket, too.
    Cut(u32, bool),
    /// It subscribes to what another publishes, or no longer.
    Subscribe(Seat, bool),
    /// It switches what another publishes on or off.
    Enable(Seat, bool),
    /// It wants at most this quality of what another publishes.
    Quality(Seat, u8),
    /// It may publish, and subscribe, from now on.
    Permit(bool, bool),
    /// An administrator removes it.
    Remove,
    /// It sends so many reliable messages.
    Say(u8),
    /// The server ends without a word and another takes its place.
    Restart,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl PlannedLink {
    /// As the network wants it.
    pub fn config(&self) -> LinkConfig {
        let ms = |ms: u16| Duration::from_millis(u64::from(ms));
        let share = |permille: u16| f64::from(permille) / 1000.0;
        LinkConfig {
            delay: ms(self.delay_ms),
            jitter: ms(self.jitter_ms),
            reorders: self.reorders,
            rate_bps: (self.kbps > 0).then_some(u64::from(self.kbps) * 1000),
            burst_bytes: 0,
            queue: ms(self.queue_ms),
            loss: match (self.bursts_permille, self.loss_permille) {
                (0, 0) => Loss::None,
                (0, loss) => Loss::Independent(share(loss)),
                (bursts, _) => Loss::Gilbert { to_bad: share(bursts), to_good: 0.2 },
            },
            duplication: share(self.twice_permille),
            mtu_bytes: usize::from(self.mtu_bytes),
        }
    }

    fn draw(rng: &mut ChaCha8Rng) -> Self {
        let mut link = Self { delay_ms: one_of(rng, &[1, 5, 20, 50]), ..Self::default() };
        if rng.random_ratio(1, 3) {
            return link;
        }
        if rng.random_ratio(1, 2) {
            link.kbps = one_of(rng, &[60, 150, 300, 500, 800, 1500, 4000]);
            link.queue_ms = one_of(rng, &[20, 100, 200, 500, 1000]);
        }
        if rng.random_ratio(1, 3) {
            link.loss_permille = one_of(rng, &[5, 20, 50, 150, 300]);
        } else if rng.random_ratio(1, 4) {
            link.bursts_permille = one_of(rng, &[2, 10, 40]);
        }
        if rng.random_ratio(1, 3) {
            link.jitter_ms = one_of(rng, &[2, 10, 30, 80]);
            link.reorders = rng.random_ratio(1, 3);
        }
        if rng.random_ratio(1, 8) {
            link.delay_ms = one_of(rng, &[150, 300]);
        }
        if rng.random_ratio(1, 8) {
            link.twice_permille = one_of(rng, &[5, 50]);
        }
        link.mtu_bytes = one_of(rng, &[1500, 1500, 1500, 1280]);
        link
    }
}

impl SourceKind {
    fn draw_video(rng: &mut ChaCha8Rng) -> Self {
        match rng.random_range(0..10) {
            0 | 1 => SourceKind::Video { bitrates_bps: vec![100_000] },
            2 => SourceKind::Video { bitrates_bps: vec![80_000, 200_000] },
            3 => SourceKind::Temporal { bitrates_bps: vec![60_000, 150_000, 400_000] },
            4 => SourceKind::Svc { bitrates_bps: vec![60_000, 120_000, 250_000] },
            5 | 6 => SourceKind::Av1 {
                bitrates_bps: vec![60_000, 100_000, 200_000],
                key_only: rng.random_ratio(1, 2),
            },
            7 => SourceKind::Vp9 {
                bitrates_bps: vec![60_000, 120_000, 250_000],
                key_only: rng.random_ratio(1, 2),
            },
            8 => SourceKind::H264 { bitrates_bps: vec![80_000, 200_000] },
            _ => SourceKind::Screen { bitrate_bps: 150_000 },
        }
    }

    fn draw_audio(rng: &mut ChaCha8Rng) -> Self {
        if rng.random_ratio(1, 3) { SourceKind::Red } else { SourceKind::Audio }
    }
}

fn one_of<T: Copy>(rng: &mut ChaCha8Rng, among: &[T]) -> T {
    among[rng.random_range(0..among.len())]
}

impl Plan {
    /// The plan of a seed.
    pub fn generate(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let count = one_of(&mut rng, &[2, 2, 2, 2, 3, 3, 4, 5]);
        let until_ms = rng.random_range(10_000..14_000);
        let rooms = if count > 3 && rng.random_ratio(1, 4) { 2 } else { 1 };
        let mut guests: BTreeMap<Seat, PlannedGuest> =
            (0..count).map(|seat| (seat, PlannedGuest::draw(&mut rng, rooms))).collect();
        if guests.values().all(|guest| guest.sources.is_empty())
            && let Some(first) = guests.get_mut(&0)
        {
            first.sources.push(SourceKind::draw_audio(&mut rng));
        }
        let actions = rng.random_range(0..=8);
        let mut actions: Vec<_> =
            (0..actions).map(|_| Action::draw(&mut rng, count, until_ms)).collect();
        actions.sort_by_key(|action| action.at_ms);
        let shards = [1, 1, 2, 3][rng.random_range(0..4)];
        Self { seed, shards, until_ms, guests, actions }
    }
}

impl PlannedGuest {
    fn draw(rng: &mut ChaCha8Rng, rooms: u8) -> Self {
        let mut sources = Vec::new();
        if rng.random_ratio(1, 2) {
            sources.push(SourceKind::draw_audio(rng));
        }
        if rng.random_ratio(2, 5) {
            sources.push(SourceKind::draw_video(rng));
        }
        Self {
            pair: rng.random_ratio(2, 5),
            room: rng.random_range(0..rooms),
            joins_ms: one_of(rng, &[0, 0, 0, 500, 2000]),
            drift_ppm: one_of(rng, &[0, 0, 20, -50, 200]),
            up: PlannedLink::draw(rng),
            down: PlannedLink::draw(rng),
            sources,
        }
    }
}

impl Action {
    fn draw(rng: &mut ChaCha8Rng, guests: u8, until_ms: u32) -> Self {
        let guest = rng.random_range(0..guests);
        let other = (guest + rng.random_range(1..guests.max(2))) % guests;
        let at_ms = rng.random_range(500..until_ms);
        let place = rng.random_range(0..2);
        let what = match rng.random_range(0..100) {
            0..6 => What::Leave,
            6..11 => What::Crash(rng.random_ratio(1, 2)),
            11..20 => What::Return,
            20..27 => What::Publish(match rng.random_ratio(1, 2) {
                true => SourceKind::draw_audio(rng),
                false => SourceKind::draw_video(rng),
            }),
            27..33 => What::Unpublish(place),
            33..43 => What::Mute(place, rng.random_ratio(2, 3)),
            43..51 => What::Resume,
            51..57 => What::Rebind,
            57..62 => What::Up(PlannedLink::draw(rng)),
            62..70 => What::Down(PlannedLink::draw(rng)),
            70..76 => What::Cut(one_of(rng, &[200, 1000, 3000, 6000]), rng.random_ratio(1, 2)),
            76..81 => What::Subscribe(other, rng.random_ratio(1, 2)),
            81..86 => What::Enable(other, rng.random_ratio(1, 2)),
            86..90 => What::Quality(other, rng.random_range(0..3)),
            90..93 => What::Permit(rng.random_ratio(1, 2), rng.random_ratio(1, 2)),
            93..95 => What::Remove,
            95..98 => What::Say(one_of(rng, &[1, 5, 30])),
            _ => What::Restart,
        };
        Self { at_ms, guest, what }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_has_one_plan_and_a_plan_survives_being_written_down() {
        for seed in 0..200 {
            let plan = Plan::generate(seed);
            assert_eq!(plan, Plan::generate(seed));
            let text = serde_json::to_string(&plan).unwrap();
            assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan, "{text}");
        }
    }
}
