//! The HTTP side of opening a WebSocket, RFC 6455 section 4.2 and RFC 7692 section 7.1.

use aws_lc_rs::digest;
use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, header};

const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What permessage-deflate is answered with: neither side keeps state between messages.
pub const DEFLATE_ANSWER: &str =
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// A request that wants to become a WebSocket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Handshake {
    /// `Sec-WebSocket-Accept` of the answer.
    pub accept: String,
    /// The client offers permessage-deflate in a form that we take.
    pub deflate: bool,
}

impl Handshake {
    /// `None` if the request asks for no WebSocket, `Some(None)` if it asks wrongly.
    pub fn of(headers: &HeaderMap) -> Option<Option<Handshake>> {
        let has =
            |name, token: &str| {
                headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).any(|value| {
                    value.split(',').any(|part| part.trim().eq_ignore_ascii_case(token))
                })
            };
        if !has(header::CONNECTION, "upgrade") || !has(header::UPGRADE, "websocket") {
            return None;
        }
        let key = headers.get(header::SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok());
        let key = key.filter(|key| BASE64_STANDARD.decode(key).is_ok_and(|key| key.len() == 16));
        Some(
            key.filter(|_| has(header::SEC_WEBSOCKET_VERSION, "13"))
                .map(|key| Handshake { accept: accept_key(key), deflate: offers_deflate(headers) }),
        )
    }
}

/// `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key`.
pub fn accept_key(key: &str) -> String {
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key.as_bytes());
    hash.update(GUID);
    BASE64_STANDARD.encode(hash.finish())
}

/// An offer that demands a smaller window of us is passed over: our window is 15 bits.
fn offers_deflate(headers: &HeaderMap) -> bool {
    let offers = headers.get_all(header::SEC_WEBSOCKET_EXTENSIONS);
    offers.iter().filter_map(|offer| offer.to_str().ok()).flat_map(|offer| offer.split(',')).any(
        |offer| {
            let mut parts = offer.split(';').map(str::trim);
            parts.next() == Some("permessage-deflate")
                && parts.all(|parameter| {
                    let name = parameter.split('=').next().unwrap_or("").trim();
                    matches!(
                        name,
                        "client_max_window_bits"
                            | "client_no_context_takeover"
                            | "server_no_context_takeover"
                    ) || matches!(parameter, "server_max_window_bits=15")
                })
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        list.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn the_example_of_the_rfc() {
        assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn deflate_is_taken_where_it_can_be() {
        let offer = |text| offers_deflate(&headers(&[("sec-websocket-extensions", text)]));
        assert!(offer("permessage-deflate; client_max_window_bits"));
        assert!(offer("x-other, permessage-deflate"));
        assert!(offer("permessage-deflate; server_max_window_bits=10, permessage-deflate"));
        assert!(!offer("permessage-deflate; server_max_window_bits=10"));
        assert!(!offer("x-other"));
    }

    #[test]
    fn a_wrong_handshake_is_told_from_none() {
        let upgrade = [("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")];
        let key = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        let version = ("sec-websocket-version", "13");
        assert_eq!(Handshake::of(&headers(&[key, version])), None);
        assert_eq!(Handshake::of(&headers(&[upgrade[0], upgrade[1], version])), Some(None));
        assert_eq!(Handshake::of(&headers(&[upgrade[0], upgrade[1], key])), Some(None));
        let good = Handshake::of(&headers(&[upgrade[0], upgrade[1], key, version]));
        assert!(good.flatten().is_some_and(|handshake| !handshake.deflate));
    }
}
