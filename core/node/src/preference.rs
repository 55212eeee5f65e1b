//! What a participant's connections go over: anything, or TCP where UDP has proven no good.

use crate::{config::TcpPolicy, host::Host, outside::Outside};
use livekit_protocol::CandidateProtocol;
use parlor_model::{Now, ParticipantSid};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// How long a preference holds for the next session of its identity, as LiveKit's.
pub const PREFERENCE_TTL: Duration = Duration::from_secs(300);
/// Most identities of a room that have one; the oldest goes for a new one.
pub const PREFERENCES_MAX: usize = 1024;
/// A connection that is lost so soon was no good.
const SHORT_LIVED: Duration = Duration::from_secs(90);
/// Nor is one that is lost twice within this time.
const REPEATED: Duration = Duration::from_secs(60);
/// Without a signal for so long it is not UDP that has failed, but the network.
const LIVE_SIGNAL: Duration = Duration::from_secs(15);

/// The identities of a room that are to use TCP only, and since when.
#[derive(Debug, Default)]
pub(crate) struct Preferences {
    tcp_since: BTreeMap<String, Instant>,
}

impl Preferences {
    /// Whether an identity is to use TCP only.
    pub(crate) fn prefers_tcp(&self, now: Instant, policy: TcpPolicy, identity: &str) -> bool {
        let since = self.tcp_since.get(identity);
        policy.only || since.is_some_and(|since| now < *since + PREFERENCE_TTL)
    }

    fn set(&mut self, now: Instant, identity: &str, tcp: bool) {
        self.tcp_since.remove(identity);
        if !tcp {
            return;
        }
        if self.tcp_since.len() >= PREFERENCES_MAX {
            let oldest = self.tcp_since.iter().min_by_key(|(_, since)| **since);
            if let Some(oldest) = oldest.map(|(identity, _)| identity.clone()) {
                self.tcp_since.remove(&oldest);
            }
        }
        self.tcp_since.insert(identity.to_owned(), now);
    }
}

impl Host {
    /// Carries out `switch_candidate_protocol`: for every session to come, and for ICE restarts
    /// of this one. The connection that we offer is restarted at once; the other one the client
    /// restarts when it pleases. TLS means TURN, which is not configured: TCP comes nearest.
    pub(crate) fn switch_protocol(
        &mut self,
        cx: &mut Outside,
        now: Now,
        sid: &ParticipantSid,
        protocol: CandidateProtocol,
    ) {
        self.prefer_tcp(cx, now, sid, protocol != CandidateProtocol::Udp);
        if let Some(member) = self.members.get_mut(sid) {
            member.connection.restart_ice(cx);
            self.unsettled.insert(sid.clone());
        }
    }

    fn prefer_tcp(&mut self, cx: &Outside, now: Now, sid: &ParticipantSid, tcp: bool) {
        let Some(participant) = self.room.participant(sid) else { return };
        let identity = participant.info.identity.as_str();
        self.preferences.set(now.instant, identity, tcp);
        let tcp = self.preferences.prefers_tcp(now.instant, cx.config.tcp, identity);
        if let Some(member) = self.members.get_mut(sid) {
            member.connection.prefer_tcp(tcp);
        }
    }

    /// A peer has lost its path, or never found one. Where that is the fault of UDP, the next
    /// attempt is made over TCP.
    pub(crate) fn note_lost_path(&mut self, cx: &Outside, now: Now, sid: &ParticipantSid) {
        let Some(member) = self.members.get_mut(sid) else { return };
        let policy = cx.config.tcp;
        let before = member.path_lost_at.replace(now.instant);
        let within = |since: Instant, limit| now.instant < since + limit;
        let is_repeated = before.is_some_and(|before| within(before, REPEATED));
        let is_short_lived = member.active_since.is_none_or(|since| within(since, SHORT_LIVED));
        let threshold = policy.fallback_rtt_threshold_ms;
        if policy.fallback
            && (is_short_lived || is_repeated)
            && within(member.last_signal, LIVE_SIGNAL)
            && (threshold == 0 || member.signal_rtt_ms < threshold)
            && member.client.takes_tcp()
        {
            tracing::info!(room = %self.room.name(), participant = %sid, "TCP is tried next");
            self.prefer_tcp(cx, now, sid, true);
        }
    }
}
