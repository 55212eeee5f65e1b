//! The client offers: the single connection, and the publisher connection of the pair.

use parlor_model::{
    Codec, DtlsRole, ExtensionIds, Feedback, MediaDescription, Mid, SubscriptionId, TrackId,
    TrackKind,
};

use crate::{
    Answer, ConnectionModel, LocalTransport, PublishedTrack, ReceivedSection, Requirement,
    SdpError, SendSource, SendTrack, format,
    section::{Received, Section},
    stream,
    text::{Direction, MAX_SECTIONS, MediaSection, SessionDescription, Setup},
    transport::{self, Session},
};

/// The answering side of a connection that the client offers.
///
/// It holds which track of ours is in which section, and which publication comes in which one.
#[derive(Clone, Debug)]
pub struct Answerer {
    session: Session,
    model: ConnectionModel,
    codecs: Vec<Codec>,
    sends: Vec<SendTrack>,
    unsupported: Vec<SubscriptionId>,
    /// Publications whose section ended: never guessed again for another section.
    ended: Vec<TrackId>,
    sections: Vec<Section>,
    remote_ufrag: Option<String>,
    offered_sections: usize,
    requirement_outstanding: bool,
    playout_delay: bool,
}

impl Answerer {
    /// `session_id` is random; `unix_seconds` numbers the first description; `codecs` are the
    /// enabled ones.
    pub fn new(
        session_id: u64,
        unix_seconds: u64,
        model: ConnectionModel,
        codecs: &[Codec],
    ) -> Self {
        Self {
            session: Session::new(session_id, unix_seconds),
            model,
            codecs: codecs.to_vec(),
            sends: Vec::new(),
            unsupported: Vec::new(),
            ended: Vec::new(),
            sections: Vec::new(),
            remote_ufrag: None,
            offered_sections: 0,
            requirement_outstanding: false,
            playout_delay: false,
        }
    }

    /// From now on video may say how long its receiver waits before it shows a frame.
    pub fn allow_playout_delay(&mut self) {
        self.playout_delay = true;
    }

    /// Sends a track from the next answer on. Only the single connection sends; a subscription
    /// that is already there is left as it is.
    pub fn add_send(&mut self, send: SendTrack) {
        let known = self.sends.iter().any(|other| other.subscription == send.subscription);
        if self.model == ConnectionModel::Single && !known {
            self.sends.push(stream::printable(send));
        }
    }

    /// Stops sending a track from the next answer on. Returns whether it was there.
    pub fn remove_send(&mut self, subscription: SubscriptionId) -> bool {
        let before = self.sends.len();
        self.sends.retain(|send| send.subscription != subscription);
        self.unsupported.retain(|other| *other != subscription);
        self.sends.len() < before
    }

    /// Takes other encodings for a track that is sent. What the connection carries then is in
    /// [`Answerer::description`]; nothing has to be negotiated for it.
    pub fn set_sources(&mut self, subscription: SubscriptionId, sources: &[SendSource]) {
        let known = self.sends.iter_mut().find(|send| send.subscription == subscription);
        if let Some(send) = known.filter(|send| send.sources != sources) {
            send.sources = sources.to_vec();
            self.unsupported.retain(|other| *other != subscription);
        }
    }

    /// Whether this offer has other ICE credentials than the one before it: then the answer needs
    /// new ones of ours.
    pub fn is_ice_restart(&self, offer: &str) -> Result<bool, SdpError> {
        let Some(before) = &self.remote_ufrag else { return Ok(false) };
        let offer = SessionDescription::parse(offer)?;
        let (remote, _) = transport::remote(&offer, Setup::ActPass)?;
        Ok(*before != remote.ice.ufrag)
    }

    /// Answers a client's offer. `publications` are the tracks that the client has announced and
    /// not ended. After an error, what was agreed on before still holds.
    pub fn handle_offer(
        &mut self,
        offer: &str,
        local: &LocalTransport,
        publications: &[PublishedTrack],
    ) -> Result<Answer, SdpError> {
        self.requirement_outstanding = false;
        let offer = SessionDescription::parse(offer)?;
        let (remote, remote_candidates) = transport::remote(&offer, Setup::ActPass)?;
        self.remote_ufrag = Some(remote.ice.ufrag.clone());
        self.offered_sections = offer.media.len();
        let ended = self.take_sections(&offer, publications);
        self.match_publications(publications);
        self.place_sends();
        let setup = match remote.dtls_role {
            DtlsRole::Server => Setup::Passive,
            DtlsRole::Client => Setup::Active,
        };
        let media: Vec<_> =
            offer.media.iter().map(|section| self.answer_section(&offer, section)).collect();
        let accepted = |mid: &Mid| media.iter().any(|m| m.mid == *mid && !m.is_rejected());
        let bundle = match &offer.bundle[..] {
            [] => offer.media.iter().take(1).map(|section| section.mid).collect(),
            bundle => bundle.to_vec(),
        };
        let bundle = bundle.into_iter().filter(accepted).collect();
        let answer = self.session.describe(local, setup, bundle, media);
        let mut received = self.received();
        received.extend(ended);
        Ok(Answer {
            sdp: answer.to_string(),
            mid_to_track_id: self.mid_to_track_id(),
            description: self.description(),
            remote,
            remote_candidates,
            received,
            unsupported: self.unsupported.clone(),
        })
    }

