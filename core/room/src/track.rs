//! A publication: what its publisher announced, and what media has shown since.

use parlor_model::{Codec, ParticipantSid, Ssrc, TrackKind, TrackSid, TrackSource};

/// What a publisher announces before it sends (`AddTrackRequest`).
#[derive(Clone, PartialEq, Debug, Default)]
pub struct NewTrack {
    /// The client's id of the track, which its offer repeats as msid.
    pub cid: String,
    /// Heard or seen; `None` for kinds that Parlor does not know.
    pub kind: Option<TrackKind>,
    /// Name for people.
    pub name: String,
    /// Where it comes from.
    pub source: TrackSource,
    /// Width in pixels, 0 for audio.
    pub width: u32,
    /// Height in pixels, 0 for audio.
    pub height: u32,
    /// Whether it starts muted.
    pub muted: bool,
    /// Layers of the first codec, where the codecs do not list their own.
    pub layers: Vec<VideoLayer>,
    /// Codecs in the publisher's order; empty for audio.
    pub codecs: Vec<NewCodec>,
    /// An existing track, to which further codecs are added.
    pub sid: Option<TrackSid>,
    /// Two channels.
    pub stereo: bool,
    /// Opus without discontinuous transmission.
    pub disable_dtx: bool,
    /// Opus without RED.
    pub disable_red: bool,
    /// Synchronisation group; empty for the default of the source.
    pub stream: String,
    /// `Encryption.Type` of the protocol; carried, not interpreted.
    pub encryption: i32,
    /// `BackupCodecPolicy` of the protocol; carried, not interpreted.
    pub backup_codec_policy: i32,
    /// `AudioTrackFeature`s of the protocol; carried, not interpreted.
    pub audio_features: Vec<i32>,
    /// `PacketTrailerFeature`s of the protocol; carried, not interpreted.
    pub packet_trailer_features: Vec<i32>,
}

/// One codec of a [`NewTrack`].
#[derive(Clone, PartialEq, Debug, Default)]
pub struct NewCodec {
    /// Name with or without the `video/` prefix.
    pub codec: String,
    /// The client's id of the media track that carries it; empty until it is published.
    pub cid: String,
    /// Its layers; empty for those of the track.
    pub layers: Vec<VideoLayer>,
    /// How layers map to streams; `None` for the codec's default.
    pub layer_mode: Option<LayerMode>,
}

/// How spatial layers map to RTP streams (`VideoLayer.Mode`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum LayerMode {
    OneSpatialLayerPerStream,
    MultipleSpatialLayersPerStream,
    OneSpatialLayerPerStreamIncompleteRtcpSr,
}

/// `VideoQuality` of the protocol, lowest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[allow(missing_docs)]
pub enum Quality {
    #[default]
    Low,
    Medium,
    High,
    Off,
}

/// One spatial layer as its publisher describes it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct VideoLayer {
    /// Its place among the layers.
    pub quality: Quality,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Target bitrate.
    pub bitrate_bps: u32,
    /// SSRC on the publisher's connection, once known.
    pub ssrc: u32,
    /// Spatial layer, 0 lowest.
    pub spatial_layer: i32,
    /// RID, once known.
    pub rid: String,
}

/// One codec of a [`Track`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TrackCodec {
    /// `video/vp8` as announced, `video/VP8` once media is negotiated; empty for announced audio.
    pub mime_type: String,
    /// Section of the publisher's connection, once negotiated.
    pub mid: String,
    /// The client's id of the media track.
    pub cid: String,
    /// Lowest first.
    pub layers: Vec<VideoLayer>,
    /// How layers map to streams.
    pub layer_mode: Option<LayerMode>,
}

impl TrackCodec {
    /// Whether it comes as several streams of one layer each.
    pub fn is_simulcast(&self) -> bool {
        self.layers.len() > 1 && self.layer_mode == Some(LayerMode::OneSpatialLayerPerStream)
    }
}

