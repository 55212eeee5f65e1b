//! What loss says: is it the link's own, whatever we send, or is it that we send too much?
//!
//! The link is taken to lose a share of all packets (`inherent`) and, of what is left, whatever
//! exceeds its capacity. Two stories are told about the last seconds, "no capacity in sight" and
//! "a capacity of C", for a few C. The one under which the losses seen are likelier wins; without
//! a growing queue the second must be likelier by far. After libwebrtc's second loss-based
//! estimator, with its continuous search replaced by this choice
//! (docs/decisions/0003-congestion-control.md).

use crate::sent::PacketResult;

const WINDOWS: usize = 16;
/// A window closes when it is this long and has [`WINDOW_PACKETS`], or is [`WINDOW_MAX_US`] long.
const WINDOW_US: i64 = 250_000;
const WINDOW_MAX_US: i64 = 1_000_000;
const WINDOW_PACKETS: u32 = 20;
/// Losses come in bursts, so that packets tell less than as many independent ones would.
const INDEPENDENCE: f64 = 0.5;
/// How much likelier (logarithm) too much sending must be, without and with a growing queue.
const EVIDENCE_QUIET: f64 = 5.0;
const EVIDENCE_QUEUE: f64 = 0.5;
/// Share of losses that is too much to be the link's own unless a lower rate has shown it.
const INHERENT_MAX: f64 = 0.35;
const INHERENT_SMOOTHING: f64 = 0.2;
/// A window tells the link's own loss if it was sent at less than this share of the capacity.
const CLEARLY_BELOW: f64 = 0.9;
/// Loss that is ignored.
const LOSS_LEAST: f64 = 0.02;
/// What is sent of the capacity that loss betrayed.
const BACKOFF: f64 = 0.95;
const HOLD_US: i64 = 1_000_000;
const RECOVERY_PER_SECOND: f64 = 1.25;
/// Beyond this times the other estimate the bound no longer matters.
const RELEASE_FACTOR: f64 = 2.0;

#[derive(Clone, Copy, Default, Debug)]
struct Window {
    packets: u32,
    lost: u32,
    sent_bytes: u64,
    received_bytes: u64,
    first_sent_us: i64,
    last_sent_us: i64,
}

impl Window {
    fn span_s(&self) -> f64 {
        // The last packet takes its time too.
        let span_us = (self.last_sent_us - self.first_sent_us).max(1) as f64;
        let packets = f64::from(self.packets.max(2));
        span_us * packets / (packets - 1.0) / 1e6
    }

    fn sent_bps(&self) -> f64 {
        self.sent_bytes as f64 * 8.0 / self.span_s()
    }

    fn received_bps(&self) -> f64 {
        self.received_bytes as f64 * 8.0 / self.span_s()
    }
}

/// The bound that loss puts on the estimate.
#[derive(Debug, Default)]
pub struct LossBound {
    windows: [Window; WINDOWS],
    closed: usize,
    current: Window,
    bound_bps: Option<f64>,
    bounded_us: i64,
    updated_us: i64,
    inherent: f64,
    recent: f64,
}

impl LossBound {
    /// The bound in bits a second; `None` where loss does not limit.
    pub fn bound_bps(&self) -> Option<f64> {
        self.bound_bps
    }

    /// Share of packets that the link loses whatever is sent, 0 to 1.
    pub fn inherent(&self) -> f64 {
        self.inherent
    }

    /// Share of packets lost lately, 0 to 1.
    pub fn recent(&self) -> f64 {
        self.recent
    }

    /// Takes what feedback said of a packet.
    pub fn on_packet(&mut self, result: &PacketResult) {
        let window = &mut self.current;
        if result.was_lost {
            // It was counted as lost, perhaps in a window that is closed.
            window.lost = window.lost.saturating_sub(1);
            window.received_bytes += u64::from(result.size_bytes);
            return;
        }
        if window.packets == 0 {
            window.first_sent_us = result.sent_us;
            window.last_sent_us = result.sent_us;
        }
        window.packets += 1;
        window.sent_bytes += u64::from(result.size_bytes);
        window.first_sent_us = window.first_sent_us.min(result.sent_us);
        window.last_sent_us = window.last_sent_us.max(result.sent_us);
        match result.arrival_us {
            Some(_) => window.received_bytes += u64::from(result.size_bytes),
            None => window.lost += 1,
        }
    }

