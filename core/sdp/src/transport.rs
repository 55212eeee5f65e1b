//! The transport's part of descriptions: one bundle, one set of credentials, one certificate.

use parlor_model::{DtlsRole, Mid, RemoteTransport, SctpParameters, TrackKind};

use crate::{
    LocalTransport, SdpError,
    text::{MediaKind, MediaSection, SessionDescription, Setup, TransportAttributes},
};

/// The largest data channel message that we accept, in bytes.
pub(crate) const MAX_MESSAGE_SIZE_BYTES: u32 = 65_535;
/// The port that SCTP over DTLS always uses.
pub(crate) const SCTP_PORT: u16 = 5000;
/// What RFC 8841 section 6 assumes without `a=max-message-size`, in bytes.
const DEFAULT_MAX_MESSAGE_SIZE_BYTES: u32 = 65_536;

/// Heard or seen; `None` for sections that are not RTP.
pub(crate) fn track_kind(section: &MediaSection) -> Option<TrackKind> {
    match section.kind {
        MediaKind::Audio => Some(TrackKind::Audio),
        MediaKind::Video => Some(TrackKind::Video),
        MediaKind::Application | MediaKind::Other(_) => None,
    }
}

/// Whether a section of a peer's description takes part in its transport.
pub(crate) fn is_bundled(description: &SessionDescription, section: &MediaSection) -> bool {
    let alone = description.bundle.is_empty()
        && description.media.first().is_some_and(|first| first.mid == section.mid);
    !section.is_rejected() && (alone || description.bundle.contains(&section.mid))
}

/// The remote side that a description gives. `default_setup` is what its `a=setup` is when absent.
pub(crate) fn remote(
    description: &SessionDescription,
    default_setup: Setup,
) -> Result<(RemoteTransport, Vec<String>), SdpError> {
    let (index, section) = tagged(description)?;
    let fault = |fault| SdpError::Section { index, fault };
    let session = &description.transport;
    let own = &section.transport;
    let ufrag = own.ice_ufrag.as_ref().or(session.ice_ufrag.as_ref());
    let pwd = own.ice_pwd.as_ref().or(session.ice_pwd.as_ref());
    let (Some(ufrag), Some(pwd)) = (ufrag, pwd) else {
        return Err(fault("has no ICE credentials"));
    };
    let fingerprints =
        if own.fingerprints.is_empty() { &session.fingerprints } else { &own.fingerprints };
    if fingerprints.is_empty() {
        return Err(fault("has no fingerprint"));
    }
    let setup = own.setup.or(session.setup).unwrap_or(default_setup);
    let remote = RemoteTransport {
        ice: parlor_model::IceCredentials { ufrag: ufrag.clone(), pwd: pwd.clone() },
        ice_lite: description.ice_lite,
        fingerprints: fingerprints.clone(),
        dtls_role: match setup {
            Setup::Passive => DtlsRole::Client,
            _ => DtlsRole::Server,
        },
        sctp: description
            .media
            .iter()
            .find(|section| section.is_data() && is_bundled(description, section))
            .map(sctp),
    };
    Ok((remote, section.candidates.clone()))
}

/// The section whose transport the others share (RFC 9143 section 7).
fn tagged(description: &SessionDescription) -> Result<(usize, &MediaSection), SdpError> {
    let position =
        |mid: &Mid| description.bundle.iter().position(|other| other == mid).unwrap_or(0);
    description
        .media
        .iter()
        .enumerate()
        .filter(|(_, section)| is_bundled(description, section))
        .min_by_key(|(_, section)| position(&section.mid))
        .ok_or(SdpError::Description("no media section can be used"))
}

fn sctp(section: &MediaSection) -> SctpParameters {
    let size_bytes = section.max_message_size_bytes.unwrap_or(DEFAULT_MAX_MESSAGE_SIZE_BYTES);
    SctpParameters {
        port: section.sctp_port.unwrap_or(SCTP_PORT),
        max_message_size_bytes: if size_bytes == 0 { u32::MAX } else { size_bytes },
    }
}

/// What our descriptions have in common, and when candidates stand in them.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    id: u64,
    version: u64,
    described_ufrag: Option<String>,
}

impl Session {
    pub(crate) fn new(id: u64, unix_seconds: u64) -> Self {
        // Some peers read the session id as a signed number.
        Self { id: id >> 1, version: unix_seconds, described_ufrag: None }
    }

    /// The ufrag of our last description.
    pub(crate) fn described_ufrag(&self) -> Option<&str> {
        self.described_ufrag.as_deref()
    }

    /// Puts the sections of a description of ours together. `bundle` are those that are not
    /// rejected, the tagged one first.
    pub(crate) fn describe(
        &mut self,
        local: &LocalTransport,
        setup: Setup,
        bundle: Vec<Mid>,
        mut media: Vec<MediaSection>,
    ) -> SessionDescription {
        let trickled = self.described_ufrag.as_ref() == Some(&local.ice.ufrag);
        for section in &mut media {
            if !bundle.contains(&section.mid) {
                continue;
            }
            section.transport = TransportAttributes {
                ice_ufrag: Some(local.ice.ufrag.clone()),
                ice_pwd: Some(local.ice.pwd.clone()),
                setup: Some(setup),
                ..TransportAttributes::default()
            };
            if trickled && bundle.first() == Some(&section.mid) && !local.candidates.is_empty() {
                section.candidates = local.candidates.clone();
                section.end_of_candidates = true;
            }
        }
        let description = SessionDescription {
            session_id: self.id,
            session_version: self.version,
            ice_lite: local.ice_lite,
            bundle,
            transport: TransportAttributes {
                fingerprints: vec![local.fingerprint.clone()],
                ..TransportAttributes::default()
            },
            media,
        };
        self.version = self.version.wrapping_add(1);
        self.described_ufrag = Some(local.ice.ufrag.clone());
        description
    }
}

/// A section for data channels of ours.
pub(crate) fn data_section(mid: Mid) -> MediaSection {
    let mut section = MediaSection::new(MediaKind::Application, mid);
    section.sctp_port = Some(SCTP_PORT);
    section.max_message_size_bytes = Some(MAX_MESSAGE_SIZE_BYTES);
    section
}

/// The answer to a section that is not taken.
pub(crate) fn rejected_section(offer: &MediaSection) -> MediaSection {
    let mut section = MediaSection::new(offer.kind.clone(), offer.mid);
    section.port = 0;
    section.protocol = offer.protocol.clone();
    section.other_formats = offer.other_formats.clone();
    section.formats = offer.formats.iter().take(1).cloned().collect();
    section.direction = crate::text::Direction::Inactive;
    section.rtcp_mux = false;
    section.rtcp_rsize = false;
    section
}
