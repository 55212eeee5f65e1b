//! What two ends agree on about media: plain values that SDP produces and the packet path reads.

use crate::{Mid, PayloadType, Rid, Ssrc, SubscriptionId, TrackId};

/// Whether a track is heard or seen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum TrackKind {
    /// Heard.
    Audio,
    /// Seen.
    Video,
}

/// The codecs that Parlor forwards.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[allow(missing_docs)]
pub enum Codec {
    Opus,
    /// Redundant Opus (RFC 2198).
    Red,
    Pcmu,
    Pcma,
    Vp8,
    Vp9,
    Av1,
    H264,
    H265,
}

impl Codec {
    /// Every codec, in the order in which LiveKit lists them.
    pub const ALL: [Codec; 9] = [
        Codec::Pcmu,
        Codec::Pcma,
        Codec::Opus,
        Codec::Red,
        Codec::Vp8,
        Codec::H264,
        Codec::Vp9,
        Codec::Av1,
        Codec::H265,
    ];

    /// Whether this codec is heard or seen.
    pub fn kind(self) -> TrackKind {
        match self {
            Codec::Opus | Codec::Red | Codec::Pcmu | Codec::Pcma => TrackKind::Audio,
            Codec::Vp8 | Codec::Vp9 | Codec::Av1 | Codec::H264 | Codec::H265 => TrackKind::Video,
        }
    }

    /// Ticks of the RTP clock in a second.
    pub fn clock_rate(self) -> u32 {
        match self {
            Codec::Opus | Codec::Red => 48_000,
            Codec::Pcmu | Codec::Pcma => 8_000,
            _ => 90_000,
        }
    }

    /// The media type as LiveKit writes it in `TrackInfo.mime_type`: `audio/opus`, `video/VP8`.
    pub fn mime_type(self) -> &'static str {
        match self {
            Codec::Opus => "audio/opus",
            Codec::Red => "audio/red",
            Codec::Pcmu => "audio/PCMU",
            Codec::Pcma => "audio/PCMA",
            Codec::Vp8 => "video/VP8",
            Codec::Vp9 => "video/VP9",
            Codec::Av1 => "video/AV1",
            Codec::H264 => "video/H264",
            Codec::H265 => "video/H265",
        }
    }

    /// The encoding name in `a=rtpmap`: `opus`, `VP8`.
    pub fn encoding_name(self) -> &'static str {
        self.mime_type().split_once('/').map_or("", |(_, name)| name)
    }

    /// The codec of a media type or a bare encoding name, whatever its case.
    pub fn from_mime_type(text: &str) -> Option<Codec> {
        let name = text.rsplit('/').next().unwrap_or(text);
        Codec::ALL.into_iter().find(|codec| codec.encoding_name().eq_ignore_ascii_case(name))
    }
}

/// One codec under its payload types in one media section.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CodecBinding {
    /// The codec.
    pub codec: Codec,
    /// Its payload type.
    pub payload_type: PayloadType,
    /// The payload type of its retransmissions (RFC 4588), when agreed on.
    pub rtx: Option<PayloadType>,
    /// H264 `packetization-mode`, VP9 and AV1 `profile-id` / `profile`; 0 where there is none.
    pub variant: u8,
}

/// Ids of the RTP header extensions agreed on in one media section (RFC 8285).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct ExtensionIds {
    pub mid: Option<u8>,
    pub rid: Option<u8>,
    pub repaired_rid: Option<u8>,
    pub transport_cc: Option<u8>,
    pub abs_send_time: Option<u8>,
    pub abs_capture_time: Option<u8>,
    pub audio_level: Option<u8>,
    pub dependency_descriptor: Option<u8>,
    pub playout_delay: Option<u8>,
    pub video_orientation: Option<u8>,
}

/// RTCP feedback agreed on in one media section (RFC 4585, RFC 5104).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct Feedback {
    pub nack: bool,
    pub pli: bool,
    pub fir: bool,
    pub transport_cc: bool,
    pub remb: bool,
}

/// A stream that the peer announced: by SSRC, or by RID with the SSRC learnt from the first packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReceiveStream {
    /// Simulcast stream id, when there is one.
    pub rid: Option<Rid>,
    /// The announced SSRC, when there is one.
    pub ssrc: Option<Ssrc>,
    /// The announced SSRC of retransmissions, when there is one.
    pub rtx_ssrc: Option<Ssrc>,
    /// Spatial layer, 0 lowest.
    pub layer: u8,
}

/// One media section in which the peer sends a published track to us.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReceiveSection {
    /// The section.
    pub mid: Mid,
    /// The publication that it carries.
    pub track: TrackId,
    /// Heard or seen.
    pub kind: TrackKind,
    /// What the peer may send, preferred first.
    pub codecs: Vec<CodecBinding>,
    /// Header extensions that the peer may send.
    pub extensions: ExtensionIds,
    /// Feedback that the peer understands.
    pub feedback: Feedback,
    /// The streams, lowest layer first. One entry for a track without simulcast.
    pub streams: Vec<ReceiveStream>,
}

