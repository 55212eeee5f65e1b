//! The server offers: the subscriber connection of the pair.

use std::collections::VecDeque;

use parlor_model::{
    Codec, CodecBinding, ExtensionIds, Feedback, MediaDescription, Mid, SendSection,
    SubscriptionId, TrackKind,
};

use crate::{
    Applied, LocalTransport, Offer, SdpError, SendSource, SendTrack, extension,
    format::{self, own, own_rtx},
    section::send_section,
    stream,
    text::{
        Direction, ExtensionMap, MAX_SECTIONS, MediaKind, MediaSection, PayloadFormat,
        SessionDescription, Setup,
    },
    transport::{self, Session},
};

/// Most sections that are appended only so that no track returns to one that has carried it.
pub const FRESH_SECTIONS_MAX: usize = 64;
/// Of how many tracks a section remembers that it carried them, the latest.
const CARRIED_TRACKS_MAX: usize = 32;

/// The offering side of the subscriber connection of `/rtc`.
///
/// The first section is for data channels, one more for each track follows. One offer is
/// outstanding at a time; what changes meanwhile goes into the next one.
#[derive(Clone, Debug)]
pub struct Offerer {
    session: Session,
    codecs: Vec<Codec>,
    next_id: u32,
    sends: Vec<SendTrack>,
    unsupported: Vec<SubscriptionId>,
    sections: Vec<Section>,
    /// What differs from the last offer.
    changed: bool,
    outstanding: Option<Outstanding>,
    agreed: Vec<Agreed>,
    /// No track returns to a section that has carried it, as long as there is room.
    avoids_returns: bool,
    playout_delay: bool,
}

/// One section for a track.
#[derive(Clone, Debug)]
struct Section {
    kind: TrackKind,
    send: Option<SubscriptionId>,
    /// The client refused it: it stays refused.
    refused: bool,
    /// The client has seen it without a track, so that it can carry another.
    clear: bool,
    /// Ids of tracks that it carried, when returns are to be avoided.
    carried: VecDeque<String>,
}

impl Section {
    fn can_take(&self, kind: TrackKind) -> bool {
        self.kind == kind && self.send.is_none() && self.clear && !self.refused
    }

    fn remember(&mut self, track_id: &str) {
        if self.carried.len() == CARRIED_TRACKS_MAX {
            self.carried.pop_front();
        }
        self.carried.push_back(track_id.to_owned());
    }
}

/// What a section was agreed to carry, whichever encoding of its track that is.
#[derive(Clone, Debug)]
struct Agreed {
    mid: Mid,
    subscription: SubscriptionId,
    codecs: Vec<CodecBinding>,
    extensions: ExtensionIds,
    feedback: Feedback,
}

#[derive(Clone, Debug)]
struct Outstanding {
    id: u32,
    description: SessionDescription,
    sends: Vec<Option<SubscriptionId>>,
}

impl Offerer {
    /// `session_id` is random; `unix_seconds` numbers the first description; `first_offer_id` is
    /// random below 256; `codecs` are the enabled ones.
    pub fn new(session_id: u64, unix_seconds: u64, first_offer_id: u32, codecs: &[Codec]) -> Self {
        Self {
            session: Session::new(session_id, unix_seconds),
            codecs: codecs.to_vec(),
            next_id: first_offer_id,
            sends: Vec::new(),
            unsupported: Vec::new(),
            sections: Vec::new(),
            // The data channels want an offer of their own.
            changed: true,
            outstanding: None,
            agreed: Vec::new(),
            avoids_returns: false,
            playout_delay: false,
        }
    }

    /// From now on video may say how long its receiver waits before it shows a frame.
    pub fn allow_playout_delay(&mut self) {
        self.playout_delay = true;
    }

    /// From now on a track does not return to a section that has carried it, unless
    /// [`FRESH_SECTIONS_MAX`] sections are there and none of them is fresh. For clients that
    /// overlook such a track.
    pub fn avoid_returns(&mut self) {
        self.avoids_returns = true;
    }

