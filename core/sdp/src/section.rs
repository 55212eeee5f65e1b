//! One RTP section of a connection that the client offers.

use parlor_model::{
    Codec, CodecBinding, ExtensionIds, Feedback, Mid, ReceiveSection, ReceiveStream, SendSection,
    SubscriptionId, TrackKind, TrackSource,
};

use crate::{
    ConnectionModel, PublishedTrack, ReceivedSection, SendTrack, extension, format, stream,
    text::{Direction, MediaSection, RidLine, Simulcast},
};

/// One RTP section as of the last answer.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    pub(crate) mid: Mid,
    pub(crate) kind: TrackKind,
    /// The client takes a track of ours here.
    pub(crate) open: bool,
    /// It carries a track of ours, or did.
    pub(crate) carried: bool,
    /// It is for a track of the client's own, or was.
    pub(crate) client_owned: bool,
    pub(crate) send: Option<SubscriptionId>,
    pub(crate) received: Option<Received>,
    pub(crate) codecs: Vec<CodecBinding>,
    pub(crate) extensions: ExtensionIds,
    pub(crate) feedback: Feedback,
}

/// What the client sends in a section.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) cid: Option<String>,
    pub(crate) streams: Vec<ReceiveStream>,
    pub(crate) publication: Option<PublishedTrack>,
}

impl Section {
    /// Whether the client can decode this track here.
    pub(crate) fn can_carry(&self, send: &SendTrack) -> bool {
        self.kind == send.kind && send.source(&self.codecs).is_some()
    }

    /// Writes the answer to `media`, with `send` as our track in it, and keeps what it agrees on.
    pub(crate) fn answer(
        &mut self,
        media: &MediaSection,
        send: Option<&SendTrack>,
        model: ConnectionModel,
        enabled: &[Codec],
        playout_delay: bool,
    ) -> MediaSection {
        let publication = self.received.as_ref().and_then(|r| r.publication.as_ref());
        let codecs = format::choose(media, enabled, &preferred(publication));
        let opus = opus_parameters(publication, send);

        let mut answer = MediaSection::new(media.kind.clone(), media.mid);
        answer.protocol = media.protocol.clone();
        answer.rtcp_rsize = media.rtcp_rsize;
        answer.extensions = extension::keep(&media.extensions, extensions(self.kind, model));
        if playout_delay && self.kind == TrackKind::Video {
            let kept = extension::keep(&media.extensions, &[extension::PLAYOUT_DELAY]);
            answer.extensions.extend(kept);
        }
        let ids = extension::ids(&answer.extensions);
        let allowed = feedback(self.kind, model, ids.transport_cc.is_some());
        answer.formats = format::answer(media, &codecs, &allowed, &opus);

        let idle = self.open && !self.carried && !media.direction.sends();
        answer.direction = Direction::new(send.is_some() || idle, media.direction.sends());
        if let Some(send) = send {
            stream::announce(&mut answer, send);
        }
        if let Some(simulcast) = &media.simulcast
            && !simulcast.send.is_empty()
        {
            let recv = simulcast.send.clone();
            answer.rids = recv.iter().map(|&rid| RidLine { rid, sends: false }).collect();
            answer.simulcast = Some(Simulcast { send: Vec::new(), recv });
        }

        self.feedback = format::feedback(&answer.formats);
        self.extensions = ids;
        self.codecs = codecs;
        answer
    }

    /// The client's track in this section.
    pub(crate) fn report(&self, ended: bool) -> Option<ReceivedSection> {
        let received = self.received.as_ref()?;
        Some(ReceivedSection {
            mid: self.mid,
            kind: self.kind,
            cid: received.cid.clone(),
            track: received.publication.as_ref().map(|publication| publication.track),
            ended,
            codec: self.codecs.first().map(|binding| binding.codec),
            streams: received.streams.clone(),
        })
    }

    /// What the packet path reads of the client's track; `None` without a known track.
    pub(crate) fn receive(&self) -> Option<ReceiveSection> {
        let received = self.received.as_ref()?;
        Some(ReceiveSection {
            mid: self.mid,
            track: received.publication.as_ref()?.track,
            kind: self.kind,
            codecs: self.codecs.clone(),
            extensions: self.extensions,
            feedback: self.feedback,
            streams: received.streams.clone(),
        })
    }

