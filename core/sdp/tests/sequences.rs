//! Our two sides against each other: random tracks come and go, in any order, and what both hold
//! must agree after enough rounds. Junk is refused without a panic.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;

use common::{audio, fixture, local, parse, published, source, video};
use parlor_model::{Codec, MediaDescription, Mid, Rid, Ssrc, SubscriptionId, TrackId, TrackKind};
use parlor_sdp::{
    Answerer, ConnectionModel, FRESH_SECTIONS_MAX, Offerer, PublishedTrack, Requirement, SdpError,
    SendTrack,
    client::{ClientAnswerer, ClientDescription, ClientOfferer, LocalTrack},
    text::{self, SessionDescription},
};
use proptest::prelude::*;

/// Rounds after which nothing more may be asked for.
const ENOUGH_ROUNDS: usize = 6;

#[derive(Clone, Debug)]
enum Step {
    Add(bool),
    Remove(usize),
    Publish(bool),
    Unpublish(usize),
    Negotiate,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => any::<bool>().prop_map(Step::Add),
        2 => (0..8usize).prop_map(Step::Remove),
        1 => any::<bool>().prop_map(Step::Publish),
        1 => (0..8usize).prop_map(Step::Unpublish),
        2 => Just(Step::Negotiate),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 0..30)
}

fn send(number: u32, is_audio: bool) -> SendTrack {
    let track = format!("TR_{number}");
    if is_audio {
        audio(number, "PA_a", &track, 1000 + number)
    } else {
        video(number, "PA_a", &track, 1000 + number, 5000 + number)
    }
}

fn local_track(number: u32, is_audio: bool) -> LocalTrack {
    let layered = !is_audio && number.is_multiple_of(2);
    let rids = ["q", "h", "f"].map(|rid| Rid::new(rid).unwrap());
    LocalTrack {
        cid: format!("cid-{number}"),
        stream_id: "-".to_owned(),
        kind: if is_audio { TrackKind::Audio } else { TrackKind::Video },
        rids: if layered { rids.to_vec() } else { Vec::new() },
        ssrc: Ssrc(number),
        rtx_ssrc: (!is_audio).then_some(Ssrc(90_000 + number)),
    }
}

/// What holds for every description: mids are unique (the parser sees to that) and the bundle has
/// each section that is not rejected.
fn check_text(text: &str) {
    let description = parse(text);
    let mids: Vec<Mid> =
        description.media.iter().filter(|m| !m.is_rejected()).map(|m| m.mid).collect();
    assert_eq!(description.bundle, mids);
    let ssrcs: Vec<Ssrc> = description
        .media
        .iter()
        .flat_map(|m| &m.ssrc_groups)
        .flat_map(|g| &g.ssrcs)
        .copied()
        .collect();
    assert_eq!(ssrcs.iter().collect::<BTreeSet<_>>().len(), ssrcs.len());
}

/// The single connection with both of its ends.
struct World {
    server: Answerer,
    client: ClientOfferer,
    sends: Vec<SendTrack>,
    publications: Vec<PublishedTrack>,
    generation: u32,
    next: u32,
}

impl World {
    fn new() -> Self {
        Self {
            server: Answerer::new(1, 1, ConnectionModel::Single, &Codec::ALL),
            client: ClientOfferer::new(2, ConnectionModel::Single, &Codec::ALL),
            sends: Vec::new(),
            publications: Vec::new(),
            generation: 0,
            next: 1,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Add(is_audio) => {
                self.sends.push(send(self.next, is_audio));
                self.server.add_send(self.sends.last().unwrap().clone());
                self.next += 1;
            }
            Step::Remove(index) if index < self.sends.len() => {
                let send = self.sends.remove(index);
                assert!(self.server.remove_send(send.subscription));
            }
            Step::Publish(is_audio) => {
                let track = local_track(self.next, is_audio);
                self.publications.push(published(u64::from(self.next), &track.cid, track.kind));
                self.client.add_track(track);
                self.next += 1;
            }
            Step::Unpublish(index) if index < self.publications.len() => {
                let publication = self.publications.remove(index);
                assert!(self.client.remove_track(&publication.cid));
            }
            Step::Negotiate => {
                self.negotiate();
            }
            Step::Restart => self.generation += 1,
            Step::Remove(_) | Step::Unpublish(_) => {}
        }
    }