    /// Sends a track from the next offer on. A subscription that is already there is left as it is.
    pub fn add_send(&mut self, send: SendTrack) {
        if !self.sends.iter().any(|other| other.subscription == send.subscription) {
            self.sends.push(stream::printable(send));
            self.changed = true;
        }
    }

    /// Takes other encodings for a track that is sent. What the connection carries then is in
    /// [`Offerer::description`]; nothing has to be negotiated for it.
    pub fn set_sources(&mut self, subscription: SubscriptionId, sources: &[SendSource]) {
        let known = self.sends.iter_mut().find(|send| send.subscription == subscription);
        if let Some(send) = known.filter(|send| send.sources != sources) {
            send.sources = sources.to_vec();
            let before = self.unsupported.len();
            self.unsupported.retain(|other| *other != subscription);
            self.changed |= self.unsupported.len() < before;
        }
    }

    /// Stops sending a track from the next offer on. Returns whether it was there.
    pub fn remove_send(&mut self, subscription: SubscriptionId) -> bool {
        let before = self.sends.len();
        self.sends.retain(|send| send.subscription != subscription);
        self.unsupported.retain(|other| *other != subscription);
        self.agreed.retain(|section| section.subscription != subscription);
        let removed = self.sends.len() < before;
        self.changed |= removed;
        removed
    }

    /// The next offer, when something changed and none is outstanding. Other ICE credentials than
    /// in the last offer restart ICE: that offer is due at once and supersedes an outstanding one.
    pub fn poll_offer(&mut self, local: &LocalTransport) -> Option<Offer> {
        let restart = self.session.described_ufrag().is_some_and(|ufrag| ufrag != local.ice.ufrag);
        if !restart && (!self.changed || self.outstanding.is_some()) {
            return None;
        }
        self.changed = false;
        self.place_sends();
        let data_mid = Mid::new("0")?;
        let mut media = vec![transport::data_section(data_mid)];
        let mut mid_to_track_id = Vec::new();
        for (index, section) in self.sections.iter().enumerate() {
            let mid = Mid::new(&(index + 1).to_string())?;
            let send = section.send.and_then(|subscription| self.send(subscription));
            if let Some(send) = send {
                mid_to_track_id.push((mid, send.track_id.clone()));
            }
            media.push(self.offer_section(mid, section, send));
        }
        let bundle = media.iter().filter(|m| !m.is_rejected()).map(|m| m.mid).collect();
        let description = self.session.describe(local, Setup::ActPass, bundle, media);
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        let sdp = description.to_string();
        let sends = self.sections.iter().map(|section| section.send).collect();
        self.outstanding = Some(Outstanding { id, description, sends });
        Some(Offer { id, sdp, mid_to_track_id })
    }

    /// Applies the answer to the offer with this id; `None` for a stale one. After an error the
    /// offer stays outstanding: the connection is of no more use.
    pub fn handle_answer(&mut self, id: u32, answer: &str) -> Result<Option<Applied>, SdpError> {
        let Some(outstanding) = self.outstanding.as_ref().filter(|offer| offer.id == id) else {
            return Ok(None);
        };
        let answer = SessionDescription::parse(answer)?;
        let offered = &outstanding.description.media;
        if answer.media.len() != offered.len() {
            return Err(SdpError::Description("an answer has as many sections as its offer"));
        }
        let differs = |(mine, theirs): (&MediaSection, &MediaSection)| {
            mine.mid != theirs.mid || mine.kind != theirs.kind
        };
        if let Some(index) = offered.iter().zip(&answer.media).position(differs) {
            return Err(SdpError::Section { index, fault: "is not the one that was offered" });
        }
        let (remote, remote_candidates) = transport::remote(&answer, Setup::Active)?;
        let Some(outstanding) = self.outstanding.take() else { return Ok(None) };
        self.apply(&outstanding, &answer);
        Ok(Some(Applied {
            description: self.description(),
            remote,
            remote_candidates,
            unsupported: self.unsupported.clone(),
        }))
    }

    /// What the connection carries now.
    pub fn description(&self) -> MediaDescription {
        let send = self.agreed.iter().filter_map(|agreed| self.sending(agreed)).collect();
        MediaDescription { receive: Vec::new(), send }
    }

