//! Routes and answers.

use crate::{Gateway, Permit, cors, socket, twirp, websocket::Handshake};
use ::http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use livekit_protocol::ListRoomsRequest;
use parlor_node::{
    api::{ApiError, ApiRequest, ApiResponse},
    io::{CallId, Input},
};
use parlor_signal::{
    Claims, ConnectError, ConnectPath,
    connect::{self, HttpRequest},
    token::{self, VideoGrant},
};
use std::{
    net::IpAddr,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::sync::oneshot;

/// Largest body of a request, bytes; LiveKit's `max_api_request_body_size`.
pub const MAX_BODY_BYTES: usize = 10 << 20;
/// Largest form that is read before the token is known, and largest body of who has none, bytes.
const MAX_STRANGER_BYTES: usize = 64 << 10;
/// A body must have come by then.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// The node answers much earlier; this holds when it is stuck.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Longest `x-request-id` that is taken over.
const TRACE_BYTES_MAX: usize = 128;

const CLIENT_ADDRESS_HEADERS: [&str; 3] = ["cf-connecting-ip", "x-forwarded-for", "x-real-ip"];

pub(crate) type Answer = Response<Full<Bytes>>;

pub(crate) fn plain(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(header::CONTENT_TYPE, text);
    answer
}

pub(crate) fn refusal(status: u16, body: String) -> Answer {
    plain(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), body)
}

fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    answer
}