    fn negotiate(&mut self) -> ClientDescription {
        let offer = self.client.create_offer(&local(&format!("client{}", self.generation)));
        check_text(&offer);
        let ours = local(&format!("server{}", self.generation));
        let answer = self.server.handle_offer(&offer, &ours, &self.publications).unwrap();
        check_text(&answer.sdp);
        assert_eq!(answer.remote.ice.ufrag, format!("client{}", self.generation));
        assert_eq!(answer.mid_to_track_id.len(), answer.description.send.len());
        self.client.handle_answer(&answer.sdp).unwrap()
    }

    fn settle(&mut self) {
        let mut description = self.negotiate();
        for _ in 0..ENOUGH_ROUNDS {
            let Some(requirement) = self.server.media_sections_requirement() else { break };
            assert_eq!(self.server.media_sections_requirement(), None);
            self.client.add_receive_sections(requirement);
            description = self.negotiate();
        }
        assert_eq!(self.server.media_sections_requirement(), None, "it settles");
        self.check(&description);
    }

    fn check(&self, client: &ClientDescription) {
        let server = self.server.description();
        let sent: BTreeSet<_> = server.send.iter().map(|section| section.subscription).collect();
        assert_eq!(sent, self.sends.iter().map(|send| send.subscription).collect());
        assert_eq!(server.send.len(), sent.len(), "one section each");
        let of_server: Vec<_> =
            server.send.iter().map(|s| (s.mid, s.ssrc, s.rtx_ssrc, s.extensions)).collect();
        let of_client: Vec<_> = client
            .receive
            .iter()
            .map(|r| (r.mid, r.stream.ssrc.unwrap(), r.stream.rtx_ssrc, r.extensions))
            .collect();
        assert_eq!(of_server, of_client);
        assert_eq!(server.receive.len(), self.publications.len());
        assert_eq!(client.send.len(), self.publications.len());
        for (receive, send) in server.receive.iter().zip(&client.send) {
            assert_eq!((receive.mid, &receive.codecs), (send.mid, &send.codecs));
            assert_eq!((receive.extensions, receive.feedback), (send.extensions, send.feedback));
            let publication = self.publications.iter().find(|p| p.track == receive.track).unwrap();
            assert_eq!(publication.cid, send.cid);
        }
    }
}

