//! Cross-origin requests: any origin, any header.

use http::{HeaderMap, HeaderValue, Method, header};

const METHODS: [Method; 6] =
    [Method::OPTIONS, Method::HEAD, Method::GET, Method::POST, Method::PATCH, Method::DELETE];

/// The headers of the answer to a preflight request; `None` if the request is none.
pub fn preflight(method: &Method, request: &HeaderMap) -> Option<HeaderMap> {
    let wanted =
        request.get(header::ACCESS_CONTROL_REQUEST_METHOD).filter(|_| method == Method::OPTIONS)?;
    let mut answer = HeaderMap::new();
    let vary = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
    answer.insert(header::VARY, HeaderValue::from_static(vary));
    let allowed = METHODS.iter().any(|method| method.as_str().as_bytes() == wanted.as_bytes());
    if let Some(origin) = request.get(header::ORIGIN)
        && allowed
    {
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, wanted.clone());
        if let Some(headers) = request.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
            answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, headers.clone());
        }
        answer.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    }
    Some(answer)
}

/// Adds what every other answer carries. The validate paths are open to any origin.
pub fn allow(
    method: &Method,
    origin: Option<&HeaderValue>,
    validate: bool,
    answer: &mut HeaderMap,
) {
    answer.insert(header::VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = origin.filter(|_| METHODS.contains(method)) {
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("*"));
    }
    if validate {
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    }
}