    /// Matches sections that have no track yet with publications: by cid, else the first
    /// publication of the kind that is nowhere. For tracks announced after the offer; see
    /// [`Answerer::received`] and [`Answerer::description`] then.
    pub fn match_publications(&mut self, publications: &[PublishedTrack]) {
        for by_cid in [true, false] {
            for index in 0..self.sections.len() {
                let found = self.find_publication(index, publications, by_cid);
                let section = self.sections.get_mut(index);
                if let (Some(section), Some(found)) = (section, found)
                    && let Some(received) = &mut section.received
                {
                    received.publication = Some(found);
                }
            }
        }
    }

    /// Every section in which the client sends now.
    pub fn received(&self) -> Vec<ReceivedSection> {
        self.sections.iter().filter_map(|section| section.report(false)).collect()
    }

    /// What the connection carries now. Sections without a known track are left out.
    pub fn description(&self) -> MediaDescription {
        MediaDescription {
            receive: self.sections.iter().filter_map(Section::receive).collect(),
            send: self
                .sections
                .iter()
                .filter_map(|section| {
                    let send = self.send(section.send?)?;
                    section.sending(send)
                })
                .collect(),
        }
    }

    /// What the client must be told because the last answer does not fit what is to be sent:
    /// `Some` once, then `None` until its next offer.
    pub fn media_sections_requirement(&mut self) -> Option<Requirement> {
        if self.requirement_outstanding || self.remote_ufrag.is_none() {
            return None;
        }
        let left = |section: &Section| section.send.is_some_and(|send| self.send(send).is_none());
        let mut free: Vec<&Section> = self
            .sections
            .iter()
            .filter(|section| section.open && (section.send.is_none() || left(section)))
            .collect();
        let mut due = self.sections.iter().any(left);
        let mut room = MAX_SECTIONS.saturating_sub(self.offered_sections);
        let mut requirement = Requirement::default();
        for send in &self.sends {
            let placed = self.sections.iter().any(|s| s.send == Some(send.subscription));
            if placed || self.unsupported.contains(&send.subscription) {
                continue;
            }
            match free.iter().position(|section| section.can_carry(send)) {
                Some(index) => {
                    free.remove(index);
                }
                None if room == 0 => continue,
                None => {
                    room -= 1;
                    match send.kind {
                        TrackKind::Audio => requirement.num_audios += 1,
                        TrackKind::Video => requirement.num_videos += 1,
                    }
                }
            }
            due = true;
        }
        self.requirement_outstanding = due;
        due.then_some(requirement)
    }

    fn send(&self, subscription: SubscriptionId) -> Option<&SendTrack> {
        self.sends.iter().find(|send| send.subscription == subscription)
    }

    fn mid_to_track_id(&self) -> Vec<(Mid, String)> {
        let carried = |section: &Section| {
            let send = self.send(section.send?)?;
            Some((section.mid, send.track_id.clone()))
        };
        self.sections.iter().filter_map(carried).collect()
    }

    /// Replaces the sections by those of the offer, keeping what goes on in them. Returns what ended.
    fn take_sections(
        &mut self,
        offer: &SessionDescription,
        publications: &[PublishedTrack],
    ) -> Vec<ReceivedSection> {
        let old = std::mem::take(&mut self.sections);
        for media in &offer.media {
            let Some(kind) = transport::track_kind(media) else { continue };
            if !transport::is_bundled(offer, media) {
                continue;
            }
            let before = old.iter().find(|s| s.mid == media.mid && s.kind == kind);
            if let Some(section) = self.take_section(media, kind, before, publications) {
                self.sections.push(section);
            }
        }
        let ended = old.iter().filter(|before| {
            before.received.as_ref().is_some_and(|received| {
                !self.sections.iter().any(|section| {
                    let now = section.received.as_ref();
                    section.mid == before.mid && now.is_some_and(|now| now.cid == received.cid)
                })
            })
        });
        let ended: Vec<_> = ended.filter_map(|section| section.report(true)).collect();
        self.ended.extend(ended.iter().filter_map(|section| section.track));
        self.ended.retain(|track| publications.iter().any(|p| p.track == *track));
        self.ended.sort_unstable();
        self.ended.dedup();
        ended
    }