/// The subscriber connection of the pair: answers may be late, and offers pile up meanwhile.
fn run_pair(steps: Vec<Step>) {
    let mut server = Offerer::new(1, 1, 250, &Codec::ALL);
    let mut client = ClientAnswerer::new(2, &Codec::ALL);
    let mut sends: Vec<SendTrack> = Vec::new();
    let mut next = 1;
    let mut generation = 0;
    let mut waiting: Option<parlor_sdp::Offer> = None;
    let mut last_id = None;
    let settling = std::iter::repeat_n(Step::Negotiate, 2 * ENOUGH_ROUNDS);
    let mut heard = None;
    for step in steps.into_iter().chain(settling) {
        match step {
            Step::Add(is_audio) => {
                sends.push(send(next, is_audio));
                server.add_send(sends.last().unwrap().clone());
                next += 1;
            }
            Step::Remove(index) if index < sends.len() => {
                assert!(server.remove_send(sends.remove(index).subscription));
            }
            Step::Restart => generation += 1,
            Step::Negotiate => {
                if let Some(offer) = waiting.take() {
                    let (answer, description) =
                        client.handle_offer(&offer.sdp, &local("client")).unwrap();
                    check_text(&answer);
                    let applied = server.handle_answer(offer.id, &answer).unwrap();
                    if let Some(applied) = applied {
                        assert!(applied.unsupported.is_empty());
                    }
                    heard = Some(description);
                }
            }
            _ => {}
        }
        if let Some(offer) = server.poll_offer(&local(&format!("server{generation}"))) {
            check_text(&offer.sdp);
            assert!(last_id.is_none_or(|last: u32| offer.id == last + 1));
            last_id = Some(offer.id);
            waiting = Some(offer);
            assert_eq!(server.poll_offer(&local(&format!("server{generation}"))), None);
        }
    }
    assert_eq!(waiting, None, "it settles");
    let description = server.description();
    let sent: BTreeSet<_> = description.send.iter().map(|s| s.subscription).collect();
    assert_eq!(sent, sends.iter().map(|send| send.subscription).collect());
    let of_server: Vec<_> =
        description.send.iter().map(|s| (s.mid, s.ssrc, s.extensions, s.feedback)).collect();
    let heard = heard.unwrap();
    let of_client: Vec<_> = heard
        .receive
        .iter()
        .map(|r| (r.mid, r.stream.ssrc.unwrap(), r.extensions, r.feedback))
        .collect();
    assert_eq!(of_server, of_client);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..Default::default() })]

    #[test]
    fn the_single_connection_settles(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.settle();
    }

    #[test]
    fn the_pair_settles(steps in steps()) {
        run_pair(steps);
    }

    #[test]
    fn junk_is_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = SessionDescription::parse_bytes(&bytes);
    }

    /// A recorded offer with parts cut, doubled and overwritten.
    #[test]
    fn a_damaged_offer_is_answered_or_refused(
        cuts in proptest::collection::vec((0..20_000usize, 0..40usize, "[ -~\r\n]{0,12}"), 1..12),
    ) {
        let mut text = fixture("publisher.offer");
        for (start, length, replacement) in cuts {
            let start = start % text.len();
            let end = (start + length).min(text.len());
            text.replace_range(start..end, &replacement);
        }
        let mut server = Answerer::new(1, 1, ConnectionModel::Single, &Codec::ALL);
        server.add_send(send(1, true));
        if let Ok(answer) = server.handle_offer(&text, &local("a"), &[published(9, "x", TrackKind::Audio)]) {
            check_reparses(&answer.sdp);
        }
        let mut offerer = Offerer::new(1, 1, 5, &Codec::ALL);
        let offer = offerer.poll_offer(&local("a")).unwrap();
        let _ = offerer.handle_answer(offer.id, &text);
        let _ = ClientAnswerer::new(1, &Codec::ALL).handle_offer(&text, &local("b"));
    }
}

fn check_reparses(text: &str) {
    let description = parse(text);
    assert_eq!(description.to_string(), text);
}

#[test]
fn ten_tracks_come_and_go_at_once() {
    let mut world = World::new();
    world.settle();
    for index in 0..10 {
        world.step(Step::Add(index < 5));
        world.step(Step::Publish(index < 5));
    }
    world.settle();
    let sections = parse(&world.client.create_offer(&local("client0"))).media.len();
    for _ in 0..10 {
        world.step(Step::Remove(0));
        world.step(Step::Unpublish(0));
    }
    world.settle();
    for index in 0..10 {
        world.step(Step::Add(index < 5));
    }
    world.settle();
    let reused = parse(&world.client.create_offer(&local("client0"))).media.len();
    assert_eq!(sections, reused, "freed sections carry the new tracks");
}

#[test]
fn the_requirement_counts_what_is_missing() {
    let mut world = World::new();
    world.negotiate();
    for _ in 0..5 {
        world.step(Step::Add(false));
    }
    let requirement = Requirement { num_audios: 0, num_videos: 2 };
    assert_eq!(world.server.media_sections_requirement(), Some(requirement));
    world.step(Step::Add(true));
    assert_eq!(world.server.media_sections_requirement(), None, "one is outstanding");
    world.client.add_receive_sections(requirement);
    let description = world.negotiate();
    assert_eq!(description.receive.len(), 6);
    assert_eq!(world.server.media_sections_requirement(), None);
}