    /// Lifts the bound to what a probe has shown.
    pub fn on_probe(&mut self, probe_bps: f64) {
        self.bound_bps = self.bound_bps.map(|bound_bps| bound_bps.max(probe_bps));
    }

    /// Looks at what feedback has said so far. `estimate_bps` is what would hold without loss,
    /// `queue_grows` whether the delay shows a queue. Returns whether the bound was lowered.
    pub fn update(&mut self, estimate_bps: f64, queue_grows: bool, now_us: i64) -> bool {
        let length_us = self.current.last_sent_us - self.current.first_sent_us;
        let is_full = length_us >= WINDOW_US && self.current.packets >= WINDOW_PACKETS;
        if !is_full && (length_us < WINDOW_MAX_US || self.current.packets < 2) {
            return false;
        }
        let window = std::mem::take(&mut self.current);
        let loss = f64::from(window.lost) / f64::from(window.packets);
        self.recent += 0.4 * (loss - self.recent);
        self.windows[self.closed % WINDOWS] = window;
        self.closed += 1;
        self.recover(estimate_bps, now_us);
        let capacity_bps = self.capacity_bps(queue_grows);
        let Some(capacity_bps) = capacity_bps.filter(|bps| *bps < estimate_bps) else {
            if capacity_bps.is_none() {
                self.inherent += INHERENT_SMOOTHING * (loss - self.inherent);
            }
            return false;
        };
        let lowered_bps = BACKOFF * capacity_bps;
        let is_lower = self.bound_bps.is_none_or(|bound_bps| lowered_bps < bound_bps);
        if is_lower {
            self.bound_bps = Some(lowered_bps);
            self.bounded_us = now_us;
        }
        is_lower
    }

    fn recover(&mut self, estimate_bps: f64, now_us: i64) {
        let elapsed_s = ((now_us - self.updated_us) as f64 / 1e6).clamp(0.0, 1.0);
        self.updated_us = now_us;
        let Some(bound_bps) = self.bound_bps else { return };
        let is_lossy = self.recent > self.inherent + 2.0 * LOSS_LEAST;
        if now_us - self.bounded_us < HOLD_US || is_lossy {
            return;
        }
        let bound_bps = bound_bps * libm::pow(RECOVERY_PER_SECOND, elapsed_s);
        let matters = bound_bps < RELEASE_FACTOR * estimate_bps;
        self.bound_bps = matters.then_some(bound_bps);
    }

    /// The capacity that explains the losses better than none does.
    fn capacity_bps(&self, queue_grows: bool) -> Option<f64> {
        let windows = &self.windows[..self.closed.min(WINDOWS)];
        let lost: u32 = windows.iter().map(|window| window.lost).sum();
        let packets: u32 = windows.iter().map(|window| window.packets).sum();
        let overall = f64::from(lost) / f64::from(packets.max(1));
        let newest = self.windows[(self.closed + WINDOWS - 1) % WINDOWS];
        let newest_loss = f64::from(newest.lost) / f64::from(newest.packets.max(1));
        // Only loss that lasts calls for a lower rate.
        if newest_loss <= LOSS_LEAST.max(1.5 * self.inherent) && newest_loss < INHERENT_MAX {
            return None;
        }
        let without = windows.iter().map(|window| likelihood(window, overall)).sum::<f64>();
        let mut best = None;
        for candidate in windows.iter().filter(|window| window.lost > 0) {
            let inherent = self.inherent_below(windows, candidate.received_bps());
            let capacity_bps = candidate.received_bps() / (1.0 - inherent);
            let with = windows
                .iter()
                .map(|window| {
                    let excess = (1.0 - capacity_bps / window.sent_bps()).max(0.0);
                    likelihood(window, inherent + (1.0 - inherent) * excess)
                })
                .sum::<f64>();
            if best.is_none_or(|(likeliest, _)| with > likeliest) {
                best = Some((with, capacity_bps));
            }
        }
        let (with, capacity_bps) = best?;
        let evidence = INDEPENDENCE * (with - without);
        let needed = if queue_grows { EVIDENCE_QUEUE } else { EVIDENCE_QUIET };
        let is_untested = !self.has_contrast(windows);
        let is_too_much =
            is_untested && newest_loss > if queue_grows { 2.0 * LOSS_LEAST } else { INHERENT_MAX };
        (evidence > needed || is_too_much).then_some(capacity_bps)
    }