    /// `None` for a section that is refused: no codec in common, not encrypted, or RTCP apart.
    fn take_section(
        &self,
        media: &MediaSection,
        kind: TrackKind,
        before: Option<&Section>,
        publications: &[PublishedTrack],
    ) -> Option<Section> {
        if !media.protocol.contains("SAVP") || !media.rtcp_mux {
            return None;
        }
        let codecs = format::choose(media, &self.codecs, &[]);
        if codecs.is_empty() {
            return None;
        }
        let received = media.direction.sends().then(|| {
            let cid = stream::msid(media).and_then(|(_, track)| track);
            let before = before.and_then(|section| section.received.as_ref());
            let publication = before
                .filter(|before| before.cid == cid)
                .and_then(|before| before.publication.as_ref())
                .and_then(|old| {
                    publications.iter().find(|p| p.track == old.track && p.cid == old.cid).cloned()
                });
            Received { cid, streams: stream::announced(media), publication }
        });
        let client_owned = before.is_some_and(|section| section.client_owned)
            || media.direction == Direction::SendOnly
            || (media.msid.is_some() && !media.direction.sends());
        let open =
            self.model == ConnectionModel::Single && media.direction.receives() && !client_owned;
        Some(Section {
            mid: media.mid,
            kind,
            open,
            carried: before.is_some_and(|section| section.carried),
            client_owned,
            send: before.and_then(|section| section.send),
            received,
            codecs,
            extensions: ExtensionIds::default(),
            feedback: Feedback::default(),
        })
    }

    /// The publication for a section that has none yet.
    fn find_publication(
        &self,
        index: usize,
        publications: &[PublishedTrack],
        by_cid: bool,
    ) -> Option<PublishedTrack> {
        let section = self.sections.get(index)?;
        let received = section.received.as_ref().filter(|r| r.publication.is_none())?;
        let cid = received.cid.as_deref();
        let bound = || {
            self.sections
                .iter()
                .filter_map(|section| section.received.as_ref()?.publication.as_ref())
        };
        let fits = |publication: &&PublishedTrack| {
            publication.kind == section.kind
                && if by_cid {
                    cid == Some(publication.cid.as_str())
                        && !bound()
                            .any(|p| p.track == publication.track && p.cid == publication.cid)
                } else {
                    !bound().any(|p| p.track == publication.track)
                        && !self.ended.contains(&publication.track)
                }
        };
        publications.iter().find(fits).cloned()
    }

    /// Decides which of our tracks goes into which section. A track stays where it is; a new one
    /// takes the first free section. A section that a track has just left is answered inactive
    /// once before it carries another, so that the client sees the first one end.
    fn place_sends(&mut self) {
        let left: Vec<Mid> = self
            .sections
            .iter()
            .filter(|section| section.send.is_some_and(|send| self.send(send).is_none()))
            .map(|section| section.mid)
            .collect();
        for section in &mut self.sections {
            if left.contains(&section.mid) || !section.open {
                section.send = None;
            }
        }
        self.unsupported.clear();
        for send in &self.sends {
            if self.sections.iter().any(|section| section.send == Some(send.subscription)) {
                continue;
            }
            let of_kind = |section: &Section| section.kind == send.kind && section.open;
            if self.sections.iter().any(of_kind)
                && !self.sections.iter().any(|section| of_kind(section) && section.can_carry(send))
            {
                self.unsupported.push(send.subscription);
                continue;
            }
            let free = self.sections.iter_mut().find(|section| {
                section.open
                    && section.send.is_none()
                    && !left.contains(&section.mid)
                    && section.can_carry(send)
            });
            if let Some(section) = free {
                section.send = Some(send.subscription);
                section.carried = true;
            }
        }
    }

    fn answer_section(&mut self, offer: &SessionDescription, media: &MediaSection) -> MediaSection {
        let bundled = transport::is_bundled(offer, media);
        if bundled && media.is_data() {
            return transport::data_section(media.mid);
        }
        let index = self.sections.iter().position(|section| section.mid == media.mid);
        let Some(mut section) = index.and_then(|index| self.sections.get(index)).cloned() else {
            return transport::rejected_section(media);
        };
        let send = section.send.and_then(|subscription| self.send(subscription));
        let answer = section.answer(media, send, self.model, &self.codecs, self.playout_delay);
        if let Some(slot) = index.and_then(|index| self.sections.get_mut(index)) {
            *slot = section;
        }
        answer
    }
}
