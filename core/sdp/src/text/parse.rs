//! From the text to the value.

use parlor_model::{Fingerprint, Mid, PayloadType, Rid, Ssrc};

use super::{
    Direction, ExtensionMap, MediaKind, MediaSection, Msid, PayloadFormat, RidLine,
    SessionDescription, Setup, Simulcast, SsrcGroup, SsrcLine, TransportAttributes,
};
use crate::SdpError;

/// Longest description.
pub const MAX_SDP_BYTES: usize = 2 * 1024 * 1024;
/// Longest line.
pub const MAX_LINE_BYTES: usize = 4096;
/// Most media sections in a description.
pub const MAX_SECTIONS: usize = 512;
/// Most payload types in a section: RTP has no more.
pub const MAX_FORMATS: usize = 128;
/// Most `a=rtcp-fb` lines for one payload type.
pub const MAX_FEEDBACK: usize = 16;
const FEEDBACK_FAULT: Fault = "too many a=rtcp-fb for one payload type";
/// Most `a=extmap` lines in a section.
pub const MAX_EXTENSIONS: usize = 64;
/// Most candidates in a section.
pub const MAX_CANDIDATES: usize = 64;
/// Most `a=ssrc` lines in a section.
pub const MAX_SSRC_LINES: usize = 128;
/// Most `a=ssrc-group` lines in a section, and most sources in one of them.
pub const MAX_SSRC_GROUPS: usize = 16;
/// Most `a=rid` lines in a section.
pub const MAX_RIDS: usize = 16;
/// Most `a=fingerprint` lines in a section or at session level.
pub const MAX_FINGERPRINTS: usize = 8;
/// RFC 8839 section 5.4 allows 256 bytes of user name fragment and of password.
const MAX_ICE_CREDENTIAL_BYTES: usize = 256;

type Fault = &'static str;

impl SessionDescription {
    /// Reads a description from bytes that a peer sent.
    pub fn parse_bytes(bytes: &[u8]) -> Result<Self, SdpError> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::parse(text),
            Err(_) => Err(SdpError::Description("is not UTF-8")),
        }
    }

    /// Reads a description.
    pub fn parse(text: &str) -> Result<Self, SdpError> {
        if text.len() > MAX_SDP_BYTES {
            return Err(SdpError::Description("description is too long"));
        }
        let mut reader = Reader::default();
        for (index, line) in text.lines().enumerate() {
            if line.starts_with("m=") {
                reader.end_section()?;
            }
            reader.line(index, line).map_err(|fault| SdpError::Line { line: index + 1, fault })?;
        }
        reader.finish()
    }
}

#[derive(Default)]
struct Reader {
    session: SessionDescription,
    session_direction: Direction,
    section: Option<Section>,
    seen_origin: bool,
}

/// A section while its lines are read: some are about payload types that come later.
struct Section {
    media: MediaSection,
    mid: Option<Mid>,
    direction: Option<Direction>,
    wildcard_feedback: Vec<String>,
}

impl Reader {
    fn line(&mut self, index: usize, line: &str) -> Result<(), Fault> {
        if line.len() > MAX_LINE_BYTES {
            return Err("line is too long");
        }
        // Parts of a line are repeated in our own descriptions: none may begin a line there.
        let is_bad = |byte: u8| byte.is_ascii_control() && byte != b'\t';
        // To the end, whatever is found: so it is done for many bytes at once.
        if line.bytes().fold(false, |found, byte| found | is_bad(byte)) {
            return Err("line has a control character");
        }
        if index == 0 {
            return if line == "v=0" { Ok(()) } else { Err("a description begins with v=0") };
        }
        if line.is_empty() {
            return Ok(());
        }
        let (key, value) = line.split_once('=').ok_or("a line is a letter, '=' and a value")?;
        match key {
            "m" => self.media(value),
            "a" => self.attribute(value),
            "o" => self.origin(value),
            _ if key.len() == 1 => Ok(()),
            _ => Err("a line is a letter, '=' and a value"),
        }
    }

