//! A client that reads a stream as it arrives.

use serde_json::Value;

/// A client reading a stream.
#[derive(Debug)]
pub struct StreamClient {
    answer: reqwest::Response,
    /// The bytes received so far.
    pub received: Vec<u8>,
}

impl StreamClient {
    /// Sends this request and reads its response.
    pub async fn start(request: reqwest::RequestBuilder) -> Self {
        let answer = crate::bounded("the head", request.send()).await.expect("an answer");
        assert_eq!(answer.status().as_u16(), 200);
        Self { answer, received: Vec::new() }
    }

    /// A header as text; empty if absent.
    pub fn header(&self, name: &str) -> &str {
        self.answer.headers().get(name).map_or("", |value| value.to_str().unwrap_or_default())
    }

    /// Reads until exactly these bytes have come.
    pub async fn until(&mut self, bytes: &[u8]) {
        while self.received.len() < bytes.len() {
            let chunk = crate::bounded("more of the stream", self.answer.chunk()).await.expect("no break");
            self.received.extend(chunk.expect("the stream goes on"));
        }
        assert_eq!(String::from_utf8_lossy(&self.received), String::from_utf8_lossy(bytes));
    }

    /// Reads to the end; returns whether it was a clean one.
    pub async fn end(&mut self) -> bool {
        loop {
            match crate::bounded("the stream's end", self.answer.chunk()).await {
                Ok(Some(chunk)) => self.received.extend(chunk),
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }

    /// The last event: its name and its data.
    pub fn last_event(&self) -> (String, Value) {
        let text = String::from_utf8_lossy(&self.received);
        let event = &text[text.rfind("event: ").expect("an event")..];
        let (name, data) = event.split_once('\n').expect("data behind the name");
        let data = data.strip_prefix("data: ").expect("data behind the name");
        let data = serde_json::from_str(data).expect("the data is JSON");
        (name.trim_start_matches("event: ").to_owned(), data)
    }
}
