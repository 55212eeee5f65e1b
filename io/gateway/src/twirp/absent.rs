//! Methods that need something beside the server: egress and calls over SIP. While nothing of the kind is attached they answer as LiveKit does then (trace 09).

use super::{Answer, Encoding, error_answer};
use http::StatusCode;
use parlor_signal::Claims;
use prost::Message;

const EGRESS: &[&str] = &[
    "StartEgress",
    "StartRoomCompositeEgress",
    "StartWebEgress",
    "StartParticipantEgress",
    "StartTrackCompositeEgress",
    "StartTrackEgress",
    "UpdateLayout",
    "UpdateStream",
    "ListEgress",
    "StopEgress",
];
const SIP: &[&str] = &["CreateSIPParticipant", "TransferSIPParticipant"];

/// The service and method of a path, if they are of one of these services.
pub fn method(path: &str) -> Option<(&'static str, &str)> {
    let path = path.strip_prefix("/twirp/livekit.")?;
    let (service, method) = path.split_once('/')?;
    let service = ["Egress", "SIP"].into_iter().find(|known| *known == service)?;
    Some((service, method))
}

/// What is asked of an absent service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Finding<'a> {
    /// Nothing can be done, and this is said.
    Refused(StatusCode, &'static str, &'static str),
    /// The same, if there is a room of this name; else it is said that there is none.
    NeedsRoom(&'a str),
}

fn denied() -> Finding<'static> {
    Finding::Refused(StatusCode::UNAUTHORIZED, "unauthenticated", "permissions denied")
}

fn unconnected(text: &'static str) -> Finding<'static> {
    Finding::Refused(StatusCode::INTERNAL_SERVER_ERROR, "internal", text)
}

/// No worker took the job.
pub const NO_WORKER: Finding<'static> = Finding::Refused(
    StatusCode::SERVICE_UNAVAILABLE,
    "unavailable",
    "twirp error unknown: no response from servers",
);

/// The room does not exist.
pub const NO_ROOM: Finding<'static> = Finding::Refused(
    StatusCode::NOT_FOUND,
    "not_found",
    "twirp error unknown: requested room does not exist",
);

/// What is to be answered; `None` if the service has no such method.
pub fn find<'a>(
    service: &str,
    method: &str,
    claims: Option<&Claims>,
    room: &'a str,
) -> Option<Finding<'a>> {
    let video = claims.and_then(|claims| claims.video.clone()).unwrap_or_default();
    let sip = claims.and_then(|claims| claims.sip.clone()).unwrap_or_default();
    let (methods, allowed) = match (service, method) {
        ("Egress", _) => (EGRESS, video.room_record),
        (_, "CreateSIPParticipant" | "TransferSIPParticipant") => (SIP, sip.call),
        _ => (SIP, sip.admin),
    };
    if !methods.contains(&method) {
        return None;
    }
    if !allowed {
        return Some(denied());
    }
    Some(match (service, method) {
        ("Egress", "StartWebEgress") => NO_WORKER,
        ("Egress", start) if start.starts_with("Start") && room.is_empty() => NO_WORKER,
        ("Egress", start) if start.starts_with("Start") => Finding::NeedsRoom(room),
        ("Egress", _) => unconnected("twirp error unknown: egress not connected (redis required)"),
        (_, "TransferSIPParticipant") if room.is_empty() => Finding::Refused(
            StatusCode::BAD_REQUEST,
            "invalid_argument",
            "twirp error unknown: Missing room name",
        ),
        (_, "TransferSIPParticipant") if !video.room_admin || video.room != room => denied(),
        _ => unconnected("twirp error unknown: sip not connected (redis required)"),
    })
}

/// The first field of every request that starts something in a room.
#[derive(Clone, PartialEq, Message)]
struct OfRoom {
    #[prost(string, tag = "1")]
    room_name: String,
}

/// The room that a request names; for `TransferSIPParticipant` too, where it is the second field.
pub fn room_of(method: &str, content_type: &str, body: &[u8]) -> String {
    #[derive(Clone, PartialEq, Message)]
    struct Transfer {
        #[prost(string, tag = "2")]
        room_name: String,
    }
    match Encoding::of(content_type) {
        Some(Encoding::Protobuf) if method == "TransferSIPParticipant" => {
            Transfer::decode(body).map_or(String::new(), |message| message.room_name)
        }
        Some(Encoding::Protobuf) => {
            OfRoom::decode(body).map_or(String::new(), |message| message.room_name)
        }
        _ => {
            let json: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
            let name = json.get("roomName").or_else(|| json.get("room_name"));
            name.and_then(|name| name.as_str()).unwrap_or("").to_owned()
        }
    }
}

/// The answer that says it.
pub fn answer(finding: Finding<'_>) -> Answer {
    let Finding::Refused(status, code, text) = finding else { return answer(NO_WORKER) };
    error_answer(status, code, text, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use parlor_signal::token::{SipGrant, VideoGrant};

    fn code(service: &str, method: &str, claims: Option<&Claims>, room: &str) -> u16 {
        match find(service, method, claims, room) {
            None => 404,
            Some(Finding::NeedsRoom(_)) => 0,
            Some(Finding::Refused(status, ..)) => status.as_u16(),
        }
    }

    /// Statuses of trace 09-twirp-egress-ingress-sip-connector.
    #[test]
    fn absent_services_answer_as_recorded() {
        let video = VideoGrant {
            room_record: true,
            room_admin: true,
            room: "mine".into(),
            ..Default::default()
        };
        let sip = Some(SipGrant { admin: true, call: true });
        let all = Claims { video: Some(video), sip, ..Default::default() };
        let join = Claims::default();
        let tries = [("Egress", EGRESS), ("SIP", SIP)];
        for (service, method) in tries.iter().flat_map(|(s, all)| all.iter().map(move |m| (*s, *m)))
        {
            assert_eq!(code(service, method, None, "e"), 401);
            assert_eq!(code(service, method, Some(&join), "e"), 401);
            let expected = match (service, method) {
                ("Egress", "StartWebEgress") => 503,
                ("Egress", start) if start.starts_with("Start") => 0,
                (_, "TransferSIPParticipant") => 401,
                _ => 500,
            };
            assert_eq!(code(service, method, Some(&all), "e"), expected, "{method}");
        }
        assert_eq!(code("Egress", "StartEgress", Some(&all), ""), 503);
        assert_eq!(code("SIP", "TransferSIPParticipant", Some(&all), ""), 400);
        assert_eq!(code("SIP", "TransferSIPParticipant", Some(&all), "mine"), 500);
        assert_eq!(code("SIP", "Nope", Some(&all), ""), 404);
        assert_eq!(method("/twirp/livekit.Connector/DialWhatsAppCall"), None);
        assert_eq!(method("/twirp/livekit.SIP/X"), Some(("SIP", "X")));
    }

    #[test]
    fn the_room_is_found_in_both_encodings() {
        let json = "application/json; charset=utf-8";
        assert_eq!(room_of("StartEgress", json, br#"{"roomName":"e"}"#), "e");
        assert_eq!(room_of("StartEgress", json, b"junk"), "");
        let bytes = OfRoom { room_name: "e".into() }.encode_to_vec();
        assert_eq!(room_of("StartEgress", "application/protobuf", &bytes), "e");
        assert_eq!(room_of("TransferSIPParticipant", "application/protobuf", &bytes), "");
        assert_eq!(room_of("StartEgress", "application/protobuf", &[0xff]), "");
    }
}
