//! What subscribers are sent: which encoding of a track, and how much of it.

use crate::{
    host::Host,
    member::{Member, Publication},
    outside::Outside,
};
use livekit_protocol as proto;
use parlor_model::{Codec, ParticipantSid, SubscriptionId, TrackId, TrackKind, TrackSid};
use parlor_room::{Room, Track};
use parlor_sdp::{SendSource, SendTrack};
use parlor_sfu::command::{
    CAMERA_PRIORITY, MediaCommand, PlayoutDelay, SCREEN_PRIORITY, SubscriptionSettings,
};

impl Host {
    /// Gives every codec of a publication its id on the packet path.
    pub(crate) fn identify_encodings(
        &mut self,
        cx: &mut Outside,
        publisher: &ParticipantSid,
        track: &TrackSid,
    ) {
        let address = self.address(publisher);
        let Some(known) = self.room.track(track) else { return };
        let publication = self.tracks.entry(track.clone()).or_default();
        let Some(home) = self.members.get(publisher).map(|member| member.connection.shard()) else {
            return;
        };
        let is_further = !publication.ids.is_empty();
        while publication.ids.len() < known.codecs.len() {
            let id = cx.track_id(home);
            cx.tracks.insert(id, (address.clone(), track.clone()));
            if known.announced.encryption != 0 {
                let trailer = self.sif_trailer.clone().into();
                cx.command(home, MediaCommand::SetFrameTrailer { track: id, trailer });
            }
            if is_further && known.muted {
                cx.command(home, MediaCommand::SetTrackMuted { track: id, muted: true });
            }
            publication.ids.push(id);
        }
        if is_further {
            self.sources_changed(cx, track);
        }
    }

    /// The position of the codec that an encoding is of.
    pub(crate) fn codec_of(&self, track: &TrackSid, encoding: TrackId) -> Option<usize> {
        let publication = self.tracks.get(track)?;
        publication.ids.iter().position(|id| *id == encoding)
    }

    /// The position of the codec that a subscriber is sent; `None` while nothing is agreed on.
    pub(crate) fn carried_codec(&self, subscriber: &Member, track: &Track) -> Option<usize> {
        let subscription = subscriber.subscriptions.get(&track.sid)?;
        let encoding = *subscriber.carried.get(subscription)?;
        self.codec_of(&track.sid, encoding)
    }

    pub(crate) fn subscribed(
        &mut self,
        cx: &mut Outside,
        subscriber: &ParticipantSid,
        publisher: &ParticipantSid,
        track: TrackSid,
    ) {
        let Some(known) = self.room.track(&track) else { return };
        let publication = self.tracks.get(&track);
        let Some(sources) = publication.map(|publication| sources(known, publication)) else {
            return;
        };
        let Some(member) = self.members.get_mut(subscriber) else { return };
        let subscription = cx.subscription_id();
        let shard = member.connection.shard();
        let is_video = known.kind == TrackKind::Video;
        if is_video && member.adaptive_stream {
            // The lowest quality, until it says what it shows.
            member.track_settings.entry(track.clone()).or_default();
        }
        let wanted = member.track_settings.get(&track);
        let settings = subscription_settings(&self.room, known, 0, wanted, member.allows_pause);
        member.connection.add_send(SendTrack {
            subscription,
            kind: known.kind,
            sources,
            stream_id: stream_id(publisher, known, member.syncs_streams),
            track_id: track.to_string(),
            ssrc: cx.ssrc(),
            rtx_ssrc: is_video.then(|| cx.ssrc()),
            stereo: known.announced.stereo,
        });
        cx.command(shard, MediaCommand::SetSubscription { subscription, settings });
        tracing::info!(room = %self.room.name(), participant = %subscriber, %track, "subscribed");
        member.subscriptions.insert(track, subscription);
        self.unsettled.insert(subscriber.clone());
    }

    pub(crate) fn unsubscribed(
        &mut self,
        cx: &mut Outside,
        subscriber: &ParticipantSid,
        track: &TrackSid,
    ) {
        let Some(member) = self.members.get_mut(subscriber) else { return };
        let Some(subscription) = member.subscriptions.remove(track) else { return };
        member.carried.remove(&subscription);
        member.told_unsupported.remove(&subscription);
        let shard = member.connection.shard();
        cx.command(shard, MediaCommand::StopSubscription { subscription, blank: true });
        member.connection.remove_send(subscription);
        tracing::info!(room = %self.room.name(), participant = %subscriber, %track, "unsubscribed");
        self.unsettled.insert(subscriber.clone());
    }

    /// The encodings of a track are others, or in another order: subscribers are sent the first
    /// that they decode.
    pub(crate) fn sources_changed(&mut self, cx: &mut Outside, track: &TrackSid) {
        let Some(known) = self.room.track(track) else { return };
        let publication = self.tracks.get(track);
        let Some(sources) = publication.map(|publication| sources(known, publication)) else {
            return;
        };
        let mut carried = Vec::new();
        let members = self.members.values();
        let takers = members.filter(|member| member.subscriptions.contains_key(track));
        for sid in takers.map(|member| member.sid.clone()).collect::<Vec<_>>() {
            let Some(member) = self.members.get_mut(&sid) else { continue };
            let Some(subscription) = member.subscriptions.get(track) else { continue };
            let now = member.connection.set_sources(cx, *subscription, &sources);
            carried.push((sid, now));
        }
        for (sid, now) in carried {
            self.take_carried(cx, &sid, &now);
            self.unsettled.insert(sid);
        }
    }

