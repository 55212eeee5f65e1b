//! Forms that the recorded clients do not use: Firefox's way of writing, refused and unbundled
//! sections, layers by SSRC.
#![allow(clippy::unwrap_used)]

mod common;

use common::{audio, local, parse, published, video};
use parlor_model::{Codec, DtlsRole, PayloadType, Rid, Ssrc, TrackKind};
use parlor_sdp::{
    Answer, Answerer, ConnectionModel, Offerer, PublishedTrack, SdpError,
    text::{Direction, Setup},
};

const HEAD: &str = "v=0\n\
    o=mozilla...THIS_IS_SDPARTA-99.0 742173546238345 0 IN IP4 0.0.0.0\n\
    s=-\nt=0 0\na=sendrecv\n\
    a=fingerprint:sha-256 01:02:FF\n\
    a=ice-options:trickle\na=msid-semantic:WMS *\n";

fn answer_text(text: &str, publications: &[PublishedTrack]) -> Result<Answer, SdpError> {
    let mut answerer = Answerer::new(1, 1, ConnectionModel::Single, &Codec::ALL);
    answerer.add_send(audio(1, "PA_a", "TR_b", 77));
    answerer.handle_offer(text, &local("ours"), publications)
}

fn transport() -> &'static str {
    "c=IN IP4 0.0.0.0\na=ice-ufrag:abcd\na=ice-pwd:0123456789abcdef01234567\na=rtcp-mux\n"
}

#[test]
fn an_offer_as_firefox_writes_it() {
    let text = format!(
        "{HEAD}a=group:BUNDLE 0 1\n\
         m=audio 9 UDP/TLS/RTP/SAVPF 109 9 0 8 101\n{t}a=sendrecv\n\
         a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\n\
         a=extmap:2/recvonly urn:ietf:params:rtp-hdrext:csrc-audio-level\n\
         a=extmap:3 urn:ietf:params:rtp-hdrext:sdes:mid\n\
         a=fmtp:109 maxplaybackrate=48000;stereo=1;useinbandfec=1\na=fmtp:101 0-15\n\
         a=mid:0\na=msid:{{stream}} {{mic}}\n\
         a=rtpmap:109 opus/48000/2\na=rtpmap:9 G722/8000/1\na=rtpmap:0 PCMU/8000\n\
         a=rtpmap:8 PCMA/8000\na=rtpmap:101 telephone-event/8000/1\na=setup:actpass\n\
         a=ssrc:11 cname:{{x}}\n\
         m=video 0 UDP/TLS/RTP/SAVPF 120 124 121 125 126 127 97 98\n{t}a=bundle-only\na=sendonly\n\
         a=extmap:3 urn:ietf:params:rtp-hdrext:sdes:mid\n\
         a=extmap:4 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time\n\
         a=extmap:5 urn:ietf:params:rtp-hdrext:toffset\n\
         a=extmap:7 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\n\
         a=extmap:8/sendonly urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\n\
         a=fmtp:126 profile-level-id=42e01f;level-asymmetry-allowed=1;packetization-mode=1\n\
         a=fmtp:97 profile-level-id=42e01f;level-asymmetry-allowed=1\n\
         a=fmtp:120 max-fs=12288;max-fr=60\na=fmtp:124 apt=120\na=fmtp:121 max-fs=12288;max-fr=60\n\
         a=fmtp:125 apt=121\na=fmtp:127 apt=126\na=fmtp:98 apt=97\n\
         a=mid:1\na=msid:{{stream}} {{camera}}\n\
         a=rid:q send\na=rid:h send\na=simulcast:send q;~h\n\
         a=rtcp-fb:120 nack\na=rtcp-fb:120 nack pli\na=rtcp-fb:120 ccm fir\n\
         a=rtcp-fb:120 goog-remb\na=rtcp-fb:120 transport-cc\n\
         a=rtpmap:120 VP8/90000\na=rtpmap:124 rtx/90000\na=rtpmap:121 VP9/90000\n\
         a=rtpmap:125 rtx/90000\na=rtpmap:126 H264/90000\na=rtpmap:127 rtx/90000\n\
         a=rtpmap:97 H264/90000\na=rtpmap:98 rtx/90000\na=setup:actpass\na=ssrc:12 cname:{{x}}\n",
        t = transport(),
    );
    let publications = [
        published(1, "{mic}", TrackKind::Audio),
        PublishedTrack { codec: Some(Codec::H264), ..published(2, "{camera}", TrackKind::Video) },
    ];
    let answer = answer_text(&text, &publications).unwrap();
    assert_eq!(answer.remote.fingerprints[0].digest, [1, 2, 255]);
    let [sound, picture] = &answer.description.receive[..] else { panic!("two tracks are sent") };
    assert_eq!(sound.codecs[0].payload_type, PayloadType(109), "Firefox has no RED for sound");
    assert_eq!(sound.extensions.mid, Some(3));
    assert_eq!(picture.codecs[0].payload_type, PayloadType(126));
    assert_eq!(picture.codecs[0].rtx, Some(PayloadType(127)));
    assert_eq!(picture.codecs.iter().map(|c| c.variant).collect::<Vec<_>>(), [1, 0, 0, 0]);
    assert_eq!(picture.streams.len(), 2);
    assert_eq!(picture.streams[1].rid, Rid::new("h"));
    assert_eq!(picture.extensions.rid, Some(8));

    let text = parse(&answer.sdp);
    assert_eq!(text.bundle.len(), 2);
    assert_eq!(text.media[0].direction, Direction::SendRecv, "our track goes back in it");
    assert_eq!(text.media[1].port, 9, "bundle-only is no refusal");
    assert_eq!(text.media[1].direction, Direction::RecvOnly);
    assert_eq!(answer.description.send.len(), 1);
}