#[test]
fn a_section_is_seen_inactive_before_it_carries_another_track() {
    let mut world = World::new();
    for _ in 0..3 {
        world.step(Step::Add(false));
    }
    world.settle();
    world.step(Step::Remove(0));
    world.step(Step::Add(false));
    assert_eq!(world.server.media_sections_requirement(), Some(Requirement::default()));
    assert_eq!(world.negotiate().receive.len(), 2);
    assert_eq!(world.server.media_sections_requirement(), Some(Requirement::default()));
    assert_eq!(world.negotiate().receive.len(), 3);
}

/// A client without AV1 gets the backup of an AV1 publication, and AV1 goes to who has it; when the
/// publication is reduced to its backup, that needs no negotiation.
#[test]
fn each_client_is_sent_the_first_encoding_that_it_decodes() {
    let (av1, vp8) = (source(1, &[Codec::Av1]), source(2, &[Codec::Vp8]));
    let both = SendTrack { sources: vec![av1, vp8.clone()], ..send(1, false) };
    let sent = |media: &MediaDescription| {
        media.send.iter().map(|s| (s.track, s.codecs[0].codec)).collect::<Vec<_>>()
    };
    for (codecs, expected) in [
        (&[Codec::Opus, Codec::Vp8][..], (TrackId(2), Codec::Vp8)),
        (&[Codec::Vp8, Codec::Av1][..], (TrackId(1), Codec::Av1)),
    ] {
        let mut server = Answerer::new(1, 1, ConnectionModel::Single, &Codec::ALL);
        let mut client = ClientOfferer::new(2, ConnectionModel::Single, codecs);
        server.add_send(both.clone());
        let offer = client.create_offer(&local("c"));
        let answer = server.handle_offer(&offer, &local("s"), &[]).unwrap();
        assert_eq!(sent(&answer.description), [expected]);
        assert!(answer.unsupported.is_empty());
        server.set_sources(SubscriptionId(1), std::slice::from_ref(&vp8));
        assert_eq!(sent(&server.description()), [(TrackId(2), Codec::Vp8)]);

        let mut server = Offerer::new(1, 1, 0, &Codec::ALL);
        let mut client = ClientAnswerer::new(2, codecs);
        server.add_send(both.clone());
        let offer = server.poll_offer(&local("s")).unwrap();
        let (answer, _) = client.handle_offer(&offer.sdp, &local("c")).unwrap();
        let applied = server.handle_answer(offer.id, &answer).unwrap().unwrap();
        assert_eq!(sent(&applied.description), [expected]);
        server.set_sources(SubscriptionId(1), std::slice::from_ref(&vp8));
        assert_eq!(sent(&server.description()), [(TrackId(2), Codec::Vp8)]);
    }
}

#[test]
fn a_track_that_the_client_cannot_decode_is_named_and_not_waited_for() {
    let mut server = Answerer::new(1, 1, ConnectionModel::Single, &Codec::ALL);
    let mut client = ClientOfferer::new(2, ConnectionModel::Single, &[Codec::Opus, Codec::Vp8]);
    server.add_send(SendTrack { sources: vec![source(1, &[Codec::Av1])], ..send(1, false) });
    let offer = client.create_offer(&local("c"));
    let answer = server.handle_offer(&offer, &local("s"), &[]).unwrap();
    assert_eq!(answer.unsupported, [SubscriptionId(1)]);
    assert_eq!(server.media_sections_requirement(), None);

    let mut server = Offerer::new(1, 1, 0, &Codec::ALL);
    let mut client = ClientAnswerer::new(2, &[Codec::Opus, Codec::Vp8]);
    server.add_send(SendTrack { sources: vec![source(1, &[Codec::Av1])], ..send(1, false) });
    let offer = server.poll_offer(&local("s")).unwrap();
    let (answer, _) = client.handle_offer(&offer.sdp, &local("c")).unwrap();
    let applied = server.handle_answer(offer.id, &answer).unwrap().unwrap();
    assert_eq!(applied.unsupported, [SubscriptionId(1)]);
    assert!(applied.description.send.is_empty());
    let next = server.poll_offer(&local("s")).unwrap();
    assert!(next.mid_to_track_id.is_empty());
    let (answer, _) = client.handle_offer(&next.sdp, &local("c")).unwrap();
    assert!(server.handle_answer(next.id, &answer).unwrap().is_some());
    assert_eq!(server.poll_offer(&local("s")), None);
}