    fn sending(&self, agreed: &Agreed) -> Option<SendSection> {
        let send = self.send(agreed.subscription)?;
        send_section(agreed.mid, send, &agreed.codecs, agreed.extensions, agreed.feedback)
    }

    fn send(&self, subscription: SubscriptionId) -> Option<&SendTrack> {
        self.sends.iter().find(|send| send.subscription == subscription)
    }

    fn apply(&mut self, outstanding: &Outstanding, answer: &SessionDescription) {
        self.agreed.clear();
        let pairs = outstanding.description.media.iter().zip(&answer.media).skip(1);
        for (index, (offered, answered)) in pairs.enumerate() {
            let Some(section) = self.sections.get_mut(index) else { continue };
            let subscription = outstanding.sends.get(index).copied().flatten();
            section.clear = subscription.is_none();
            if answered.is_rejected() {
                section.refused = true;
                section.send = None;
                self.unsupported.extend(subscription);
                continue;
            }
            let send = subscription.and_then(|subscription| {
                self.sends.iter().find(|send| send.subscription == subscription)
            });
            let Some(send) = send else { continue };
            let formats = format::agreed(offered, answered);
            let agreed_section = MediaSection { formats, ..offered.clone() };
            let codecs = format::choose(&agreed_section, &self.codecs, &[]);
            let extensions = answered
                .extensions
                .iter()
                .filter(|extension| offered.extensions.contains(extension));
            let extensions: Vec<ExtensionMap> = extensions.cloned().collect();
            let agreed = Agreed {
                mid: offered.mid,
                subscription: send.subscription,
                extensions: extension::ids(&extensions),
                feedback: format::feedback(&agreed_section.formats),
                codecs,
            };
            if send.source(&agreed.codecs).is_none() || !answered.direction.receives() {
                section.send = None;
                self.unsupported.push(send.subscription);
                self.changed = true;
            } else {
                self.agreed.push(agreed);
            }
        }
        // A track that found no section because there are too many can use one that is clear now.
        self.changed |= self.sends.iter().any(|send| {
            !self.unsupported.contains(&send.subscription)
                && !self.sections.iter().any(|s| s.send == Some(send.subscription))
                && self.sections.iter().any(|section| section.can_take(send.kind))
        });
    }

    /// Decides which track goes into which section: it stays where it is; a new one takes the first
    /// clear section of its kind, or appends one.
    fn place_sends(&mut self) {
        for section in &mut self.sections {
            let gone = |send: SubscriptionId| !self.sends.iter().any(|s| s.subscription == send);
            if section.send.is_some_and(gone) {
                section.send = None;
            }
        }
        for send in &self.sends {
            let placed = |section: &Section| section.send == Some(send.subscription);
            if self.sections.iter().any(placed) || self.unsupported.contains(&send.subscription) {
                continue;
            }
            let Some(place) = self.place_for(send) else { continue };
            if place == self.sections.len() {
                self.sections.push(Section {
                    kind: send.kind,
                    send: None,
                    refused: false,
                    clear: true,
                    carried: VecDeque::new(),
                });
            }
            let Some(section) = self.sections.get_mut(place) else { continue };
            section.send = Some(send.subscription);
            section.clear = false;
            if self.avoids_returns {
                section.remember(&send.track_id);
            }
        }
    }

    /// Index of the section for a track that has none, one past the last to append it.
    fn place_for(&self, send: &SendTrack) -> Option<usize> {
        let sections = &self.sections;
        let fresh = |section: &Section| !section.carried.contains(&send.track_id);
        let clear = sections.iter().position(|section| section.can_take(send.kind));
        let clear_and_fresh =
            sections.iter().position(|section| section.can_take(send.kind) && fresh(section));
        let full = sections.len() + 1 >= MAX_SECTIONS;
        let append = (!full).then_some(sections.len());
        if sections.len() < FRESH_SECTIONS_MAX {
            return clear_and_fresh.or(append);
        }
        clear_and_fresh.or(clear).or(append)
    }

