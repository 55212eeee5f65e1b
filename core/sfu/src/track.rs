//! A published track: its streams, and who of this shard gets which of them.

use std::time::{Duration, Instant};

use bytes::Bytes;
use parlor_congestion::allocate::{LayerBitrates, SPATIAL_MAX};
use parlor_model::{
    Codec, CodecBinding, ExtensionIds, Feedback, Mid, PayloadType, ReceiveSection, ReceiveStream,
    SequenceNumber, ShardId, Ssrc, TrackId, TrackKind,
};

use parlor_rtp::red::Red;

use crate::{
    arena::Key,
    command::SubscriptionSettings,
    forward::{Subscription, select::Wanted},
    peer::Peer,
    receive::{Stream, audio_level::LevelMeter, bitrate::OVERHEAD_BYTES},
};

/// How long a layer must have been alive before it is preferred to a lower one.
const STABLE_AFTER: Duration = Duration::from_secs(1);
/// Video of which nothing has come for so long has ceased; a still screen is sent each second.
const CEASED: Duration = Duration::from_secs(3);
/// What a stream is taken for that has just begun.
const AUDIO_GUESS_BPS: u32 = 50_000;
const LAYER_GUESS_BPS: [u32; SPATIAL_MAX] = [160_000, 450_000, 1_700_000];
/// A publisher that has just begun with a layer still raises its rate: what it takes now is not
/// what it will.
const RISING: Duration = Duration::from_secs(4);
/// Streams of one track.
pub const MAX_STREAMS: usize = 4;

/// One subscription in the dense list that every packet of the track walks.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    pub subscription: Key<Subscription>,
    pub peer: Key<Peer>,
    /// Whether anything may be forwarded at all.
    pub active: bool,
    /// The stream that is forwarded.
    pub current: Option<u8>,
    /// The stream to forward from its next keyframe on, if another.
    pub target: Option<u8>,
    pub max_layer: u8,
    pub max_fps: Option<u32>,
    /// The highest temporal layer that the link carries.
    pub fitting_temporal: u8,
    /// The highest temporal layer that `max_fps` and the link leave.
    pub max_temporal: u8,
}

impl Route {
    /// Inactive until the peer and the settings allow it.
    pub fn new(
        subscription: Key<Subscription>,
        peer: Key<Peer>,
        settings: &SubscriptionSettings,
    ) -> Self {
        Self {
            subscription,
            peer,
            active: false,
            current: None,
            target: None,
            max_layer: settings.max_layer,
            max_fps: settings.max_fps,
            fitting_temporal: u8::MAX,
            max_temporal: u8::MAX,
        }
    }

    /// What is wanted of a stream, by whether it is the only one of its track.
    #[inline]
    pub fn wanted(&self, is_only: bool) -> Wanted {
        let spatial = if is_only { self.max_layer } else { u8::MAX };
        Wanted { spatial, temporal: self.max_temporal }
    }
}

/// Where the packets of a track come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Publisher {
    Peer(Key<Peer>),
    /// The shard that it is published at.
    Home,
}

/// See the module. Subscriptions may come before the publication that they wait for.
pub struct Track {
    pub id: TrackId,
    pub publisher: Option<Publisher>,
    /// Other shards with subscribers to it.
    pub guests: Vec<ShardId>,
    pub mid: Option<Mid>,
    pub kind: TrackKind,
    pub codecs: Vec<CodecBinding>,
    pub extensions: ExtensionIds,
    pub feedback: Feedback,
    pub streams: Vec<Stream>,
    pub routes: Vec<Route>,
    pub muted: bool,
    /// When a keyframe of any of its streams was asked for.
    pub asked_for_keyframe: Option<Instant>,
    /// What frames of our own end with.
    pub frame_trailer: Bytes,
    /// How loud it is.
    pub loudness: LevelMeter,
    /// Where the numbers of a new stream begin: above all that subscriptions have seen.
    next_cycle: u64,
}

impl Track {
    pub fn new(id: TrackId) -> Self {
        Self {
            id,
            publisher: None,
            guests: Vec::new(),
            mid: None,
            kind: TrackKind::Audio,
            codecs: Vec::new(),
            extensions: ExtensionIds::default(),
            feedback: Feedback::default(),
            streams: Vec::new(),
            routes: Vec::new(),
            muted: false,
            asked_for_keyframe: None,
            frame_trailer: Bytes::new(),
            loudness: LevelMeter::default(),
            next_cycle: 1,
        }
    }

