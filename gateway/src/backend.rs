//! The client to the backends: a grant and a request in, pictures out. One request, one backend, one try, on a
//! connection of its own, so that it need never be sent twice.

mod fault;
pub(crate) mod mock;
pub(crate) mod obstacle;
mod unpack;

use std::{sync::Arc, time::Duration};

use axum::http::{HeaderName, HeaderValue, header};
use bytes::Bytes;
use reqwest::{Client, ClientBuilder, Response, Url};
use serde_json::{Map, Value};
use shared::service::{
    outbound::{BodyFault, Connections, builder, read_limited},
    request_id::X_REQUEST_ID,
};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use tracing::error;

pub(crate) use self::fault::{BackendFault, Said};
use self::unpack::{Entry, Source, Unpacked, unpack};
use crate::{
    blocking::blocking,
    config::{Backend, Outbound},
    policy::admission::Grant,
    store::Picture,
};

/// What is left of a request's time, in milliseconds; the backend gives up by then.
const X_REQUEST_TIMEOUT_MS: HeaderName = HeaderName::from_static("x-request-timeout-ms");
/// Kept back from it for the way home and for storing.
const HOMEWARD: Duration = Duration::from_secs(2);
/// Bytes of an answer with pictures: ten of two megapixels in base64, and room.
const ANSWER_LIMIT: usize = 128 << 20;
/// Bytes of one picture fetched by its address.
const PICTURE_LIMIT: usize = 64 << 20;

/// The two clients: one that never reuses a connection, and one for questions that may be asked twice. Cheap to clone;
/// all clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Backends {
    fresh: Client,
    pooled: watch::Sender<Client>,
    outbound: Arc<Outbound>,
}

/// What is sent.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// The request's body.
    pub(crate) body: Vec<u8>,
    /// The request's id, for both programs' logs.
    pub(crate) request_id: HeaderValue,
    /// When our own patience ends.
    pub(crate) deadline: Instant,
    /// When the caller's does, if it said so.
    pub(crate) caller_deadline: Option<Instant>,
}

/// Pictures, and the grant that they were made under: the place is free only once they are stored.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The place.
    pub(crate) grant: Grant,
    /// The pictures.
    pub(crate) made: Vec<Made>,
    /// The answer's other fields.
    pub(crate) rest: Map<String, Value>,
}

/// One picture and what the backend says of it.
#[derive(Debug)]
pub(crate) struct Made {
    /// The picture.
    pub(crate) picture: Picture,
    /// `seed` and `revised_prompt`, as they came.
    pub(crate) words: Map<String, Value>,
}

impl Backends {
    /// The clients, trusting whom the configuration trusts.
    pub(crate) fn new(outbound: &Outbound) -> reqwest::Result<Self> {
        Ok(Self {
            fresh: client(Connections::Fresh, outbound)?,
            pooled: watch::Sender::new(client(Connections::Pooled, outbound)?),
            outbound: Arc::new(outbound.clone()),
        })
    }

    /// The client for probes and lists, as it is now.
    pub(crate) fn pooled(&self) -> Client {
        self.pooled.borrow().clone()
    }

    /// Drops the idle connections, by dropping the client that has them: while the machine sleeps its timer for them
    /// stands still, and their other ends go away.
    pub(crate) fn drop_idle(&self) {
        match client(Connections::Pooled, &self.outbound) {
            Ok(client) => drop(self.pooled.send_replace(client)),
            Err(error) => error!(%error, "no new client for backends; the old one keeps its connections"),
        }
    }

    /// Has pictures made. Dropping the future closes the connection, which ends the job.
    pub(crate) async fn generate(&self, grant: Grant, outgoing: Outgoing) -> Result<Answer, BackendFault> {
        let deadline = outgoing.deadline;
        let exchange = self.exchange(grant.permitted().backend(), outgoing);
        let (made, rest) = timeout_at(deadline, exchange).await.map_err(|_| BackendFault::TimedOut)??;
        Ok(Answer { grant, made, rest })
    }

    async fn exchange(
        &self,
        backend: &Backend,
        outgoing: Outgoing,
    ) -> Result<(Vec<Made>, Map<String, Value>), BackendFault> {
        let patience =
            outgoing.caller_deadline.map_or(outgoing.deadline, |theirs| theirs.min(outgoing.deadline));
        let left = patience.saturating_duration_since(Instant::now()).saturating_sub(HOMEWARD);
        let request = self
            .fresh
            .post(backend.api("images/generations"))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .header(X_REQUEST_ID, outgoing.request_id)
            .header(X_REQUEST_TIMEOUT_MS, left.as_millis().max(1).to_string())
            .body(outgoing.body);
        let answer = backend.authorized(request).send().await.map_err(|error| BackendFault::of(&error))?;
        if !answer.status().is_success() {
            return Err(fault::refusal(answer).await);
        }
        let body = whole(answer, ANSWER_LIMIT).await?;
        let origin = backend.base_url.clone();
        let Unpacked { entries, rest } = blocking(move || unpack(&body, &origin)).await?;
        let mut made = Vec::with_capacity(entries.len());
        for Entry { source, words } in entries {
            let bytes = match source {
                Source::Bytes(bytes) => bytes,
                Source::At(url) => self.fetch(backend, url).await?.into(),
            };
            let picture = blocking(move || Picture::of(bytes)).await;
            let picture =
                picture.map_err(|why| BackendFault::Unusable(format!("it sent no picture: {why}")))?;
            made.push(Made { picture, words });
        }
        Ok((made, rest))
    }

    /// A picture on the backend's own origin.
    async fn fetch(&self, backend: &Backend, url: Url) -> Result<Bytes, BackendFault> {
        let request = backend.authorized(self.pooled().get(url));
        let answer = request.send().await.map_err(|error| BackendFault::of(&error))?;
        if !answer.status().is_success() {
            let status = answer.status().as_u16();
            return Err(BackendFault::Unusable(format!("its own picture address answered {status}")));
        }
        whole(answer, PICTURE_LIMIT).await
    }
}

async fn whole(answer: Response, limit: usize) -> Result<Bytes, BackendFault> {
    read_limited(answer, limit).await.map_err(|fault| match fault {
        BodyFault::TooLong => BackendFault::Unusable(format!("its answer is longer than {limit} bytes")),
        BodyFault::Broken(error) => BackendFault::of(&error),
    })
}

fn client(connections: Connections, outbound: &Outbound) -> reqwest::Result<Client> {
    trusting(builder(connections), outbound).build()
}

fn trusting(mut builder: ClientBuilder, outbound: &Outbound) -> ClientBuilder {
    builder = builder.user_agent(concat!("gateway/", env!("CARGO_PKG_VERSION")));
    if !outbound.verify {
        builder = builder.tls_danger_accept_invalid_certs(true);
    }
    if !outbound.authorities.is_empty() {
        builder = builder.tls_certs_merge(outbound.authorities.iter().cloned());
    }
    match &outbound.identity {
        Some(identity) => builder.identity(identity.clone()),
        None => builder,
    }
}