    fn origin(&mut self, value: &str) -> Result<(), Fault> {
        const FAULT: Fault = "o= needs a name, two numbers and an address";
        let mut words = value.split_ascii_whitespace().skip(1);
        self.session.session_id = number(words.next(), FAULT)?;
        self.session.session_version = number(words.next(), FAULT)?;
        self.seen_origin = true;
        Ok(())
    }

    fn media(&mut self, value: &str) -> Result<(), Fault> {
        const FAULT: Fault = "m= needs media, port, protocol and formats";
        if self.session.media.len() >= MAX_SECTIONS {
            return Err("too many media sections");
        }
        let mut words = value.split_ascii_whitespace();
        let kind = match words.next().ok_or(FAULT)? {
            "audio" => MediaKind::Audio,
            "video" => MediaKind::Video,
            "application" => MediaKind::Application,
            other => MediaKind::Other(other.to_owned()),
        };
        let port = words.next().and_then(|word| word.split('/').next());
        let port = number(port, FAULT)?;
        let protocol = words.next().ok_or(FAULT)?.to_owned();
        // Replaced when `a=mid` is read.
        let mid = Mid::new("0").ok_or(FAULT)?;
        let mut media = MediaSection::new(kind, mid);
        media.port = port;
        media.protocol = protocol;
        media.rtcp_mux = false;
        media.rtcp_rsize = false;
        media.other_formats.clear();
        if matches!(media.kind, MediaKind::Audio | MediaKind::Video) {
            for word in words {
                push_format(&mut media.formats, payload_type(Some(word))?)?;
            }
        } else {
            media.other_formats = words.collect::<Vec<_>>().join(" ");
        }
        self.section =
            Some(Section { media, mid: None, direction: None, wildcard_feedback: Vec::new() });
        Ok(())
    }

    fn attribute(&mut self, value: &str) -> Result<(), Fault> {
        let (name, value) = value.split_once(':').unwrap_or((value, ""));
        if let Some(direction) = direction(name) {
            match &mut self.section {
                Some(section) => section.direction = Some(direction),
                None => self.session_direction = direction,
            }
            return Ok(());
        }
        let transport = match &mut self.section {
            Some(section) => &mut section.media.transport,
            None => &mut self.session.transport,
        };
        if transport_attribute(transport, name, value)? {
            return Ok(());
        }
        match &mut self.section {
            Some(section) => section.attribute(name, value),
            None => self.session_attribute(name, value),
        }
    }