/// A publication.
#[derive(Clone, PartialEq, Debug)]
pub struct Track {
    /// Its id.
    pub sid: TrackSid,
    /// Who publishes it.
    pub publisher: ParticipantSid,
    /// Heard or seen.
    pub kind: TrackKind,
    /// What the publisher announced; `stream` and legacy fields resolved.
    pub announced: NewTrack,
    /// Whether its publisher has muted it.
    pub muted: bool,
    /// Its codecs, preferred first.
    pub codecs: Vec<TrackCodec>,
    /// When its media was negotiated, microseconds of Unix time; `None` while pending.
    pub published_unix_micros: Option<i64>,
    /// The position of the codec that everybody who can is sent, since it took the place of those
    /// before it (codec regression).
    pub regressed_to: usize,
}

impl Track {
    /// A pending track from an announcement.
    pub(crate) fn new(
        sid: TrackSid,
        publisher: ParticipantSid,
        kind: TrackKind,
        mut new: NewTrack,
    ) -> Self {
        if new.stream.is_empty() {
            new.stream = default_stream(new.source).to_owned();
        }
        new.layers.sort_by_key(|layer| layer.quality);
        let mut track = Self {
            sid,
            publisher,
            kind,
            muted: new.muted,
            codecs: Vec::new(),
            published_unix_micros: None,
            regressed_to: 0,
            announced: new,
        };
        let codecs = std::mem::take(&mut track.announced.codecs);
        if kind == TrackKind::Audio && codecs.is_empty() {
            track.codecs.push(TrackCodec {
                cid: track.announced.cid.clone(),
                layer_mode: Some(LayerMode::OneSpatialLayerPerStream),
                ..TrackCodec::default()
            });
        }
        track.add_codecs(codecs);
        if kind == TrackKind::Video && track.codecs.is_empty() {
            let cid = track.announced.cid.clone();
            track.add_codecs(vec![NewCodec { codec: "vp8".into(), cid, ..NewCodec::default() }]);
        }
        track
    }

    /// Adds codecs, or the cid and layers of codecs that were announced without.
    pub(crate) fn add_codecs(&mut self, codecs: Vec<NewCodec>) {
        for new in codecs {
            let mime_type = announced_mime_type(&new.codec, self.kind);
            let mut layers =
                if new.layers.is_empty() { self.announced.layers.clone() } else { new.layers };
            layers.sort_by_key(|layer| layer.quality);
            match self.codecs.iter_mut().find(|c| c.mime_type.eq_ignore_ascii_case(&mime_type)) {
                Some(codec) => {
                    codec.cid = new.cid;
                    codec.layers = layers;
                }
                None => self.codecs.push(TrackCodec {
                    layer_mode: new.layer_mode.or_else(|| Some(default_layer_mode(&mime_type))),
                    mime_type,
                    mid: String::new(),
                    cid: new.cid,
                    layers,
                }),
            }
        }
        self.codecs.truncate(CODECS_MAX);
    }

    /// Whether a media track with this id belongs to the publication.
    pub fn has_cid(&self, cid: &str) -> bool {
        !cid.is_empty()
            && (self.announced.cid == cid || self.codecs.iter().any(|codec| codec.cid == cid))
    }

    /// Whether its media has been negotiated.
    pub fn is_published(&self) -> bool {
        self.published_unix_micros.is_some()
    }

    /// Whether its first codec comes as several streams of one layer each.
    pub fn is_simulcast(&self) -> bool {
        self.codecs.first().is_some_and(TrackCodec::is_simulcast)
    }

    /// The positions of its codecs in the order in which a subscriber is offered them.
    pub fn codec_order(&self) -> impl Iterator<Item = usize> {
        let first = self.regressed_to.min(self.codecs.len());
        (first..self.codecs.len()).chain(0..first)
    }

