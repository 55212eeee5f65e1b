//! Coming in, and what time does to those who are in.

use crate::{
    connection::Connection,
    host::Host,
    io::{Frame, Output, SessionId},
    member::{ANSWER_TIMEOUT, JOIN_TIMEOUT, Member, SIGNAL_TIMEOUT},
    outside::Outside,
    peer::PeerSettings,
};
use parlor_model::{DisconnectReason, Now, ParticipantSid, ShardId};
use parlor_room::{Command, NewParticipant, Refusal};
use parlor_signal::{ConnectRequest, ConnectionModel, client::Client};
use std::time::Instant;

/// Most tracks that a join may announce at once.
pub const JOIN_TRACKS_MAX: usize = 20;

impl Host {
    /// Lets a participant in, whose connections will be on a media thread: the socket is accepted
    /// once it exists in the room.
    pub(crate) fn join(
        &mut self,
        cx: &mut Outside,
        now: Now,
        session: SessionId,
        request: ConnectRequest,
        shard: ShardId,
    ) -> Result<(), Refusal> {
        let sid = ParticipantSid::from(cx.sid("PA_"));
        let new = new_participant(sid.clone(), &request);
        let permissions = new.permissions.clone();
        self.command(cx, now, Command::Join(Box::new(new)))?;
        tracing::info!(
            room = %self.room.name(),
            participant = %sid,
            identity = request.claims.identity(),
            protocol = request.protocol,
            trace = request.trace,
            connection = ?request.connection,
            "joined"
        );

        let client = Client::from(&request.client_info);
        let identity = request.claims.identity();
        let tcp_only = self.preferences.prefers_tcp(now.instant, cx.config.tcp, identity);
        let settings = PeerSettings {
            address: self.address(&sid),
            shard,
            ice_lite: cx.config.ice_lite && !request.disable_ice_lite && client.allows_ice_lite(),
            publish_codecs: client.disabled_codecs.published(&cx.config.codecs),
            receive_codecs: client.disabled_codecs.received(&cx.config.codecs),
            playout_delay: self.room.settings().playout_delay.is_some(),
            tcp_only,
        };
        let connection = match request.connection {
            ConnectionModel::Single => Connection::single(cx, now, settings),
            ConnectionModel::Pair => {
                let primary = client.knows_subscriber_primary() && permissions.can_subscribe;
                Connection::pair(cx, now, settings, &client, primary)
            }
        };
        let mut member = Member::new(now, sid.clone(), session, client, request.claims, connection);
        member.allows_pause = request.subscriber_allow_pause.unwrap_or(true);
        member.adaptive_stream = request.adaptive_stream;
        member.syncs_streams = self.room.settings().sync_streams && client.knows_stream_names();
        cx.outputs.push_back(Output::Accept { session });
        cx.sessions.insert(session, self.address(&sid));
        self.send_join(cx, now, &sid, member, tcp_only && !cx.config.tcp.only);
        self.send_token(cx, now, &sid);
        self.apply(now, Command::SetJoined(sid.clone()));
        self.tell_agents_of_join(cx, now, &sid);
        for add in request.add_track_requests.into_iter().take(JOIN_TRACKS_MAX) {
            self.handle_add_track(cx, now, &sid, add);
        }
        // Subscriptions to what is there already ride on the first description.
        self.unsettled.insert(sid.clone());
        self.settle(cx, now);
        if let Some(offer) = request.publisher_offer {
            self.handle_offer(cx, now, &sid, &offer);
        }
        Ok(())
    }

    fn send_join(
        &mut self,
        cx: &mut Outside,
        now: Now,
        sid: &ParticipantSid,
        member: Member,
        is_fallback: bool,
    ) {
        let Some(this) = self.room.participant(sid) else { return };
        let secrets = self.secrets();
        let mut join = cx.server.join(&self.room, this, &member.client, &secrets, now.unix);
        if member.connection.is_subscriber_primary() {
            join.subscriber_primary();
        }
        if is_fallback {
            join.fall_back();
        }
        if let Some(session) = member.session {
            // A client has said nothing yet, so it has not spoken text.
            let frame = Frame::Binary(join.binary(&self.room, this, &cx.config.region));
            cx.outputs.push_back(Output::Frame { session, frame });
        }
        cx.load.add(member.connection.shard());
        self.members.insert(sid.clone(), Box::new(member));
    }

    /// When something has to happen in this room.
    pub(crate) fn poll_timeout(&mut self) -> Option<Instant> {
        let members = self.members.deadline().into_iter();
        let rpcs = self.rpcs.values().map(|rpc| rpc.due);
        members.chain(self.room.poll_timeout()).chain(rpcs).chain(self.demand_deadline()).min()
    }

    /// Does what has become due.
    pub(crate) fn handle_timeout(&mut self, cx: &mut Outside, now: Now) {
        self.room.handle_timeout(now);
        self.expire_rpcs(cx, now.instant);
        self.expire_demand(now.instant);
        for sid in self.members.due(now.instant) {
            self.handle_member_timeout(cx, now, &sid);
        }
        self.settle(cx, now);
    }

    fn handle_member_timeout(&mut self, cx: &mut Outside, now: Now, sid: &ParticipantSid) {
        let Some(member) = self.members.get_mut(sid) else { return };
        let is_over = |since: Instant, limit| now.instant >= since + limit;
        cx.counters.lost_packets += member.held.expire(now.instant);
        if member.speaks_until.is_some_and(|end| now.instant >= end) {
            self.end_simulated_speech(cx, sid);
        }
        let Some(member) = self.members.get_mut(sid) else { return };
        if !member.active && is_over(member.joined, JOIN_TIMEOUT) {
            return self.apply(now, Command::Leave(sid.clone(), DisconnectReason::JoinFailure));
        }
        self.expire_missing(cx, now.instant, sid);
        let Some(member) = self.members.get_mut(sid) else { return };
        if member.ends_at.is_some_and(|due| now.instant >= due) {
            let reason = DisconnectReason::ConnectionTimeout;
            return self.apply(now, Command::Leave(sid.clone(), reason));
        }
        if member.session.is_none() {
            return;
        }
        let unanswered = member.connection.unanswered_since();
        if unanswered.is_some_and(|since| is_over(since, ANSWER_TIMEOUT)) {
            return self.apply(now, Command::Leave(sid.clone(), DisconnectReason::StateMismatch));
        }
        if member.pings && is_over(member.last_signal, SIGNAL_TIMEOUT) {
            tracing::info!(room = %self.room.name(), participant = %sid, "signal timed out");
            return self.close_session(cx, now, sid);
        }
        if now.instant >= member.refresh_at {
            self.send_token(cx, now, sid);
        }
    }
}

fn new_participant(sid: ParticipantSid, request: &ConnectRequest) -> NewParticipant {
    let claims = &request.claims;
    let mut attributes = claims.attributes.clone();
    attributes.extend(request.attributes.clone());
    let metadata = if request.metadata.is_empty() { &claims.metadata } else { &request.metadata };
    NewParticipant {
        sid,
        identity: claims.identity().into(),
        name: claims.name.clone(),
        metadata: metadata.clone(),
        attributes,
        permissions: claims.video.clone().unwrap_or_default().permissions(),
        kind: claims.participant_kind(),
        kind_details: Vec::new(),
        auto_subscribe: request.auto_subscribe,
        auto_subscribe_data: request.auto_subscribe_data_track,
        client_protocol: request.client_info.client_protocol,
        capabilities: request.client_info.capabilities.clone(),
    }
}