    /// The link's own loss, from what was sent clearly below `rate_bps`.
    fn inherent_below(&self, windows: &[Window], rate_bps: f64) -> f64 {
        let below = windows.iter().filter(|window| window.sent_bps() < CLEARLY_BELOW * rate_bps);
        let (lost, packets) = below
            .fold((0, 0), |(lost, packets), window| (lost + window.lost, packets + window.packets));
        if packets < WINDOW_PACKETS {
            return self.inherent.min(0.5);
        }
        (f64::from(lost) / f64::from(packets)).min(0.5)
    }

    /// Whether rates differed enough for loss to show whether it follows the rate.
    fn has_contrast(&self, windows: &[Window]) -> bool {
        let rates = || windows.iter().map(Window::sent_bps);
        rates().fold(f64::INFINITY, f64::min) < 0.8 * rates().fold(0.0, f64::max)
    }
}

/// Logarithm of the likelihood of a window's losses when each packet is lost with this
/// probability.
fn likelihood(window: &Window, probability: f64) -> f64 {
    let probability = probability.clamp(0.001, 0.95);
    let received = f64::from(window.packets - window.lost.min(window.packets));
    f64::from(window.lost) * libm::log(probability) + received * libm::log(1.0 - probability)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sent::PacketKind;

    /// Sends at `rate_bps` for `seconds`; `lose` says which packets do not arrive.
    fn run(
        bound: &mut LossBound,
        from_us: i64,
        seconds: i64,
        rate_bps: i64,
        mut lose: impl FnMut(i64) -> bool,
    ) -> i64 {
        let gap_us = 8_000_000_000 / rate_bps;
        let count = seconds * 1_000_000 / gap_us;
        for n in 0..count {
            let sent_us = from_us + n * gap_us;
            bound.on_packet(&PacketResult {
                sent_us,
                arrival_us: (!lose(n)).then_some(sent_us),
                size_bytes: 1000,
                kind: PacketKind::Video,
                cluster: None,
                was_lost: false,
            });
            if n % 10 == 9 {
                bound.update(10e6, false, sent_us);
            }
        }
        from_us + seconds * 1_000_000
    }

    fn noise(n: i64) -> i64 {
        ((n + 7).wrapping_mul(0x5851_F42D_4C95_7F2D) >> 33).rem_euclid(100)
    }

    #[test]
    fn loss_that_does_not_follow_the_rate_is_the_links_own() {
        for percent in [5, 10, 15, 20] {
            let mut bound = LossBound::default();
            let mut at_us = 0;
            for rate_bps in [500_000, 900_000, 600_000, 1_400_000] {
                at_us = run(&mut bound, at_us, 5, rate_bps, |n| noise(n) < percent);
            }
            let inherent = bound.inherent() * 100.0;
            assert!((inherent - percent as f64).abs() < 6.0, "{percent}: {inherent}");
            assert!(bound.bound_bps().is_none_or(|bps| bps > 1_000_000.0), "{percent} {bound:?}");
        }
    }

    #[test]
    fn loss_that_follows_the_rate_is_the_capacity_without_any_queue() {
        let mut bound = LossBound::default();
        let at_us = run(&mut bound, 0, 3, 700_000, |_| false);
        run(&mut bound, at_us, 2, 1_400_000, |n| noise(n) < 43);
        let bps = bound.bound_bps().unwrap();
        assert!((600_000.0..900_000.0).contains(&bps), "{bps}");
    }

    #[test]
    fn heavy_loss_from_the_start_is_too_much_sending() {
        let mut bound = LossBound::default();
        run(&mut bound, 0, 2, 300_000, |n| noise(n) < 60);
        let bps = bound.bound_bps().unwrap();
        assert!((80_000.0..160_000.0).contains(&bps), "{bps}");
    }

    #[test]
    fn the_bound_goes_when_loss_has_gone() {
        let mut bound = LossBound::default();
        let at_us = run(&mut bound, 0, 2, 300_000, |n| noise(n) < 60);
        let mut at_us = run(&mut bound, at_us, 1, 100_000, |_| false);
        for _ in 0..40 {
            at_us = run(&mut bound, at_us, 1, 300_000, |_| false);
        }
        assert_eq!(bound.bound_bps(), None);
    }
}
