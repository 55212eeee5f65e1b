//! A frame that is lost for good breaks the chain that it is of: whoever watches what the chain
//! protects gets what can still be decoded, and a keyframe is asked for without its help.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{
    World,
    layered::{Coding, DESCRIPTOR_ID, LayeredSource, Name},
    media::*,
    ms,
};
use parlor_model::{Codec, Ssrc};
use parlor_rtp::rtcp::{self, Rtcp};

const OUT: Ssrc = Ssrc(2000);
/// Pictures that pass until a lost frame is given up, at 30 a second, and some more.
const GIVEN_UP: u32 = 15 + 3;

/// A publisher whose lost packets are never sent again, and somebody who watches all of it.
struct Call {
    world: World,
    source: LayeredSource,
    transport: u16,
}

impl Call {
    fn new(key_only: bool) -> Self {
        let mut world = World::new();
        let (alice, bob) = (world.connect(1), world.connect(2));
        let mut section = video_section("1", 11, &[]);
        section.codecs = vec![binding(Codec::Av1, 45, Some(46))];
        section.extensions.dependency_descriptor = Some(DESCRIPTOR_ID);
        world.publish(alice, vec![section]);
        let mut subscription = video_subscription("1", 21, 11, OUT.0);
        subscription.codecs = vec![binding(Codec::Av1, 45, Some(46))];
        subscription.extensions.dependency_descriptor = Some(DESCRIPTOR_ID);
        // Who gives no feedback has all layers from the start.
        subscription.extensions.transport_cc = None;
        world.subscribe(bob, vec![subscription]);
        let coding =
            Coding { codec: Codec::Av1, spatial: 3, temporal: 3, key_only, descriptor: true };
        Self { world, source: LayeredSource::new(coding, 50, None), transport: 0 }
    }

    /// A picture, of which a spatial layer may be lost.
    fn picture(&mut self, keyframe: bool, lost: Option<u8>) {
        for packet in self.source.next(keyframe, &mut self.transport) {
            if lost != Some(Name::of(&packet).frame.2) {
                self.world.clients[0].send_rtp(&packet);
            }
        }
        self.world.run(ms(33));
    }

    fn pictures(&mut self, count: u32) {
        (0..count).for_each(|_| self.picture(false, None));
    }

    /// Until the next picture is of this temporal layer.
    fn until_temporal(&mut self, temporal: u8) {
        let at = [0, 2, 1, 2];
        while at[self.source.pictures as usize % 4] != temporal {
            self.picture(false, None);
        }
    }

    fn keyframes_asked(&self) -> usize {
        let compounds = self.world.clients[0].received_rtcp.iter();
        let packets = compounds.flat_map(|(_, compound)| rtcp::packets(compound));
        packets.filter(|packet| matches!(packet, Rtcp::PictureLossIndication(_))).count()
    }

    /// The spatial layers of the last packets that came.
    fn last_layers(&self, packets: usize) -> Vec<u8> {
        let packets_received = self.world.clients[1].packets(OUT);
        let last = packets_received[packets_received.len() - packets..].iter();
        let mut layers: Vec<_> = last.map(|packet| Name::of(packet.payload()).frame.2).collect();
        layers.sort_unstable();
        layers.dedup();
        layers
    }

    fn received(&self) -> usize {
        self.world.clients[1].packets(OUT).len()
    }

    fn assert_sound(&self) {
        self.world.assert_clean();
        let checker = &self.world.clients[1].checker;
        assert_eq!(checker.descriptor_faults(OUT), &[]);
    }
}

#[test]
fn a_lost_frame_of_the_base_in_l3t3_key_stops_what_can_not_be_decoded_and_asks_for_a_keyframe() {
    let mut call = Call::new(true);
    call.picture(true, None);
    call.until_temporal(0);
    let asked = call.keyframes_asked();
    call.picture(false, Some(2));
    call.pictures(10);
    assert_eq!(call.keyframes_asked(), asked, "it may still be repaired");
    assert_eq!(call.last_layers(6), [2]);
    call.pictures(GIVEN_UP - 10);
    assert!(call.keyframes_asked() > asked);
    let received = call.received();
    call.pictures(10);
    assert_eq!(call.received(), received, "nothing of it can be decoded");
    call.picture(true, None);
    call.pictures(4);
    assert_eq!(call.last_layers(4), [2]);
    call.assert_sound();
}

#[test]
fn a_lost_frame_of_the_highest_layer_in_l3t3_leaves_those_below() {
    let mut call = Call::new(false);
    call.picture(true, None);
    call.until_temporal(0);
    let asked = call.keyframes_asked();
    call.picture(false, Some(2));
    call.pictures(GIVEN_UP + 4);
    assert!(call.keyframes_asked() > asked);
    assert_eq!(call.last_layers(8), [0, 1]);
    call.picture(true, None);
    call.pictures(4);
    assert_eq!(call.last_layers(12), [0, 1, 2]);
    call.assert_sound();
}

#[test]
fn what_is_not_needed_may_be_lost() {
    let mut call = Call::new(true);
    call.picture(true, None);
    // Nothing depends on it.
    call.until_temporal(2);
    call.picture(false, Some(2));
    // Of a layer that the watched one does not need.
    call.until_temporal(0);
    call.picture(false, Some(1));
    call.pictures(40);
    assert_eq!(call.keyframes_asked(), 0, "not even as it began: its first frame was one");
    assert_eq!(call.last_layers(8), [2]);
    call.assert_sound();
}
