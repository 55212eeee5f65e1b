//! Ingress: media that comes from elsewhere into a room.

use crate::{Answer, Catalog, CatalogError, Draw, INGRESS, Response, check_room, invalid};
use livekit_protocol as proto;
use proto::{IngressInput, ingress_audio_options, ingress_state::Status, ingress_video_options};

const NOT_FOUND: CatalogError =
    CatalogError::NotFound("twirp error unknown: ingress does not exist");
const PREFIX: &str = "twirp error unknown: ";

fn bad<T>(text: &str) -> Result<T, CatalogError> {
    invalid(format!("{PREFIX}{text}"))
}

impl Catalog {
    pub(crate) fn create_ingress(
        &mut self,
        draw: &mut Draw<'_>,
        request: proto::CreateIngressRequest,
    ) -> Answer {
        let input = IngressInput::try_from(request.input_type);
        let url = match input {
            Ok(IngressInput::RtmpInput) => self.config.rtmp_base_url.clone(),
            Ok(IngressInput::WhipInput) => self.config.whip_base_url.clone(),
            Ok(IngressInput::UrlInput) => checked_url(&request.url)?,
            Err(_) => return bad("invalid ingress type"),
        };
        let pulls = input == Ok(IngressInput::UrlInput);
        #[allow(deprecated)]
        let mut info = proto::IngressInfo {
            ingress_id: draw("IN_"),
            name: request.name,
            stream_key: if pulls { String::new() } else { draw("") },
            url,
            input_type: request.input_type,
            bypass_transcoding: request.bypass_transcoding,
            audio: request.audio,
            video: request.video,
            enable_transcoding: request.enable_transcoding,
            room_name: request.room_name,
            participant_identity: request.participant_identity,
            participant_name: request.participant_name,
            participant_metadata: request.participant_metadata,
            state: Some(proto::IngressState::default()),
            enabled: request.enabled,
            reusable: !pulls,
        };
        if pulls && info.room_name.is_empty() {
            return bad("invalid ingress: no room name");
        }
        check(&info)?;
        set_transcoding(&mut info);
        if pulls {
            return Err(CatalogError::NoService);
        }
        check_room(&self.ingress)?;
        self.keep(INGRESS, &info.ingress_id, &info)?;
        self.ingress.insert(info.ingress_id.clone(), info.clone());
        Ok(Response::Ingress(info))
    }

    pub(crate) fn update_ingress(&mut self, update: proto::UpdateIngressRequest) -> Answer {
        let mut info = self.ingress.get(&update.ingress_id).ok_or(NOT_FOUND)?.clone();
        if !info.reusable {
            return bad("ingress is not reusable and cannot be modified");
        }
        let texts = [
            (update.name, &mut info.name),
            (update.room_name, &mut info.room_name),
            (update.participant_identity, &mut info.participant_identity),
            (update.participant_name, &mut info.participant_name),
            (update.participant_metadata, &mut info.participant_metadata),
        ];
        for (text, of_info) in texts {
            if !text.is_empty() {
                *of_info = text;
            }
        }
        info.enable_transcoding = update.enable_transcoding.or(info.enable_transcoding);
        info.audio = update.audio.or(info.audio);
        info.video = update.video.or(info.video);
        info.enabled = update.enabled.or(info.enabled);
        if info.state().status() == Status::EndpointError {
            info.state.get_or_insert_default().set_status(Status::EndpointInactive);
        }
        check(&info)?;
        set_transcoding(&mut info);
        self.keep(INGRESS, &info.ingress_id, &info)?;
        self.ingress.insert(info.ingress_id.clone(), info.clone());
        Ok(Response::Ingress(info))
    }

    pub(crate) fn list_ingress(&self, request: &proto::ListIngressRequest) -> Answer {
        let items = if request.ingress_id.is_empty() {
            let room = &request.room_name;
            let asked = |info: &&proto::IngressInfo| room.is_empty() || info.room_name == *room;
            self.ingress.values().filter(asked).cloned().collect()
        } else {
            vec![self.ingress.get(&request.ingress_id).ok_or(NOT_FOUND)?.clone()]
        };
        Ok(Response::Ingresses(proto::ListIngressResponse { items, ..Default::default() }))
    }

    pub(crate) fn delete_ingress(&mut self, request: &proto::DeleteIngressRequest) -> Answer {
        let mut info = self.ingress.remove(&request.ingress_id).ok_or(NOT_FOUND)?;
        self.forget(INGRESS, &request.ingress_id);
        info.state.get_or_insert_default().set_status(Status::EndpointInactive);
        Ok(Response::Ingress(info))
    }
}

trait StateOf {
    fn state(&self) -> proto::IngressState;
}

impl StateOf for proto::IngressInfo {
    fn state(&self) -> proto::IngressState {
        self.state.clone().unwrap_or_default()
    }
}

fn checked_url(url: &str) -> Result<String, CatalogError> {
    if url.is_empty() {
        return bad("invalid ingress: missing URL parameter");
    }
    let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
    if !matches!(scheme, "http" | "https" | "srt") {
        return bad(&format!("invalid ingress: invalid url scheme {scheme}"));
    }
    Ok(url.to_owned())
}

