//! Tells publishers which layers their subscribers want (dynacast).

use crate::{host::Host, outside::Outside};
use parlor_model::{Now, ParticipantSid, TrackKind, TrackSid};
use parlor_room::{Quality, Track};
use parlor_signal::{request, response};
use std::time::Instant;

impl Host {
    /// Looks again at the tracks of which other layers may be wanted now.
    pub(crate) fn settle_demand(&mut self, cx: &mut Outside, now: Now) {
        for track in std::mem::take(&mut self.demand_changed) {
            let Some(known) = self.room.track(&track) else {
                self.demand.remove(&track);
                continue;
            };
            if known.kind != TrackKind::Video {
                continue;
            }
            let wants = self.members.keys().filter_map(|sid| self.wanted_by(sid, known));
            let wanted = wants.max();
            let publisher = known.publisher.clone();
            let demand = self.demand.entry(track).or_default();
            if let Some(told) = demand.update(now.instant, wanted) {
                let message = response::subscribed_quality(known, told);
                self.send(cx, &publisher, message);
            }
        }
    }

    fn wanted_by(&self, subscriber: &ParticipantSid, track: &Track) -> Option<Quality> {
        let member = self.members.get(subscriber)?;
        member.subscriptions.get(&track.sid)?;
        let Some(settings) = member.track_settings.get(&track.sid) else {
            return Some(Quality::High);
        };
        let layers = track.codecs.first().map_or(&[][..], |codec| &codec.layers);
        let by_size = layers
            .iter()
            .find(|layer| layer.width >= settings.width || layer.height >= settings.height);
        let quality = match by_size {
            Some(layer) if settings.width > 0 && settings.height > 0 => layer.quality,
            None if settings.width > 0 && settings.height > 0 => Quality::High,
            _ => request::quality(settings.quality()),
        };
        (!settings.disabled && quality != Quality::Off).then_some(quality)
    }

    pub(crate) fn demand_deadline(&self) -> Option<Instant> {
        self.demand.values().filter_map(parlor_room::Demand::poll_timeout).min()
    }

    /// Marks the tracks of which less has been wanted for long enough.
    pub(crate) fn expire_demand(&mut self, now: Instant) {
        let is_due =
            |demand: &parlor_room::Demand| demand.poll_timeout().is_some_and(|due| due <= now);
        let due = self.demand.iter().filter(|(_, demand)| is_due(demand));
        let due: Vec<TrackSid> = due.map(|(track, _)| track.clone()).collect();
        self.demand_changed.extend(due);
    }
}
