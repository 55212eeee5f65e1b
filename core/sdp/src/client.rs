//! The other side: a client that offers as `livekit-client` does, and one that answers the server.

use parlor_model::{
    Codec, CodecBinding, ExtensionIds, Feedback, Mid, ReceiveStream, RemoteTransport, Rid, Ssrc,
    TrackKind,
};

use crate::{
    ConnectionModel, LocalTransport, Requirement, SdpError, extension,
    format::{self, own, own_rtx},
    stream,
    text::{
        Direction, ExtensionMap, MediaKind, MediaSection, Msid, PayloadFormat, RidLine,
        SessionDescription, Setup, Simulcast,
    },
    transport::{self, Session},
};

/// `recvonly` sections of each kind in the first offer of a single connection.
const FIRST_RECEIVE_SECTIONS: u32 = 3;

/// A track that the client publishes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LocalTrack {
    /// The client's id of the track, as in `add_track`.
    pub cid: String,
    /// Its stream; `-` for none.
    pub stream_id: String,
    /// Heard or seen.
    pub kind: TrackKind,
    /// Simulcast layers, lowest first; empty for one stream, which has SSRCs instead.
    pub rids: Vec<Rid>,
    /// SSRC for media, unless there are layers.
    pub ssrc: Ssrc,
    /// SSRC for retransmissions, for video.
    pub rtx_ssrc: Option<Ssrc>,
}

/// A track of the client's own, as agreed on with the server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientSend {
    /// The section.
    pub mid: Mid,
    /// The client's id of the track.
    pub cid: String,
    /// What may be sent; the server's preference is first.
    pub codecs: Vec<CodecBinding>,
    /// Header extensions that may be sent.
    pub extensions: ExtensionIds,
    /// Feedback that the server will send.
    pub feedback: Feedback,
    /// Layers that the server takes.
    pub rids: Vec<Rid>,
}

/// A track that the server sends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientReceive {
    /// The section.
    pub mid: Mid,
    /// Heard or seen.
    pub kind: TrackKind,
    /// First token of `a=msid`: `PA_x|TR_y`.
    pub stream_id: String,
    /// Second token of `a=msid`: `TR_y`.
    pub track_id: String,
    /// Its SSRCs.
    pub stream: ReceiveStream,
    /// What the server may send.
    pub codecs: Vec<CodecBinding>,
    /// Header extensions that the server may send.
    pub extensions: ExtensionIds,
    /// Feedback that the server understands.
    pub feedback: Feedback,
}

/// What a completed offer and answer mean to the client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientDescription {
    /// The client's own tracks.
    pub send: Vec<ClientSend>,
    /// The tracks that the server sends.
    pub receive: Vec<ClientReceive>,
    /// The server's side of the transport.
    pub remote: RemoteTransport,
    /// Candidates that the description contained.
    pub remote_candidates: Vec<String>,
}

/// A client's connection that it offers itself: the single one, or the publisher one.
#[derive(Clone, Debug)]
pub struct ClientOfferer {
    session: Session,
    codecs: Vec<Codec>,
    refuses_transport_feedback: bool,
    sections: Vec<Section>,
    offer: Option<SessionDescription>,
}

#[derive(Clone, Debug)]
enum Section {
    Data,
    Receive(TrackKind),
    /// A section of the client's own; without a track once that is unpublished.
    Send(TrackKind, Option<LocalTrack>),
}

impl ClientOfferer {
    /// `session_id` is random; `codecs` are those that the client has.
    pub fn new(session_id: u64, model: ConnectionModel, codecs: &[Codec]) -> Self {
        let mut client = Self {
            session: Session::new(session_id, 2),
            codecs: codecs.to_vec(),
            refuses_transport_feedback: false,
            sections: Vec::new(),
            offer: None,
        };
        if model == ConnectionModel::Single {
            client.add_receive_sections(Requirement {
                num_audios: FIRST_RECEIVE_SECTIONS,
                num_videos: FIRST_RECEIVE_SECTIONS,
            });
        }
        client.sections.push(Section::Data);
        client
    }

    /// Offers no transport-wide feedback from now on, as clients do that do not know it.
    pub fn refuse_transport_feedback(&mut self) {
        self.refuses_transport_feedback = true;
    }

