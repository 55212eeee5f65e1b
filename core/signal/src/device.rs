//! Codecs that some devices are known to handle badly (LiveKit's `clientconfiguration/conf.go`).

use livekit_protocol as proto;
use parlor_model::{Codec, TrackKind};

/// Codecs that are not used with a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DisabledCodecs {
    /// In neither direction.
    pub both: &'static [Codec],
    /// Not sent by it.
    pub publish: &'static [Codec],
}

/// From this version on Safari sends VP9 that others cannot decode.
const SAFARI_WITHOUT_VP9: (u32, u32) = (18, 4);

impl DisabledCodecs {
    /// What a client's device handles badly.
    pub fn of(info: &proto::ClientInfo) -> Self {
        let is = |text: &str, name: &str| text.eq_ignore_ascii_case(name);
        let system = |name| is(&info.os, name);
        if is(&info.browser, "safari") {
            let recent = version(&info.browser_version) >= SAFARI_WITHOUT_VP9;
            let publish: &[Codec] = if recent { &[Codec::Vp9] } else { &[] };
            return Self { both: &[Codec::Av1], publish };
        }
        let firefox = is(&info.browser, "firefox") && (system("linux") || system("android"));
        let phone = is(&info.device_model, "Xiaomi 2201117TI") && system("android");
        let publish: &[Codec] = if firefox || phone { &[Codec::H264] } else { &[] };
        Self { both: &[], publish }
    }

    /// Those of `enabled` that the device may send.
    pub fn published(&self, enabled: &[Codec]) -> Vec<Codec> {
        let may = |codec: &Codec| !self.both.contains(codec) && !self.publish.contains(codec);
        enabled.iter().copied().filter(may).collect()
    }

    /// Those of `enabled` that the device may be sent.
    pub fn received(&self, enabled: &[Codec]) -> Vec<Codec> {
        enabled.iter().copied().filter(|codec| !self.both.contains(codec)).collect()
    }

    /// What the client is told of it; nothing where there is nothing to tell.
    pub fn configuration(&self) -> Option<proto::ClientConfiguration> {
        let codecs = |codecs: &[Codec]| {
            let mime = |codec: &Codec| codec.mime_type().to_owned();
            let codec = |codec| proto::Codec { mime: mime(codec), fmtp_line: String::new() };
            codecs.iter().map(codec).collect()
        };
        let disabled =
            proto::DisabledCodecs { codecs: codecs(self.both), publish: codecs(self.publish) };
        (*self != Self::default()).then(|| proto::ClientConfiguration {
            disabled_codecs: Some(disabled),
            ..Default::default()
        })
    }
}

fn version(text: &str) -> (u32, u32) {
    let mut parts = text.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// Announces a track with codecs that may be published: each other one becomes the first of these
/// of the track's kind. `publishable` is in the order of preference.
pub fn replace_disabled_codecs(add: &mut proto::AddTrackRequest, publishable: &[Codec]) {
    let kind = match add.r#type() {
        proto::TrackType::Audio => TrackKind::Audio,
        proto::TrackType::Video => TrackKind::Video,
        proto::TrackType::Data => return,
    };
    let Some(first) = publishable.iter().find(|codec| codec.kind() == kind) else { return };
    let mut seen: Vec<Codec> = Vec::new();
    add.simulcast_codecs.retain_mut(|announced| {
        let Some(known) = Codec::from_mime_type(&announced.codec) else { return true };
        let codec = if publishable.contains(&known) { known } else { *first };
        if codec != known {
            announced.codec = codec.encoding_name().to_ascii_lowercase();
        }
        let is_new = !seen.contains(&codec);
        seen.push(codec);
        is_new
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(browser: &str, browser_version: &str, os: &str) -> proto::ClientInfo {
        proto::ClientInfo {
            browser: browser.into(),
            browser_version: browser_version.into(),
            os: os.into(),
            ..Default::default()
        }
    }

    #[test]
    fn devices_are_told_what_they_handle_badly() {
        let of = |browser, version, os| DisabledCodecs::of(&client(browser, version, os));
        assert_eq!(of("Chrome", "150.0", "Linux").configuration(), None);
        assert_eq!(of("firefox", "153.0", "linux").publish, [Codec::H264]);
        assert_eq!(of("firefox", "153.0", "Windows"), DisabledCodecs::default());
        assert_eq!(of("Safari", "18.3", "iOS").publish, []);
        let new = of("Safari", "18.10", "iOS");
        assert_eq!((new.both, new.publish), (&[Codec::Av1][..], &[Codec::Vp9][..]));
        let told = new.configuration().unwrap().disabled_codecs.unwrap();
        assert_eq!((&*told.codecs[0].mime, &*told.publish[0].mime), ("video/AV1", "video/VP9"));
        let all = [Codec::Vp8, Codec::Vp9, Codec::Av1];
        assert_eq!(new.published(&all), [Codec::Vp8]);
        assert_eq!(new.received(&all), [Codec::Vp8, Codec::Vp9]);
    }

    #[test]
    fn a_disabled_codec_becomes_the_first_of_its_kind_once() {
        let codec =
            |codec: &str| proto::SimulcastCodec { codec: codec.into(), ..Default::default() };
        let mut add = proto::AddTrackRequest {
            r#type: proto::TrackType::Video.into(),
            simulcast_codecs: ["video/H264", "vp8", "vp9", "x-new"].map(codec).to_vec(),
            ..Default::default()
        };
        replace_disabled_codecs(&mut add, &[Codec::Opus, Codec::Vp8, Codec::Vp9]);
        let names: Vec<_> = add.simulcast_codecs.iter().map(|c| c.codec.as_str()).collect();
        assert_eq!(names, ["vp8", "vp9", "x-new"]);
    }
}
