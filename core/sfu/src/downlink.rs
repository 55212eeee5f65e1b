//! What the way to one peer carries, and what waits for its turn on it.

use std::time::{Duration, Instant};

use parlor_congestion::{Cause, Estimator, Pacer, Usage};
use parlor_model::Bitrate;
use parlor_rtp::rtcp::{ReportBlock, TransportFeedback};

use crate::{forward::Queued, shard::Decisions};

/// The estimate before anything is known: audio and the least layer of a camera fit into slow
/// links. The first probe, a round trip after the first feedback, tells how much more does.
const START_BPS: u64 = 400_000;
/// What has no layers does not wait for the first probe: it leaves at this rate.
const GUESS_BPS: u64 = 5_000_000;
/// The pacing rate while nothing limits, in bits a second.
const UNLIMITED_BPS: u64 = 100_000_000_000;
/// Where there is neither queue nor loss, and room, a frame may leave this much faster than the
/// estimate.
const CALM_FACTOR: f64 = 2.5;
/// There is all the room where the estimate is so many times what was shared out, and none where
/// they are the same. Keyframes that come together must not wait until a picture freezes because
/// the estimate is a little less than that.
const CALM_ROOM: f64 = 1.3;
const CALM_QUEUE_MS: f64 = 10.0;
/// Bursts are long only where they make no queue that can be told from jitter: on a link that others
/// use too they would look like a link that has fallen.
const CALM_BURST_QUEUE_MS: f64 = 3.0;
/// And where the link takes one in a fiftieth of a second or so.
const CALM_BURST_BPS: u64 = 2_000_000;
const CALM_LOSS: f64 = 0.01;
/// A receiver report limits a peer that gives no other feedback from this loss on, in 256ths.
const REPORTED_LOSS: u8 = 26;
/// How long the first packet of a frame waits for the others.
pub const FRAME_WAIT: Duration = Duration::from_millis(1);
/// A link that loses more than this share of packets needs redundant audio.
const REDUNDANCY_LOSS: f64 = 0.01;
/// Audio with redundancy may take this share of the estimate.
const REDUNDANCY_SHARE: f64 = 0.6;
/// Redundancy comes back when there has been room for it for so long.
const REDUNDANCY_WAIT: Duration = Duration::from_secs(4);
/// Nothing is paused so soon after the first feedback: the estimate is still a guess.
const GUESS: Duration = Duration::from_secs(2);

/// See the module. In this order in memory: what each packet needs is at the end of the pacer and
/// at the beginning of the estimator.
#[repr(C)]
pub struct Downlink {
    pub pacer: Pacer<Queued>,
    /// What waits leaves together, not before this.
    next_burst_us: i64,
    /// When it began, in microseconds since the shard did.
    started_us: i64,
    pub estimator: Estimator,
    /// When the shard began.
    epoch: Instant,
    /// Since when what it says is known to the receiver's side: nothing is limited before.
    limited_since: Option<Instant>,
    /// No more than this is shared among the subscriptions, whatever the estimate.
    limit_bps: Option<u64>,
    /// When the estimate was shared among the subscriptions last, and what it was.
    pub shared: Option<Instant>,
    pub allocated_bps: u64,
    /// What was shared out of it, in bits a second.
    pub used_bps: u64,
    /// Whether all had what they want, of an estimate that was more than a guess.
    pub is_settled: bool,
    /// Whether video leaves twice.
    pub repairs_ahead: bool,
    /// When there was no room for redundant audio last.
    redundancy_lacked_room: Option<Instant>,
    /// What was decided about what is sent over it.
    pub decisions: Decisions,
}

/// Microseconds since the shard began.
pub fn micros(epoch: Instant, now: Instant) -> i64 {
    now.saturating_duration_since(epoch).as_micros() as i64
}

impl Downlink {
    pub fn new(epoch: Instant, now: Instant) -> Self {
        Self {
            epoch,
            next_burst_us: 0,
            started_us: micros(epoch, now),
            estimator: Estimator::new(now, START_BPS),
            pacer: Pacer::new(micros(epoch, now), UNLIMITED_BPS),
            limited_since: None,
            limit_bps: None,
            shared: None,
            allocated_bps: 0,
            used_bps: 0,
            is_settled: false,
            repairs_ahead: false,
            redundancy_lacked_room: None,
            decisions: Decisions::default(),
        }
    }

