//! A hundred publications to one subscriber, again and again: sections are used again, and
//! descriptions do not grow.
#![allow(clippy::unwrap_used)]

mod common;

use common::{audio, local, video};
use parlor_model::Codec;
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

/// A step of a round, after which both ends agree.
enum Step<'a> {
    Add(&'a [SendTrack]),
    Remove(&'a [SendTrack]),
}

/// Adds and removes a hundred tracks again and again; a description stays bounded, and no round's
/// is longer than the first's but for longer numbers. `negotiate` returns how many are sent after a
/// step, and the bytes of the server's description.
fn rounds(mut negotiate: impl FnMut(Step) -> (usize, usize)) {
    let mut sizes = Vec::new();
    for round in 0..ROUNDS {
        let tracks = tracks(round);
        let (sent, bytes) = negotiate(Step::Add(&tracks));
        assert_eq!(sent, TRACKS as usize);
        assert!(bytes < TRACKS as usize * BYTES_A_TRACK, "{bytes}");
        sizes.push(bytes);
        assert_eq!(negotiate(Step::Remove(&tracks)).0, 0);
    }
    let slack = TRACKS as usize * 20;
    assert!(sizes.iter().all(|size| *size < sizes[0] + slack), "{sizes:?}");
}

#[test]
fn the_single_connection_uses_its_sections_again() {
    let mut server = Answerer::new(1, 1, ConnectionModel::Single, &Codec::ALL);
    let mut client = ClientOfferer::new(2, ConnectionModel::Single, &Codec::ALL);
    rounds(|step| {
        match step {
            Step::Add(tracks) => tracks.iter().for_each(|track| server.add_send(track.clone())),
            Step::Remove(tracks) => {
                tracks.iter().for_each(|track| assert!(server.remove_send(track.subscription)));
            }
        }
        loop {
            let offer = client.create_offer(&local("c"));
            let answer = server.handle_offer(&offer, &local("s"), &[]).unwrap();
            client.handle_answer(&answer.sdp).unwrap();
            match server.media_sections_requirement() {
                Some(requirement) => client.add_receive_sections(requirement),
                None => return (answer.description.send.len(), answer.sdp.len()),
            }
        }
    });
}

#[test]
fn the_pair_uses_its_sections_again() {
    let mut server = Offerer::new(1, 1, 0, &Codec::ALL);
    let mut client = ClientAnswerer::new(2, &Codec::ALL);
    rounds(|step| {
        match step {
            Step::Add(tracks) => tracks.iter().for_each(|track| server.add_send(track.clone())),
            Step::Remove(tracks) => {
                tracks.iter().for_each(|track| assert!(server.remove_send(track.subscription)));
            }
        }
        let (mut sent, mut bytes) = (0, 0);
        while let Some(offer) = server.poll_offer(&local("s")) {
            let (answer, _) = client.handle_offer(&offer.sdp, &local("c")).unwrap();
            let applied = server.handle_answer(offer.id, &answer).unwrap().unwrap();
            (sent, bytes) = (applied.description.send.len(), offer.sdp.len());
        }
        (sent, bytes)
    });
}