fn page_not_found() -> Answer {
    let mut answer = plain(StatusCode::NOT_FOUND, "404 page not found\n");
    answer
        .headers_mut()
        .insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// A request as far as it is known before its body.
struct Context {
    path: String,
    parameters: Vec<(String, String)>,
    client_address: String,
    claims: Option<Claims>,
    /// What the request is found by in logs; empty if it does not say.
    trace: String,
}

impl Gateway {
    /// Answers one request. `permit` counts the connection and lives as long as its WebSocket.
    pub(crate) async fn answer(
        &self,
        request: Request<Incoming>,
        peer: IpAddr,
        permit: Arc<Permit>,
    ) -> Answer {
        permit.connection.has_asked();
        if is_ambiguous(&request) {
            return plain(StatusCode::BAD_REQUEST, "400 Bad Request");
        }
        let method = request.method().clone();
        let origin = request.headers().get(header::ORIGIN).cloned();
        if let Some(headers) = cors::preflight(&method, request.headers()) {
            let mut answer = empty(StatusCode::NO_CONTENT);
            *answer.headers_mut() = headers;
            return answer;
        }
        let path = request.uri().path();
        let path = if path.starts_with("//") { &path[1..] } else { path }.to_owned();
        let validate = matches!(path.as_str(), "/rtc/validate" | "/rtc/v1/validate");
        let mut answer = self.dispatch(request, path, peer, permit).await;
        cors::allow(&method, origin.as_ref(), validate, answer.headers_mut());
        answer
    }

    async fn dispatch(
        &self,
        mut request: Request<Incoming>,
        path: String,
        peer: IpAddr,
        permit: Arc<Permit>,
    ) -> Answer {
        if request.body().size_hint().lower() > self.shared.ledger.limits().body_bytes as u64 {
            return too_large();
        }
        let mut parameters = query(&request);
        if let Err(answer) = read_form(&mut request, &mut parameters).await {
            return answer;
        }
        let claims = match self.authenticate(request.headers(), &parameters) {
            Ok(claims) => claims,
            Err(error) => return refusal(error.status, error.body),
        };
        let client_address = client_address(request.headers(), peer);
        let trace = trace_of(request.headers());
        let context = Context { path, parameters, client_address, claims, trace };
        match context.path.as_str() {
            "/" => plain(StatusCode::OK, "OK"),
            "/healthz" => plain(StatusCode::OK, "ok"),
            "/readyz" => self.readiness(),
            "/debug/rooms" => self.debug_rooms(&context).await,
            "/agent" => self.upgrade_worker(request, context, peer, permit).await,
            "/rtc" => self.upgrade(request, context, ConnectPath::Rtc, peer, permit).await,
            "/rtc/v1" => self.upgrade(request, context, ConnectPath::RtcV1, peer, permit).await,
            "/rtc/validate" => self.validate(&request, &context, ConnectPath::Rtc).await,
            "/rtc/v1/validate" => self.validate(&request, &context, ConnectPath::RtcV1).await,
            path if twirp::is_service(path) => self.call(request, context).await,
            path => clean(path).map_or_else(page_not_found, |clean| redirect(&request, &clean)),
        }
    }

    fn authenticate(
        &self,
        headers: &HeaderMap,
        parameters: &[(String, String)],
    ) -> Result<Option<Claims>, ConnectError> {
        let header = headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap_or("?"));
        let parameter = parameters.iter().find(|(name, _)| name == "access_token");
        let token = token::from_request(header, parameter.map(|(_, value)| value.as_str()))?;
        let unix_now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let keys = self.shared.keys.read().unwrap_or_else(PoisonError::into_inner);
        Ok(token.map(|token| token::verify(token, &keys, unix_now)).transpose()?)
    }

    fn readiness(&self) -> Answer {
        let draining = self.shared.draining.load(Ordering::Relaxed);
        match (draining, self.shared.inputs.capacity()) {
            (true, _) => plain(StatusCode::SERVICE_UNAVAILABLE, "draining"),
            (_, 0) => plain(StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
            _ => plain(StatusCode::OK, "ready"),
        }
    }

    /// Every room with its participants, for who may list rooms and administer them.
    async fn debug_rooms(&self, context: &Context) -> Answer {
        let grant = context.claims.as_ref().and_then(|claims| claims.video.clone());
        if !grant.is_some_and(|grant| grant.room_list && grant.room_admin) {
            return plain(StatusCode::UNAUTHORIZED, "permissions denied");
        }
        let Some(rooms) = self.shared.rooms.get() else { return page_not_found() };
        let (question, answer) = oneshot::channel();
        let exchange = async { (rooms.send(question).await.ok(), answer.await.ok()).1 };
        match tokio::time::timeout(CALL_TIMEOUT, exchange).await {
            Ok(Some(rooms)) => {
                let mut answer = plain(StatusCode::OK, rooms);
                let json = HeaderValue::from_static("application/json");
                answer.headers_mut().insert(header::CONTENT_TYPE, json);
                answer
            }
            _ => plain(StatusCode::SERVICE_UNAVAILABLE, "the server did not answer in time"),
        }
    }

    async fn upgrade(
        &self,
        mut request: Request<Incoming>,
        context: Context,
        path: ConnectPath,
        peer: IpAddr,
        permit: Arc<Permit>,
    ) -> Answer {
        let handshake = match Handshake::of(request.headers()) {
            None => return empty(StatusCode::NOT_FOUND),
            Some(None) => return plain(StatusCode::BAD_REQUEST, "Bad Request\n"),
            Some(Some(handshake)) => handshake,
        };
        match self.parse(&request, &context, path, false) {
            Ok(mut wish) => {
                wish.trace = context.trace;
                if self.shared.draining.load(Ordering::Relaxed) && !wish.reconnect {
                    return plain(StatusCode::SERVICE_UNAVAILABLE, "server is shutting down");
                }
                let key = self.shared.ledger.socket(&wish.claims.iss);
                let Some(key) = key.filter(|_| self.shared.ledger.join(peer)) else {
                    return plain(StatusCode::TOO_MANY_REQUESTS, "too many connections");
                };
                let upgrade = hyper::upgrade::on(&mut request);
                let wish = |session| Input::Connect { session, request: Box::new(wish) };
                let key = (key, self.shared.ledger.limits().message_bytes);
                socket::open(self, handshake, wish, upgrade, permit, key).await
            }
            Err(error) => {
                self.shared.joins_refused.fetch_add(1, Ordering::Relaxed);
                refusal(error.status, error.body)
            }
        }
    }

    /// Says whether a join would succeed: clients ask to learn why one did not.
    async fn validate(
        &self,
        request: &Request<Incoming>,
        context: &Context,
        path: ConnectPath,
    ) -> Answer {
        let wish = match self.parse(request, context, path, true) {
            Ok(wish) => wish,
            Err(error) => return refusal(error.status, error.body),
        };
        match socket::validate(self, wish).await {
            Ok(()) => plain(StatusCode::OK, "success"),
            Err((status, body)) => refusal(status, body),
        }
    }

    fn parse(
        &self,
        request: &Request<Incoming>,
        context: &Context,
        path: ConnectPath,
        validate: bool,
    ) -> Result<parlor_signal::ConnectRequest, ConnectError> {
        let user_agent = request.headers().get(header::USER_AGENT);
        let request = HttpRequest {
            path,
            validate,
            query: &context.parameters,
            user_agent: user_agent.and_then(|value| value.to_str().ok()),
            client_address: &context.client_address,
            limits: self.shared.ledger.limits().names,
        };
        connect::parse(request, context.claims.as_ref())
    }

    /// An agent worker comes.
    async fn upgrade_worker(
        &self,
        mut request: Request<Incoming>,
        context: Context,
        peer: IpAddr,
        permit: Arc<Permit>,
    ) -> Answer {
        let handshake = match Handshake::of(request.headers()) {
            None => return empty(StatusCode::NOT_FOUND),
            Some(None) => return plain(StatusCode::BAD_REQUEST, "Bad Request\n"),
            // LiveKit compresses nothing here.
            Some(Some(handshake)) => Handshake { deflate: false, ..handshake },
        };
        let claims = context.claims.unwrap_or_default();
        if !claims.video.is_some_and(|video| video.agent) {
            return plain(StatusCode::UNAUTHORIZED, "no permissions to access the room");
        }
        if self.shared.draining.load(Ordering::Relaxed) {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "server is shutting down");
        }
        let key = self.shared.ledger.socket(&claims.iss);
        let Some(key) = key.filter(|_| self.shared.ledger.join(peer)) else {
            return plain(StatusCode::TOO_MANY_REQUESTS, "too many connections");
        };
        let upgrade = hyper::upgrade::on(&mut request);
        let api_key = claims.iss;
        let wish = |session| Input::Worker { session, api_key };
        let key = (key, self.shared.ledger.limits().agent_message_bytes);
        socket::open(self, handshake, wish, upgrade, permit, key).await
    }

    async fn call(&self, request: Request<Incoming>, context: Context) -> Answer {
        let (path, trace) = (context.path.clone(), context.trace.clone());
        let begun = Instant::now();
        let mut answer = self.answer_call(request, context).await;
        tracing::debug!(path, status = answer.status().as_u16(), trace, "api call");
        if let (false, Ok(trace)) = (trace.is_empty(), HeaderValue::from_str(&trace)) {
            answer.headers_mut().insert(HeaderName::from_static("x-request-id"), trace);
        }
        // A path that has no handler is anybody's invention.
        if answer.status() != StatusCode::NOT_FOUND || twirp::is_method(&path) {
            let mut answered = self.shared.answered.lock().unwrap_or_else(PoisonError::into_inner);
            answered.entry(path).or_default().note(answer.status().as_u16(), begun.elapsed());
        }
        answer
    }

    async fn answer_call(&self, request: Request<Incoming>, context: Context) -> Answer {
        if let Some(claims) = &context.claims
            && !self.shared.ledger.call(&claims.iss)
        {
            return from_twirp(twirp::too_many_calls());
        }
        let content_type = request.headers().get(header::CONTENT_TYPE).cloned();
        let content_type = content_type.as_ref().and_then(|value| value.to_str().ok());
        let content_type = content_type.unwrap_or("");
        let absent = request.method() == Method::POST && !twirp::is_method(&context.path);
        if let (Some((service, method)), true) = (twirp::absent::method(&context.path), absent) {
            return self.call_absent(request, &context, (service, method), content_type).await;
        }
        let route = match twirp::route(request.method().as_str(), &context.path, content_type) {
            Ok(route) => route,
            Err(answer) => return from_twirp(answer),
        };
        let body = match self.read_call(request.into_body(), &context).await {
            Ok(body) => body,
            Err(answer) => return answer,
        };
        let request = match route.request(&body) {
            Ok(request) => request,
            Err(answer) => return from_twirp(answer),
        };
        match self.ask(context.claims, request).await {
            Some(result) => from_twirp(route.answer(result)),
            None => from_twirp(twirp::timed_out()),
        }
    }

    /// A call of a service that is not attached.
    async fn call_absent(
        &self,
        request: Request<Incoming>,
        context: &Context,
        (service, method): (&str, &str),
        content_type: &str,
    ) -> Answer {
        use twirp::absent::{self, Finding};
        let body = match self.read_call(request.into_body(), context).await {
            Ok(body) => body,
            Err(answer) => return answer,
        };
        let room = absent::room_of(method, content_type, &body);
        match absent::find(service, method, context.claims.as_ref(), &room) {
            // The route's own words for a method that it does not have.
            None => twirp::route("POST", &context.path, content_type)
                .map_or_else(from_twirp, |_| page_not_found()),
            Some(Finding::NeedsRoom(room)) => {
                let grant = VideoGrant { room_list: true, ..Default::default() };
                let claims = Claims { video: Some(grant), ..Default::default() };
                let list = ListRoomsRequest { names: vec![room.to_owned()] };
                let rooms = self.ask(Some(claims), ApiRequest::ListRooms(list)).await;
                let exists =
                    matches!(rooms, Some(Ok(ApiResponse::Rooms(list))) if !list.rooms.is_empty());
                let finding = if exists { absent::NO_WORKER } else { absent::NO_ROOM };
                from_twirp(absent::answer(finding))
            }
            Some(finding) => from_twirp(absent::answer(finding)),
        }
    }

    /// The body of a call: what a stranger sends is not held in memory at length.
    async fn read_call(&self, body: Incoming, context: &Context) -> Result<Bytes, Answer> {
        let limit = self.shared.ledger.limits().body_bytes;
        let stranger = if context.claims.is_none() { MAX_STRANGER_BYTES } else { limit };
        read_body(body, limit.min(stranger)).await
    }

    /// Asks the node; `None` if it does not answer in time.
    async fn ask(
        &self,
        claims: Option<Claims>,
        request: ApiRequest,
    ) -> Option<Result<ApiResponse, ApiError>> {
        let call = CallId(self.draw_id());
        let (answer, answered) = oneshot::channel();
        self.tables().calls.insert(call, answer);
        let _forget = ForgetCall(self, call);
        let claims = claims.map(Box::new);
        let exchange = async {
            self.tell(Input::Api { call, claims, request: Box::new(request) }).await;
            answered.await
        };
        tokio::time::timeout(CALL_TIMEOUT, exchange).await.ok()?.ok()
    }
}