    /// What the packet path reads of our track in this section.
    pub(crate) fn sending(&self, send: &SendTrack) -> Option<SendSection> {
        send_section(self.mid, send, &self.codecs, self.extensions, self.feedback)
    }
}

/// Our track in a section: of the agreed codecs those of the encoding that is sent, in their order.
/// `None` where nothing is agreed on that its publisher sends.
pub(crate) fn send_section(
    mid: Mid,
    send: &SendTrack,
    agreed: &[CodecBinding],
    extensions: ExtensionIds,
    feedback: Feedback,
) -> Option<SendSection> {
    let source = send.source(agreed)?;
    let of_codec = |codec: Codec| agreed.iter().filter(move |binding| binding.codec == codec);
    Some(SendSection {
        mid,
        subscription: send.subscription,
        track: source.track,
        ssrc: send.ssrc,
        rtx_ssrc: send.rtx_ssrc,
        cname: send.stream_id.clone(),
        codecs: source.codecs.iter().copied().flat_map(of_codec).copied().collect(),
        extensions,
        feedback,
    })
}

/// The codecs that the answer puts first: the announced one; for sound, RED unless disabled.
fn preferred(publication: Option<&PublishedTrack>) -> Vec<Codec> {
    let Some(publication) = publication else { return Vec::new() };
    match (publication.kind, publication.codec) {
        (TrackKind::Video, codec) => codec.into_iter().collect(),
        (TrackKind::Audio, None | Some(Codec::Opus | Codec::Red)) if publication.disable_red => {
            vec![Codec::Opus, Codec::Red]
        }
        (TrackKind::Audio, None | Some(Codec::Opus | Codec::Red)) => vec![Codec::Red, Codec::Opus],
        (TrackKind::Audio, Some(codec)) => vec![codec],
    }
}

fn opus_parameters(publication: Option<&PublishedTrack>, send: Option<&SendTrack>) -> String {
    let mut parameters = format::OPUS_PARAMETERS.to_owned();
    if let Some(publication) = publication {
        if !publication.disable_dtx {
            parameters.push_str(";usedtx=1");
        }
        if publication.stereo {
            parameters.push_str(";stereo=1");
            if publication.source != TrackSource::ScreenShareAudio {
                parameters.push_str(";maxaveragebitrate=510000");
            }
        }
    }
    if send.is_some_and(|send| send.stereo) {
        parameters.push_str(";sprop-stereo=1");
    }
    parameters
}

/// The extensions that an answer keeps. Unlike LiveKit, transport-wide sequence numbers on sound too.
fn extensions(kind: TrackKind, model: ConnectionModel) -> &'static [&'static str] {
    const AUDIO: [&str; 4] = [
        extension::AUDIO_LEVEL,
        extension::MID,
        extension::TRANSPORT_CC,
        extension::ABS_CAPTURE_TIME,
    ];
    const VIDEO: [&str; 7] = [
        extension::ABS_SEND_TIME,
        extension::TRANSPORT_CC,
        extension::MID,
        extension::RID,
        extension::REPAIRED_RID,
        extension::DEPENDENCY_DESCRIPTOR,
        extension::ABS_CAPTURE_TIME,
    ];
    match (kind, model) {
        (TrackKind::Audio, _) => &AUDIO,
        (TrackKind::Video, ConnectionModel::Single) => &VIDEO,
        (TrackKind::Video, ConnectionModel::Publisher) => VIDEO.get(1..).unwrap_or(&[]),
    }
}

/// The feedback that an answer keeps. Unlike LiveKit, transport-wide feedback in every section.
fn feedback(kind: TrackKind, model: ConnectionModel, transport_cc: bool) -> Vec<&'static str> {
    let wanted = |feedback: &&str| match (*feedback, kind) {
        (format::TRANSPORT_CC, _) => transport_cc,
        (format::NACK, _) => true,
        (_, TrackKind::Audio) => false,
        (format::REMB, TrackKind::Video) => model == ConnectionModel::Single,
        _ => true,
    };
    format::VIDEO_FEEDBACK.into_iter().filter(wanted).collect()
}