    fn offer_section(&self, mid: Mid, section: &Section, send: Option<&SendTrack>) -> MediaSection {
        let kind = match section.kind {
            TrackKind::Audio => MediaKind::Audio,
            TrackKind::Video => MediaKind::Video,
        };
        let mut media = MediaSection::new(kind, mid);
        media.formats = match section.kind {
            TrackKind::Audio => audio_formats(&self.codecs, send.is_some_and(|send| send.stereo)),
            TrackKind::Video => video_formats(&self.codecs),
        };
        if section.refused {
            return transport::rejected_section(&media);
        }
        media.extensions = extensions(section.kind, self.playout_delay);
        media.direction = Direction::Inactive;
        if let Some(send) = send {
            media.direction = Direction::SendRecv;
            stream::announce(&mut media, send);
        }
        media
    }
}

/// Sound as LiveKit numbers it, with transport-wide feedback besides.
fn audio_formats(enabled: &[Codec], stereo: bool) -> Vec<PayloadFormat> {
    let mut opus = format::OPUS_PARAMETERS.to_owned();
    if stereo {
        opus.push_str(";sprop-stereo=1");
    }
    let feedback = [format::TRANSPORT_CC];
    let red = enabled.contains(&Codec::Opus).then_some("111/111");
    [
        own(111, Codec::Opus, Some(&opus), &feedback),
        own(63, Codec::Red, red, &feedback),
        own(0, Codec::Pcmu, None, &feedback),
        own(8, Codec::Pcma, None, &feedback),
    ]
    .into_iter()
    .filter(|format| is_enabled(format, enabled))
    .collect()
}

/// Video as LiveKit numbers it, with transport-wide feedback besides.
fn video_formats(enabled: &[Codec]) -> Vec<PayloadFormat> {
    const H264_MODE_0: &str =
        "level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=42e01f";
    const H264_MODE_1: &str =
        "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f";
    const TABLE: [(u8, u8, Codec, Option<&str>); 7] = [
        (96, 97, Codec::Vp8, None),
        (98, 99, Codec::Vp9, Some("profile-id=0")),
        (100, 101, Codec::Vp9, Some("profile-id=1")),
        (125, 126, Codec::H264, Some(H264_MODE_0)),
        (108, 109, Codec::H264, Some(H264_MODE_1)),
        (35, 36, Codec::Av1, None),
        (116, 117, Codec::H265, None),
    ];
    TABLE
        .iter()
        .filter(|(_, _, codec, _)| enabled.contains(codec))
        .flat_map(|&(media, rtx, codec, parameters)| {
            [own(media, codec, parameters, &format::VIDEO_FEEDBACK), own_rtx(rtx, media)]
        })
        .collect()
}

fn is_enabled(format: &PayloadFormat, enabled: &[Codec]) -> bool {
    Codec::from_mime_type(&format.name).is_some_and(|codec| enabled.contains(&codec))
}

/// Extensions as LiveKit numbers them, with transport-wide sequence numbers besides.
fn extensions(kind: TrackKind, playout_delay: bool) -> Vec<ExtensionMap> {
    const DEPENDENCY_DESCRIPTOR: (u8, &str) = (1, extension::DEPENDENCY_DESCRIPTOR);
    const ABS_CAPTURE_TIME: (u8, &str) = (2, extension::ABS_CAPTURE_TIME);
    const ABS_SEND_TIME: (u8, &str) = (3, extension::ABS_SEND_TIME);
    const TRANSPORT_CC: (u8, &str) = (4, extension::TRANSPORT_CC);
    const PLAYOUT_DELAY: (u8, &str) = (5, extension::PLAYOUT_DELAY);
    let list: &[(u8, &str)] = match kind {
        TrackKind::Audio => &[ABS_CAPTURE_TIME, TRANSPORT_CC],
        TrackKind::Video => &[DEPENDENCY_DESCRIPTOR, ABS_CAPTURE_TIME, ABS_SEND_TIME, TRANSPORT_CC],
    };
    let extra = (kind == TrackKind::Video && playout_delay).then_some(&PLAYOUT_DELAY);
    list.iter().chain(extra).map(|&(id, uri)| ExtensionMap { id, uri: uri.to_owned() }).collect()
}
