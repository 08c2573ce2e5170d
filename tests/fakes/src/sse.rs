//! A client of server-sent events, as an SDK is one: reads a stream event by event.

use serde_json::Value;

use crate::bounded;

/// A stream that is being read.
#[derive(Debug)]
pub struct SseReader {
    answer: reqwest::Response,
    unread: String,
    /// The texts of comment lines so far.
    pub comments: Vec<String>,
}

impl SseReader {
    /// Of an answer that is a stream.
    pub fn new(answer: reqwest::Response) -> Self {
        let kind = answer.headers()["content-type"].to_str().expect("text").to_owned();
        assert!(
            answer.status() == 200 && kind.starts_with("text/event-stream"),
            "{} {kind}",
            answer.status()
        );
        Self { answer, unread: String::new(), comments: Vec::new() }
    }

    /// The next event's data; none at the stream's end. A broken connection is an error.
    pub async fn next(&mut self) -> Result<Option<Value>, reqwest::Error> {
        Ok(self.next_named().await?.map(|(_, data)| data))
    }

    /// The same with the event's name; empty if it has none.
    pub async fn next_named(&mut self) -> Result<Option<(String, Value)>, reqwest::Error> {
        loop {
            while let Some((block, rest)) = self.unread.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.unread = rest;
                if let Some(event) = self.read(&block) {
                    return Ok(Some(event));
                }
            }
            match bounded("the next event", self.answer.chunk()).await? {
                Some(chunk) => self.unread.push_str(std::str::from_utf8(&chunk).expect("text")),
                None => return Ok(None),
            }
        }
    }

    /// All that are left.
    pub async fn rest(mut self) -> Vec<Value> {
        let mut all = Vec::new();
        while let Some(event) = self.next().await.expect("a complete stream") {
            all.push(event);
        }
        all
    }

    fn read(&mut self, block: &str) -> Option<(String, Value)> {
        let (mut event, mut data) = (String::new(), None);
        for line in block.lines() {
            match line.split_once(':') {
                Some(("", text)) => self.comments.push(text.trim().to_owned()),
                Some(("data", text)) => data = Some(serde_json::from_str(text.trim()).expect("JSON")),
                Some(("event", name)) => {
                    assert!(!name.trim().is_empty());
                    name.trim().clone_into(&mut event);
                }
                _ => {}
            }
        }
        data.map(|data| (event, data))
    }
}
