//! Our answers and offers beside those that LiveKit 1.13.5 gave to the same clients.
//!
//! What differs on purpose: we answer `setup:passive`; transport-wide feedback is agreed on in
//! every section where the client offers it, sections that we send and audio among them; the
//! published section lists no VP9 payload type that its offer lacks; candidates are repeated
//! for component 1 only, since RTCP is multiplexed.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;

use common::{audio, fixture, local, parse, published, video};
use parlor_model::{Codec, DtlsRole, Mid, Rid, Ssrc, SubscriptionId, TrackId, TrackKind};
use parlor_sdp::{
    Answer, Answerer, ConnectionModel, Offerer, PublishedTrack,
    text::{MediaSection, PayloadFormat, SessionDescription, Setup},
};

const TRANSPORT_CC: &str =
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
const CAMERA: &str = "d7556bfd-28fe-4848-9a3a-0d76c061330e";
const MICROPHONE: &str = "fd04c530-4a0d-4ac2-9022-8d5169126442";

#[test]
fn every_recorded_description_survives_parsing_and_printing() {
    let directory = format!("{}/tests/fixtures", env!("CARGO_MANIFEST_DIR"));
    let mut count = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let description = parse(&text);
        assert!(!description.media.is_empty());
        assert_eq!(parse(&description.to_string()), description);
        count += 1;
    }
    assert!(count >= 20);
}

fn single() -> Answerer {
    // The recorded server has H265 in its offers but never in an answer to these clients.
    Answerer::new(7, 1_795_244_963, ConnectionModel::Single, &Codec::ALL)
}

/// The answer to `name.offer` on a connection that has answered `single-join.offer` before.
fn answer(answerer: &mut Answerer, name: &str, publications: &[PublishedTrack]) -> Answer {
    answerer.handle_offer(&fixture(&format!("{name}.offer")), &local("ours"), publications).unwrap()
}

/// Holds an answer of ours against the recorded one.
fn compare(offer: &str, ours: &Answer, recorded: &str) {
    let offer = parse(&fixture(&format!("{offer}.offer")));
    let recorded = parse(&fixture(&format!("{recorded}.answer")));
    let ours = parse(&ours.sdp);
    assert_eq!(ours.bundle, recorded.bundle);
    assert_eq!(ours.transport.fingerprints.len(), 1);
    assert_eq!(ours.media.len(), recorded.media.len());
    for ((offer, ours), recorded) in offer.media.iter().zip(&ours.media).zip(&recorded.media) {
        compare_section(offer, ours, recorded);
    }
}

fn numbers(formats: &[PayloadFormat]) -> BTreeSet<u8> {
    formats.iter().map(|format| format.payload_type.0).collect()
}

fn compare_section(offer: &MediaSection, ours: &MediaSection, recorded: &MediaSection) {
    let mid = ours.mid;
    assert_eq!((ours.mid, &ours.kind), (recorded.mid, &recorded.kind));
    assert_eq!(ours.direction, recorded.direction, "mid {mid}");
    assert_eq!(ours.port, recorded.port, "mid {mid}");
    assert_eq!(ours.protocol, recorded.protocol);
    assert_eq!(ours.transport.setup, Some(Setup::Passive));
    assert_eq!(recorded.transport.setup, Some(Setup::Active));
    assert!(ours.transport.fingerprints.is_empty());
    assert_eq!((ours.rtcp_mux, ours.rtcp_rsize), (recorded.rtcp_mux, recorded.rtcp_rsize));
    assert_eq!(ours.sctp_port, recorded.sctp_port);
    assert_eq!(ours.max_message_size_bytes, recorded.max_message_size_bytes);
    assert_eq!((&ours.msid, &ours.ssrcs), (&recorded.msid, &recorded.ssrcs), "mid {mid}");
    assert_eq!(ours.ssrc_groups, recorded.ssrc_groups);
    assert_eq!((&ours.rids, &ours.simulcast), (&recorded.rids, &recorded.simulcast));

    // Payload types: theirs, less those with another meaning in this section's offer.
    let same_meaning = |format: &&PayloadFormat| {
        let offered = offer.formats.iter().find(|f| f.payload_type == format.payload_type);
        offered.is_some_and(|offered| {
            offered.name == format.name
                && (format.name != "VP9"
                    || offered.parameter("profile-id") == format.parameter("profile-id"))
        })
    };
    let meant: Vec<_> = recorded.formats.iter().filter(same_meaning).cloned().collect();
    assert_eq!(numbers(&ours.formats), numbers(&meant), "mid {mid}");
    let media = |formats: &[PayloadFormat]| -> Vec<u8> {
        let media = formats.iter().filter(|format| format.name != "rtx");
        media.map(|format| format.payload_type.0).collect()
    };
    assert_eq!(media(&ours.formats), media(&meant), "order in mid {mid}");

    let uris = |section: &MediaSection| -> BTreeSet<(u8, String)> {
        section.extensions.iter().map(|e| (e.id, e.uri.clone())).collect()
    };
    let mut wanted = uris(recorded);
    wanted.extend(uris(offer).into_iter().filter(|(_, uri)| uri == TRANSPORT_CC));
    assert_eq!(uris(ours), wanted, "mid {mid}");
    let has_transport_cc = wanted.iter().any(|(_, uri)| uri == TRANSPORT_CC);

    for format in &ours.formats {
        let find = |section: &MediaSection| -> PayloadFormat {
            let mut formats = section.formats.iter();
            formats.find(|f| f.payload_type == format.payload_type).unwrap().clone()
        };
        let (offered, theirs) = (find(offer), find(recorded));
        let mut wanted: BTreeSet<_> = theirs.feedback.iter().cloned().collect();
        if has_transport_cc {
            wanted.extend(offered.feedback.into_iter().filter(|f| f == "transport-cc"));
        }
        assert_eq!(format.feedback.iter().cloned().collect::<BTreeSet<_>>(), wanted, "mid {mid}");
        // The recorded server doubles `stereo=1` and lets it stand in ended sections.
        if !theirs.parameters.as_ref().is_some_and(|p| p.contains("stereo=1")) {
            // Ours echoes Google's parameters in sections that the client only receives in, too.
            let plain = |format: &PayloadFormat| {
                let parameters = format.parameters.clone().unwrap_or_default();
                parameters.split("x-google").next().unwrap().trim_end_matches(';').to_owned()
            };
            assert_eq!(plain(format), plain(&theirs), "mid {mid}");
        }
    }
}