    /// Takes over what a publisher has agreed on. Streams that stay keep what is known of them.
    pub fn publish(&mut self, publisher: Publisher, section: &ReceiveSection) {
        let clock_rate =
            section.codecs.first().map_or(90_000, |binding| binding.codec.clock_rate());
        let mut old = std::mem::take(&mut self.streams);
        self.next_cycle = cycle_after(&old, self.next_cycle);
        if self.publisher != Some(publisher) {
            old.clear();
        }
        self.streams.reserve_exact(section.streams.len().min(MAX_STREAMS));
        for announced in section.streams.iter().take(MAX_STREAMS) {
            let same = |stream: &Stream| {
                stream.rid == announced.rid
                    && stream.layer == announced.layer
                    && (announced.ssrc.is_none() || stream.ssrc == announced.ssrc)
            };
            let stream = match old.iter().position(same) {
                Some(at) => {
                    let mut stream = old.remove(at);
                    stream.rtx_ssrc = announced.rtx_ssrc.or(stream.rtx_ssrc);
                    stream
                }
                None => Stream::new(announced, section.kind, clock_rate, self.next_cycle),
            };
            self.streams.push(stream);
        }
        if !old.is_empty() {
            self.forget_sources();
        }
        self.publisher = Some(publisher);
        self.mid = Some(section.mid);
        self.kind = section.kind;
        self.codecs.clone_from(&section.codecs);
        self.codecs.truncate(crate::forward::MAX_CODECS);
        self.extensions = section.extensions;
        self.feedback = section.feedback;
    }

    /// Another SSRC goes on in a stream's place.
    pub fn take_over(&mut self, at: u8, ssrc: Ssrc, first: SequenceNumber) {
        if let Some(stream) = self.streams.get_mut(usize::from(at)) {
            stream.take_over(ssrc, first);
        }
        for route in &mut self.routes {
            route.current = route.current.filter(|current| *current != at);
        }
    }

    /// What was agreed on with its publisher, and what is known of its streams by now.
    pub fn section(&self) -> Option<ReceiveSection> {
        self.publisher?;
        let announced = |stream: &Stream| ReceiveStream {
            rid: stream.rid,
            ssrc: stream.ssrc,
            rtx_ssrc: stream.rtx_ssrc,
            layer: stream.layer,
        };
        Some(ReceiveSection {
            mid: self.mid?,
            track: self.id,
            kind: self.kind,
            codecs: self.codecs.clone(),
            extensions: self.extensions,
            feedback: self.feedback,
            streams: self.streams.iter().map(announced).collect(),
        })
    }

    /// The publication has ended.
    pub fn unpublish(&mut self) {
        self.publisher = None;
        self.mid = None;
        self.next_cycle = cycle_after(&self.streams, self.next_cycle);
        self.streams.clear();
        self.loudness.silence();
        self.forget_sources();
    }

    /// Nothing is forwarded until the next keyframe: the streams are others, or paused.
    pub fn forget_sources(&mut self) {
        for route in &mut self.routes {
            route.current = None;
            route.target = None;
        }
    }

    /// Whether there may be something to choose.
    pub fn has_layers(&self) -> bool {
        self.kind == TrackKind::Video
    }

    pub fn is_unused(&self) -> bool {
        let is_published_here = matches!(self.publisher, Some(Publisher::Peer(_)));
        !is_published_here && self.routes.is_empty() && self.guests.is_empty()
    }

    /// The codec of a payload type, with its position, and whether it is of retransmissions.
    #[inline]
    pub fn codec_of(&self, payload_type: PayloadType) -> Option<(u8, CodecBinding, bool)> {
        self.codecs.iter().enumerate().find_map(|(index, binding)| {
            if binding.payload_type == payload_type {
                Some((index as u8, *binding, false))
            } else if binding.rtx == Some(payload_type) {
                Some((index as u8, *binding, true))
            } else {
                None
            }
        })
    }

    pub fn route_mut(&mut self, subscription: Key<Subscription>) -> Option<&mut Route> {
        self.routes.iter_mut().find(|route| route.subscription == subscription)
    }

    pub fn remove_route(&mut self, subscription: Key<Subscription>) {
        self.routes.retain(|route| route.subscription != subscription);
    }

    /// Whether its video has stopped coming, as when its publisher is gone without a word. Until it
    /// comes again nothing is kept free for it.
    pub fn has_ceased(&self, now: Instant) -> bool {
        let newest = self.streams.iter().filter_map(|stream| stream.last_packet).max();
        self.kind == TrackKind::Video && newest.is_some_and(|newest| now >= newest + CEASED)
    }

    /// What each layer takes now, in bits a second with all that it depends on; a guess where a
    /// layer has just begun, nothing where none comes.
    pub fn bitrates(&self, now: Instant) -> LayerBitrates {
        let mut out = LayerBitrates::default();
        if self.muted {
            return out;
        }
        let newest = self.streams.iter().filter_map(|stream| stream.last_packet).max();
        let alive = || self.streams.iter().filter(|stream| is_alive(stream, newest));
        let lowest = alive().map(|stream| stream.layer).min();
        for stream in alive() {
            let measured = stream.layers.cumulative(now);
            if self.streams.len() == 1
                && let Some(measured) = measured
            {
                return measured;
            }
            let at = usize::from(stream.layer).min(SPATIAL_MAX - 1);
            let guess = match self.kind {
                TrackKind::Audio => AUDIO_GUESS_BPS,
                TrackKind::Video => LAYER_GUESS_BPS[at],
            };
            let guessed = || [Some(guess), None, None, None];
            out[at] = measured.map_or_else(guessed, |measured| measured[0]);
            let rises = stream.alive_since.is_some_and(|since| now < since + RISING);
            if rises && Some(stream.layer) != lowest {
                let least = |bps: &mut u32| *bps = guess.max(*bps);
                out[at].iter_mut().flatten().for_each(least);
            }
        }
        out
    }