#[test]
fn a_publication_may_be_announced_after_its_section_or_under_another_cid() {
    let mut world = World::new();
    world.client.add_track(local_track(1, true));
    world.client.add_track(local_track(2, false));
    world.negotiate();
    assert!(world.server.description().receive.is_empty());
    assert!(world.server.received().iter().all(|section| section.track.is_none()));
    let late =
        [published(20, "cid-2", TrackKind::Video), published(10, "another", TrackKind::Audio)];
    world.server.match_publications(&late);
    let tracks: Vec<_> = world.server.description().receive.iter().map(|r| r.track).collect();
    assert_eq!(tracks, [TrackId(10), TrackId(20)]);
}

#[test]
fn an_ended_publication_is_not_guessed_for_another_section() {
    let mut world = World::new();
    world.step(Step::Publish(true));
    world.settle();
    let ended = world.publications.clone();
    world.step(Step::Unpublish(0));
    world.client.add_track(local_track(50, true));
    let offer = world.client.create_offer(&local("client0"));
    let answer = world.server.handle_offer(&offer, &local("server0"), &ended).unwrap();
    assert!(answer.description.receive.is_empty());
    let tracks: Vec<_> = answer.received.iter().map(|r| (r.track, r.ended)).collect();
    assert_eq!(tracks, [(None, false), (Some(ended[0].track), true)]);
}

#[test]
fn one_offer_is_outstanding_and_later_changes_are_gathered() {
    let mut server = Offerer::new(1, 1, 0, &Codec::ALL);
    let mut client = ClientAnswerer::new(2, &Codec::ALL);
    let mut answer = |server: &mut Offerer, offer: parlor_sdp::Offer| {
        let (answer, _) = client.handle_offer(&offer.sdp, &local("c")).unwrap();
        server.handle_answer(offer.id, &answer).unwrap().unwrap()
    };
    let first = server.poll_offer(&local("s")).unwrap();
    for number in 1..=3 {
        server.add_send(send(number, true));
        assert_eq!(server.poll_offer(&local("s")), None);
    }
    server.remove_send(SubscriptionId(2));
    assert!(answer(&mut server, first).description.send.is_empty());
    let second = server.poll_offer(&local("s")).unwrap();
    assert_eq!((second.id, second.mid_to_track_id.len()), (1, 2));
    assert_eq!(answer(&mut server, second).description.send.len(), 2);
    assert_eq!(server.poll_offer(&local("s")), None);
}

#[test]
fn freed_sections_of_the_pair_are_offered_inactive_and_then_used_again() {
    use parlor_sdp::text::Direction;
    let mut server = Offerer::new(1, 1, 0, &Codec::ALL);
    let mut client = ClientAnswerer::new(2, &Codec::ALL);
    let mut round = |server: &mut Offerer| {
        let offer = server.poll_offer(&local("s")).unwrap();
        let (answer, _) = client.handle_offer(&offer.sdp, &local("c")).unwrap();
        server.handle_answer(offer.id, &answer).unwrap().unwrap();
        let directions = parse(&offer.sdp).media.iter().map(|m| m.direction).collect::<Vec<_>>();
        let mids = offer.mid_to_track_id.iter().map(|(mid, _)| mid.as_str().to_owned()).collect();
        (directions, mids)
    };
    use Direction::{Inactive, SendRecv};
    server.add_send(send(1, true));
    server.add_send(send(2, false));
    let (_, mids): (_, Vec<String>) = round(&mut server);
    assert_eq!(mids, ["1", "2"]);
    server.remove_send(SubscriptionId(1));
    server.remove_send(SubscriptionId(2));
    assert_eq!(round(&mut server), (vec![SendRecv, Inactive, Inactive], Vec::new()));
    server.add_send(send(3, false));
    let reused = (vec![SendRecv, Inactive, SendRecv], vec!["2".to_owned()]);
    assert_eq!(round(&mut server), reused);
}

