//! The metrics port.

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{convert::Infallible, future::Future, sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::Semaphore};

/// Connections at once; more wait.
const CONNECTIONS_MAX: usize = 64;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a scraper has to know.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct BasicAuth {
    pub username: String,
    pub password: String,
}

/// Answers every request to a listener with what `page` gives, for ever.
pub async fn serve<F, P>(listener: TcpListener, auth: Option<BasicAuth>, page: P)
where
    F: Future<Output = String> + Send,
    P: Fn() -> F + Clone + Send + Sync + 'static,
{
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let expected = auth.map(|BasicAuth { username, password }| {
        format!("Basic {}", BASE64_STANDARD.encode(format!("{username}:{password}")))
    });
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (page, expected) = (page.clone(), expected.clone());
        tokio::spawn(async move {
            let _permit = permit;
            let service = service_fn(|request: http::Request<hyper::body::Incoming>| {
                let given = request.headers().get(header::AUTHORIZATION).cloned();
                let allowed = expected.as_ref().is_none_or(|expected| {
                    given.is_some_and(|given| {
                        aws_lc_rs::constant_time::verify_slices_are_equal(
                            given.as_bytes(),
                            expected.as_bytes(),
                        )
                        .is_ok()
                    })
                });
                let page = page.clone();
                async move {
                    Ok::<_, Infallible>(if allowed { answer(page().await) } else { refusal() })
                }
            });
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

fn answer(page: String) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from(page)));
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    answer.headers_mut().insert(header::CONTENT_TYPE, text);
    answer
}

fn refusal() -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from_static(b"Unauthorized\n")));
    *answer.status_mut() = StatusCode::UNAUTHORIZED;
    let basic = HeaderValue::from_static("Basic realm=\"Protected Area\"");
    answer.headers_mut().insert(header::WWW_AUTHENTICATE, basic);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn get(address: std::net::SocketAddr, more: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET /any HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{more}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn every_path_gives_the_page_to_who_may_see_it() {
        let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addresses = (open.local_addr().unwrap(), closed.local_addr().unwrap());
        let page = || async { "a 1\n".to_owned() };
        tokio::spawn(serve(open, None, page));
        let auth = BasicAuth { username: "u".into(), password: "p".into() };
        tokio::spawn(serve(closed, Some(auth), page));
        let answer = get(addresses.0, "").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("a 1\n"), "{answer}");
        assert!(get(addresses.1, "").await.starts_with("HTTP/1.1 401"));
        assert!(
            get(addresses.1, "authorization: Basic dTpx\r\n").await.starts_with("HTTP/1.1 401")
        );
        assert!(
            get(addresses.1, "authorization: Basic dTpw\r\n").await.starts_with("HTTP/1.1 200")
        );
    }
}
