//! The heads of requests as they came, where hyper does not show them.
//!
//! Of a length beside a coding (RFC 9112 section 6.1) hyper drops the length. A proxy before us
//! may have gone by it, so such a request is refused; only its bytes tell it from a good one.

use hyper::{Request, header};
use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of a head that are kept; a coding in a longer one is refused.
pub(crate) const HEAD_BYTES_MAX: usize = 32 << 10;

/// What has come since we last said something.
#[derive(Clone, Default)]
pub(crate) struct Head(Arc<Seen>);

#[derive(Default)]
struct Seen {
    bytes: Mutex<Vec<u8>>,
    /// The answer to an upgrade comes next.
    switches: AtomicBool,
}

impl Head {
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is written next says that the connection becomes a WebSocket.
    pub(crate) fn switch(&self) {
        self.0.switches.store(true, Ordering::Relaxed);
    }

    /// Whether this request has a body in a coding, and may also have said how long it is.
    pub(crate) fn may_contradict<B>(&self, request: &Request<B>) -> bool {
        if !request.headers().contains_key(header::TRANSFER_ENCODING) {
            return false;
        }
        let start = format!("{} {} HTTP/", request.method(), request.uri());
        let head = self.bytes();
        !head.starts_with(start.as_bytes()) || has_length(&head).unwrap_or(true)
    }
}

/// Whether the first head in these bytes says how long its body is; `None` if it does not end.
fn has_length(bytes: &[u8]) -> Option<bool> {
    let mut found = false;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\n")?;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            return Some(found);
        }
        const NAME: &[u8] = b"content-length";
        found |= line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME));
    }
    None
}

/// How the answer to an upgrade begins.
const SWITCHING: &[u8] = b"HTTP/1.1 101 ";

/// A stream whose heads are kept.
pub(crate) struct Watched<S> {
    stream: S,
    head: Head,
    /// The answer to an upgrade. It leaves with the first message of the socket, in one write.
    held: Vec<u8>,
}

impl<S> Watched<S> {
    pub(crate) fn new(stream: S, head: Head) -> Self {
        Self { stream, head, held: Vec::new() }
    }

    /// The stream, and what has to be written before anything else.
    pub(crate) fn into_parts(self) -> (S, Vec<u8>) {
        (self.stream, self.held)
    }

    /// Whether it was the answer to an upgrade, or more of it, which is held back.
    fn holds(&mut self, bytes: &[u8]) -> bool {
        let is_switching =
            || self.head.0.switches.load(Ordering::Relaxed) && bytes.starts_with(SWITCHING);
        let holds = !self.held.is_empty() || is_switching();
        if holds {
            self.held.extend_from_slice(bytes);
        }
        holds
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let read = buf.filled().get(before..).unwrap_or(&[]);
        if !read.is_empty() {
            let mut head = self.head.bytes();
            let room = HEAD_BYTES_MAX.saturating_sub(head.len()).min(read.len());
            head.extend_from_slice(read.get(..room).unwrap_or(read));
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.head.bytes().clear();
        if self.holds(buf) {
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.head.bytes().clear();
        let first = bufs.iter().find(|buf| !buf.is_empty());
        if let Some(first) = first
            && self.holds(first)
        {
            return Poll::Ready(Ok(first.len()));
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[test]
    fn a_length_is_found_in_the_head_only() {
        let with = |head: &str| has_length(head.as_bytes());
        assert_eq!(with("POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\n"), Some(true));
        assert_eq!(with("POST / HTTP/1.1\r\nhost: x\r\n\r\ncontent-length: 4\r\n"), Some(false));
        assert_eq!(with("POST / HTTP/1.1\nCONTENT-LENGTH:4\n\n"), Some(true));
        assert_eq!(with("POST / HTTP/1.1\r\nhost: x\r\n"), None);
    }

    #[tokio::test]
    async fn only_the_answer_to_an_upgrade_is_held_back() {
        let (near, mut far) = tokio::io::duplex(1024);
        let mut stream = Watched::new(near, Head::default());
        // A body may begin so.
        stream.write_all(b"HTTP/1.1 101 is what it says").await.unwrap();
        let mut read = [0; 28];
        far.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"HTTP/1.1 101 is what it says");
        stream.head.switch();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        stream.write_all(b"HTTP/1.1 101 Switching").await.unwrap();
        stream.write_all(b" Protocols\r\n\r\n").await.unwrap();
        let (near, held) = stream.into_parts();
        assert_eq!(held, b"HTTP/1.1 101 Switching Protocols\r\n\r\n");
        drop(near);
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"HTTP/1.1 200 OK\r\n\r\n");
    }

    #[test]
    fn a_coding_is_good_by_itself_only() {
        let request = |coding: bool| {
            let request = Request::builder().method("POST").uri("/x?y=1");
            let coding = coding.then_some(("transfer-encoding", "chunked"));
            coding.into_iter().fold(request, |r, (name, value)| r.header(name, value)).body(())
        };
        let head = |text: &str| {
            let head = Head::default();
            head.bytes().extend_from_slice(text.as_bytes());
            head
        };
        let good = head("POST /x?y=1 HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n4\r\n");
        assert!(!good.may_contradict(&request(true).unwrap()));
        let both = head("POST /x?y=1 HTTP/1.1\r\ncontent-length: 4\r\n\r\n");
        assert!(both.may_contradict(&request(true).unwrap()));
        assert!(!both.may_contradict(&request(false).unwrap()));
        // Not the bytes of this request, or not all.
        for text in ["0\r\n\r\n", "POST /x?y=1 HTTP/1.1\r\nhost: x", ""] {
            assert!(head(text).may_contradict(&request(true).unwrap()), "{text}");
        }
    }
}