/// One media section in which we send a subscribed track to the peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SendSection {
    /// The section.
    pub mid: Mid,
    /// The subscription that it carries.
    pub subscription: SubscriptionId,
    /// The publication that is subscribed to.
    pub track: TrackId,
    /// Our SSRC for media.
    pub ssrc: Ssrc,
    /// Our SSRC for retransmissions; `None` for audio.
    pub rtx_ssrc: Option<Ssrc>,
    /// Canonical name in our RTCP (RFC 7022): one for all tracks that are played in sync, which
    /// is the stream id in `a=msid`.
    pub cname: String,
    /// What we may send, preferred first.
    pub codecs: Vec<CodecBinding>,
    /// Header extensions that we may send.
    pub extensions: ExtensionIds,
    /// Feedback that the peer will send.
    pub feedback: Feedback,
}

/// Everything that one peer connection carries after a completed offer and answer.
///
/// It replaces what was agreed on before: a section that is missing has ended.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MediaDescription {
    /// From the peer to us.
    pub receive: Vec<ReceiveSection>,
    /// From us to the peer.
    pub send: Vec<SendSection>,
}

/// ICE user name fragment and password of one side (RFC 8445 section 5.3).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IceCredentials {
    /// User name fragment.
    pub ufrag: String,
    /// Password.
    pub pwd: String,
}

/// Digest of a DTLS certificate, as SDP announces it (RFC 8122).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fingerprint {
    /// Lower case hash function name: `sha-256`.
    pub algorithm: String,
    /// The digest.
    pub digest: Vec<u8>,
}

/// Which side starts the DTLS handshake (RFC 5763 section 5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DtlsRole {
    /// We start: `setup:active`.
    Client,
    /// We wait: `setup:passive`.
    Server,
}

/// The remote side of a transport, as its description gave it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RemoteTransport {
    /// Their ICE credentials.
    pub ice: IceCredentials,
    /// Whether they are an ICE-lite agent.
    pub ice_lite: bool,
    /// Every certificate digest that they announced; the certificate must match one.
    pub fingerprints: Vec<Fingerprint>,
    /// **Our** DTLS role.
    pub dtls_role: DtlsRole,
    /// Their SCTP port and largest message in bytes, when there is an application section.
    pub sctp: Option<SctpParameters>,
}

/// How SRTP protects media (RFC 3711, RFC 5764 section 4.1.2, RFC 7714).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SrtpProfile {
    /// `SRTP_AEAD_AES_128_GCM`.
    AeadAes128Gcm,
    /// `SRTP_AEAD_AES_256_GCM`.
    AeadAes256Gcm,
    /// `SRTP_AES128_CM_HMAC_SHA1_80`.
    AesCm128HmacSha1_80,
}

impl SrtpProfile {
    /// Length of the master key in bytes.
    pub fn key_len(self) -> usize {
        match self {
            SrtpProfile::AeadAes128Gcm | SrtpProfile::AesCm128HmacSha1_80 => 16,
            SrtpProfile::AeadAes256Gcm => 32,
        }
    }

    /// Length of the master salt in bytes.
    pub fn salt_len(self) -> usize {
        match self {
            SrtpProfile::AeadAes128Gcm | SrtpProfile::AeadAes256Gcm => 12,
            SrtpProfile::AesCm128HmacSha1_80 => 14,
        }
    }
}

/// Master key and salt of one direction (RFC 3711 section 3.2.1). `Debug` shows neither.
#[derive(Clone, PartialEq, Eq)]
pub struct SrtpMasterKey {
    /// Master key, [`SrtpProfile::key_len`] bytes.
    pub key: Vec<u8>,
    /// Master salt, [`SrtpProfile::salt_len`] bytes.
    pub salt: Vec<u8>,
}

impl std::fmt::Debug for SrtpMasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SrtpMasterKey(..)")
    }
}

/// What a DTLS handshake yields for media (RFC 5764 section 4.2).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SrtpKeys {
    /// The profile agreed on.
    pub profile: SrtpProfile,
    /// Protects what we send.
    pub send: SrtpMasterKey,
    /// Opens what the peer sends.
    pub receive: SrtpMasterKey,
}

/// SCTP as described in SDP (RFC 8841).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SctpParameters {
    /// `a=sctp-port`.
    pub port: u16,
    /// `a=max-message-size`, in bytes.
    pub max_message_size_bytes: u32,
}

/// The data channels of LiveKit's protocol, by what they promise.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum DataChannel {
    /// Label `_reliable`: ordered, every message arrives.
    Reliable,
    /// Label `_lossy`: unordered, sent once.
    Lossy,
    /// Label `_data_track`: unordered, sent once; frames of data tracks.
    DataTrack,
}

impl DataChannel {
    /// The label on the wire.
    pub fn label(self) -> &'static str {
        match self {
            DataChannel::Reliable => "_reliable",
            DataChannel::Lossy => "_lossy",
            DataChannel::DataTrack => "_data_track",
        }
    }

    /// The channel of a label; `None` for labels that LiveKit does not know.
    pub fn from_label(label: &str) -> Option<DataChannel> {
        [DataChannel::Reliable, DataChannel::Lossy, DataChannel::DataTrack]
            .into_iter()
            .find(|channel| channel.label() == label)
    }
}