/// Removes a call when its client is gone or its time is up.
struct ForgetCall<'a>(&'a Gateway, CallId);

impl Drop for ForgetCall<'_> {
    fn drop(&mut self) {
        self.0.tables().calls.remove(&self.1);
    }
}

fn from_twirp(twirp: twirp::Answer) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(twirp.body)));
    *answer.status_mut() = twirp.status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(twirp.content_type));
    answer
}

/// Two readers of the request could disagree on where it ends.
pub(crate) fn contradictory() -> Answer {
    let mut answer = plain(StatusCode::BAD_REQUEST, "400 Bad Request");
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// Whether two readers of a request could disagree on where it goes or whose it is.
fn is_ambiguous(request: &Request<Incoming>) -> bool {
    let count = |name: HeaderName| request.headers().get_all(name).iter().count();
    let hosts = count(header::HOST);
    hosts > 1
        || (hosts == 0 && request.version() == Version::HTTP_11)
        || count(header::AUTHORIZATION) > 1
}

fn query(request: &Request<Incoming>) -> Vec<(String, String)> {
    form_urlencoded::parse(request.uri().query().unwrap_or("").as_bytes()).into_owned().collect()
}

/// Parameters of a posted form come before those of the query.
async fn read_form(
    request: &mut Request<Incoming>,
    parameters: &mut Vec<(String, String)>,
) -> Result<(), Answer> {
    let content_type = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let is_form =
        content_type.is_some_and(|value| value.starts_with(b"application/x-www-form-urlencoded"));
    if request.method() != Method::POST || !is_form {
        return Ok(());
    }
    let body = read_body(request.body_mut(), MAX_STRANGER_BYTES).await?;
    let query = std::mem::take(parameters);
    *parameters = form_urlencoded::parse(&body).into_owned().chain(query).collect();
    Ok(())
}

async fn read_body<B>(body: B, limit_bytes: usize) -> Result<Bytes, Answer>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let limited = std::pin::pin!(Limited::new(body, limit_bytes));
    match tokio::time::timeout(BODY_TIMEOUT, limited.collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(plain(StatusCode::BAD_REQUEST, "the body could not be read")),
        Err(_) => Err(plain(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")),
    }
}

fn too_large() -> Answer {
    plain(StatusCode::PAYLOAD_TOO_LARGE, "request body too large")
}

/// The trace id of a `traceparent` (W3C Trace Context section 3.2), else `x-request-id`, if it is
/// something that can stand in a log.
fn trace_of(headers: &HeaderMap) -> String {
    let text = |name: &'static str| headers.get(name).and_then(|value| value.to_str().ok());
    let parent = text("traceparent").and_then(|parent| parent.split('-').nth(1));
    let parent = parent.filter(|id| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()));
    let is_fit = |id: &&str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/".contains(&byte);
        id.len() <= TRACE_BYTES_MAX && id.bytes().all(is_plain)
    };
    parent.or_else(|| text("x-request-id").filter(is_fit)).unwrap_or("").to_owned()
}