/// The section, by its `mid`, in which one track comes, goes and comes again.
fn sections_of_a_returning_track(server: &mut Offerer, rounds: usize) -> Vec<String> {
    let mut client = ClientAnswerer::new(2, &Codec::ALL);
    let mut mids = Vec::new();
    for number in 1..=rounds {
        // Each subscription is new, the track is the same.
        let track = SendTrack { track_id: "TR_returning".into(), ..send(number as u32, false) };
        let subscription = track.subscription;
        for coming in [true, false] {
            if coming {
                server.add_send(track.clone());
            } else {
                server.remove_send(subscription);
            }
            let offer = server.poll_offer(&local("s")).unwrap();
            mids.extend(offer.mid_to_track_id.iter().map(|(mid, _)| mid.as_str().to_owned()));
            let (answer, _) = client.handle_offer(&offer.sdp, &local("c")).unwrap();
            server.handle_answer(offer.id, &answer).unwrap().unwrap();
        }
    }
    mids
}

#[test]
fn a_track_returns_to_its_section_unless_that_is_to_be_avoided() {
    let mut server = Offerer::new(1, 1, 0, &Codec::ALL);
    assert_eq!(sections_of_a_returning_track(&mut server, 3), ["1", "1", "1"]);
    let mut server = Offerer::new(1, 1, 0, &Codec::ALL);
    server.avoid_returns();
    assert_eq!(sections_of_a_returning_track(&mut server, 3), ["1", "2", "3"]);
    // Another track takes what this one has left.
    server.add_send(SendTrack { track_id: "TR_other".into(), ..send(9, false) });
    let offer = server.poll_offer(&local("s")).unwrap();
    assert_eq!(offer.mid_to_track_id[0].0.as_str(), "1");
}

#[test]
fn sections_that_avoid_returns_are_bounded() {
    let mut server = Offerer::new(1, 1, 0, &Codec::ALL);
    server.avoid_returns();
    let mids = sections_of_a_returning_track(&mut server, FRESH_SECTIONS_MAX + 2);
    let last = FRESH_SECTIONS_MAX.to_string();
    assert_eq!(mids[FRESH_SECTIONS_MAX - 1..], [last.as_str(), "1", "1"]);
}

#[test]
fn an_ice_restart_supersedes_an_unanswered_offer() {
    let mut server = Offerer::new(1, 1, 7, &Codec::ALL);
    let mut client = ClientAnswerer::new(2, &Codec::ALL);
    let lost = server.poll_offer(&local("old")).unwrap();
    let (late, _) = client.handle_offer(&lost.sdp, &local("c")).unwrap();
    let restart = server.poll_offer(&local("new")).unwrap();
    assert_eq!(restart.id, lost.id + 1);
    assert_eq!(server.handle_answer(lost.id, &late), Ok(None));
    let (answer, _) = client.handle_offer(&restart.sdp, &local("c")).unwrap();
    assert!(server.handle_answer(restart.id, &answer).unwrap().is_some());
}