#[test]
fn the_joining_offer_is_answered_with_idle_sections() {
    let mut answerer = single();
    let answer = answer(&mut answerer, "single-join", &[]);
    compare("single-join", &answer, "single-join");
    assert_eq!(answer.remote.dtls_role, DtlsRole::Server);
    assert_eq!(answer.remote.sctp.unwrap().max_message_size_bytes, 262_144);
    assert!(answer.description.receive.is_empty() && answer.description.send.is_empty());
    assert!(!answer.sdp.contains("a=candidate"), "the first description has no candidates");
    assert_eq!(answerer.media_sections_requirement(), None);
}

#[test]
fn published_tracks_are_answered_with_their_codec_first() {
    let mut answerer = single();
    answer(&mut answerer, "single-join", &[]);
    let camera =
        PublishedTrack { codec: Some(Codec::Vp8), ..published(2, CAMERA, TrackKind::Video) };
    let publications = [published(1, MICROPHONE, TrackKind::Audio), camera];
    let answer = answer(&mut answerer, "single-publish", &publications);
    compare("single-publish", &answer, "single-publish");

    let [sound, picture] = &answer.description.receive[..] else { panic!("two tracks are sent") };
    assert_eq!((sound.mid, sound.track), (Mid::new("7").unwrap(), TrackId(1)));
    assert_eq!(sound.codecs.first().unwrap().codec, Codec::Red);
    assert_eq!(sound.streams.first().unwrap().ssrc, Some(Ssrc(2_671_480_778)));
    assert_eq!(picture.codecs.first().unwrap().codec, Codec::Vp8);
    assert_eq!(picture.extensions.dependency_descriptor, Some(12));
    let layers: Vec<_> = picture.streams.iter().map(|s| (s.rid, s.layer)).collect();
    assert_eq!(layers, [(Rid::new("q"), 0), (Rid::new("h"), 1), (Rid::new("f"), 2)]);
    assert_eq!(answer.received.len(), 2);
    assert_eq!(parse(&answer.sdp).media[0].candidates, local("ours").candidates);
}