fn audio_section(mid: &str, port: u16, more: &str) -> String {
    format!(
        "m=audio {port} UDP/TLS/RTP/SAVPF 111\n{}a=mid:{mid}\na=rtpmap:111 opus/48000/2\n{more}",
        transport()
    )
}

#[test]
fn sections_that_are_refused_stay_in_their_place() {
    let text = format!(
        "{HEAD}a=group:BUNDLE 1 2 5\n{}{}{}{}m=text 9 UDP/TLS/RTP/SAVPF 98 99\na=mid:4\n{}",
        audio_section("0", 0, "a=recvonly\n"),
        audio_section("1", 9, "a=recvonly\n"),
        // No codec in common.
        audio_section("2", 9, "a=recvonly\n")
            .replace("111", "9")
            .replace("opus/48000/2", "G722/8000"),
        // Not bundled.
        audio_section("3", 9, "a=recvonly\n"),
        // Not encrypted.
        audio_section("5", 9, "a=recvonly\n").replace("UDP/TLS/RTP/SAVPF", "RTP/AVP"),
    );
    let answer = answer_text(&text, &[]).unwrap();
    let text = parse(&answer.sdp);
    let ports: Vec<_> = text.media.iter().map(|section| section.port).collect();
    assert_eq!(ports, [0, 9, 0, 0, 0, 0]);
    assert_eq!(text.bundle.len(), 1);
    assert_eq!(answer.description.send[0].mid.as_str(), "1");
    assert!(answer.sdp.contains("m=text 0 UDP/TLS/RTP/SAVPF 98 99\r\n"));
}

#[test]
fn layers_by_ssrc() {
    let text = format!(
        "{HEAD}a=group:BUNDLE 0\nm=video 9 UDP/TLS/RTP/SAVPF 96 97\n{}a=mid:0\n\
         a=rtpmap:96 VP8/90000\na=rtpmap:97 rtx/90000\na=fmtp:97 apt=96\na=sendonly\n\
         a=ssrc-group:SIM 1 2 3\na=ssrc-group:FID 1 11\na=ssrc-group:FID 2 12\n\
         a=ssrc:1 cname:x\na=ssrc:1 msid:s the-cid\n",
        transport()
    );
    let answer = answer_text(&text, &[published(1, "the-cid", TrackKind::Video)]).unwrap();
    let streams: Vec<_> = answer.description.receive[0]
        .streams
        .iter()
        .map(|stream| (stream.ssrc, stream.rtx_ssrc, stream.layer))
        .collect();
    let ssrc = |number| Some(Ssrc(number));
    assert_eq!(streams, [(ssrc(1), ssrc(11), 0), (ssrc(2), ssrc(12), 1), (ssrc(3), None, 2)]);
}

#[test]
fn who_starts_dtls() {
    for (setup, role, ours) in [
        ("actpass", DtlsRole::Server, Setup::Passive),
        ("active", DtlsRole::Server, Setup::Passive),
        ("passive", DtlsRole::Client, Setup::Active),
    ] {
        let section = audio_section("0", 9, &format!("a=setup:{setup}\n"));
        let answer = answer_text(&format!("{HEAD}{section}"), &[]).unwrap();
        assert_eq!(answer.remote.dtls_role, role);
        assert_eq!(parse(&answer.sdp).media[0].transport.setup, Some(ours));
    }
}

#[test]
fn what_is_missing_is_named() {
    let whole = format!("{HEAD}{}", audio_section("0", 9, ""));
    for (part, complaint) in [
        ("a=ice-pwd:0123456789abcdef01234567\n", "media section 0: has no ICE credentials"),
        ("a=fingerprint:sha-256 01:02:FF\n", "media section 0: has no fingerprint"),
        ("a=mid:0\n", "media section 0: has no a=mid"),
    ] {
        let error = answer_text(&whole.replace(part, ""), &[]).unwrap_err();
        assert_eq!(error.to_string(), complaint);
    }
    assert_eq!(answer_text("", &[]).unwrap_err().to_string(), "there is no o= line");
    assert_eq!(
        answer_text(&whole.replace("opus/48000/2", "opus/x"), &[]).unwrap_err().to_string(),
        "line 15: a=rtpmap needs name/clock-rate"
    );
    let bare = format!("{HEAD}{}", audio_section("0", 0, ""));
    assert_eq!(answer_text(&bare, &[]).unwrap_err().to_string(), "no media section can be used");
    let twice = format!("{whole}{}", audio_section("0", 9, ""));
    assert!(answer_text(&twice, &[]).unwrap_err().to_string().contains("repeats the a=mid"));
}

#[test]
fn playout_delay_is_agreed_on_for_video_where_it_is_allowed() {
    const URI: &str = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay";
    for allowed in [false, true] {
        let mut offerer = Offerer::new(1, 1, 1, &[Codec::Opus, Codec::Vp8]);
        if allowed {
            offerer.allow_playout_delay();
        }
        offerer.add_send(audio(1, "PA_a", "TR_1", 1001));
        offerer.add_send(video(2, "PA_a", "TR_2", 1002, 5002));
        let offer = offerer.poll_offer(&local("ours")).unwrap();
        let lines = offer.sdp.lines().filter(|line| line.contains(URI));
        assert_eq!(lines.collect::<Vec<_>>().len(), usize::from(allowed));
    }
}