    /// Whether the peer has told what its link carries. Until then everything leaves at once.
    pub fn is_limited(&self) -> bool {
        self.limited_since.is_some()
    }

    /// Shares no more than this from now on; `None` for the estimate.
    pub fn limit(&mut self, now: Instant, bps: Option<u64>) {
        self.limit_bps = bps;
        self.limited_since.get_or_insert(now);
    }

    /// What there is to share.
    pub fn shared_bps(&self) -> u64 {
        self.estimator.estimate_bps().min(self.limit_bps.unwrap_or(u64::MAX))
    }

    /// Whether audio leaves its redundancy behind: where it does not fit, and where it is of no
    /// use but takes from video that lacks room. `audio_bps` is what audio takes with it.
    pub fn sheds_redundancy(&mut self, now: Instant, audio_bps: u64, is_short: bool) -> bool {
        let state = self.estimator.state();
        let fits = audio_bps as f64 <= REDUNDANCY_SHARE * state.estimate_bps as f64;
        let is_lossy = state.loss.max(state.inherent_loss) > REDUNDANCY_LOSS;
        if !fits || is_short && !is_lossy {
            self.redundancy_lacked_room = Some(now);
        } else if is_lossy {
            self.redundancy_lacked_room = None;
        }
        self.redundancy_lacked_room.is_some_and(|at| now < at + REDUNDANCY_WAIT)
    }

    /// Whether the estimate is more than a guess: good enough to pause for.
    pub fn may_pause(&self, now: Instant) -> bool {
        self.limited_since.is_some_and(|since| now >= since + GUESS)
    }

    pub fn handle_transport_feedback(&mut self, now: Instant, feedback: &TransportFeedback<'_>) {
        if self.estimator.on_feedback(feedback, now) > 0 {
            self.limited_since.get_or_insert(now);
        }
        self.set_rate(now);
    }

    pub fn handle_remb(&mut self, now: Instant, bitrate: Bitrate) {
        self.estimator.on_remb(bitrate, now);
        self.limited_since.get_or_insert(now);
        self.set_rate(now);
    }

    pub fn handle_report(&mut self, now: Instant, block: &ReportBlock, rtt: Option<Duration>) {
        self.estimator.on_receiver_report(block, rtt, now);
        if block.fraction_lost >= REPORTED_LOSS {
            self.limited_since.get_or_insert(now);
        }
        self.set_rate(now);
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.estimator.handle_timeout(now);
        if self.estimator.state().cause == Cause::Silence {
            self.limited_since.get_or_insert(now);
        }
        self.set_rate(now);
    }

    /// The time of the shard by the clock of the estimator, in microseconds.
    #[inline]
    pub fn estimator_us(&self, since_epoch_us: i64) -> i64 {
        since_epoch_us - self.started_us
    }

    /// Until when what waits is held, to leave together with what comes meanwhile: bursts begin
    /// `gathering_us` apart, and video waits for the rest of its frame. `None`: it may leave now.
    #[inline]
    pub fn gathers_until(&self, now_us: i64, gathering_us: i64) -> Option<i64> {
        let (oldest_us, has_audio) = self.pacer.oldest()?;
        let wait_us = if has_audio { 0 } else { gathering_us.min(FRAME_WAIT.as_micros() as i64) };
        // A burst in the future by more than that is of another gathering.
        let burst_us = self.next_burst_us.min(now_us + gathering_us);
        let next_us = burst_us.max(oldest_us + wait_us);
        (next_us > now_us).then_some(next_us)
    }

    /// Whether media that has just come may leave in the same turn: nothing waits or is probed, and
    /// no burst has begun less than `gathering_us` ago but in this very turn.
    #[inline(always)]
    pub fn may_send_at_once(&mut self, now_us: i64, gathering_us: i64) -> bool {
        let wait_us = self.next_burst_us - now_us;
        let gathers = gathering_us > 0 && wait_us > 0 && wait_us != gathering_us;
        !gathers && !self.estimator.is_probing() && self.pacer.may_pass(now_us)
    }

