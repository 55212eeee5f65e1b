//! Header extensions: which ones a section keeps.

use parlor_model::ExtensionIds;
pub(crate) use parlor_rtp::extension::{
    ABS_CAPTURE_TIME_URI as ABS_CAPTURE_TIME, ABS_SEND_TIME_URI as ABS_SEND_TIME,
    AUDIO_LEVEL_URI as AUDIO_LEVEL, DEPENDENCY_DESCRIPTOR_URI as DEPENDENCY_DESCRIPTOR,
    MID_URI as MID, PLAYOUT_DELAY_URI as PLAYOUT_DELAY, REPAIRED_RID_URI as REPAIRED_RID,
    RID_URI as RID, TRANSPORT_CC_URI as TRANSPORT_CC,
};

use crate::text::ExtensionMap;

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
        if let Some(slot) = parlor_rtp::extension::id_slot(&mut ids, &extension.uri) {
            slot.get_or_insert(extension.id);
        }
    }
    ids
}
