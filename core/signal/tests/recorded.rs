//! Requests that LiveKit's clients sent, and what LiveKit answered.
#![allow(clippy::unwrap_used, missing_docs)]

use parlor_signal::{
    ApiKeys, ConnectError, ConnectPath, ConnectRequest, ConnectionModel,
    connect::{HttpRequest, parse},
    token,
};
use serde_json::Value;
use std::time::Duration;

/// When `08-http-validate` was recorded; the other fixture has the time on each line.
const VALIDATE_RECORDED_UNIX_S: u64 = 1_795_245_500;

fn connect(
    exchange: &Value,
    path: &str,
    validate: bool,
    form: &str,
) -> Result<ConnectRequest, ConnectError> {
    let mut query: Vec<(String, String)> = exchange["query"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned()))
        .collect();
    if let Some((key, value)) = form.split_once('=') {
        query.push((key.to_owned(), value.to_owned()));
    }
    let keys: ApiKeys = [("devkey".to_owned(), "secret".to_owned())].into_iter().collect();
    let access_token =
        query.iter().find(|(key, _)| key == "access_token").map(|(_, value)| value.clone());
    let token = token::from_request(
        exchange["headers"]["authorization"].as_str(),
        access_token.as_deref(),
    )?;
    let unix_now =
        Duration::from_secs(exchange["unix"].as_u64().unwrap_or(VALIDATE_RECORDED_UNIX_S));
    let claims = token.map(|token| token::verify(token, &keys, unix_now)).transpose()?;
    let request = HttpRequest {
        path: if path.starts_with("/rtc/v1") { ConnectPath::RtcV1 } else { ConnectPath::Rtc },
        validate,
        query: &query,
        user_agent: exchange["headers"]["user-agent"].as_str(),
        client_address: "10.77.0.2",
        limits: Default::default(),
    };
    parse(request, claims.as_ref())
}

#[test]
fn validate_answers_as_recorded() {
    let mut count = 0;
    for line in include_str!("fixtures/08-http-validate.jsonl").lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let path = line["request"]["path"].as_str().unwrap_or("");
        if !path.starts_with("/rtc") {
            continue;
        }
        let body = line["request"]["body"].as_str().unwrap();
        let (status, text) = match connect(&line["request"], path, true, body) {
            Ok(_) => (200, "success".to_owned()),
            Err(error) => (error.status, error.body),
        };
        assert_eq!(line["response"]["status"], status, "{line}");
        assert_eq!(line["response"]["body"], text, "{line}");
        count += 1;
    }
    assert_eq!(count, 51);
}

#[test]
fn upgrades_are_refused_or_accepted_as_recorded() {
    let mut accepted = 0;
    for line in include_str!("fixtures/ws-requests.jsonl").lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        match connect(&line, line["path"].as_str().unwrap(), false, "") {
            Ok(wish) => {
                assert_eq!(line["status"], 101, "{line}");
                check_wish(&line, &wish);
                accepted += 1;
            }
            Err(error) => {
                assert_eq!(line["status"], error.status, "{line}");
                assert_eq!(line["body"], error.body, "{line}");
            }
        }
    }
    assert!(accepted > 10, "{accepted}");
}

fn check_wish(line: &Value, wish: &ConnectRequest) {
    let text = |name: &str| line["query"][name].as_str().unwrap_or("").to_owned();
    assert_eq!(wish.room(), wish.claims.video.as_ref().unwrap().room);
    if line["query"]["join_request"].is_string() {
        let join = &line["join_request"];
        assert_eq!(wish.connection, ConnectionModel::Single, "{line}");
        assert_eq!(
            wish.auto_subscribe,
            join["connection_settings"]["auto_subscribe"].as_bool().unwrap_or(false)
        );
        let allow_pause = &join["connection_settings"]["subscriber_allow_pause"];
        assert_eq!(wish.subscriber_allow_pause, allow_pause.as_bool());
        assert_eq!(i64::from(wish.protocol), join["client_info"]["protocol"].as_i64().unwrap_or(0));
    } else {
        assert_eq!(wish.connection, ConnectionModel::Pair, "{line}");
        assert_eq!(wish.auto_subscribe, text("auto_subscribe") != "0", "{line}");
        assert_eq!(wish.participant_sid, text("sid"));
        assert_eq!(wish.reconnect, text("reconnect") == "1");
        assert_eq!(wish.protocol, text("protocol").parse().unwrap_or(0));
        assert_eq!(
            wish.client_info.capabilities.len(),
            text("capabilities").split_terminator(',').count()
        );
    }
    if line["headers"]["user-agent"].as_str().is_some_and(|agent| agent.contains("HeadlessChrome"))
    {
        assert_eq!(
            (wish.client_info.browser.as_str(), wish.client_info.os.as_str()),
            ("Chrome", "Linux")
        );
        assert_eq!(wish.client_info.browser_version, "156.0.0.0");
    }
    assert_eq!(wish.client_info.address, "10.77.0.2");
}

#[test]
fn join_requests_have_a_limit_after_decompression() {
    use base64::{Engine, prelude::BASE64_URL_SAFE};
    use livekit_protocol::{JoinRequest, WrappedJoinRequest, wrapped_join_request::Compression};
    use prost::Message;
    use std::io::Write;

    let encode = |metadata: usize| {
        let join = JoinRequest { metadata: "m".repeat(metadata), ..Default::default() };
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&join.encode_to_vec()).unwrap();
        let wrapped = WrappedJoinRequest {
            compression: Compression::Gzip.into(),
            join_request: gzip.finish().unwrap(),
        };
        BASE64_URL_SAFE.encode(wrapped.encode_to_vec())
    };
    let tag_and_length_bytes = 4;
    let most = parlor_signal::connect::MAX_JOIN_REQUEST_BYTES - tag_and_length_bytes;
    assert!(parlor_signal::connect::decode_join_request(&encode(most)).is_ok());
    let error = parlor_signal::connect::decode_join_request(&encode(most + 1)).unwrap_err();
    assert_eq!(error.status, 400);
}
