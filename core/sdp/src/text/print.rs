//! From the value to the text.

use std::fmt::{self, Display, Formatter};

use parlor_model::{Fingerprint, Rid};

use super::{
    Direction, MediaKind, MediaSection, PayloadFormat, SessionDescription, Setup, Simulcast,
    TransportAttributes,
};

impl Display for SessionDescription {
    /// The text, with CRLF line ends.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "v=0\r\no=- {} {} IN IP4 0.0.0.0\r\n", self.session_id, self.session_version)?;
        f.write_str("s=-\r\nt=0 0\r\na=msid-semantic:WMS *\r\n")?;
        self.transport.fmt(f)?;
        f.write_str("a=extmap-allow-mixed\r\n")?;
        if self.ice_lite {
            f.write_str("a=ice-lite\r\n")?;
        }
        if !self.bundle.is_empty() {
            f.write_str("a=group:BUNDLE")?;
            for mid in &self.bundle {
                write!(f, " {mid}")?;
            }
            f.write_str("\r\n")?;
        }
        self.media.iter().try_for_each(|section| section.fmt(f))
    }
}

impl Display for TransportAttributes {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(setup) = self.setup {
            write!(f, "a=setup:{setup}\r\n")?;
        }
        if let Some(ufrag) = &self.ice_ufrag {
            write!(f, "a=ice-ufrag:{ufrag}\r\n")?;
        }
        if let Some(pwd) = &self.ice_pwd {
            write!(f, "a=ice-pwd:{pwd}\r\n")?;
        }
        if let Some(options) = &self.ice_options {
            write!(f, "a=ice-options:{options}\r\n")?;
        }
        self.fingerprints.iter().try_for_each(|fingerprint| print_fingerprint(fingerprint, f))
    }
}

fn print_fingerprint(fingerprint: &Fingerprint, f: &mut Formatter<'_>) -> fmt::Result {
    write!(f, "a=fingerprint:{} ", fingerprint.algorithm)?;
    for (index, byte) in fingerprint.digest.iter().enumerate() {
        let colon = if index == 0 { "" } else { ":" };
        write!(f, "{colon}{byte:02X}")?;
    }
    f.write_str("\r\n")
}

impl Display for Setup {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Setup::Active => "active",
            Setup::Passive => "passive",
            Setup::ActPass => "actpass",
            Setup::HoldConn => "holdconn",
        })
    }
}

impl Display for Direction {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Direction::SendRecv => "sendrecv",
            Direction::SendOnly => "sendonly",
            Direction::RecvOnly => "recvonly",
            Direction::Inactive => "inactive",
        })
    }
}

impl Display for MediaKind {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MediaKind::Audio => "audio",
            MediaKind::Video => "video",
            MediaKind::Application => "application",
            MediaKind::Other(name) => name,
        })
    }
}

impl Display for MediaSection {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "m={} {} {}", self.kind, self.port, self.protocol)?;
        for format in &self.formats {
            write!(f, " {}", format.payload_type)?;
        }
        if !self.other_formats.is_empty() {
            write!(f, " {}", self.other_formats)?;
        } else if self.formats.is_empty() {
            // The grammar wants a format even where none is meant: in a rejected section.
            f.write_str(" 0")?;
        }
        f.write_str("\r\nc=IN IP4 0.0.0.0\r\n")?;
        self.transport.fmt(f)?;
        write!(f, "a=mid:{}\r\n", self.mid)?;
        for (present, line) in [
            (self.bundle_only, "a=bundle-only\r\n"),
            (self.rtcp_mux, "a=rtcp-mux\r\n"),
            (self.rtcp_rsize, "a=rtcp-rsize\r\n"),
        ] {
            if present {
                f.write_str(line)?;
            }
        }
        if let Some(port) = self.sctp_port {
            write!(f, "a=sctp-port:{port}\r\n")?;
        }
        if let Some(size_bytes) = self.max_message_size_bytes {
            write!(f, "a=max-message-size:{size_bytes}\r\n")?;
        }
        self.formats.iter().try_for_each(|format| print_format(format, f))?;
        for extension in &self.extensions {
            write!(f, "a=extmap:{} {}\r\n", extension.id, extension.uri)?;
        }
        self.print_streams(f)?;
        write!(f, "a={}\r\n", self.direction)?;
        for candidate in &self.candidates {
            write!(f, "a={candidate}\r\n")?;
        }
        if self.end_of_candidates {
            f.write_str("a=end-of-candidates\r\n")?;
        }
        Ok(())
    }
}

impl MediaSection {
    fn print_streams(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for group in &self.ssrc_groups {
            write!(f, "a=ssrc-group:{}", group.semantics)?;
            for ssrc in &group.ssrcs {
                write!(f, " {ssrc}")?;
            }
            f.write_str("\r\n")?;
        }
        for line in &self.ssrcs {
            write!(f, "a=ssrc:{} {}:{}\r\n", line.ssrc, line.attribute, line.value)?;
        }
        if let Some(msid) = &self.msid {
            write!(f, "a=msid:{}", msid.stream)?;
            if let Some(track) = &msid.track {
                write!(f, " {track}")?;
            }
            f.write_str("\r\n")?;
        }
        for line in &self.rids {
            write!(f, "a=rid:{} {}\r\n", line.rid, if line.sends { "send" } else { "recv" })?;
        }
        self.simulcast.as_ref().map_or(Ok(()), |simulcast| print_simulcast(simulcast, f))
    }
}

fn print_simulcast(simulcast: &Simulcast, f: &mut Formatter<'_>) -> fmt::Result {
    if simulcast.send.is_empty() && simulcast.recv.is_empty() {
        return Ok(());
    }
    let mut line = String::from("a=simulcast:");
    let mut side = |name: &str, rids: &[Rid]| {
        for (index, rid) in rids.iter().enumerate() {
            let before = match index {
                0 if line.ends_with(':') => format!("{name} "),
                0 => format!(" {name} "),
                _ => ";".to_owned(),
            };
            line.push_str(&before);
            line.push_str(rid.as_str());
        }
    };
    side("send", &simulcast.send);
    side("recv", &simulcast.recv);
    write!(f, "{line}\r\n")
}

fn print_format(format: &PayloadFormat, f: &mut Formatter<'_>) -> fmt::Result {
    let PayloadFormat { payload_type, name, clock_rate, channels, .. } = format;
    if !name.is_empty() {
        write!(f, "a=rtpmap:{payload_type} {name}/{clock_rate}")?;
        if *channels > 1 {
            write!(f, "/{channels}")?;
        }
        f.write_str("\r\n")?;
    }
    if let Some(parameters) = &format.parameters {
        write!(f, "a=fmtp:{payload_type} {parameters}\r\n")?;
    }
    for feedback in &format.feedback {
        write!(f, "a=rtcp-fb:{payload_type} {feedback}\r\n")?;
    }
    Ok(())
}
