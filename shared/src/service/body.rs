//! Reading a request's body whole: bounded each, bounded in sum, and never for longer than it keeps arriving.
//! A job starts only once its body is whole, because only then does the HTTP library notice a caller's hang-up.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    body::Body,
    http::{HeaderMap, header},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;

/// No frame for this long, and the caller is gone.
const STALL: Duration = Duration::from_secs(30);

/// How many bytes of bodies may be held at once, over all requests.
#[derive(Debug, Clone)]
pub struct BodyBudget {
    held: Arc<AtomicUsize>,
    /// Bytes over all requests.
    total: usize,
    /// Bytes of one body.
    each: usize,
}

/// A body read whole. Its bytes count against the budget until it is dropped.
#[derive(Debug)]
pub struct WholeBody {
    /// The bytes.
    pub bytes: Bytes,
    _lease: Lease,
}

/// Why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    /// It is compressed; `Content-Encoding` names a coding.
    Encoded,
    /// It is longer than this many bytes.
    TooLarge(usize),
    /// Other requests hold the budget.
    Busy,
    /// It stopped arriving.
    Stalled,
    /// The connection broke, or the framing is wrong.
    Broken,
}

impl BodyBudget {
    /// At most `total` bytes at once, `each` a body.
    pub fn new(total: usize, each: usize) -> Self {
        Self { held: Arc::default(), total, each }
    }

    /// The same budget for bodies of this length, as after a reload: what is held counts on.
    #[must_use]
    pub fn with_each(&self, each: usize) -> Self {
        Self { each, ..self.clone() }
    }

    /// Reads the body whole.
    pub async fn read(&self, headers: &HeaderMap, mut body: Body) -> Result<WholeBody, BodyError> {
        let coding = headers.get(header::CONTENT_ENCODING);
        if coding.is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(BodyError::Encoded);
        }
        let announced = http_body::Body::size_hint(&body).lower();
        if announced > self.each as u64 {
            return Err(BodyError::TooLarge(self.each));
        }
        let mut lease = Lease { held: self.held.clone(), bytes: 0 };
        let mut bytes = BytesMut::new();
        loop {
            let frame = tokio::time::timeout(STALL, body.frame()).await.map_err(|_| BodyError::Stalled)?;
            let Some(frame) = frame else { break };
            let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
            if bytes.len() + data.len() > self.each {
                return Err(BodyError::TooLarge(self.each));
            }
            lease.grow(data.len(), self.total)?;
            bytes.extend_from_slice(&data);
        }
        Ok(WholeBody { bytes: bytes.freeze(), _lease: lease })
    }

    /// Bytes held now.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Acquire)
    }
}

#[derive(Debug)]
struct Lease {
    held: Arc<AtomicUsize>,
    bytes: usize,
}

impl Lease {
    fn grow(&mut self, more: usize, total: usize) -> Result<(), BodyError> {
        self.held
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |held| {
                held.checked_add(more).filter(|sum| *sum <= total)
            })
            .map_err(|_| BodyError::Busy)?;
        self.bytes += more;
        Ok(())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use futures_util::stream;

    fn chunked(chunks: &[&'static [u8]]) -> Body {
        let chunks: Vec<Result<Bytes, std::io::Error>> =
            chunks.iter().map(|chunk| Ok(Bytes::from_static(chunk))).collect();
        Body::from_stream(stream::iter(chunks))
    }

    #[tokio::test]
    async fn a_body_is_bounded_with_and_without_an_announced_length() {
        let budget = BodyBudget::new(100, 4);
        let none = HeaderMap::new();
        assert_eq!(budget.read(&none, Body::from("12345")).await.unwrap_err(), BodyError::TooLarge(4));
        assert_eq!(budget.read(&none, chunked(&[b"123", b"45"])).await.unwrap_err(), BodyError::TooLarge(4));
        assert_eq!(budget.read(&none, chunked(&[b"12", b"34"])).await.unwrap().bytes, "1234");
        assert_eq!(budget.held(), 0);
    }

    #[tokio::test]
    async fn the_sum_of_bodies_is_bounded_and_given_back() {
        let budget = BodyBudget::new(6, 4);
        let none = HeaderMap::new();
        let first = budget.read(&none, Body::from("1234")).await.unwrap();
        assert_eq!(budget.read(&none, Body::from("567")).await.unwrap_err(), BodyError::Busy);
        assert_eq!(budget.held(), 4);
        drop(first);
        assert!(budget.read(&none, Body::from("567")).await.is_ok());
    }

    #[tokio::test]
    async fn a_compressed_body_is_refused() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        let budget = BodyBudget::new(10, 10);
        assert_eq!(budget.read(&headers, Body::from("x")).await.unwrap_err(), BodyError::Encoded);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_arriving_is_given_up() {
        let budget = BodyBudget::new(10, 10);
        let body = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        assert_eq!(budget.read(&HeaderMap::new(), body).await.unwrap_err(), BodyError::Stalled);
    }
}
