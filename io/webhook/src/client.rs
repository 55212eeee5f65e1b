//! A small HTTP client: one URL, POST only, connections used again.

use crate::WebhookError;
use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, pki_types::ServerName},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// An answer's body is read so far, that its connection can be used again.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Connections that wait for their next use.
const IDLE_MAX: usize = 8;

/// What is wrong with a URL. Never names its credentials or query.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum UrlError {
    #[error("a webhook URL is not a URL: it must look like https://host/path")]
    Invalid,
    #[error("a webhook URL must begin with http:// or https://, not {0}://")]
    Scheme(String),
}

/// Why nothing was answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    #[error("cannot connect: {0}")]
    Connect(#[source] std::io::Error),
    #[error("no connection in time")]
    ConnectTimeout,
    #[error("no answer in time")]
    AnswerTimeout,
    #[error("the connection broke: {0}")]
    Broken(#[from] hyper::Error),
    #[error("not a request: {0}")]
    Request(#[from] http::Error),
}

/// One receiver.
pub(crate) struct Receiver {
    pub(crate) url: String,
    /// The URL without what may be secret in it, for logs.
    pub(crate) host: String,
    authority: String,
    server_name: ServerName<'static>,
    target: String,
    host_header: String,
    tls: Option<TlsConnector>,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

/// Certificate authorities of the system, for receivers that have https.
pub(crate) fn tls_of(urls: &[String]) -> Result<Option<TlsConnector>, WebhookError> {
    if !urls.iter().any(|url| url.get(..6).is_some_and(|s| s.eq_ignore_ascii_case("https:"))) {
        return Ok(None);
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(WebhookError::NoRoots);
    }
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    Ok(Some(TlsConnector::from(Arc::new(config))))
}

impl Receiver {
    pub(crate) fn new(url: &str, tls: Option<&TlsConnector>) -> Result<Receiver, UrlError> {
        let uri: Uri = url.parse().map_err(|_| UrlError::Invalid)?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            Some(other) => return Err(UrlError::Scheme(other.to_owned())),
            None => return Err(UrlError::Invalid),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or(UrlError::Invalid)?;
        let port = uri.port_u16();
        let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Receiver {
            url: url.to_owned(),
            host: host.to_owned(),
            authority: format!("{host}:{}", port.unwrap_or(if secure { 443 } else { 80 })),
            server_name: ServerName::try_from(name).map_err(|_| UrlError::Invalid)?,
            target: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            host_header: port.map_or(host.to_owned(), |port| format!("{host}:{port}")),
            tls: tls.filter(|_| secure).cloned(),
            idle: Mutex::default(),
        })
    }

    /// Posts a body. Redirects are not followed.
    pub(crate) async fn post(&self, body: &str, token: &str) -> Result<StatusCode, SendError> {
        // A connection that has waited may have been closed meanwhile, which proves nothing.
        while let Some(connection) = self.take_idle() {
            if let Ok(status) = self.post_over(connection, body, token).await {
                return Ok(status);
            }
        }
        self.post_over(self.connect().await?, body, token).await
    }

    fn take_idle(&self) -> Option<SendRequest<Full<Bytes>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, SendError> {
        let connecting = async {
            let stream = TcpStream::connect(&self.authority).await.map_err(SendError::Connect)?;
            let _ = stream.set_nodelay(true);
            let sender = match &self.tls {
                None => start(TokioIo::new(stream)).await?,
                Some(tls) => {
                    let stream = tls.connect(self.server_name.clone(), stream).await;
                    start(TokioIo::new(stream.map_err(SendError::Connect)?)).await?
                }
            };
            Ok(sender)
        };
        timeout(CONNECT_TIMEOUT, connecting).await.map_err(|_| SendError::ConnectTimeout)?
    }

    async fn post_over(
        &self,
        mut connection: SendRequest<Full<Bytes>>,
        body: &str,
        token: &str,
    ) -> Result<StatusCode, SendError> {
        let request = Request::post(&self.target)
            .header(header::HOST, &self.host_header)
            .header(header::USER_AGENT, "LiveKit")
            .header(header::AUTHORIZATION, token)
            .header(header::CONTENT_TYPE, "application/webhook+json")
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))?;
        let exchange = async {
            connection.ready().await?;
            let answer = connection.send_request(request).await?;
            let status = answer.status();
            let read = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await.is_ok();
            Ok::<_, SendError>((status, read))
        };
        let (status, read) =
            timeout(ANSWER_TIMEOUT, exchange).await.map_err(|_| SendError::AnswerTimeout)??;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if read && !connection.is_closed() && idle.len() < IDLE_MAX {
            idle.push(connection);
        }
        Ok(status)
    }
}

async fn start<I>(io: I) -> Result<SendRequest<Full<Bytes>>, SendError>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(io).await?;
    tokio::spawn(connection);
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let receiver = Receiver::new("http://h:8080/a?b=c", None).unwrap();
        assert_eq!((receiver.authority.as_str(), receiver.target.as_str()), ("h:8080", "/a?b=c"));
        assert_eq!(receiver.host_header, "h:8080");
        let secure = Receiver::new("https://[::1]", None).unwrap();
        assert_eq!((secure.authority.as_str(), secure.target.as_str()), ("[::1]:443", "/"));
        for url in ["", "/path", "h", "ftp://h/", "http://"] {
            assert!(Receiver::new(url, None).is_err(), "{url}");
        }
    }

    #[test]
    fn an_error_names_no_secret() {
        let error = Receiver::new("ftp://user:hunter2@h/?token=hunter2", None).err().unwrap();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