    /// All that waited has left.
    #[inline]
    pub fn has_burst(&mut self, now_us: i64, gathering_us: i64) {
        self.next_burst_us = now_us + gathering_us;
    }

    /// The time of the shard as an instant.
    pub fn instant(&self, now_us: i64) -> Instant {
        self.epoch + Duration::from_micros(now_us.unsigned_abs())
    }

    /// Sets the pace by the estimate.
    pub fn set_rate(&mut self, now: Instant) {
        if !self.is_limited() {
            return;
        }
        let state = self.estimator.state();
        let is_calm = !self.estimator.is_braking()
            && state.usage != Usage::Overusing
            && state.queue_delay_ms < CALM_QUEUE_MS
            && state.loss < state.inherent_loss + CALM_LOSS;
        let room = match self.may_pause(now) {
            true => state.estimate_bps as f64 / self.used_bps.max(1) as f64,
            false => CALM_ROOM,
        };
        let share = ((room - 1.0) / (CALM_ROOM - 1.0)).clamp(0.0, 1.0);
        let factor = 1.0 + share * (CALM_FACTOR - 1.0);
        let calm_bps = if is_calm { factor * state.estimate_bps as f64 } else { 0.0 };
        let guess_bps = if is_calm && state.is_guess { GUESS_BPS } else { 0 };
        let pacing_bps = self.estimator.pacing_bps().max(calm_bps as u64).max(guess_bps);
        // A queue goes away again where there is room only.
        let full_bps = self.estimator.full_bps(now).filter(|_| share < 1.0);
        let pacing_bps = pacing_bps.min(full_bps.unwrap_or(u64::MAX));
        self.pacer.set_rate(pacing_bps, micros(self.epoch, now));
        let takes_bursts = is_calm
            && share > 0.0
            && state.queue_delay_ms < CALM_BURST_QUEUE_MS
            && state.estimate_bps >= CALM_BURST_BPS;
        self.pacer.set_calm(takes_bursts);
    }

    /// How long what waits for its turn will take.
    pub fn wait(&self) -> Duration {
        let bits = self.pacer.queued_bytes() as f64 * 8.0;
        Duration::from_secs_f64(bits / self.estimator.estimate_bps().max(1) as f64)
    }

    /// Whether the estimate has moved so far that it must be shared anew at once.
    pub fn has_moved(&self) -> bool {
        let (now_bps, before_bps) = (self.estimator.estimate_bps(), self.allocated_bps);
        now_bps.abs_diff(before_bps) * 32 > before_bps
    }
}

#[cfg(test)]
mod tests {
    use parlor_congestion::{Paced, Priority};

    use super::*;
    use crate::{arena::Key, forward::Sending};

    /// How long 42 kB, the keyframes of four small cameras, take on a link of which so much is
    /// used.
    fn keyframes_ms(used_bps: u64) -> i64 {
        let start = Instant::now();
        let mut link = Downlink::new(start, start);
        link.handle_remb(start, Bitrate(2_050_000));
        let now = start + GUESS;
        link.used_bps = used_bps;
        link.handle_remb(now, Bitrate(2_050_000));
        let begin_us = micros(start, now);
        for number in 0..36 {
            let queued = Queued { subscription: Key::NOWHERE, number, sending: Sending::Repeat };
            link.pacer.push(begin_us, queued, 1175, Priority::Video).unwrap();
        }
        let mut now_us = begin_us;
        while let Some(due_us) = link.pacer.poll_timeout() {
            now_us = due_us;
            while let Some(paced) = link.pacer.poll(now_us) {
                assert!(matches!(paced, Paced::Send(..)));
            }
        }
        (now_us - begin_us) / 1000
    }

    #[test]
    fn keyframes_that_come_together_do_not_wait_until_a_picture_freezes() {
        // A freeze is a picture that comes 150 ms late; the estimate was 1.28 times what was used.
        let calm = keyframes_ms(1_600_000);
        assert!(calm < 80, "{calm} ms");
        let busy = keyframes_ms(2_000_000);
        assert!((130..170).contains(&busy), "{busy} ms");
    }
}