/// WHIP is passed on as it comes unless something else is asked for; the rest is transcoded.
fn set_transcoding(info: &mut proto::IngressInfo) {
    let is_whip = info.input_type() == IngressInput::WhipInput;
    let enabled = info.enable_transcoding.unwrap_or(!is_whip);
    info.enable_transcoding = Some(enabled);
    #[allow(deprecated)]
    {
        info.bypass_transcoding = !enabled;
    }
}

fn check(info: &proto::IngressInfo) -> Result<(), CatalogError> {
    let is_whip = info.input_type() == IngressInput::WhipInput;
    if info.input_type() == IngressInput::UrlInput && info.enabled == Some(false) {
        return bad("invalid ingress: disabled non reusable ingress");
    }
    if info.participant_identity.is_empty() {
        return bad("invalid ingress: no participant identity");
    }
    let transcodes = info.enable_transcoding.unwrap_or(!is_whip);
    const WRONG: &str = "invalid transcoding bypass configuration: ";
    if !transcodes && !is_whip {
        return bad(&format!("{WRONG}bypassing transcoding impossible with selected input type"));
    }
    if !transcodes {
        let must = "encoding options must be empty if transcoding is disabled";
        if info.video.as_ref().is_some_and(|video| video.encoding_options.is_some()) {
            return bad(&format!("{WRONG}video {must}"));
        }
        if info.audio.as_ref().is_some_and(|audio| audio.encoding_options.is_some()) {
            return bad(&format!("{WRONG}audio {must}"));
        }
    }
    if let Some(video) = &info.video {
        check_video(video).or_else(|text| bad(&text))?;
    }
    if let Some(audio) = &info.audio {
        check_audio(audio).or_else(|text| bad(&text))?;
    }
    Ok(())
}

fn check_video(video: &proto::IngressVideoOptions) -> Result<(), String> {
    use proto::TrackSource::{Camera, ScreenShare, Unknown};
    let wrong = |text: &str| Err(format!("invalid video parameters: {text}"));
    if !matches!(proto::TrackSource::try_from(video.source), Ok(Unknown | Camera | ScreenShare)) {
        return wrong("invalid track source");
    }
    let options = match &video.encoding_options {
        None => return Ok(()),
        Some(ingress_video_options::EncodingOptions::Preset(preset)) => {
            let known = proto::IngressVideoEncodingPreset::try_from(*preset).is_ok();
            return if known { Ok(()) } else { wrong("invalid preset") };
        }
        Some(ingress_video_options::EncodingOptions::Options(options)) => options,
    };
    if options.frame_rate < 0.0 {
        return wrong("invalid framerate");
    }
    use proto::VideoCodec::{DefaultVc, H264Baseline, Vp8};
    if !matches!(
        proto::VideoCodec::try_from(options.video_codec),
        Ok(DefaultVc | H264Baseline | Vp8)
    ) {
        return wrong("video codec unsupported");
    }
    let mut layers = std::collections::BTreeMap::new();
    for layer in &options.layers {
        if layer.width == 0 || layer.height == 0 {
            return wrong("invalid output media dimensions");
        }
        if layer.width % 2 == 1 {
            return Err("invalid ingress: layer width must be even".to_owned());
        }
        if layer.height % 2 == 1 {
            return Err("invalid ingress: layer height must be even".to_owned());
        }
        if layers.insert(layer.quality, layer).is_some() {
            return wrong("more than one layer with the same quality level");
        }
    }
    let layers: Vec<_> = layers.into_values().collect();
    for pair in layers.windows(2) {
        let [lower, higher] = pair else { continue };
        if higher.height < lower.height {
            return wrong("video layers do not have increasing height with increasing quality");
        }
        if higher.width < lower.width {
            return wrong("video layers do not have increasing width with increasing quality");
        }
    }
    Ok(())
}

fn check_audio(audio: &proto::IngressAudioOptions) -> Result<(), String> {
    use proto::TrackSource::{Microphone, ScreenShareAudio, Unknown};
    let wrong = |text: &str| Err(format!("invalid audio parameters: {text}"));
    let source = proto::TrackSource::try_from(audio.source);
    if !matches!(source, Ok(Unknown | Microphone | ScreenShareAudio)) {
        return wrong("invalid track source");
    }
    match &audio.encoding_options {
        Some(ingress_audio_options::EncodingOptions::Preset(preset))
            if proto::IngressAudioEncodingPreset::try_from(*preset).is_err() =>
        {
            wrong("invalid preset")
        }
        Some(ingress_audio_options::EncodingOptions::Options(options)) => {
            use proto::AudioCodec::{DefaultAc, Opus};
            match proto::AudioCodec::try_from(options.audio_codec) {
                Ok(DefaultAc | Opus) if options.channels <= 2 => Ok(()),
                Ok(DefaultAc | Opus) => wrong("invalid audio channel count"),
                _ => wrong("invalid audio codec"),
            }
        }
        _ => Ok(()),
    }
}