    /// Publishes a track from the next offer on.
    pub fn add_track(&mut self, track: LocalTrack) {
        self.sections.push(Section::Send(track.kind, Some(track)));
    }

    /// Ends a track from the next offer on. Returns whether it was there.
    pub fn remove_track(&mut self, cid: &str) -> bool {
        let mut removed = false;
        for section in &mut self.sections {
            if let Section::Send(_, track) = section
                && track.as_ref().is_some_and(|track| track.cid == cid)
            {
                *track = None;
                removed = true;
            }
        }
        removed
    }

    /// Appends what `media_sections_requirement` asks for, up to the bound on sections.
    pub fn add_receive_sections(&mut self, requirement: Requirement) {
        let counts = [
            (TrackKind::Audio, requirement.num_audios),
            (TrackKind::Video, requirement.num_videos),
        ];
        for (kind, count) in counts {
            for _ in 0..count {
                if self.sections.len() < crate::text::MAX_SECTIONS {
                    self.sections.push(Section::Receive(kind));
                }
            }
        }
    }

    /// The text of the next offer.
    pub fn create_offer(&mut self, local: &LocalTransport) -> String {
        let media: Vec<MediaSection> = self
            .sections
            .iter()
            .enumerate()
            .filter_map(|(index, section)| {
                let mid = Mid::new(&index.to_string())?;
                Some(self.offer_section(mid, section))
            })
            .collect();
        let bundle = media.iter().map(|section| section.mid).collect();
        let offer = self.session.describe(local, Setup::ActPass, bundle, media);
        let text = offer.to_string();
        self.offer = Some(offer);
        text
    }

    /// Applies the server's answer to the last offer.
    pub fn handle_answer(&self, answer: &str) -> Result<ClientDescription, SdpError> {
        let Some(offer) = &self.offer else {
            return Err(SdpError::Description("nothing was offered"));
        };
        let answer = SessionDescription::parse(answer)?;
        if answer.media.len() != offer.media.len() {
            return Err(SdpError::Description("an answer has as many sections as its offer"));
        }
        let (remote, remote_candidates) = transport::remote(&answer, Setup::Active)?;
        let mut description =
            ClientDescription { send: Vec::new(), receive: Vec::new(), remote, remote_candidates };
        let sections = offer.media.iter().zip(&answer.media).zip(&self.sections);
        for (index, ((offered, answered), section)) in sections.enumerate() {
            if offered.mid != answered.mid || offered.kind != answered.kind {
                return Err(SdpError::Section { index, fault: "is not the one that was offered" });
            }
            if answered.is_rejected() {
                continue;
            }
            match section {
                Section::Send(_, Some(track)) if answered.direction.receives() => {
                    description.send.push(self.sending(track, offered, answered));
                }
                Section::Receive(kind) if answered.direction.sends() => {
                    let formats = format::agreed(answered, offered);
                    let agreed = MediaSection { formats, ..answered.clone() };
                    description.receive.extend(receiving(*kind, &agreed, &self.codecs));
                }
                _ => {}
            }
        }
        Ok(description)
    }

    fn sending(
        &self,
        track: &LocalTrack,
        offered: &MediaSection,
        answered: &MediaSection,
    ) -> ClientSend {
        let formats = format::agreed(answered, offered);
        let feedback = format::feedback(&formats);
        let agreed = MediaSection { formats, ..answered.clone() };
        let taken = answered.simulcast.as_ref().map_or(&[][..], |simulcast| &simulcast.recv);
        ClientSend {
            mid: offered.mid,
            cid: track.cid.clone(),
            codecs: format::choose(&agreed, &self.codecs, &[]),
            extensions: extension::ids(&answered.extensions),
            feedback,
            rids: track.rids.iter().filter(|rid| taken.contains(rid)).copied().collect(),
        }
    }

