//! Reads request bodies into memory: bounded each, in total and per client, and in time.
//!
//! A job starts only once its body is complete: before, the HTTP library does not notice that the client disconnects.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    body::Body,
    http::{HeaderMap, header},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

/// Without a frame for this long, the client is gone.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// No body is held for longer, whether it still arrives or is being sent on.
const MAX_HOLD_TIME: Duration = Duration::from_mins(5);

/// How many bytes of bodies may be held at once, over all requests; one client has at most half of it.
#[derive(Debug, Clone)]
pub struct BodyBudget {
    held: Arc<Mutex<BudgetUsage>>,
    total: usize,
    body_limit: usize,
}

/// The client whose bodies are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BudgetOwner {
    /// A verified token, by its name.
    Token(String),
    /// The client's address, where no token was verified.
    Address(IpAddr),
}

#[derive(Debug, Default)]
struct BudgetUsage {
    total: usize,
    by_owner: HashMap<BudgetOwner, usize>,
}

/// A complete body. Its bytes count against the budget until it is dropped.
#[derive(Debug)]
pub struct BufferedBody {
    /// The bytes.
    pub bytes: Bytes,
    /// When it must be dropped.
    pub expires_at: Instant,
    _guard: BudgetGuard,
}

/// Why a body could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    /// It is compressed (`Content-Encoding`).
    Encoded,
    /// It is longer than this many bytes.
    TooLarge(usize),
    /// Other requests hold the budget.
    BudgetExhausted,
    /// Other requests of the same client hold half of it.
    CallerBudgetExhausted,
    /// It stopped arriving.
    Stalled,
    /// It was not complete within five minutes.
    TooSlow,
    /// The connection broke, or the framing is invalid.
    ReadFailed,
}

impl BodyBudget {
    /// At most `total` bytes at once, and `each` per body, capped at half of the total.
    pub fn new(total: usize, each: usize) -> Self {
        Self { held: Arc::default(), total, body_limit: each.min(total / 2) }
    }

    /// The same budget with another limit per body, as after a reload; bodies held keep counting.
    #[must_use]
    pub fn with_body_limit(&self, each: usize) -> Self {
        Self { body_limit: each.min(self.total / 2), ..self.clone() }
    }

    /// Reads the complete body.
    pub async fn read(
        &self,
        owner: &BudgetOwner,
        headers: &HeaderMap,
        mut body: Body,
    ) -> Result<BufferedBody, BodyError> {
        if is_encoded(headers) {
            return Err(BodyError::Encoded);
        }
        let announced = http_body::Body::size_hint(&body).lower();
        if announced > self.body_limit as u64 {
            return Err(BodyError::TooLarge(self.body_limit));
        }
        let until = Instant::now() + MAX_HOLD_TIME;
        let mut guard = BudgetGuard { held: self.held.clone(), owner: owner.clone(), bytes: 0 };
        let mut bytes = BytesMut::new();
        loop {
            let stalled = Instant::now() + STALL_TIMEOUT;
            let timeout_error = if stalled < until { BodyError::Stalled } else { BodyError::TooSlow };
            let frame = timeout_at(stalled.min(until), body.frame()).await.map_err(|_| timeout_error)?;
            let Some(frame) = frame else { break };
            let Ok(data) = frame.map_err(|_| BodyError::ReadFailed)?.into_data() else { continue };
            if bytes.len() + data.len() > self.body_limit {
                return Err(BodyError::TooLarge(self.body_limit));
            }
            guard.grow(data.len(), self.total)?;
            bytes.extend_from_slice(&data);
        }
        Ok(BufferedBody { bytes: bytes.freeze(), expires_at: until, _guard: guard })
    }

    /// Bytes of the largest body that is read.
    pub fn body_limit(&self) -> usize {
        self.body_limit
    }

    /// Bytes held now.
    pub fn held(&self) -> usize {
        lock(&self.held).total
    }
}

/// Whether any line names a coding other than `identity`.
fn is_encoded(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::CONTENT_ENCODING).iter();
    let codings = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let mut codings = codings.map(<[u8]>::trim_ascii).filter(|coding| !coding.is_empty());
    codings.any(|coding| !coding.eq_ignore_ascii_case(b"identity"))
}

fn lock(held: &Mutex<BudgetUsage>) -> MutexGuard<'_, BudgetUsage> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
struct BudgetGuard {
    held: Arc<Mutex<BudgetUsage>>,
    owner: BudgetOwner,
    bytes: usize,
}

impl BudgetGuard {
    fn grow(&mut self, more: usize, total: usize) -> Result<(), BodyError> {
        let mut held = lock(&self.held);
        let owner_bytes = held.by_owner.get(&self.owner).copied().unwrap_or(0) + more;
        if owner_bytes > total / 2 {
            return Err(BodyError::CallerBudgetExhausted);
        }
        if held.total + more > total {
            return Err(BodyError::BudgetExhausted);
        }
        held.total += more;
        held.by_owner.insert(self.owner.clone(), owner_bytes);
        self.bytes += more;
        Ok(())
    }
}