#[test]
fn subscribed_tracks_fill_the_first_free_sections_and_leave_them_inactive() {
    let mut answerer = single();
    answer(&mut answerer, "single-join", &[]);
    let stream = "PA_PLYjzmUPb4da";
    answerer.add_send(audio(1, stream, "TR_AMLJ4nU4HHPYwZ", 4_120_821_399));
    answerer.add_send(video(2, stream, "TR_VCqjAyRaFc9V49", 3_318_300_983, 1_050_756_988));
    assert_eq!(answerer.media_sections_requirement(), Some(Default::default()));
    assert_eq!(answerer.media_sections_requirement(), None, "one is outstanding");
    let first = answer(&mut answerer, "single-subscribe", &[]);
    compare("single-subscribe", &first, "single-subscribe");
    let mids: Vec<_> =
        first.mid_to_track_id.iter().map(|(mid, track)| (mid.as_str(), track.as_str())).collect();
    assert_eq!(mids, [("0", "TR_AMLJ4nU4HHPYwZ"), ("3", "TR_VCqjAyRaFc9V49")]);
    let [sound, picture] = &first.description.send[..] else { panic!("two tracks are sent") };
    assert_eq!(sound.codecs.iter().map(|c| c.codec).collect::<Vec<_>>(), [Codec::Red, Codec::Opus]);
    assert_eq!(picture.codecs.len(), 1);
    assert!(picture.feedback.transport_cc && picture.feedback.remb && picture.feedback.nack);
    assert_eq!(answerer.media_sections_requirement(), None);

    assert!(answerer.remove_send(SubscriptionId(2)));
    assert_eq!(answerer.description().send.len(), 1, "it ends at once");
    assert_eq!(answerer.media_sections_requirement(), Some(Default::default()));
    let second = answer(&mut answerer, "single-subscribe", &[]);
    compare("single-subscribe", &second, "single-unsubscribe");
}

#[test]
fn h264_and_vp9_are_put_first_when_announced() {
    for (name, codec, cid, streams) in [
        ("h264", Codec::H264, "c2f451ce-9aa7-4ee3-ab3f-bf3c6dfb74f5", 3),
        ("vp9", Codec::Vp9, "3ff9e398-3878-40fe-bd30-decf9f40240d", 1),
    ] {
        let mut answerer = single();
        answer(&mut answerer, "single-join", &[]);
        let track = PublishedTrack { codec: Some(codec), ..published(1, cid, TrackKind::Video) };
        let answer = answer(&mut answerer, name, &[track]);
        compare(name, &answer, name);
        let picture = answer.description.receive.first().unwrap();
        assert_eq!(picture.codecs.first().unwrap().codec, codec);
        assert_eq!(picture.streams.len(), streams);
        let stream = picture.streams.first().unwrap();
        assert_eq!(stream.rtx_ssrc.is_some(), codec == Codec::Vp9);
    }
}

#[test]
fn a_stereo_microphone_replaces_one_that_ended() {
    let mut answerer = single();
    let first = "76648c2a-915b-4584-a260-5e1aec9d6f0f";
    let second = PublishedTrack {
        disable_red: true,
        disable_dtx: true,
        stereo: true,
        ..published(2, "1651d25f-dca3-48bb-9610-1548c25450c9", TrackKind::Audio)
    };
    let answer = answer(&mut answerer, "stereo", &[published(1, first, TrackKind::Audio), second]);
    let text = parse(&answer.sdp);
    let formats = &text.media[8].formats;
    assert_eq!(formats.iter().map(|f| f.payload_type.0).collect::<Vec<_>>(), [111, 63, 0, 8]);
    assert_eq!(
        formats[0].parameters.as_deref(),
        Some("minptime=10;useinbandfec=1;stereo=1;maxaveragebitrate=510000")
    );
    assert_eq!(answer.description.receive.len(), 1);
    assert_eq!(answer.description.receive[0].track, TrackId(2));
}

#[test]
fn a_client_that_restarts_ice_is_noticed_before_the_answer() {
    let mut answerer = single();
    answer(&mut answerer, "single-subscribe", &[]);
    let offer = fixture("ice-restart.offer");
    assert!(!answerer.is_ice_restart(&fixture("single-subscribe.offer")).unwrap());
    assert!(answerer.is_ice_restart(&offer).unwrap());
    let stream = "PA_x7p2EfCAosLt";
    answerer.add_send(audio(1, stream, "TR_AMxHhpBuESZJjG", 402_831_358));
    answerer.add_send(video(2, stream, "TR_VCRenWPRh9ZCDX", 38_481_956, 1_127_487_773));
    let microphone = published(3, "bcfb24b8-9d20-4573-92f6-c50394e4c02c", TrackKind::Audio);
    let answer = answerer.handle_offer(&offer, &local("new"), &[microphone]).unwrap();
    compare("ice-restart", &answer, "ice-restart");
    assert!(!answer.sdp.contains("a=candidate"), "candidates are trickled anew");
}