    fn offer_section(&self, mid: Mid, section: &Section) -> MediaSection {
        let (kind, direction, track) = match section {
            Section::Data => return transport::data_section(mid),
            Section::Receive(kind) => (*kind, Direction::RecvOnly, None),
            Section::Send(kind, None) => (*kind, Direction::Inactive, None),
            Section::Send(kind, Some(track)) => (*kind, Direction::SendOnly, Some(track)),
        };
        let media_kind = match kind {
            TrackKind::Audio => MediaKind::Audio,
            TrackKind::Video => MediaKind::Video,
        };
        let mut media = MediaSection::new(media_kind, mid);
        media.direction = direction;
        media.formats = offered_formats(kind, &self.codecs);
        media.extensions = offered_extensions(kind);
        if self.refuses_transport_feedback {
            leave_out_transport_feedback(&mut media);
        }
        if let Some(track) = track {
            announce(&mut media, track);
        }
        media
    }
}

fn leave_out_transport_feedback(media: &mut MediaSection) {
    media.extensions.retain(|extension| extension.uri != extension::TRANSPORT_CC);
    for format in &mut media.formats {
        format.feedback.retain(|feedback| feedback != format::TRANSPORT_CC);
    }
}

fn announce(media: &mut MediaSection, track: &LocalTrack) {
    let (stream, cid) = (stream::token(&track.stream_id), stream::token(&track.cid));
    if track.rids.is_empty() {
        stream::announce_stream(media, &stream, &cid, track.ssrc, track.rtx_ssrc);
        return;
    }
    media.msid = Some(Msid { stream, track: Some(cid) });
    media.rids = track.rids.iter().map(|&rid| RidLine { rid, sends: true }).collect();
    media.simulcast = Some(Simulcast { send: track.rids.clone(), recv: Vec::new() });
}

/// The server's track in a section of a description of its; `None` where it names none.
fn receiving(kind: TrackKind, agreed: &MediaSection, codecs: &[Codec]) -> Option<ClientReceive> {
    let (stream_id, track_id) = stream::msid(agreed)?;
    Some(ClientReceive {
        mid: agreed.mid,
        kind,
        stream_id,
        track_id: track_id?,
        stream: stream::announced(agreed).into_iter().next()?,
        codecs: format::choose(agreed, codecs, &[]),
        extensions: extension::ids(&agreed.extensions),
        feedback: format::feedback(&agreed.formats),
    })
}

/// A client's connection that the server offers: the subscriber one of the pair.
#[derive(Clone, Debug)]
pub struct ClientAnswerer {
    session: Session,
    codecs: Vec<Codec>,
    refuses_transport_feedback: bool,
}

impl ClientAnswerer {
    /// `session_id` is random; `codecs` are those that the client has.
    pub fn new(session_id: u64, codecs: &[Codec]) -> Self {
        let session = Session::new(session_id, 2);
        Self { session, codecs: codecs.to_vec(), refuses_transport_feedback: false }
    }

    /// As [`ClientOfferer::refuse_transport_feedback`].
    pub fn refuse_transport_feedback(&mut self) {
        self.refuses_transport_feedback = true;
    }

    /// Answers the server's offer. Returns the answer's text and what it means.
    pub fn handle_offer(
        &mut self,
        offer: &str,
        local: &LocalTransport,
    ) -> Result<(String, ClientDescription), SdpError> {
        let offer = SessionDescription::parse(offer)?;
        let (remote, remote_candidates) = transport::remote(&offer, Setup::ActPass)?;
        // The one who answers starts the handshake, unless the offer does (RFC 8842 section 5.3).
        let remote = RemoteTransport { dtls_role: parlor_model::DtlsRole::Client, ..remote };
        let mut description =
            ClientDescription { send: Vec::new(), receive: Vec::new(), remote, remote_candidates };
        let mut media = Vec::with_capacity(offer.media.len());
        for section in &offer.media {
            let (answer, receive) = self.answer_section(&offer, section);
            media.push(answer);
            description.receive.extend(receive);
        }
        let accepted = |mid: &Mid| media.iter().any(|m| m.mid == *mid && !m.is_rejected());
        let bundle = offer.bundle.iter().filter(|mid| accepted(mid)).copied().collect();
        let answer = self.session.describe(local, Setup::Active, bundle, media);
        Ok((answer.to_string(), description))
    }

