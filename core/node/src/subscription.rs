//! What a subscription means in the terms of negotiation and of the packet path.

use livekit_protocol as proto;
use parlor_model::{Codec, ParticipantSid};
use parlor_room::{Room, Track};
use parlor_sfu::command::{CAMERA_PRIORITY, PlayoutDelay, SCREEN_PRIORITY, SubscriptionSettings};

/// The media stream in which a subscriber finds a track: one of its own, or the one that all
/// tracks of its source share.
pub(crate) fn stream_id(publisher: &ParticipantSid, track: &Track, synced: bool) -> String {
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

/// What a publisher sends, preferred first. Where RED is sent, plain Opus may be too.
pub(crate) fn sent_codecs(track: &Track) -> Vec<Codec> {
    let codecs: Vec<Codec> = track
        .codecs
        .iter()
        .filter(|codec| !codec.mid.is_empty())
        .filter_map(|codec| Codec::from_mime_type(&codec.mime_type))
        .collect();
    match codecs.first() {
        Some(Codec::Red) => vec![Codec::Red, Codec::Opus],
        _ => codecs,
    }
}

/// What a subscriber's settings of a track mean on the packet path.
pub(crate) fn subscription_settings(
    room: &Room,
    track: &Track,
    settings: Option<&proto::UpdateTrackSettings>,
    may_pause: bool,
) -> SubscriptionSettings {
    let is_screen = track.announced.source == parlor_model::TrackSource::ScreenShare;
    let priority = if is_screen { SCREEN_PRIORITY } else { CAMERA_PRIORITY };
    let by_track = SubscriptionSettings {
        is_screen,
        priority,
        may_pause,
        playout_delay: playout_delay(room),
        ..SubscriptionSettings::default()
    };
    let Some(wanted) = settings else { return by_track };
    let layers = track.codecs.first().map_or(&[][..], |codec| &codec.layers);
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