#[test]
fn the_native_client_publishes_two_layers_and_ends_them() {
    let mut answerer = single();
    let publications = [
        published(1, "e1f943ba-2742-4e4e-8ac8-b2136888155a", TrackKind::Audio),
        published(2, "34ff2540-155d-4c94-98e4-9604197786f4", TrackKind::Video),
    ];
    let first = answer(&mut answerer, "native-publish", &publications);
    compare("native-publish", &first, "native-publish");
    let picture = &first.description.receive[1];
    let layers: Vec<_> = picture.streams.iter().map(|s| (s.rid, s.layer)).collect();
    assert_eq!(layers, [(Rid::new("q"), 0), (Rid::new("h"), 1)]);

    let second = answer(&mut answerer, "native-unpublish", &publications);
    compare("native-unpublish", &second, "native-unpublish");
    let ended: Vec<_> = second.received.iter().filter(|section| section.ended).collect();
    assert_eq!(ended.len(), 1);
    assert_eq!(ended[0].track, Some(TrackId(2)));
    assert_eq!(second.description.receive.len(), 1);
    answerer.add_send(video(5, "PA_a", "TR_b", 10, 11));
    let third = answer(&mut answerer, "native-unpublish", &publications);
    assert!(third.received.iter().all(|section| !section.ended), "it is told once");
    assert_eq!(third.mid_to_track_id[0].0.as_str(), "3", "its own section is not used");
}

#[test]
fn the_publisher_connection_of_the_pair() {
    let mut answerer = Answerer::new(7, 1, ConnectionModel::Publisher, &Codec::ALL);
    answerer.add_send(audio(1, "PA_a", "TR_b", 5));
    let publications = [
        published(1, "92fb0747-0e41-4031-b157-ae36a26078e7", TrackKind::Audio),
        published(2, "7e35fe7d-09fd-409e-8de5-abff797aec99", TrackKind::Video),
    ];
    let answer = answer(&mut answerer, "publisher", &publications);
    compare("publisher", &answer, "publisher");
    assert!(answer.description.send.is_empty(), "nothing is sent on this connection");
    assert_eq!(answerer.media_sections_requirement(), None);
}

#[test]
fn the_subscriber_offer_of_the_pair() {
    let mut offerer = Offerer::new(7, 1_795_244_998, 61, &Codec::ALL);
    let stream = "PA_BKT8zS57MeZJ";
    let first = offerer.poll_offer(&local("ours")).unwrap();
    assert_eq!(first.id, 61);
    let mut join = parse(&fixture("subscriber.answer"));
    join.media.truncate(1);
    join.bundle.truncate(1);
    let applied = offerer.handle_answer(61, &join.to_string()).unwrap().unwrap();
    assert_eq!(applied.remote.dtls_role, DtlsRole::Server);
    offerer.add_send(audio(1, stream, "TR_AMioZ9DnbjEcmk", 2_085_968_450));
    offerer.add_send(video(2, stream, "TR_VCm6o53wx3Gou4", 2_558_910_779, 3_060_216_274));
    let offer = offerer.poll_offer(&local("ours")).unwrap();
    assert_eq!(offer.id, 62);
    let (ours, recorded) = (parse(&offer.sdp), parse(&fixture("subscriber.offer")));
    compare_offers(&ours, &recorded);
    assert_eq!(offer.mid_to_track_id.len(), 2);

    // The recorded answer agrees on what the recorded offer had: no transport-wide feedback.
    let applied = offerer.handle_answer(62, &fixture("subscriber.answer")).unwrap().unwrap();
    let [sound, picture] = &applied.description.send[..] else { panic!("two tracks are sent") };
    assert_eq!(sound.extensions.abs_capture_time, Some(2));
    assert_eq!(picture.codecs.first().unwrap().rtx.unwrap().0, 97);
    assert!(picture.feedback.remb && !picture.feedback.transport_cc);
    assert_eq!(applied.remote_candidates.len(), 2);
    assert_eq!(offerer.handle_answer(62, &fixture("subscriber.answer")), Ok(None), "stale");
}

fn compare_offers(ours: &SessionDescription, recorded: &SessionDescription) {
    assert_eq!(ours.bundle, recorded.bundle);
    for (ours, recorded) in ours.media.iter().zip(&recorded.media) {
        assert_eq!((ours.mid, &ours.kind), (recorded.mid, &recorded.kind));
        assert_eq!(ours.direction, recorded.direction);
        assert_eq!(ours.transport.setup, recorded.transport.setup);
        assert_eq!((&ours.msid, &ours.ssrcs), (&recorded.msid, &recorded.ssrcs));
        assert_eq!(ours.ssrc_groups, recorded.ssrc_groups);
        let mut formats = ours.formats.clone();
        for format in &mut formats {
            format.feedback.retain(|feedback| feedback != "transport-cc");
            format.feedback.sort();
        }
        let mut wanted = recorded.formats.clone();
        wanted.iter_mut().for_each(|format| format.feedback.sort());
        assert_eq!(formats, wanted);
        let extensions = ours.extensions.iter().filter(|e| e.uri != TRANSPORT_CC);
        assert!(extensions.eq(&recorded.extensions));
    }
}
