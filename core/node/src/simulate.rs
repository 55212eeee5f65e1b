//! Failures that a client asks for, to test how it takes them.

use crate::{host::Host, outside::Outside, resume::SimulatedDrop};
use livekit_protocol as proto;
use parlor_model::{DisconnectReason, Now, ParticipantSid};
use parlor_room::Command;
use parlor_sfu::command::MediaCommand;
use proto::{signal_response::Message, simulate_scenario::Scenario};
use std::time::Duration;

/// Longest simulated speech.
pub const SIMULATED_SPEECH_MAX: Duration = Duration::from_secs(3600);
const SIMULATED_LEVEL: f32 = 0.9;

impl Host {
    pub(crate) fn handle_simulate(
        &mut self,
        cx: &mut Outside,
        now: Now,
        sid: &ParticipantSid,
        simulate: proto::SimulateScenario,
    ) {
        let Some(member) = self.members.get_mut(sid) else { return };
        let (reason, silently) = match simulate.scenario {
            Some(Scenario::ServerLeave(_)) => (DisconnectReason::ServerShutdown, false),
            Some(Scenario::NodeFailure(_)) => (DisconnectReason::ServerShutdown, true),
            Some(Scenario::Migration(_)) => (DisconnectReason::Migration, true),
            Some(Scenario::LeaveRequestFullReconnect(_)) => {
                (DisconnectReason::StateMismatch, false)
            }
            Some(Scenario::DisconnectSignalOnResume(_)) => {
                member.drop_on_resume = Some((SimulatedDrop::AfterMessages, now.instant));
                return;
            }
            Some(Scenario::DisconnectSignalOnResumeNoMessages(_)) => {
                member.drop_on_resume = Some((SimulatedDrop::Upgrade, now.instant));
                return;
            }
            Some(Scenario::SpeakerUpdate(seconds)) => {
                let seconds = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
                member.speaks_until = Some(now.instant + seconds.min(SIMULATED_SPEECH_MAX));
                return self.send_simulated_speaker(cx, sid, SIMULATED_LEVEL);
            }
            Some(Scenario::SwitchCandidateProtocol(protocol)) => {
                let protocol = proto::CandidateProtocol::try_from(protocol);
                return self.switch_protocol(cx, now, sid, protocol.unwrap_or_default());
            }
            Some(Scenario::SubscriberBandwidth(bps)) => {
                let Some(peer) = member.connection.receiving() else { return };
                let bps = u64::try_from(bps).ok().filter(|bps| *bps > 0);
                return cx.command(peer.id.home(), MediaCommand::LimitPeer { peer: peer.id, bps });
            }
            None => return,
        };
        member.leaves_silently = silently;
        self.apply(now, Command::Leave(sid.clone(), reason));
    }

    /// The end of a simulated speech.
    pub(crate) fn end_simulated_speech(&mut self, cx: &mut Outside, sid: &ParticipantSid) {
        if self.members.get_mut(sid).is_some_and(|member| member.speaks_until.take().is_some()) {
            self.send_simulated_speaker(cx, sid, 0.0);
        }
    }

    fn send_simulated_speaker(&self, cx: &mut Outside, sid: &ParticipantSid, level: f32) {
        let speaker = proto::SpeakerInfo { sid: sid.to_string(), level, active: level > 0.0 };
        let changed = proto::SpeakersChanged { speakers: vec![speaker] };
        self.send(cx, sid, Message::SpeakersChanged(changed));
    }
}