fn client_address(headers: &HeaderMap, peer: IpAddr) -> String {
    CLIENT_ADDRESS_HEADERS
        .iter()
        .filter_map(|name| headers.get(HeaderName::from_static(name))?.to_str().ok())
        .find(|address| !address.is_empty())
        .map_or_else(|| peer.to_string(), str::to_owned)
}

/// The path without empty and dot segments, if it has such; `None` if it is clean.
fn clean(path: &str) -> Option<String> {
    let mut segments = Vec::new();
    let mut changed = false;
    let inner = path.strip_prefix('/').unwrap_or(path);
    let (inner, slash) = inner.strip_suffix('/').map_or((inner, ""), |inner| (inner, "/"));
    for segment in inner.split('/') {
        match segment {
            "" | "." => changed = true,
            ".." => {
                segments.pop();
                changed = true;
            }
            segment => segments.push(segment),
        }
    }
    changed.then(|| format!("/{}{slash}", segments.join("/")))
}

fn redirect(request: &Request<Incoming>, path: &str) -> Answer {
    let query = request.uri().query().map_or(String::new(), |query| format!("?{query}"));
    let location = format!("{path}{query}");
    let escaped = location.replace('&', "&amp;").replace('"', "&#34;").replace('<', "&lt;");
    let mut answer = plain(
        StatusCode::TEMPORARY_REDIRECT,
        format!("<a href=\"{escaped}\">Temporary Redirect</a>.\n\n"),
    );
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    answer.headers_mut().insert(header::CONTENT_TYPE, html);
    if let Ok(location) = HeaderValue::from_str(&location) {
        answer.headers_mut().insert(header::LOCATION, location);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::{clean, trace_of};
    use http::{HeaderMap, HeaderValue};

    #[test]
    fn a_request_is_found_by_what_it_says_of_itself() {
        let trace = |headers: &[(&'static str, &str)]| {
            let value = |text: &str| HeaderValue::from_str(text).unwrap();
            let headers = headers.iter().map(|(name, text)| (name.parse().unwrap(), value(text)));
            trace_of(&headers.collect::<HeaderMap>())
        };
        let id = "0af7651916cd43dd8448eb211c80319c";
        let parent = format!("00-{id}-b7ad6b7169203331-01");
        assert_eq!(trace(&[("traceparent", &parent), ("x-request-id", "r-1")]), id);
        assert_eq!(trace(&[("traceparent", "00-short-1-01"), ("x-request-id", "r-1")]), "r-1");
        assert_eq!(trace(&[("x-request-id", "a\"b level=error")]), "");
        assert_eq!(trace(&[("x-request-id", &"a".repeat(129))]), "");
        assert_eq!(trace(&[]), "");
    }

    #[test]
    fn only_unclean_paths_are_redirected() {
        assert_eq!(clean("/rtc//validate").as_deref(), Some("/rtc/validate"));
        assert_eq!(clean("/a/../../b/./c/").as_deref(), Some("/b/c/"));
        for path in ["/rtc/", "/rtc/v2", "/nope", "/settings/regions"] {
            assert_eq!(clean(path), None, "{path}");
        }
    }
}