    /// What is left of audio without its redundancy, as a share, by the newest packet.
    pub fn primary_share(&self) -> f64 {
        let newest = self.streams.first().and_then(|stream| {
            let (facts, parts) = stream.history.get(stream.history.highest())?;
            let red = (facts.codec == Codec::Red).then(|| Red::parse(parts.payload).ok())??;
            let whole = parts.payload.len() + OVERHEAD_BYTES;
            Some((red.primary().len() + OVERHEAD_BYTES) as f64 / whole as f64)
        });
        newest.unwrap_or(1.0)
    }

    /// Chooses a target for each route and asks for the keyframes that this takes.
    pub fn select(&mut self, now: Instant) {
        if self.muted {
            return;
        }
        let newest = self.streams.iter().filter_map(|stream| stream.last_packet).max();
        // Many routes ask for the same, one after the other.
        let mut last = None;
        for route in self.routes.iter_mut().filter(|route| route.active) {
            let asked = (route.max_layer, route.current, route.max_fps);
            let (target, max_temporal) = match last {
                Some((before, chosen)) if before == asked => chosen,
                _ => {
                    let target = choose(&self.streams, newest, now, route.max_layer, route.current);
                    let forwarded =
                        route.current.or(target).and_then(|at| self.streams.get(usize::from(at)));
                    let temporal_for = |stream: &Stream| stream.rates.temporal_for(route.max_fps);
                    (target, forwarded.map_or(u8::MAX, temporal_for))
                }
            };
            last = Some((asked, (target, max_temporal)));
            route.target = target;
            route.max_temporal = max_temporal.min(route.fitting_temporal);
            if target != route.current
                && let Some(stream) = target.and_then(|at| self.streams.get_mut(usize::from(at)))
            {
                stream.keyframe.request(now, stream.layer);
            }
        }
    }
}

fn cycle_after(streams: &[Stream], least: u64) -> u64 {
    streams.iter().map(Stream::cycle_after).fold(least, u64::max)
}

/// Whether packets still come, or would if any of the track did.
fn is_alive(stream: &Stream, newest: Option<Instant>) -> bool {
    match (stream.last_packet, newest) {
        (Some(last), Some(newest)) => last + stream.silence() >= newest,
        _ => false,
    }
}

/// The highest allowed stream that has been alive long enough; until there is one, the one that is
/// forwarded, or the highest that is alive.
fn choose(
    streams: &[Stream],
    newest: Option<Instant>,
    now: Instant,
    max_layer: u8,
    current: Option<u8>,
) -> Option<u8> {
    let lowest = streams.iter().map(|stream| stream.layer).min().unwrap_or(0);
    let max_layer = max_layer.max(lowest);
    let allowed = |at: u8| {
        streams
            .get(usize::from(at))
            .filter(|stream| stream.layer <= max_layer && is_alive(stream, newest))
    };
    let is_stable =
        |stream: &Stream| stream.alive_since.is_some_and(|since| since + STABLE_AFTER <= now);
    let candidates = || (0..streams.len() as u8).rev().filter_map(|at| Some((at, allowed(at)?)));
    let by_layer = |(_, stream): &(u8, &Stream)| stream.layer;
    let stable = candidates().filter(|(_, stream)| is_stable(stream)).max_by_key(by_layer);
    if candidates().next().is_none() {
        // Rather one that is too high than none.
        let living = (0..streams.len() as u8).filter(|at| {
            streams.get(usize::from(*at)).is_some_and(|stream| is_alive(stream, newest))
        });
        return living.min_by_key(|at| streams.get(usize::from(*at)).map(|stream| stream.layer));
    }
    let current = current.filter(|at| allowed(*at).is_some());
    let Some((stable, stream)) = stable else {
        return current.or_else(|| candidates().max_by_key(by_layer).map(|(at, _)| at));
    };
    // A higher one that is forwarded already, as at the very beginning, is not given up.
    let is_higher = |at: &u8| allowed(*at).is_some_and(|higher| higher.layer > stream.layer);
    current.filter(is_higher).or(Some(stable))
}

/// Whether a route takes a keyframe of a stream as the beginning of that stream.
#[inline]
pub fn accepts(route: &Route, streams: &[Stream], stream: u8) -> bool {
    if route.target == Some(stream) {
        return true;
    }
    let layer = |at: u8| streams.get(usize::from(at)).map(|stream| stream.layer);
    let Some(offered) = layer(stream) else { return false };
    match (route.current.and_then(layer), route.target.and_then(layer)) {
        (None, _) => offered <= route.max_layer || streams.len() == 1,
        (Some(current), Some(target)) => current < offered && offered < target,
        (Some(_), None) => false,
    }
}