#[test]
fn an_answer_to_something_else_is_an_error() {
    let mut server = Offerer::new(1, 1, 7, &Codec::ALL);
    let offer = server.poll_offer(&local("s")).unwrap();
    let error = server.handle_answer(offer.id, &fixture("subscriber.answer")).unwrap_err();
    assert_eq!(error, SdpError::Description("an answer has as many sections as its offer"));
    let error = server.handle_answer(offer.id, "v=0\r\njunk").unwrap_err();
    assert_eq!(error.to_string(), "line 2: a line is a letter, '=' and a value");
}

#[test]
fn a_stream_name_cannot_end_a_line() {
    let mut server = Answerer::new(1, 1, ConnectionModel::Single, &Codec::ALL);
    let mut client = ClientOfferer::new(2, ConnectionModel::Single, &Codec::ALL);
    server.add_send(SendTrack { stream_id: "PA_a|x\r\na=y z".to_owned(), ..send(1, true) });
    let offer = client.create_offer(&local("c"));
    let answer = server.handle_offer(&offer, &local("s"), &[]).unwrap();
    assert!(answer.sdp.contains("a=msid:PA_a|x__a=y_z TR_1\r\n"));
}

/// Each bound holds at its value and one past it.
#[test]
fn what_a_description_can_grow_is_bounded() {
    let head = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n";
    let section = "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n";
    let lines = |line: fn(usize) -> String, count: usize| -> String {
        (0..count).map(|index| line(index) + "\r\n").collect()
    };
    type Line = fn(usize) -> String;
    let in_section: [(usize, Line); 9] = [
        (text::MAX_CANDIDATES, |_| "a=candidate:1 1 udp 1 127.0.0.1 1 typ host".into()),
        (text::MAX_EXTENSIONS, |index| format!("a=extmap:{} urn:x", index % 255 + 1)),
        (text::MAX_SSRC_LINES, |index| format!("a=ssrc:{index} cname:x")),
        (text::MAX_SSRC_GROUPS, |_| "a=ssrc-group:FID 1 2".into()),
        (text::MAX_RIDS, |_| "a=rid:q send".into()),
        (text::MAX_FINGERPRINTS, |_| "a=fingerprint:sha-256 AB:CD".into()),
        (text::MAX_FEEDBACK, |_| "a=rtcp-fb:111 nack".into()),
        (text::MAX_FEEDBACK, |_| "a=rtcp-fb:* nack".into()),
        (text::MAX_FEEDBACK, |index| format!("a=rtcp-fb:{} nack", ["111", "*"][index % 2])),
    ];
    for (limit, line) in in_section {
        let text = |count| format!("{head}{section}{}", lines(line, count));
        assert!(SessionDescription::parse(&text(limit)).is_ok(), "{}", line(0));
        assert!(SessionDescription::parse(&text(limit + 1)).is_err(), "{}", line(0));
    }
    let sections = |count| -> String {
        let media = |index| format!("m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:{index}\r\n");
        head.to_owned() + &(0..count).map(media).collect::<String>()
    };
    assert!(SessionDescription::parse(&sections(text::MAX_SECTIONS)).is_ok());
    assert!(SessionDescription::parse(&sections(text::MAX_SECTIONS + 1)).is_err());
    let long = |length| format!("{head}a={}\r\n", "x".repeat(length - 2));
    assert!(SessionDescription::parse(&long(text::MAX_LINE_BYTES)).is_ok());
    assert!(SessionDescription::parse(&long(text::MAX_LINE_BYTES + 1)).is_err());
    let huge = format!("{head}{}", "b=x\r\n".repeat(text::MAX_SDP_BYTES / 5));
    assert!(SessionDescription::parse(&huge).is_err());
    let formats = |count: usize| -> String {
        let numbers: Vec<_> = (0..count).map(|number| number.to_string()).collect();
        format!("{head}m=audio 9 UDP/TLS/RTP/SAVPF {}\r\na=mid:0\r\n", numbers.join(" "))
    };
    assert!(SessionDescription::parse(&formats(text::MAX_FORMATS)).is_ok());
    assert!(SessionDescription::parse(&formats(text::MAX_FORMATS + 1)).is_err());
}
