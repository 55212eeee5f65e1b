//! Tells publishers which codecs and layers their subscribers want (dynacast).

use crate::{host::Host, member::Member, outside::Outside};
use parlor_model::{Now, TrackKind, TrackSid};
use parlor_room::{Quality, Track};
use parlor_signal::{request, response};
use std::time::Instant;

impl Host {
    /// Looks again at the tracks of which something else may be wanted now.
    pub(crate) fn settle_demand(&mut self, cx: &mut Outside, now: Now) {
        for track in std::mem::take(&mut self.demand_changed) {
            let Some(known) = self.room.track(&track) else {
                self.demand.remove(&track);
                continue;
            };
            if known.kind == TrackKind::Audio && known.codecs.len() < 2 {
                continue;
            }
            // The room of its publisher says what is wanted of it.
            if self.tracks.get(&track).is_none_or(|publication| publication.is_forwarded) {
                continue;
            }
            let wanted = self.wanted(known);
            if self.update_demand(now.instant, &track, &wanted) {
                self.tell_demand(cx, &track);
            }
        }
    }

    /// What is wanted of each codec of a track, here and in rooms that it is forwarded to.
    pub(crate) fn wanted(&self, track: &Track) -> Vec<Option<Quality>> {
        let mut wanted = vec![None; track.codecs.len()];
        let here = self.members.values().filter_map(|member| self.wanted_by(member, track));
        let here = here.map(|(codec, quality)| (codec, Some(quality)));
        let elsewhere = self.wanted_elsewhere.values().filter_map(|of| of.get(&track.sid));
        let elsewhere = elsewhere.flat_map(|codecs| codecs.iter().copied().enumerate());
        for (codec, quality) in here.chain(elsewhere) {
            if let Some(wanted) = wanted.get_mut(codec) {
                *wanted = (*wanted).max(quality);
            }
        }
        wanted
    }

    /// Takes what is wanted of each codec; returns whether the publisher has to be told.
    fn update_demand(
        &mut self,
        now: Instant,
        track: &TrackSid,
        wanted: &[Option<Quality>],
    ) -> bool {
        let Some(known) = self.room.track(track) else { return false };
        let demand = self.demand.entry(track.clone()).or_default();
        demand.resize_with(wanted.len(), Default::default);
        let mut changed = false;
        for (index, (demand, wanted)) in demand.iter_mut().zip(wanted).enumerate() {
            changed |= match index < known.regressed_to {
                true => demand.update_at_once(*wanted),
                false => demand.update(now, *wanted),
            };
        }
        if changed {
            // What nobody has wanted yet of the codecs that are sent is turned off in its time.
            let sent = demand.iter_mut().zip(wanted).zip(&known.codecs);
            for ((demand, wanted), _) in sent.filter(|(_, codec)| !codec.mid.is_empty()) {
                demand.begin();
                demand.update(now, *wanted);
            }
        }
        changed
    }

    fn tell_demand(&self, cx: &mut Outside, track: &TrackSid) {
        let Some(known) = self.room.track(track) else { return };
        let Some(demand) = self.demand.get(track) else { return };
        let mut told: Vec<_> = demand
            .iter()
            .enumerate()
            .filter_map(|(index, demand)| Some((index, demand.told()?)))
            .collect();
        // What somebody wants comes first: old clients look at nothing else.
        told.sort_by_key(|(_, wanted)| wanted.is_none());
        let message = match known.kind {
            TrackKind::Video => response::subscribed_quality(known, &told),
            TrackKind::Audio => {
                let told: Vec<_> =
                    told.into_iter().map(|(index, wanted)| (index, wanted.is_some())).collect();
                response::subscribed_audio_codecs(known, &told)
            }
        };
        self.send(cx, &known.publisher, message);
    }

    /// Which codec a subscriber is sent, and which quality of it it wants; `None` if nothing.
    fn wanted_by(&self, subscriber: &Member, track: &Track) -> Option<(usize, Quality)> {
        let codec = self.carried_codec(subscriber, track)?;
        let Some(settings) = subscriber.track_settings.get(&track.sid) else {
            return Some((codec, Quality::High));
        };
        let layers = track.codecs.get(codec).map_or(&[][..], |codec| &codec.layers);
        let by_size = layers
            .iter()
            .find(|layer| layer.width >= settings.width || layer.height >= settings.height);
        let quality = match by_size {
            Some(layer) if settings.width > 0 && settings.height > 0 => layer.quality,
            None if settings.width > 0 && settings.height > 0 => Quality::High,
            _ => request::quality(settings.quality()),
        };
        (!settings.disabled && quality != Quality::Off).then_some((codec, quality))
    }

    pub(crate) fn demand_deadline(&self) -> Option<Instant> {
        self.demand.values().flatten().filter_map(parlor_room::Demand::poll_timeout).min()
    }

    /// Marks the tracks of which less has been wanted for long enough.
    pub(crate) fn expire_demand(&mut self, now: Instant) {
        let is_due =
            |demand: &parlor_room::Demand| demand.poll_timeout().is_some_and(|due| due <= now);
        let due = self.demand.iter().filter(|(_, codecs)| codecs.iter().any(is_due));
        let due: Vec<TrackSid> = due.map(|(track, _)| track.clone()).collect();
        self.demand_changed.extend(due);
    }
}
