//! Payload formats: which of them Parlor forwards, in what order, with what feedback.

use parlor_model::{Codec, CodecBinding, Feedback, PayloadType};

use crate::text::{MediaSection, PayloadFormat};

pub(crate) const TRANSPORT_CC: &str = "transport-cc";
pub(crate) const REMB: &str = "goog-remb";
const FIR: &str = "ccm fir";
pub(crate) const NACK: &str = "nack";
const PLI: &str = "nack pli";

/// Feedback for video, as the single connection answers it.
pub(crate) const VIDEO_FEEDBACK: [&str; 5] = [TRANSPORT_CC, REMB, FIR, NACK, PLI];

/// The `a=fmtp` of Opus that every description of ours begins with.
pub(crate) const OPUS_PARAMETERS: &str = "minptime=10;useinbandfec=1";

/// What Parlor forwards of this payload format: the codec and its variant.
///
/// H264 is taken in the constrained baseline profile only, VP9 in profiles 0 and 1 and AV1 in
/// profile 0, as LiveKit does.
fn identify(format: &PayloadFormat) -> Option<(Codec, u8)> {
    let codec = Codec::from_mime_type(&format.name)?;
    if format.clock_rate != codec.clock_rate() {
        return None;
    }
    let number = |key: &str| match format.parameter(key) {
        None => Some(0),
        Some(value) => value.parse::<u8>().ok(),
    };
    let variant = match codec {
        Codec::Vp9 => number("profile-id")?,
        Codec::Av1 => number("profile")?,
        Codec::H264 => number("packetization-mode")?,
        _ => 0,
    };
    let fits = match codec {
        Codec::Vp9 | Codec::H264 => variant <= 1,
        Codec::Av1 => variant == 0,
        Codec::Opus => format.channels == 2,
        _ => true,
    };
    let profile_fits = codec != Codec::H264
        || format.parameter("profile-level-id").is_some_and(|profile| {
            profile.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("42e0"))
        });
    (fits && profile_fits).then_some((codec, variant))
}

/// The codecs of a section that are enabled: those in `preferred` first and in that order, the
/// others as the section orders them.
pub(crate) fn choose(
    section: &MediaSection,
    enabled: &[Codec],
    preferred: &[Codec],
) -> Vec<CodecBinding> {
    let mut bindings: Vec<CodecBinding> = section
        .formats
        .iter()
        .filter_map(|format| {
            let (codec, variant) = identify(format)?;
            let red_fits = codec != Codec::Red || redundant_opus(section, format);
            (enabled.contains(&codec) && red_fits).then(|| CodecBinding {
                codec,
                payload_type: format.payload_type,
                rtx: retransmission(section, format.payload_type),
                variant,
            })
        })
        .collect();
    let place = |codec: Codec| preferred.iter().position(|other| *other == codec);
    bindings.sort_by_key(|binding| place(binding.codec).unwrap_or(preferred.len()));
    bindings
}

/// Whether a RED format wraps the Opus of the same section (RFC 2198 section 5).
fn redundant_opus(section: &MediaSection, red: &PayloadFormat) -> bool {
    let Some(parameters) = &red.parameters else { return false };
    let mut blocks = parameters.split('/').map(|word| word.trim().parse::<u8>().ok());
    blocks.all(|block| {
        section.formats.iter().any(|format| {
            Some(format.payload_type.0) == block && format.name.eq_ignore_ascii_case("opus")
        })
    })
}

/// The payload type for retransmissions of this one (RFC 4588 section 8.6).
fn retransmission(section: &MediaSection, media: PayloadType) -> Option<PayloadType> {
    section
        .formats
        .iter()
        .filter(|format| format.name.eq_ignore_ascii_case("rtx"))
        .find(|format| format.parameter("apt").and_then(|apt| apt.parse().ok()) == Some(media.0))
        .map(|format| format.payload_type)
}

/// The formats of an answer: `bindings` as `offer` has them, with the feedback of `allowed` and
/// with `opus` as the parameters of Opus; then the retransmissions.
pub(crate) fn answer(
    offer: &MediaSection,
    bindings: &[CodecBinding],
    allowed: &[&str],
    opus: &str,
) -> Vec<PayloadFormat> {
    let offered = |payload_type: PayloadType| {
        offer.formats.iter().find(move |format| format.payload_type == payload_type)
    };
    let media = bindings.iter().filter_map(|binding| {
        let mut format = offered(binding.payload_type)?.clone();
        format.feedback.retain(|feedback| allowed.contains(&feedback.as_str()));
        format.feedback.dedup();
        if binding.codec == Codec::Opus {
            format.parameters = Some(opus.to_owned());
        }
        Some(format)
    });
    let rtx = bindings.iter().filter_map(|binding| {
        let mut format = offered(binding.rtx?)?.clone();
        format.feedback.clear();
        Some(format)
    });
    media.chain(rtx).collect()
}

/// The formats of `first`, in its order, that `second` has too, with the feedback that both have.
pub(crate) fn agreed(first: &MediaSection, second: &MediaSection) -> Vec<PayloadFormat> {
    let keep = |format: &PayloadFormat| {
        let other = second.formats.iter().find(|other| {
            other.payload_type == format.payload_type
                && other.name.eq_ignore_ascii_case(&format.name)
        })?;
        let mut format = format.clone();
        format.feedback.retain(|feedback| other.feedback.contains(feedback));
        Some(format)
    };
    first.formats.iter().filter_map(keep).collect()
}

/// The feedback that these formats agree on.
pub(crate) fn feedback(formats: &[PayloadFormat]) -> Feedback {
    let has = |wanted: &str| {
        formats.iter().any(|format| format.feedback.iter().any(|feedback| feedback == wanted))
    };
    Feedback {
        nack: has(NACK),
        pli: has(PLI),
        fir: has(FIR),
        transport_cc: has(TRANSPORT_CC),
        remb: has(REMB),
    }
}

/// A payload format of our own.
pub(crate) fn own(
    payload_type: u8,
    codec: Codec,
    parameters: Option<&str>,
    feedback: &[&str],
) -> PayloadFormat {
    PayloadFormat {
        payload_type: PayloadType(payload_type),
        name: codec.encoding_name().to_owned(),
        clock_rate: codec.clock_rate(),
        channels: if matches!(codec, Codec::Opus | Codec::Red) { 2 } else { 1 },
        parameters: parameters.map(str::to_owned),
        feedback: feedback.iter().map(|&feedback| feedback.to_owned()).collect(),
    }
}

/// The retransmission format of a payload type.
pub(crate) fn own_rtx(payload_type: u8, media: u8) -> PayloadFormat {
    PayloadFormat {
        payload_type: PayloadType(payload_type),
        name: "rtx".to_owned(),
        clock_rate: 90_000,
        channels: 1,
        parameters: Some(format!("apt={media}")),
        feedback: Vec::new(),
    }
}
