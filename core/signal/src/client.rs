//! What a client can be told, by its version and kind.

use crate::device::DisabledCodecs;
use livekit_protocol as proto;
use proto::{client_info::Sdk, request_response::Reason, signal_response::Message};

/// What a client's version and kind change in what it is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Client {
    /// Its protocol version.
    pub protocol: i32,
    /// Its kind.
    pub sdk: Sdk,
    /// Whether it runs in Firefox.
    pub firefox: bool,
    /// Codecs that its device handles badly.
    pub disabled_codecs: DisabledCodecs,
}

impl Client {
    /// Whether the server's offers may make the subscribing connection its primary one.
    pub fn knows_subscriber_primary(&self) -> bool {
        self.protocol >= 3
    }

    /// Whether it can talk to an ICE-lite agent.
    pub fn allows_ice_lite(&self) -> bool {
        self.protocol >= 6 && !self.firefox
    }

    /// Whether it connects to candidates of TCP: all but LiveKit's Go SDK.
    pub fn takes_tcp(&self) -> bool {
        self.sdk != Sdk::Go
    }

    /// Whether it overlooks a track that comes again in the section that it left: the clients on
    /// LiveKit's Rust SDK, where the server offers (`dispatched_streams` in its `rtc_session.rs`).
    pub fn overlooks_returns(&self) -> bool {
        matches!(self.sdk, Sdk::Rust | Sdk::Python | Sdk::Node | Sdk::Cpp | Sdk::Unity)
    }

    /// Whether a media stream may have a name of its own, that all tracks of one source share.
    pub fn knows_stream_names(&self) -> bool {
        self.protocol >= 10 && !self.firefox
    }

    /// Whether it sends nothing again after a resume before which nothing had been sent:
    /// livekit-client, alone and below React Native.
    pub fn forgets_without_a_first_message(&self) -> bool {
        matches!(self.sdk, Sdk::Js | Sdk::ReactNative)
    }

    /// Whether it can be moved to another room with its connection (`room_moved`).
    pub fn knows_moves(&self) -> bool {
        self.protocol >= 16
    }

    /// Whether `leave` can tell it to resume.
    pub fn knows_leave_action(&self) -> bool {
        self.protocol >= 13
    }

    /// The message in the form that this client knows; `None` if it knows none.
    pub fn adapt(&self, message: Message) -> Option<Message> {
        let old_rust = self.sdk == Sdk::Rust && self.protocol < 10;
        match message {
            Message::Leave(leave) => self.adapt_leave(leave).map(Message::Leave),
            Message::TrackUnpublished(ended) if self.protocol < 7 => {
                Some(Message::Mute(proto::MuteTrackRequest { sid: ended.track_sid, muted: true }))
            }
            Message::RequestResponse(response)
                if old_rust || (response.reason() == Reason::Ok && self.protocol < 15) =>
            {
                None
            }
            Message::TrackSubscribed(_) if old_rust => None,
            Message::ConnectionQuality(_) if self.protocol < 5 => None,
            Message::SpeakersChanged(_) if self.protocol < 3 => None,
            message => Some(message),
        }
    }

    /// Before version 13 there was no `action`: a client was told whether to come back at all.
    fn adapt_leave(&self, mut leave: proto::LeaveRequest) -> Option<proto::LeaveRequest> {
        use proto::leave_request::Action;
        if self.knows_leave_action() {
            return Some(leave);
        }
        match leave.action() {
            Action::Resume => return None,
            Action::Reconnect => leave.can_reconnect = true,
            Action::Disconnect => {}
        }
        leave.action = Action::Disconnect.into();
        Some(leave)
    }
}

impl From<&proto::ClientInfo> for Client {
    fn from(info: &proto::ClientInfo) -> Self {
        Self {
            protocol: info.protocol,
            sdk: info.sdk(),
            firefox: info.browser.eq_ignore_ascii_case("firefox"),
            disabled_codecs: DisabledCodecs::of(info),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::response::{leave, request_response};
    use parlor_model::DisconnectReason;
    use proto::leave_request::Action;

    fn client(protocol: i32, sdk: Sdk) -> Client {
        Client { protocol, sdk, firefox: false, disabled_codecs: DisabledCodecs::default() }
    }

    #[test]
    fn old_clients_learn_of_a_reconnect_by_the_old_flag() {
        let Some(Message::Leave(leave)) =
            client(12, Sdk::Js).adapt(leave(DisconnectReason::StateMismatch))
        else {
            panic!()
        };
        assert!(leave.can_reconnect);
        assert_eq!(leave.action(), Action::Disconnect);
        let resume = proto::LeaveRequest { action: Action::Resume.into(), ..Default::default() };
        assert_eq!(client(12, Sdk::Js).adapt(Message::Leave(resume.clone())), None);
        assert!(client(13, Sdk::Js).adapt(Message::Leave(resume)).is_some());
    }

    #[test]
    fn versions_decide_what_is_said() {
        let ok = || request_response(1, Reason::Ok, "", None);
        assert_eq!(client(14, Sdk::Js).adapt(ok()), None);
        assert!(client(15, Sdk::Js).adapt(ok()).is_some());
        let refusal = || request_response(1, Reason::NotAllowed, "", None);
        assert!(client(14, Sdk::Js).adapt(refusal()).is_some());
        assert_eq!(client(9, Sdk::Rust).adapt(refusal()), None);
        let ended =
            Message::TrackUnpublished(proto::TrackUnpublishedResponse { track_sid: "TR_1".into() });
        let Some(Message::Mute(mute)) = client(6, Sdk::Js).adapt(ended) else { panic!() };
        assert_eq!((mute.sid.as_str(), mute.muted), ("TR_1", true));
    }
}
