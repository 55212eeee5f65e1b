//! How loud the tracks of a shard are, told all at once.

use std::time::Instant;

use crate::{
    command::{MediaEvent, TrackLevel},
    peer::{bring_forward, take_due},
    receive::audio_level::LEVEL_INTERVAL,
    shard::Shard,
};

impl Shard {
    /// Has loudness looked at within an interval.
    #[inline]
    pub(crate) fn expect_levels(&mut self, now: Instant) {
        if self.levels_due.is_none() {
            bring_forward(&mut self.levels_due, now + LEVEL_INTERVAL);
        }
    }

    /// Tells what has changed, and looks again as long as anything may.
    pub(crate) fn tell_levels(&mut self, now: Instant) {
        if !take_due(&mut self.levels_due, now) {
            return;
        }
        let mut levels = Vec::new();
        let mut more = false;
        for track in self.tracks.iter_mut() {
            if let Some(eighths) = track.loudness.take_change(now) {
                levels.push(TrackLevel { track: track.id, eighths });
            }
            more |= track.loudness.may_change();
        }
        if more {
            self.levels_due = Some(now + LEVEL_INTERVAL);
        }
        if !levels.is_empty() {
            self.event(MediaEvent::AudioLevels { levels });
        }
    }
}
