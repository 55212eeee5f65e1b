//! Header extensions: which ones each kind of section keeps.

use parlor_model::ExtensionIds;

use crate::text::ExtensionMap;

pub(crate) const MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
pub(crate) const RID: &str = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id";
pub(crate) const REPAIRED_RID: &str = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id";
pub(crate) const TRANSPORT_CC: &str =
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
pub(crate) const ABS_SEND_TIME: &str = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time";
pub(crate) const ABS_CAPTURE_TIME: &str =
    "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time";
pub(crate) const AUDIO_LEVEL: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";
pub(crate) const DEPENDENCY_DESCRIPTOR: &str =
    "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension";

/// The extensions of `offered` that are in `wanted`, each once, with the offerer's ids.
pub(crate) fn keep(offered: &[ExtensionMap], wanted: &[&str]) -> Vec<ExtensionMap> {
    wanted
        .iter()
        .filter_map(|uri| offered.iter().find(|extension| extension.uri == *uri))
        .cloned()
        .collect()
}

/// The ids of those extensions that Parlor knows.
pub(crate) fn ids(extensions: &[ExtensionMap]) -> ExtensionIds {
    let mut ids = ExtensionIds::default();
    for extension in extensions {
        let slot = match extension.uri.as_str() {
            MID => &mut ids.mid,
            RID => &mut ids.rid,
            REPAIRED_RID => &mut ids.repaired_rid,
            TRANSPORT_CC => &mut ids.transport_cc,
            ABS_SEND_TIME => &mut ids.abs_send_time,
            ABS_CAPTURE_TIME => &mut ids.abs_capture_time,
            AUDIO_LEVEL => &mut ids.audio_level,
            DEPENDENCY_DESCRIPTOR => &mut ids.dependency_descriptor,
            _ => continue,
        };
        slot.get_or_insert(extension.id);
    }
    ids
}