    /// Whether a codec takes the place of those before it once its media has come, in a room of so
    /// many (`BackupCodecPolicy`).
    pub fn regresses(&self, codec: usize, participants: usize) -> bool {
        let policy = BackupCodecPolicy::from_protocol(self.announced.backup_codec_policy);
        let allowed = match policy {
            BackupCodecPolicy::PreferRegression => participants < REGRESSION_PARTICIPANTS,
            BackupCodecPolicy::Simulcast => false,
            BackupCodecPolicy::Regression => true,
        };
        self.kind == TrackKind::Video && codec > self.regressed_to && allowed
    }

    /// Takes over what negotiation found out about the codec on `cid`.
    pub(crate) fn set_negotiated(&mut self, cid: &str, codec: Codec, mid: &str) {
        let index = self
            .codecs
            .iter()
            .position(|known| known.cid == cid)
            .or_else(|| self.codecs.iter().position(|known| known.mid.is_empty()))
            .unwrap_or(0);
        if let Some(known) = self.codecs.get_mut(index) {
            known.mime_type = codec.mime_type().to_owned();
            known.mid = mid.to_owned();
        }
    }

    /// Whoever can is sent this codec from now on.
    pub(crate) fn regress(&mut self, codec: usize) {
        self.regressed_to = codec;
    }

    /// Takes over the SSRC of a layer of the codec in section `mid`.
    pub(crate) fn set_stream(&mut self, mid: &str, layer: u8, rid: &str, ssrc: Ssrc) {
        let Some(codec) = self.codecs.iter_mut().find(|codec| codec.mid == mid) else { return };
        for (index, known) in codec.layers.iter_mut().enumerate() {
            known.spatial_layer = i32::try_from(index).unwrap_or(0);
            if index == usize::from(layer) {
                known.ssrc = ssrc.0;
                known.rid = rid.to_owned();
            }
        }
    }
}

/// What becomes of the first codec when a backup is published (`BackupCodecPolicy`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum BackupCodecPolicy {
    PreferRegression,
    Simulcast,
    Regression,
}

impl BackupCodecPolicy {
    fn from_protocol(value: i32) -> Self {
        match value {
            1 => Self::Simulcast,
            2 => Self::Regression,
            _ => Self::PreferRegression,
        }
    }
}

/// In a room of so many, a publisher rather sends two codecs than the worse one to everybody
/// (LiveKit's `codec_regression_threshold`).
pub const REGRESSION_PARTICIPANTS: usize = 5;
/// Most codecs of one publication.
pub const CODECS_MAX: usize = 8;

/// How the sid of a track begins: the kind and the source can be read off it.
pub fn track_sid_prefix(kind: TrackKind, source: TrackSource) -> &'static str {
    match (kind, source) {
        (TrackKind::Audio, TrackSource::Microphone) => "TR_AM",
        (TrackKind::Audio, TrackSource::ScreenShareAudio) => "TR_As",
        (TrackKind::Audio, _) => "TR_A",
        (TrackKind::Video, TrackSource::Camera) => "TR_VC",
        (TrackKind::Video, TrackSource::ScreenShare) => "TR_VS",
        (TrackKind::Video, _) => "TR_V",
    }
}

fn default_stream(source: TrackSource) -> &'static str {
    match source {
        TrackSource::Camera | TrackSource::Microphone => "camera",
        TrackSource::ScreenShare | TrackSource::ScreenShareAudio => "screen",
        TrackSource::Unknown => "unknown",
    }
}

fn announced_mime_type(name: &str, kind: TrackKind) -> String {
    let name = name.to_ascii_lowercase();
    match kind {
        _ if name.contains('/') => name,
        TrackKind::Audio => format!("audio/{name}"),
        TrackKind::Video => format!("video/{name}"),
    }
}

fn default_layer_mode(mime_type: &str) -> LayerMode {
    match Codec::from_mime_type(mime_type) {
        Some(Codec::Vp9 | Codec::Av1) => LayerMode::MultipleSpatialLayersPerStream,
        _ => LayerMode::OneSpatialLayerPerStream,
    }
}