    /// Takes over which encodings a subscriber's connection carries, and what its settings mean
    /// for them.
    pub(crate) fn take_carried(
        &mut self,
        cx: &mut Outside,
        subscriber: &ParticipantSid,
        carried: &[(SubscriptionId, TrackId)],
    ) {
        let Some(member) = self.members.get_mut(subscriber) else { return };
        let mut changed = Vec::new();
        for (track, subscription) in &member.subscriptions {
            let now = carried.iter().find(|(other, _)| other == subscription);
            let Some((_, encoding)) = now else { continue };
            let before = member.carried.insert(*subscription, *encoding);
            cx.statistics.subscribe.successes += u64::from(before.is_none());
            if before != Some(*encoding) {
                changed.push(track.clone());
            }
        }
        for track in changed {
            if let Some(known) = self.room.track(&track)
                && let Some(member) = self.members.get(subscriber)
            {
                self.tell_settings(cx, member, known, member.track_settings.get(&track));
            }
            self.demand_changed.insert(track);
        }
    }

    /// Tells the packet path how a subscriber wants a track.
    pub(crate) fn tell_settings(
        &self,
        cx: &mut Outside,
        subscriber: &Member,
        track: &Track,
        wanted: Option<&proto::UpdateTrackSettings>,
    ) {
        let Some(subscription) = subscriber.subscriptions.get(&track.sid).copied() else { return };
        let codec = self.carried_codec(subscriber, track).unwrap_or(0);
        let settings =
            subscription_settings(&self.room, track, codec, wanted, subscriber.allows_pause);
        let shard = subscriber.connection.shard();
        cx.command(shard, MediaCommand::SetSubscription { subscription, settings });
    }
}

/// The media stream in which a subscriber finds a track: one of its own, or the one that all
/// tracks of its source share.
fn stream_id(publisher: &ParticipantSid, track: &Track, synced: bool) -> String {
    match track.announced.stream.as_str() {
        stream if synced && !stream.is_empty() => format!("{publisher}|{stream}"),
        _ => format!("{publisher}|{}", track.sid),
    }
}

/// What receivers in a room are told to wait before they show a frame.
fn playout_delay(room: &Room) -> Option<PlayoutDelay> {
    let delay = room.settings().playout_delay?;
    let max_ms = match delay.max_ms {
        0 => PlayoutDelay::LIMIT_MS,
        max_ms => max_ms.max(delay.min_ms),
    };
    Some(PlayoutDelay { min_ms: delay.min_ms, max_ms })
}

/// The encodings of a track in the order in which subscribers are offered them: what is published,
/// and backups that are published once somebody needs them. Where RED is sent, plain Opus may be too.
fn sources(track: &Track, publication: &Publication) -> Vec<SendSource> {
    let source = |index: usize| {
        let (codec, id) = (track.codecs.get(index)?, publication.ids.get(index)?);
        let is_offered = index > 0 || !codec.mid.is_empty();
        let codec = Codec::from_mime_type(&codec.mime_type).filter(|_| is_offered)?;
        let codecs = match codec {
            Codec::Red => vec![Codec::Red, Codec::Opus],
            _ => vec![codec],
        };
        Some(SendSource { track: *id, codecs })
    };
    track.codec_order().filter_map(source).collect()
}

/// What a subscriber's settings of a track mean on the packet path, where this codec of it
/// is sent.
fn subscription_settings(
    room: &Room,
    track: &Track,
    codec: usize,
    settings: Option<&proto::UpdateTrackSettings>,
    may_pause: bool,
) -> SubscriptionSettings {
    let is_screen = track.announced.source == parlor_model::TrackSource::ScreenShare;
    let priority = if is_screen { SCREEN_PRIORITY } else { CAMERA_PRIORITY };
    let layers = track.codecs.get(codec).map_or(&[][..], |codec| &codec.layers);
    let mut heights = [0; 3];
    for (height, layer) in heights.iter_mut().zip(layers) {
        *height = u16::try_from(layer.height).unwrap_or(u16::MAX);
    }
    let by_track = SubscriptionSettings {
        is_screen,
        priority,
        may_pause,
        heights,
        playout_delay: playout_delay(room),
        ..SubscriptionSettings::default()
    };
    let Some(wanted) = settings else { return by_track };
    let index = |index: usize| u8::try_from(index).unwrap_or(u8::MAX);
    let max_layer = if wanted.width > 0 && wanted.height > 0 {
        let fits = |layer: &parlor_room::VideoLayer| {
            layer.width >= wanted.width || layer.height >= wanted.height
        };
        layers.iter().position(fits).map_or(u8::MAX, index)
    } else {
        let quality = parlor_signal::request::quality(wanted.quality());
        let above = layers.iter().position(|layer| layer.quality > quality);
        above.map_or(u8::MAX, |above| index(above.saturating_sub(1)))
    };
    SubscriptionSettings {
        enabled: !wanted.disabled,
        max_layer,
        max_fps: (wanted.fps > 0).then_some(wanted.fps),
        shown_pixels: wanted.width.saturating_mul(wanted.height),
        // Theirs begins with 1, the highest; they lie between a camera's and a screen's.
        priority: match wanted.priority {
            0 => priority,
            wanted => {
                u8::try_from(wanted).map_or(CAMERA_PRIORITY, |wanted| SCREEN_PRIORITY - wanted)
            }
        },
        ..by_track
    }
}
