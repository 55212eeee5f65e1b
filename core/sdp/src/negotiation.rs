//! The values that go into and come out of the offer/answer machines.

use parlor_model::{
    Codec, CodecBinding, Fingerprint, IceCredentials, MediaDescription, Mid, ReceiveStream,
    RemoteTransport, Ssrc, SubscriptionId, TrackId, TrackKind, TrackSource,
};

/// Our side of a transport, as our descriptions announce it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LocalTransport {
    /// Our ICE credentials. New ones restart ICE.
    pub ice: IceCredentials,
    /// Digest of our certificate.
    pub fingerprint: Fingerprint,
    /// Whether we are an ICE-lite agent.
    pub ice_lite: bool,
    /// Our candidates (`candidate:...`, without `a=`), repeated inline from the second
    /// description on that has the same credentials. The first has none: they are trickled.
    pub candidates: Vec<String>,
}

/// Which of LiveKit's connections a client's offer is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConnectionModel {
    /// `/rtc/v1`: the one connection, used both ways.
    Single,
    /// `/rtc`: the connection on which the client publishes.
    Publisher,
}

/// A track that we send to the peer because it is subscribed to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SendTrack {
    /// The subscription; the key of this track on the connection.
    pub subscription: SubscriptionId,
    /// Heard or seen.
    pub kind: TrackKind,
    /// The encodings of the publication, preferred first. The section carries the first that the
    /// client can decode.
    pub sources: Vec<SendSource>,
    /// First token of `a=msid`: `PA_x|TR_y`.
    pub stream_id: String,
    /// Second token of `a=msid`, and the value in `mid_to_track_id`: `TR_y`.
    pub track_id: String,
    /// Our SSRC for media.
    pub ssrc: Ssrc,
    /// Our SSRC for retransmissions; `None` for audio.
    pub rtx_ssrc: Option<Ssrc>,
    /// Whether the sound is stereo.
    pub stereo: bool,
}

/// One encoding of a publication, as its publisher sends it or would if it were asked to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SendSource {
    /// The encoding.
    pub track: TrackId,
    /// In which codecs its packets come, preferred first: of sound, RED and the Opus within.
    pub codecs: Vec<Codec>,
}

impl SendTrack {
    /// The encoding that is sent where these codecs are agreed on.
    pub(crate) fn source(&self, agreed: &[CodecBinding]) -> Option<&SendSource> {
        let is_agreed = |codec: &Codec| agreed.iter().any(|binding| binding.codec == *codec);
        self.sources.iter().find(|source| source.codecs.iter().any(is_agreed))
    }
}

/// What `add_track` said about one encoding of a publication. A track with a backup codec has
/// two entries, each with its `track` and `cid`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PublishedTrack {
    /// The encoding.
    pub track: TrackId,
    /// The client's id of the track: second token of `a=msid` in its offer.
    pub cid: String,
    /// Heard or seen.
    pub kind: TrackKind,
    /// Where it comes from.
    pub source: TrackSource,
    /// The codec to put first in the answer; `None` leaves the offer's order.
    pub codec: Option<Codec>,
    /// Whether RED must not be preferred for sound.
    pub disable_red: bool,
    /// Whether discontinuous transmission must not be asked for.
    pub disable_dtx: bool,
    /// Whether the sound is stereo.
    pub stereo: bool,
}

/// A media section in which the peer sends, or has sent, a track to us.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReceivedSection {
    /// The section.
    pub mid: Mid,
    /// Heard or seen.
    pub kind: TrackKind,
    /// Second token of its `a=msid`.
    pub cid: Option<String>,
    /// The publication that it carries; `None` while no known publication fits.
    pub track: Option<TrackId>,
    /// Whether this offer ended it. It is not reported again.
    pub ended: bool,
    /// The codec that the answer prefers; `None` when none is shared.
    pub codec: Option<Codec>,
    /// The announced streams, lowest layer first.
    pub streams: Vec<ReceiveStream>,
}

/// The answer to a client's offer, and what was agreed on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The answer's text.
    pub sdp: String,
    /// Sections that carry one of our tracks, with the track's sid.
    pub mid_to_track_id: Vec<(Mid, String)>,
    /// What the connection carries now. Sections without a known track are left out.
    pub description: MediaDescription,
    /// The client's side of the transport. A changed ufrag is an ICE restart.
    pub remote: RemoteTransport,
    /// Candidates that the offer contained (`candidate:...`).
    pub remote_candidates: Vec<String>,
    /// Every section in which the client sends, and those that this offer ended.
    pub received: Vec<ReceivedSection>,
    /// Subscriptions whose codecs the client does not have.
    pub unsupported: Vec<SubscriptionId>,
}

/// `media_sections_requirement`: sections that the client must append before it offers again.
/// Both zero: it has enough, and shall offer again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Requirement {
    /// `recvonly` audio sections to append.
    pub num_audios: u32,
    /// `recvonly` video sections to append.
    pub num_videos: u32,
}

/// An offer of ours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Offer {
    /// The id that the answer must repeat.
    pub id: u32,
    /// The offer's text.
    pub sdp: String,
    /// Sections that carry one of our tracks, with the track's sid.
    pub mid_to_track_id: Vec<(Mid, String)>,
}

/// What an answer to an offer of ours brought.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Applied {
    /// What the connection carries now.
    pub description: MediaDescription,
    /// The client's side of the transport.
    pub remote: RemoteTransport,
    /// Candidates that the answer contained (`candidate:...`).
    pub remote_candidates: Vec<String>,
    /// Subscriptions whose section the client refused, or whose codecs it does not have.
    pub unsupported: Vec<SubscriptionId>,
}
