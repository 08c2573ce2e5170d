//! The requests to every contestant: images, chats, and more images than it has slots.

use std::time::{Duration, Instant};

use e2e::gateway::TOKEN;
use fakes::child;
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use super::{
    super::backend::{CHAT_TOKEN, SLOW},
    contestant::Contestant,
};

/// In the overload test: 200 requests per second.
const REQUEST_INTERVAL: Duration = Duration::from_millis(5);

/// The results of one contestant, over all rounds.
#[derive(Default)]
pub(super) struct Score {
    pub(super) times: Vec<Duration>,
    pub(super) wall: Duration,
    pub(super) processor: Duration,
    pub(super) peak_mib: u64,
}

impl Score {
    /// One more round.
    pub(super) async fn images(&mut self, of: &Contestant, clients: usize, images: usize) {
        let request = crate::request(&json!({"model": "painter", "prompt": "p", "response_format": "url"}));
        let process = of.child.id();
        child::reset_peak(process);
        let (before, start) = (child::processor_time(process), Instant::now());
        self.times.extend(crate::run(&request, &of.child.url, clients, images).await);
        self.wall += start.elapsed();
        self.processor += child::processor_time(process).saturating_sub(before);
        self.peak_mib = self.peak_mib.max(child::peak_mib(process));
        of.clear();
    }

    /// One more round of chats, each measured up to its first token.
    pub(super) async fn chat_requests(&mut self, client: &Client, of: &Contestant, conversations: usize) {
        for _ in 0..conversations {
            self.times.push(first_token(client, &of.child.url).await);
        }
    }
}

async fn first_token(client: &Client, url: &str) -> Duration {
    let body =
        json!({"model": "speaker", "stream": true, "messages": [{"role": "user", "content": "Speak."}]});
    let start = Instant::now();
    let mut answer = post(client, url, "/v1/chat/completions", &body).send().await.expect("an answer");
    assert_eq!(answer.status().as_u16(), 200, "{url}: {:?}", answer.chunk().await);
    let mut received = Vec::new();
    while !received.windows(CHAT_TOKEN.len()).any(|window| window == CHAT_TOKEN.as_bytes()) {
        received.extend(answer.chunk().await.expect("a chunked response").expect("a token"));
    }
    let took = start.elapsed();
    while answer.chunk().await.expect("a complete response").is_some() {}
    took
}

/// Requests for slow images at a steady pace, whatever their outcome; how long the refusals took.
pub(super) async fn refusals(client: &Client, url: &str, requests: usize) -> Vec<Duration> {
    let mut pace = interval(REQUEST_INTERVAL);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut tasks = JoinSet::new();
    for _ in 0..requests {
        pace.tick().await;
        tasks.spawn(refusal(client.clone(), url.to_owned()));
    }
    tasks.join_all().await.into_iter().flatten().collect()
}

/// None if it was admitted.
async fn refusal(client: Client, url: String) -> Option<Duration> {
    let body = json!({"model": "painter", "prompt": SLOW, "response_format": "url"});
    let start = Instant::now();
    let answer = post(&client, &url, "/v1/images/generations", &body).send().await.expect("an answer");
    let status = answer.status().as_u16();
    answer.bytes().await.expect("a complete response");
    (status == 429).then(|| start.elapsed())
}

fn post(client: &Client, url: &str, path: &str, body: &Value) -> RequestBuilder {
    let request = client.post(format!("{url}{path}")).bearer_auth(TOKEN);
    request.header("content-type", "application/json").body(body.to_string())
}
