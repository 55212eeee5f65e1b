//! A hundred publications to one subscriber, again and again: sections are used again, and
//! descriptions do not grow.
#![allow(clippy::unwrap_used)]

mod common;

use common::{ALL_CODECS, audio, local, video};
use parlor_sdp::{
    Answerer, ConnectionModel, Offerer, SendTrack,
    client::{ClientAnswerer, ClientOfferer},
};

const TRACKS: u32 = 100;
const ROUNDS: u32 = 5;
/// Bytes of a description for each track that it carries: about 40 lines of video.
const BYTES_A_TRACK: usize = 3_000;

/// The tracks of a round: half are sounds.
fn tracks(round: u32) -> Vec<SendTrack> {
    let track = |number: u32| {
        let (id, sid) = (round * TRACKS + number, format!("TR_{round}_{number}"));
        match number % 2 {
            0 => audio(id, "PA_a", &sid, 10_000 + id),
            _ => video(id, "PA_a", &sid, 10_000 + id, 50_000 + id),
        }
    };
    (0..TRACKS).map(track).collect()
}

#[test]
fn the_single_connection_uses_its_sections_again() {
    let mut server = Answerer::new(1, 1, ConnectionModel::Single, &ALL_CODECS);
    let mut client = ClientOfferer::new(2, ConnectionModel::Single, &ALL_CODECS);
    let mut sizes = Vec::new();
    let mut negotiate = |server: &mut Answerer| loop {
        let offer = client.create_offer(&local("c"));
        let answer = server.handle_offer(&offer, &local("s"), &[]).unwrap();
        client.handle_answer(&answer.sdp).unwrap();
        match server.media_sections_requirement() {
            Some(requirement) => client.add_receive_sections(requirement),
            None => break (answer.description.send.len(), answer.sdp.len()),
        }
    };
    for round in 0..ROUNDS {
        let tracks = tracks(round);
        tracks.iter().for_each(|track| server.add_send(track.clone()));
        let (sent, bytes) = negotiate(&mut server);
        assert_eq!(sent, TRACKS as usize);
        assert!(bytes < TRACKS as usize * BYTES_A_TRACK, "{bytes}");
        sizes.push(bytes);
        tracks.iter().for_each(|track| assert!(server.remove_send(track.subscription)));
        assert_eq!(negotiate(&mut server).0, 0);
    }
    // A description of a later round is as long as that of the first, but for longer numbers.
    let slack = TRACKS as usize * 20;
    assert!(sizes.iter().all(|size| *size < sizes[0] + slack), "{sizes:?}");
}

#[test]
fn the_pair_uses_its_sections_again() {
    let mut server = Offerer::new(1, 1, 0, &ALL_CODECS);
    let mut client = ClientAnswerer::new(2, &ALL_CODECS);
    let mut sizes = Vec::new();
    let mut negotiate = |server: &mut Offerer| {
        let (mut sent, mut bytes) = (0, 0);
        while let Some(offer) = server.poll_offer(&local("s")) {
            let (answer, _) = client.handle_offer(&offer.sdp, &local("c")).unwrap();
            let applied = server.handle_answer(offer.id, &answer).unwrap().unwrap();
            (sent, bytes) = (applied.description.send.len(), offer.sdp.len());
        }
        (sent, bytes)
    };
    for round in 0..ROUNDS {
        let tracks = tracks(round);
        tracks.iter().for_each(|track| server.add_send(track.clone()));
        let (sent, bytes) = negotiate(&mut server);
        assert_eq!(sent, TRACKS as usize);
        assert!(bytes < TRACKS as usize * BYTES_A_TRACK, "{bytes}");
        sizes.push(bytes);
        tracks.iter().for_each(|track| assert!(server.remove_send(track.subscription)));
        assert_eq!(negotiate(&mut server).0, 0);
    }
    let slack = TRACKS as usize * 20;
    assert!(sizes.iter().all(|size| *size < sizes[0] + slack), "{sizes:?}");
}