impl Drop for BudgetGuard {
    fn drop(&mut self) {
        let mut held = lock(&self.held);
        held.total -= self.bytes;
        if let Some(owner_bytes) = held.by_owner.get_mut(&self.owner) {
            *owner_bytes -= self.bytes;
            if *owner_bytes == 0 {
                held.by_owner.remove(&self.owner);
            }
        }
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

    fn owner(name: &str) -> BudgetOwner {
        BudgetOwner::Token(name.to_owned())
    }

    #[tokio::test]
    async fn a_body_is_bounded_with_and_without_an_announced_length() {
        let budget = BodyBudget::new(100, 4);
        let (none, me) = (HeaderMap::new(), owner("me"));
        assert_eq!(budget.read(&me, &none, Body::from("12345")).await.unwrap_err(), BodyError::TooLarge(4));
        assert_eq!(
            budget.read(&me, &none, chunked(&[b"123", b"45"])).await.unwrap_err(),
            BodyError::TooLarge(4)
        );
        assert_eq!(budget.read(&me, &none, chunked(&[b"12", b"34"])).await.unwrap().bytes, "1234");
        assert_eq!(budget.held(), 0);
    }

    #[tokio::test]
    async fn the_total_of_bodies_is_bounded_and_released() {
        let budget = BodyBudget::new(8, 4);
        let none = HeaderMap::new();
        let first = budget.read(&owner("a"), &none, Body::from("1234")).await.unwrap();
        let second = budget.read(&owner("b"), &none, Body::from("12")).await.unwrap();
        assert_eq!(
            budget.read(&owner("c"), &none, Body::from("567")).await.unwrap_err(),
            BodyError::BudgetExhausted
        );
        assert_eq!(budget.held(), 6);
        drop((first, second));
        assert!(budget.read(&owner("c"), &none, Body::from("567")).await.is_ok());
    }

    #[tokio::test]
    async fn one_client_holds_at_most_half_of_the_budget() {
        let budget = BodyBudget::new(8, 9);
        let (none, me) = (HeaderMap::new(), BudgetOwner::Address([10, 0, 0, 1].into()));
        assert_eq!(budget.read(&me, &none, Body::from("12345")).await.unwrap_err(), BodyError::TooLarge(4));
        let first = budget.read(&me, &none, Body::from("123")).await.unwrap();
        assert_eq!(
            budget.read(&me, &none, Body::from("12")).await.unwrap_err(),
            BodyError::CallerBudgetExhausted
        );
        assert!(budget.read(&owner("another"), &none, Body::from("1234")).await.is_ok());
        drop(first);
        assert!(budget.read(&me, &none, Body::from("1234")).await.is_ok());
        assert_eq!(lock(&budget.held).by_owner.len(), 0, "no entry is left behind");
    }

    #[tokio::test]
    async fn a_compressed_body_is_refused() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        let budget = BodyBudget::new(10, 10);
        assert_eq!(
            budget.read(&owner("a"), &headers, Body::from("x")).await.unwrap_err(),
            BodyError::Encoded
        );
    }

    #[tokio::test]
    async fn every_content_encoding_header_and_item_counts() {
        let budget = BodyBudget::new(10, 10);
        let read = async |codings: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for coding in codings {
                headers.append(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
            }
            budget.read(&owner("a"), &headers, Body::from("x")).await.map(|body| body.bytes)
        };
        for encoded in [&["identity", "gzip"][..], &["identity, gzip"], &["gzip,identity"], &["", "br"]] {
            assert_eq!(read(encoded).await.unwrap_err(), BodyError::Encoded, "{encoded:?}");
        }
        for plain in [&[][..], &["identity"], &["Identity , identity"], &["identity", "identity"], &[""]] {
            assert_eq!(read(plain).await.unwrap(), "x", "{plain:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_arriving_is_given_up() {
        let budget = BodyBudget::new(10, 10);
        let body = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        assert_eq!(budget.read(&owner("a"), &HeaderMap::new(), body).await.unwrap_err(), BodyError::Stalled);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_body_holds_its_budget_for_at_most_five_minutes() {
        let budget = BodyBudget::new(10_000, 10_000);
        let drips = stream::unfold((), async |()| {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Some((Ok::<_, std::io::Error>(Bytes::from_static(b"x")), ()))
        });
        let started = Instant::now();
        let read = budget.read(&owner("a"), &HeaderMap::new(), Body::from_stream(drips)).await;
        assert_eq!((read.unwrap_err(), started.elapsed().as_secs()), (BodyError::TooSlow, 300));
        assert_eq!(budget.held(), 0);
    }
}
