//! What trunks and rules have in common: numbers, headers, media, changes of lists.

use crate::{CatalogError, invalid};
use livekit_protocol as proto;
use std::collections::{BTreeMap, BTreeSet, HashMap};

const NAME_BYTES_MAX: usize = 255;
const VALUE_BYTES_MAX: usize = 1024;
const MEDIA_TIMEOUT_MAX_SECONDS: i64 = 600;

/// Headers that the server writes itself, and the short forms of such (RFC 3261).
const FORBIDDEN_HEADERS: [&str; 26] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "allow",
    "allow-events",
    "call-id",
    "contact",
    "content-encoding",
    "content-length",
    "content-type",
    "cseq",
    "event",
    "expires",
    "from",
    "max-forwards",
    "record-route",
    "refer-to",
    "reply-to",
    "k",
    "l",
    "m",
    "o",
    "r",
    "t",
    "u",
    "v",
];

/// A telephone number in its one form: `+` and digits. What is no number stays as it is.
pub(crate) fn normalized(number: &str) -> String {
    let digits = number.strip_prefix('+').unwrap_or(number);
    let plain = |c: char| c.is_ascii_digit() || matches!(c, '-' | ' ' | '(' | ')');
    if digits.is_empty() || !digits.chars().all(plain) {
        return number.to_owned();
    }
    format!("+{}", digits.chars().filter(char::is_ascii_digit).collect::<String>())
}

fn check_name(name: &str, forbids: bool) -> Result<(), CatalogError> {
    if name.is_empty() {
        return invalid("invalid header name: header name cannot be empty");
    }
    if name.len() > NAME_BYTES_MAX {
        return invalid("invalid header name: header name too long (max 255 characters)");
    }
    // RFC 3261 section 25.1, token.
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&byte);
    if !name.bytes().all(token) {
        return invalid(format!(
            "invalid header name: header name {name} contains invalid characters"
        ));
    }
    if forbids && FORBIDDEN_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
        return invalid(format!("invalid header name: header name {name} not supported"));
    }
    Ok(())
}

/// Headers to be sent, and those that become attributes or come of them.
pub(crate) fn check_headers(
    headers: &HashMap<String, String>,
    attributes_to_headers: &HashMap<String, String>,
    headers_to_attributes: &HashMap<String, String>,
) -> Result<(), CatalogError> {
    let sorted: BTreeMap<String, String> = headers.clone().into_iter().collect();
    for (name, value) in &sorted {
        check_name(name, true)?;
        let wrong =
            |text: &str| invalid(format!("invalid header value for {name}: header {name}: {text}"));
        if value.len() > VALUE_BYTES_MAX {
            return wrong("value too long (max 1024 characters)");
        }
        if !value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            return wrong("value: contains invalid characters");
        }
    }
    let to: BTreeMap<String, String> = attributes_to_headers.clone().into_iter().collect();
    let from: BTreeMap<String, String> = headers_to_attributes.clone().into_iter().collect();
    let names: BTreeSet<String> = to.into_values().chain(from.into_keys()).collect();
    names.iter().try_for_each(|name| check_name(name, false))
}

pub(crate) fn check_media(media: Option<&proto::SipMediaConfig>) -> Result<(), CatalogError> {
    let Some(media) = media else { return Ok(()) };
    for codec in &media.codecs {
        if codec.name.is_empty() {
            return invalid("missing codec name");
        }
        if codec.name.contains([' ', '\t', '\n', '\r']) {
            return invalid("invalid codec name");
        }
        if codec.name.contains('/') {
            return invalid("codec name must not contain '/'");
        }
    }
    let seconds = media.media_timeout.as_ref().map_or(0, |timeout| timeout.seconds);
    if seconds < 0 {
        return invalid("media_timeout must not be negative");
    }
    if seconds > MEDIA_TIMEOUT_MAX_SECONDS {
        return invalid("media_timeout must not exceed 10m0s");
    }
    Ok(())
}

/// Media as it is told today, with the encryption that older clients set beside it.
pub(crate) fn upgraded(
    media: Option<proto::SipMediaConfig>,
    encryption: i32,
) -> Option<proto::SipMediaConfig> {
    let mut media = media.unwrap_or_default();
    if media.encryption.is_none() && encryption != 0 {
        media.encryption = Some(encryption);
    }
    Some(media)
}

pub(crate) fn check_host(value: &str, field: &str) -> Result<(), CatalogError> {
    if value.contains("transport=") {
        return invalid(format!("{field} should not contain transport parameter"));
    }
    if value.contains(['@', ';']) || value.starts_with("sip:") || value.starts_with("sips:") {
        return invalid(format!("{field} should be a hostname or IP, not SIP URI"));
    }
    Ok(())
}

/// A change of a list.
pub(crate) fn apply_list(
    list: &mut Vec<String>,
    update: Option<&proto::ListUpdate>,
) -> Result<(), CatalogError> {
    let Some(update) = update else { return Ok(()) };
    let changes = !update.set.is_empty() || !update.add.is_empty() || !update.remove.is_empty();
    if !update.clear && !changes {
        return invalid("unsupported list update operation");
    }
    if update.clear && changes {
        return invalid("cannot clear and change the list at the same time");
    }
    if !update.set.is_empty() && (!update.add.is_empty() || !update.remove.is_empty()) {
        return invalid("cannot set and change the list at the same time");
    }
    if update.set.iter().chain(&update.add).chain(&update.remove).any(String::is_empty) {
        return invalid("empty element in the list");
    }
    if update.clear {
        list.clear();
    } else if !update.set.is_empty() {
        list.clone_from(&update.set);
    } else {
        for gone in &update.remove {
            if let Some(at) = list.iter().position(|known| known == gone) {
                list.remove(at);
            }
        }
        for new in &update.add {
            if !list.contains(new) {
                list.push(new.clone());
            }
        }
    }
    Ok(())
}

/// Takes a value over if there is one.
pub(crate) fn set<T>(value: &mut T, update: Option<T>) {
    if let Some(update) = update {
        *value = update;
    }
}

/// An id as errors name it.
pub(crate) fn shown(id: &str) -> &str {
    if id.is_empty() { "<new>" } else { id }
}