    fn session_attribute(&mut self, name: &str, value: &str) -> Result<(), Fault> {
        match name {
            "ice-lite" => self.session.ice_lite = true,
            "group" => {
                let mut words = value.split_ascii_whitespace();
                if words.next() == Some("BUNDLE") && self.session.bundle.is_empty() {
                    for word in words.take(MAX_SECTIONS) {
                        self.session.bundle.push(mid(word)?);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn end_section(&mut self) -> Result<(), SdpError> {
        let Some(mut section) = self.section.take() else { return Ok(()) };
        let index = self.session.media.len();
        let fault = |fault| SdpError::Section { index, fault };
        let mid = section.mid.ok_or(fault("has no a=mid"))?;
        if self.session.media.iter().any(|other| other.mid == mid) {
            return Err(fault("repeats the a=mid of another"));
        }
        section.media.mid = mid;
        section.media.direction = section.direction.unwrap_or(self.session_direction);
        for format in &mut section.media.formats {
            static_format(format);
            for feedback in &section.wildcard_feedback {
                push(&mut format.feedback, feedback.clone(), MAX_FEEDBACK, FEEDBACK_FAULT)
                    .map_err(fault)?;
            }
        }
        self.session.media.push(section.media);
        Ok(())
    }

    fn finish(mut self) -> Result<SessionDescription, SdpError> {
        self.end_section()?;
        if !self.seen_origin {
            return Err(SdpError::Description("there is no o= line"));
        }
        Ok(self.session)
    }
}

impl Section {
    fn attribute(&mut self, name: &str, value: &str) -> Result<(), Fault> {
        let media = &mut self.media;
        match name {
            "mid" => self.mid = Some(mid(value.trim())?),
            "bundle-only" => media.bundle_only = true,
            "rtcp-mux" => media.rtcp_mux = true,
            "rtcp-rsize" => media.rtcp_rsize = true,
            "end-of-candidates" => media.end_of_candidates = true,
            "candidate" => {
                let line = format!("candidate:{value}");
                push(&mut media.candidates, line, MAX_CANDIDATES, "too many candidates")?;
            }
            "sctp-port" => {
                media.sctp_port = Some(number(Some(value.trim()), "a=sctp-port needs a port")?);
            }
            "max-message-size" => {
                let size: u64 = number(Some(value.trim()), "a=max-message-size needs a number")?;
                media.max_message_size_bytes = Some(u32::try_from(size).unwrap_or(u32::MAX));
            }
            "rtpmap" => self.rtpmap(value)?,
            "fmtp" => {
                let (payload_type, parameters) = about_payload_type(value)?;
                if let Some(format) = self.format(payload_type) {
                    format.parameters = Some(parameters.to_owned());
                }
            }
            "rtcp-fb" => self.rtcp_feedback(value)?,
            "extmap" => {
                let extension = extmap(value)?;
                push(&mut media.extensions, extension, MAX_EXTENSIONS, "too many a=extmap")?;
            }
            "msid" if media.msid.is_none() => media.msid = Some(msid(value)?),
            "ssrc" => {
                let line = ssrc_line(value)?;
                push(&mut media.ssrcs, line, MAX_SSRC_LINES, "too many a=ssrc")?;
            }
            "ssrc-group" => {
                let group = ssrc_group(value)?;
                push(&mut media.ssrc_groups, group, MAX_SSRC_GROUPS, "too many a=ssrc-group")?;
            }
            "rid" => {
                let line = rid_line(value)?;
                push(&mut media.rids, line, MAX_RIDS, "too many a=rid")?;
            }
            "simulcast" => media.simulcast = Some(simulcast(value)?),
            _ => {}
        }
        Ok(())
    }

    fn format(&mut self, payload_type: PayloadType) -> Option<&mut PayloadFormat> {
        self.media.formats.iter_mut().find(|format| format.payload_type == payload_type)
    }

    fn rtpmap(&mut self, value: &str) -> Result<(), Fault> {
        const FAULT: Fault = "a=rtpmap needs name/clock-rate";
        let (payload_type, encoding) = about_payload_type(value)?;
        let mut parts = encoding.trim().split('/');
        let name = parts.next().filter(|name| !name.is_empty()).ok_or(FAULT)?;
        let clock_rate = number(parts.next(), FAULT)?;
        let channels = parts.next().map_or(Ok(1), |part| number(Some(part), FAULT))?;
        if let Some(format) = self.format(payload_type) {
            format.name = name.to_owned();
            format.clock_rate = clock_rate;
            format.channels = channels;
        }
        Ok(())
    }

    fn rtcp_feedback(&mut self, value: &str) -> Result<(), Fault> {
        if let Some(feedback) = value.strip_prefix("* ") {
            let feedback = feedback.trim().to_owned();
            return push(&mut self.wildcard_feedback, feedback, MAX_FEEDBACK, FEEDBACK_FAULT);
        }
        let (payload_type, feedback) = about_payload_type(value)?;
        match self.format(payload_type) {
            Some(format) => {
                push(&mut format.feedback, feedback.trim().to_owned(), MAX_FEEDBACK, FEEDBACK_FAULT)
            }
            None => Ok(()),
        }
    }
}

fn push<T>(list: &mut Vec<T>, item: T, limit: usize, fault: Fault) -> Result<(), Fault> {
    if list.len() >= limit {
        return Err(fault);
    }
    list.push(item);
    Ok(())
}

fn push_format(formats: &mut Vec<PayloadFormat>, payload_type: PayloadType) -> Result<(), Fault> {
    if formats.iter().any(|format| format.payload_type == payload_type) {
        return Err("m= repeats a payload type");
    }
    let format = PayloadFormat {
        payload_type,
        name: String::new(),
        clock_rate: 0,
        channels: 1,
        parameters: None,
        feedback: Vec::new(),
    };
    push(formats, format, MAX_FORMATS, "too many payload types")
}

/// Static payload types need no `a=rtpmap` (RFC 3551 section 6).
fn static_format(format: &mut PayloadFormat) {
    let name = match format.payload_type.0 {
        0 => "PCMU",
        8 => "PCMA",
        _ => return,
    };
    if format.name.is_empty() {
        format.name = name.to_owned();
        format.clock_rate = 8000;
    }
}

fn number<T: std::str::FromStr>(word: Option<&str>, fault: Fault) -> Result<T, Fault> {
    word.and_then(|word| word.parse().ok()).ok_or(fault)
}

fn payload_type(word: Option<&str>) -> Result<PayloadType, Fault> {
    const FAULT: Fault = "a payload type is a number below 128";
    let number: u8 = number(word, FAULT)?;
    if number < 128 { Ok(PayloadType(number)) } else { Err(FAULT) }
}

fn about_payload_type(value: &str) -> Result<(PayloadType, &str), Fault> {
    let (word, rest) = value.split_once(' ').ok_or("a payload type and a value are needed")?;
    Ok((payload_type(Some(word))?, rest))
}

fn mid(word: &str) -> Result<Mid, Fault> {
    if !is_token(word) {
        return Err("a mid is a token");
    }
    Mid::new(word).ok_or("a mid has one to sixteen bytes")
}

fn rid(word: &str) -> Result<Rid, Fault> {
    if !word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_') {
        return Err("a rid has letters, digits, '-' and '_'");
    }
    Rid::new(word).ok_or("a rid has one to sixteen bytes")
}

fn is_token(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]".contains(&byte))
}

fn direction(name: &str) -> Option<Direction> {
    Some(match name {
        "sendrecv" => Direction::SendRecv,
        "sendonly" => Direction::SendOnly,
        "recvonly" => Direction::RecvOnly,
        "inactive" => Direction::Inactive,
        _ => return None,
    })
}

/// Whether the attribute was one about the transport.
fn transport_attribute(
    transport: &mut TransportAttributes,
    name: &str,
    value: &str,
) -> Result<bool, Fault> {
    match name {
        "ice-ufrag" => transport.ice_ufrag = Some(ice_credential(value)?),
        "ice-pwd" => transport.ice_pwd = Some(ice_credential(value)?),
        "ice-options" => transport.ice_options = Some(value.to_owned()),
        "fingerprint" => {
            let fingerprint = fingerprint(value)?;
            let fault = "too many fingerprints";
            push(&mut transport.fingerprints, fingerprint, MAX_FINGERPRINTS, fault)?;
        }
        "setup" => {
            transport.setup = Some(match value.trim() {
                "active" => Setup::Active,
                "passive" => Setup::Passive,
                "actpass" => Setup::ActPass,
                "holdconn" => Setup::HoldConn,
                _ => return Err("a=setup is active, passive, actpass or holdconn"),
            });
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn ice_credential(value: &str) -> Result<String, Fault> {
    let value = value.trim();
    if value.is_empty() || value.len() > MAX_ICE_CREDENTIAL_BYTES {
        return Err("an ICE credential has 1 to 256 bytes");
    }
    // `ice-char`, and '=', '-', '_' that some agents use.
    if !value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=-_".contains(&byte)) {
        return Err("an ICE credential has letters, digits, '+' and '/'");
    }
    Ok(value.to_owned())
}

fn fingerprint(value: &str) -> Result<Fingerprint, Fault> {
    const FAULT: Fault = "a=fingerprint needs a hash function and pairs of hex digits";
    let (algorithm, digest) = value.trim().split_once(' ').ok_or(FAULT)?;
    let digest = digest
        .trim()
        .split(':')
        .map(|pair| match pair.as_bytes() {
            [high, low] => {
                let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(FAULT);
                Ok((digit(*high)? << 4 | digit(*low)?) as u8)
            }
            _ => Err(FAULT),
        })
        .collect::<Result<Vec<u8>, Fault>>()?;
    Ok(Fingerprint { algorithm: algorithm.to_ascii_lowercase(), digest })
}

fn extmap(value: &str) -> Result<ExtensionMap, Fault> {
    const FAULT: Fault = "a=extmap needs an id and a URI";
    let mut words = value.split_ascii_whitespace();
    let id = words.next().and_then(|word| word.split('/').next());
    let id = number(id, FAULT)?;
    if id == 0 {
        return Err("the id of a=extmap is not 0");
    }
    Ok(ExtensionMap { id, uri: words.next().ok_or(FAULT)?.to_owned() })
}

fn msid(value: &str) -> Result<Msid, Fault> {
    let mut words = value.split_ascii_whitespace();
    let stream = words.next().ok_or("a=msid needs a stream id")?.to_owned();
    Ok(Msid { stream, track: words.next().map(str::to_owned) })
}

fn ssrc_line(value: &str) -> Result<SsrcLine, Fault> {
    const FAULT: Fault = "a=ssrc needs a number and an attribute";
    let (ssrc, rest) = value.split_once(' ').ok_or(FAULT)?;
    let (attribute, value) = rest.split_once(':').unwrap_or((rest, ""));
    Ok(SsrcLine {
        ssrc: Ssrc(number(Some(ssrc), FAULT)?),
        attribute: attribute.to_owned(),
        value: value.to_owned(),
    })
}

fn ssrc_group(value: &str) -> Result<SsrcGroup, Fault> {
    const FAULT: Fault = "a=ssrc-group needs a meaning and numbers";
    let mut words = value.split_ascii_whitespace();
    let semantics = words.next().ok_or(FAULT)?.to_owned();
    let mut ssrcs = Vec::new();
    for word in words {
        push(&mut ssrcs, Ssrc(number(Some(word), FAULT)?), MAX_SSRC_GROUPS, FAULT)?;
    }
    Ok(SsrcGroup { semantics, ssrcs })
}

fn rid_line(value: &str) -> Result<RidLine, Fault> {
    const FAULT: Fault = "a=rid needs an id and send or recv";
    let mut words = value.split_ascii_whitespace();
    let rid = rid(words.next().ok_or(FAULT)?)?;
    match words.next() {
        Some("send") => Ok(RidLine { rid, sends: true }),
        Some("recv") => Ok(RidLine { rid, sends: false }),
        _ => Err(FAULT),
    }
}

fn simulcast(value: &str) -> Result<Simulcast, Fault> {
    const FAULT: Fault = "a=simulcast needs send or recv, and rids";
    let mut simulcast = Simulcast::default();
    let mut words = value.split_ascii_whitespace();
    while let Some(side) = words.next() {
        let list = match side {
            "send" => &mut simulcast.send,
            "recv" => &mut simulcast.recv,
            _ => return Err(FAULT),
        };
        for alternatives in words.next().ok_or(FAULT)?.split(';') {
            let first = alternatives.split(',').next().unwrap_or(alternatives);
            let rid = rid(first.trim_start_matches('~'))?;
            push(list, rid, MAX_RIDS, "too many rids in a=simulcast")?;
        }
    }
    Ok(simulcast)
}