    fn answer_section(
        &self,
        offer: &SessionDescription,
        section: &MediaSection,
    ) -> (MediaSection, Option<ClientReceive>) {
        if !transport::is_bundled(offer, section) {
            return (transport::rejected_section(section), None);
        }
        if section.is_data() {
            return (transport::data_section(section.mid), None);
        }
        let codecs = format::choose(section, &self.codecs, &[]);
        let (Some(kind), false) = (transport::track_kind(section), codecs.is_empty()) else {
            return (transport::rejected_section(section), None);
        };
        let mut answer = MediaSection::new(section.kind.clone(), section.mid);
        answer.protocol = section.protocol.clone();
        let feedback = &format::VIDEO_FEEDBACK;
        answer.formats = format::answer(section, &codecs, feedback, format::OPUS_PARAMETERS);
        answer.extensions = extension::keep(
            &section.extensions,
            &[
                extension::DEPENDENCY_DESCRIPTOR,
                extension::ABS_CAPTURE_TIME,
                extension::ABS_SEND_TIME,
                extension::TRANSPORT_CC,
                extension::MID,
                extension::PLAYOUT_DELAY,
            ],
        );
        if self.refuses_transport_feedback {
            leave_out_transport_feedback(&mut answer);
        }
        answer.direction = Direction::new(false, section.direction.sends());
        let agreed = MediaSection {
            formats: answer.formats.clone(),
            extensions: answer.extensions.clone(),
            ..section.clone()
        };
        let sends = section.direction.sends();
        let receive = sends.then(|| receiving(kind, &agreed, &self.codecs)).flatten();
        (answer, receive)
    }
}

/// Payload formats as Chromium numbers them.
fn offered_formats(kind: TrackKind, codecs: &[Codec]) -> Vec<PayloadFormat> {
    const H264_MODE_1: &str =
        "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f";
    const H264_MODE_0: &str =
        "level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=42e01f";
    const VIDEO: [(u8, u8, Codec, Option<&str>); 6] = [
        (96, 97, Codec::Vp8, None),
        (98, 99, Codec::Vp9, Some("profile-id=0")),
        (108, 109, Codec::H264, Some(H264_MODE_1)),
        (114, 115, Codec::H264, Some(H264_MODE_0)),
        (45, 46, Codec::Av1, Some("level-idx=5;profile=0;tier=0")),
        (116, 117, Codec::H265, None),
    ];
    const AUDIO: [(u8, Codec, Option<&str>); 4] = [
        (111, Codec::Opus, Some(format::OPUS_PARAMETERS)),
        (63, Codec::Red, Some("111/111")),
        (0, Codec::Pcmu, None),
        (8, Codec::Pcma, None),
    ];
    match kind {
        TrackKind::Audio => AUDIO
            .iter()
            .filter(|(_, codec, _)| codecs.contains(codec))
            .map(|&(number, codec, parameters)| {
                own(number, codec, parameters, &[format::TRANSPORT_CC])
            })
            .collect(),
        TrackKind::Video => VIDEO
            .iter()
            .filter(|(_, _, codec, _)| codecs.contains(codec))
            .flat_map(|&(number, rtx, codec, parameters)| {
                [own(number, codec, parameters, &format::VIDEO_FEEDBACK), own_rtx(rtx, number)]
            })
            .collect(),
    }
}

/// Header extensions as Chromium numbers them.
fn offered_extensions(kind: TrackKind) -> Vec<ExtensionMap> {
    const TRANSPORT_CC: (u8, &str) = (3, extension::TRANSPORT_CC);
    const MID: (u8, &str) = (4, extension::MID);
    let list: &[(u8, &str)] = match kind {
        TrackKind::Audio => &[(1, extension::AUDIO_LEVEL), TRANSPORT_CC, MID],
        TrackKind::Video => &[
            (2, extension::ABS_SEND_TIME),
            TRANSPORT_CC,
            MID,
            (5, extension::PLAYOUT_DELAY),
            (10, extension::RID),
            (11, extension::REPAIRED_RID),
            (12, extension::DEPENDENCY_DESCRIPTOR),
        ],
    };
    list.iter().map(|&(id, uri)| ExtensionMap { id, uri: uri.to_owned() }).collect()
}
