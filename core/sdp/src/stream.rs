//! Streams: what a section announces by SSRC and RID, and how our own are announced.

use parlor_model::{ReceiveStream, Rid, Ssrc};

use crate::{
    SendTrack,
    text::{MediaSection, Msid, SsrcGroup, SsrcLine},
};

/// The streams that the writer of this section sends, lowest layer first.
pub(crate) fn announced(section: &MediaSection) -> Vec<ReceiveStream> {
    let rids = section.simulcast.as_ref().map_or(&[][..], |simulcast| &simulcast.send);
    if !rids.is_empty() {
        return by_rid(rids);
    }
    let group = |semantics: &'static str| {
        section.ssrc_groups.iter().filter(move |group| group.semantics == semantics)
    };
    let rtx_of = |ssrc: Ssrc| {
        group("FID").find_map(|group| match group.ssrcs[..] {
            [media, rtx] if media == ssrc => Some(rtx),
            _ => None,
        })
    };
    let layers = match group("SIM").next() {
        Some(group) => group.ssrcs.clone(),
        None => {
            let media = group("FID").find_map(|group| group.ssrcs.first());
            media.or(section.ssrcs.first().map(|line| &line.ssrc)).copied().into_iter().collect()
        }
    };
    if layers.is_empty() {
        return vec![ReceiveStream { rid: None, ssrc: None, rtx_ssrc: None, layer: 0 }];
    }
    let stream = |(layer, ssrc): (usize, Ssrc)| ReceiveStream {
        rid: None,
        ssrc: Some(ssrc),
        rtx_ssrc: rtx_of(ssrc),
        layer: layer as u8,
    };
    layers.into_iter().enumerate().map(stream).collect()
}

/// LiveKit's clients name layers `q`, `h`, `f` or `2`, `1`, `0`, lowest first; any other names
/// are taken in their order.
fn by_rid(rids: &[Rid]) -> Vec<ReceiveStream> {
    let known = |rid: &Rid| match rid.as_str() {
        "q" | "2" => Some(0),
        "h" | "1" => Some(1),
        "f" | "0" => Some(2),
        _ => None,
    };
    let all_known = rids.iter().all(|rid| known(rid).is_some());
    let mut streams: Vec<ReceiveStream> = rids
        .iter()
        .enumerate()
        .map(|(index, rid)| ReceiveStream {
            rid: Some(*rid),
            ssrc: None,
            rtx_ssrc: None,
            layer: known(rid).filter(|_| all_known).unwrap_or(index as u8),
        })
        .collect();
    streams.sort_by_key(|stream| stream.layer);
    streams.dedup_by_key(|stream| stream.layer);
    streams
}

/// The stream and track ids of a section: from `a=msid`, else from an `a=ssrc` line.
pub(crate) fn msid(section: &MediaSection) -> Option<(String, Option<String>)> {
    if let Some(msid) = &section.msid {
        return Some((msid.stream.clone(), msid.track.clone()));
    }
    let line = section.ssrcs.iter().find(|line| line.attribute == "msid")?;
    let mut words = line.value.split_ascii_whitespace();
    Some((words.next()?.to_owned(), words.next().map(str::to_owned)))
}

/// Announces one of our tracks in a section of ours.
pub(crate) fn announce(section: &mut MediaSection, send: &SendTrack) {
    announce_stream(section, &send.stream_id, &send.track_id, send.ssrc, send.rtx_ssrc);
}

/// As [`announce`], from the single values.
pub(crate) fn announce_stream(
    section: &mut MediaSection,
    stream: &str,
    track: &str,
    ssrc: Ssrc,
    rtx_ssrc: Option<Ssrc>,
) {
    if let Some(rtx_ssrc) = rtx_ssrc {
        section
            .ssrc_groups
            .push(SsrcGroup { semantics: "FID".to_owned(), ssrcs: vec![ssrc, rtx_ssrc] });
    }
    for ssrc in std::iter::once(ssrc).chain(rtx_ssrc) {
        for (attribute, value) in [
            ("cname", stream.to_owned()),
            ("msid", format!("{stream} {track}")),
            ("mslabel", stream.to_owned()),
            ("label", track.to_owned()),
        ] {
            section.ssrcs.push(SsrcLine { ssrc, attribute: attribute.to_owned(), value });
        }
    }
    section.msid = Some(Msid { stream: stream.to_owned(), track: Some(track.to_owned()) });
}

/// The track with ids that can stand in a line: a publisher chooses part of the stream id, and
/// nothing of it may end a word or a line.
pub(crate) fn printable(mut send: SendTrack) -> SendTrack {
    send.stream_id = token(&send.stream_id);
    send.track_id = token(&send.track_id);
    send
}

/// Text with everything replaced that ends a word or a line.
pub(crate) fn token(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || c.is_whitespace() { '_' } else { c }).collect()
}
