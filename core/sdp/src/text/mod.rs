//! SDP as WebRTC uses it (RFC 8866, RFC 8829): a typed value, its parser and its printer.
//!
//! Unknown lines and attributes are skipped. A known one that does not follow its grammar, or that
//! goes past a bound, refuses the whole description.

mod parse;
mod print;

pub use parse::{
    MAX_CANDIDATES, MAX_EXTENSIONS, MAX_FEEDBACK, MAX_FINGERPRINTS, MAX_FORMATS, MAX_LINE_BYTES,
    MAX_RIDS, MAX_SDP_BYTES, MAX_SECTIONS, MAX_SSRC_GROUPS, MAX_SSRC_LINES,
};

use parlor_model::{Fingerprint, Mid, PayloadType, Rid, Ssrc};

/// A whole description.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SessionDescription {
    /// `o=`: the session's number.
    pub session_id: u64,
    /// `o=`: counts the descriptions of the session.
    pub session_version: u64,
    /// `a=ice-lite`.
    pub ice_lite: bool,
    /// `a=group:BUNDLE` (RFC 9143), the tagged section first.
    pub bundle: Vec<Mid>,
    /// Transport attributes at session level, which hold for sections without their own.
    pub transport: TransportAttributes,
    /// The media sections.
    pub media: Vec<MediaSection>,
}

/// What a description says about the transport, at session level or in a section.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TransportAttributes {
    /// `a=ice-ufrag`.
    pub ice_ufrag: Option<String>,
    /// `a=ice-pwd`.
    pub ice_pwd: Option<String>,
    /// `a=ice-options`.
    pub ice_options: Option<String>,
    /// `a=fingerprint` lines.
    pub fingerprints: Vec<Fingerprint>,
    /// `a=setup`.
    pub setup: Option<Setup>,
}

/// `a=setup` (RFC 4145, RFC 8842).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Setup {
    Active,
    Passive,
    ActPass,
    HoldConn,
}

/// What an `m=` line announces.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MediaKind {
    /// `m=audio`.
    Audio,
    /// `m=video`.
    Video,
    /// `m=application`.
    Application,
    /// Anything else, to be rejected.
    Other(String),
}

/// Who sends in a section, seen from the side that wrote the description.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub enum Direction {
    #[default]
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

impl Direction {
    /// The direction with these two halves.
    pub fn new(sends: bool, receives: bool) -> Self {
        match (sends, receives) {
            (true, true) => Direction::SendRecv,
            (true, false) => Direction::SendOnly,
            (false, true) => Direction::RecvOnly,
            (false, false) => Direction::Inactive,
        }
    }

    /// Whether the side that wrote it sends.
    pub fn sends(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::SendOnly)
    }

    /// Whether the side that wrote it receives.
    pub fn receives(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::RecvOnly)
    }
}

/// One `m=` line and what belongs to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MediaSection {
    /// What it carries.
    pub kind: MediaKind,
    /// The port of the `m=` line; see [`MediaSection::is_rejected`].
    pub port: u16,
    /// The protocol of the `m=` line.
    pub protocol: String,
    /// Formats of a section that is neither audio nor video; those have `formats`.
    pub other_formats: String,
    /// `a=mid`.
    pub mid: Mid,
    /// `a=sendrecv` and its kin.
    pub direction: Direction,
    /// `a=bundle-only`: port 0 does not reject.
    pub bundle_only: bool,
    /// Payload formats in the order of the `m=` line.
    pub formats: Vec<PayloadFormat>,
    /// `a=extmap`.
    pub extensions: Vec<ExtensionMap>,
    /// The first `a=msid`.
    pub msid: Option<Msid>,
    /// `a=ssrc`.
    pub ssrcs: Vec<SsrcLine>,
    /// `a=ssrc-group`.
    pub ssrc_groups: Vec<SsrcGroup>,
    /// `a=rid`.
    pub rids: Vec<RidLine>,
    /// `a=simulcast`.
    pub simulcast: Option<Simulcast>,
    /// Transport attributes of this section.
    pub transport: TransportAttributes,
    /// `candidate:...`, without `a=`.
    pub candidates: Vec<String>,
    /// `a=end-of-candidates`.
    pub end_of_candidates: bool,
    /// `a=sctp-port`.
    pub sctp_port: Option<u16>,
    /// `a=max-message-size`, in bytes; 0 is no limit.
    pub max_message_size_bytes: Option<u32>,
    /// `a=rtcp-mux`.
    pub rtcp_mux: bool,
    /// `a=rtcp-rsize`.
    pub rtcp_rsize: bool,
}

