//! Data tracks: announced and asked for on the signal socket, carried from data channel to data
//! channel.

use crate::{host::Host, outside::Outside};
use bytes::Bytes;
use livekit_protocol as proto;
use parlor_model::{DataChannel, ParticipantSid, TrackSid};
use parlor_room::{Command, DataTrack, Refusal};
use parlor_signal::{data, info, response};
use prost::Message as _;
use proto::{
    request_response::{Reason, Request as Echo},
    signal_response::Message,
};

impl Host {
    pub(crate) fn publish_data_track(
        &mut self,
        cx: &mut Outside,
        now: parlor_model::Now,
        sid: &ParticipantSid,
        request: proto::PublishDataTrackRequest,
    ) {
        let track = DataTrack {
            sid: cx.sid("DTR_").into(),
            // A handle that does not fit is as invalid as 0.
            handle: u16::try_from(request.pub_handle).unwrap_or(0),
            name: request.name.clone(),
            announcement: request.encode_to_vec(),
        };
        let info = info::data_track_info(&track);
        let command = Command::PublishDataTrack { participant: sid.clone(), track };
        let published = match cx.config.room_rules.data_tracks {
            true => self.room.apply(now, command),
            false => Err(Refusal::NotAllowed),
        };
        let message = match published {
            Ok(()) => {
                self.settle(cx, now);
                let info = Some(info);
                Message::PublishDataTrackResponse(proto::PublishDataTrackResponse { info })
            }
            Err(refusal) => {
                let (reason, text) = reason_of(&refusal);
                let echo = Some(Echo::PublishDataTrack(request));
                response::request_response(0, reason, text, echo)
            }
        };
        self.send(cx, sid, message);
    }

    pub(crate) fn unpublish_data_track(
        &mut self,
        cx: &mut Outside,
        now: parlor_model::Now,
        sid: &ParticipantSid,
        request: proto::UnpublishDataTrackRequest,
    ) {
        let handle = u16::try_from(request.pub_handle).unwrap_or(0);
        let known = self.room.participant(sid).and_then(|publisher| {
            publisher.data_tracks.iter().find(|track| track.handle == handle)
        });
        let info = known.map(info::data_track_info);
        let command = Command::UnpublishDataTrack { participant: sid.clone(), handle };
        let message = match self.room.apply(now, command) {
            Ok(()) => {
                Message::UnpublishDataTrackResponse(proto::UnpublishDataTrackResponse { info })
            }
            Err(_) => {
                let echo = Some(Echo::UnpublishDataTrack(request));
                response::request_response(0, Reason::NotFound, "", echo)
            }
        };
        self.send(cx, sid, message);
    }

    pub(crate) fn update_data_subscription(
        &mut self,
        cx: &mut Outside,
        now: parlor_model::Now,
        sid: &ParticipantSid,
        request: &proto::UpdateDataSubscription,
    ) {
        for update in &request.updates {
            let (participant, track) = (sid.clone(), update.track_sid.as_str().into());
            let subscribe = update.subscribe;
            self.apply(now, Command::SubscribeData { participant, track, subscribe });
        }
        self.settle(cx, now);
    }

    /// Gives a subscriber a handle for a data track, or takes it away.
    pub(crate) fn data_subscription_changed(
        &mut self,
        cx: &mut Outside,
        subscriber: &ParticipantSid,
        track: TrackSid,
        active: bool,
    ) {
        let first = cx.data_handle();
        let Some(member) = self.members.get_mut(subscriber) else { return };
        member.data_handles.retain(|_, known| *known != track);
        if active {
            let handle = member.next_data_handle.get_or_insert(first);
            while *handle == 0 || member.data_handles.contains_key(handle) {
                *handle = handle.wrapping_add(1);
            }
            member.data_handles.insert(*handle, track);
            *handle = handle.wrapping_add(1);
        }
        self.send_data_handles(cx, subscriber);
    }

    pub(crate) fn send_data_handles(&self, cx: &mut Outside, subscriber: &ParticipantSid) {
        use proto::data_track_subscriber_handles::PublishedDataTrack;
        let Some(member) = self.members.get(subscriber) else { return };
        let describe = |(handle, track): (&u16, &TrackSid)| {
            let publishes = |p: &&parlor_room::Participant| {
                p.data_tracks.iter().any(|published| published.sid == *track)
            };
            let publisher = self.room.participants().find(publishes)?;
            let published = PublishedDataTrack {
                publisher_identity: publisher.info.identity.to_string(),
                publisher_sid: publisher.info.sid.to_string(),
                track_sid: track.to_string(),
            };
            Some((u32::from(*handle), published))
        };
        let sub_handles = member.data_handles.iter().filter_map(describe).collect();
        let handles = proto::DataTrackSubscriberHandles { sub_handles };
        self.send(cx, subscriber, Message::DataTrackSubscriberHandles(handles));
    }

    /// Carries a packet of a data track to its subscribers, under the handle that each has.
    pub(crate) fn handle_data_track_packet(
        &mut self,
        cx: &mut Outside,
        sid: &ParticipantSid,
        packet: &Bytes,
    ) {
        let Some(handle) = data::data_track_handle(packet) else {
            cx.counters.malformed_packets += 1;
            return;
        };
        let Some((track, subscribers)) = self.room.data_track_subscribers(sid, handle) else {
            cx.counters.forbidden_packets += 1;
            return;
        };
        let channel = DataChannel::DataTrack;
        for subscriber in subscribers {
            let Some(member) = self.members.get(subscriber) else { continue };
            let handle = member.data_handles.iter().find(|(_, known)| **known == track.sid);
            let (Some((handle, _)), Some(peer)) = (handle, member.data_peer(channel)) else {
                cx.counters.lost_packets += 1;
                continue;
            };
            let data = data::with_data_track_handle(packet, *handle);
            cx.send_data(channel, &data, None, [peer]);
        }
    }
}

fn reason_of(refusal: &Refusal) -> (Reason, &'static str) {
    match refusal {
        Refusal::NotAllowed => (Reason::NotAllowed, "does not have permission to publish data"),
        Refusal::InvalidHandle => (Reason::InvalidHandle, "handle should be > 0 AND < 65536"),
        Refusal::InvalidName => {
            (Reason::InvalidName, "name should not be empty and should not exceed 256 characters")
        }
        Refusal::DuplicateHandle => {
            (Reason::DuplicateHandle, "a data track with same handle already exists")
        }
        Refusal::DuplicateName => {
            (Reason::DuplicateName, "a data track with same name already exists")
        }
        Refusal::LimitExceeded { .. } => (Reason::LimitExceeded, ""),
        _ => (Reason::NotFound, ""),
    }
}