impl MediaSection {
    /// An empty section with port 9.
    pub fn new(kind: MediaKind, mid: Mid) -> Self {
        let application = kind == MediaKind::Application;
        let protocol = if application { "UDP/DTLS/SCTP" } else { "UDP/TLS/RTP/SAVPF" };
        Self {
            port: 9,
            protocol: protocol.to_owned(),
            other_formats: if application {
                "webrtc-datachannel".to_owned()
            } else {
                String::new()
            },
            mid,
            direction: Direction::SendRecv,
            bundle_only: false,
            formats: Vec::new(),
            extensions: Vec::new(),
            msid: None,
            ssrcs: Vec::new(),
            ssrc_groups: Vec::new(),
            rids: Vec::new(),
            simulcast: None,
            transport: TransportAttributes::default(),
            candidates: Vec::new(),
            end_of_candidates: false,
            sctp_port: None,
            max_message_size_bytes: None,
            rtcp_mux: !application,
            rtcp_rsize: !application,
            kind,
        }
    }

    /// Whether the section is refused or stopped (RFC 8829 section 5.8.2).
    pub fn is_rejected(&self) -> bool {
        self.port == 0 && !self.bundle_only
    }

    /// Whether this is a section for data channels over SCTP (RFC 8841).
    pub fn is_data(&self) -> bool {
        self.kind == MediaKind::Application && self.protocol.ends_with("/DTLS/SCTP")
    }
}

/// One payload type with all lines that name it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PayloadFormat {
    /// The payload type.
    pub payload_type: PayloadType,
    /// Encoding name: `VP8`. Empty for a payload type without `a=rtpmap` that is not static.
    pub name: String,
    /// Ticks in a second.
    pub clock_rate: u32,
    /// Channels; 1 when not said.
    pub channels: u8,
    /// Contents of `a=fmtp`.
    pub parameters: Option<String>,
    /// Contents of `a=rtcp-fb` lines: `nack pli`.
    pub feedback: Vec<String>,
}

impl PayloadFormat {
    /// The value of one `key=value` in `a=fmtp`.
    pub fn parameter(&self, key: &str) -> Option<&str> {
        let parameters = self.parameters.as_deref()?;
        parameters.split(';').find_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            name.trim().eq_ignore_ascii_case(key).then(|| value.trim())
        })
    }
}

/// `a=extmap` (RFC 8285 section 8).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExtensionMap {
    /// The local id.
    pub id: u8,
    /// What it names.
    pub uri: String,
}

/// `a=msid` (RFC 8830).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Msid {
    /// Stream id; `-` for none.
    pub stream: String,
    /// Track id, when there is one.
    pub track: Option<String>,
}

/// `a=ssrc` (RFC 5576 section 4.1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SsrcLine {
    /// The source.
    pub ssrc: Ssrc,
    /// `cname`, `msid`, ...
    pub attribute: String,
    /// What follows the colon.
    pub value: String,
}

/// `a=ssrc-group` (RFC 5576 section 4.2).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SsrcGroup {
    /// `FID`, `SIM`, ...
    pub semantics: String,
    /// The sources.
    pub ssrcs: Vec<Ssrc>,
}

/// `a=rid` (RFC 8851), without its restrictions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RidLine {
    /// The stream id.
    pub rid: Rid,
    /// Whether the side that wrote it sends the stream.
    pub sends: bool,
}

/// `a=simulcast` (RFC 8853): first alternatives only, paused ones included.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Simulcast {
    /// Streams that the side that wrote it sends.
    pub send: Vec<Rid>,
    /// Streams that it receives.
    pub recv: Vec<Rid>,
}
