//! Placeholder pictures made by the gateway itself: deterministic, no GPU, and they say so on their face. The way
//! back when the GPU host is gone. Admission counts as for the real thing.

use serde_json::{Map, Value, json};
use shared::{
    openai::images::{Size, Usage},
    picture::paint::Painting,
};

use super::{Answer, Made, Pictures, events::Events};
use crate::{
    blocking::blocking,
    policy::{admission::Grant, demand::Demand},
    state::unix_now,
    store::Picture,
};

/// What `auto` means here.
const SIZE: Size = Size::new(1024, 1024);

/// Paints what was asked for, also where pictures were sent to be edited.
pub(crate) async fn paint(grant: Grant, demand: &Demand) -> Answer {
    let (prompt, size, count) = (demand.prompt.clone(), demand.size.unwrap_or(SIZE), demand.count);
    let first = demand.seed.unwrap_or(0);
    let made = blocking(move || {
        let one = |at: u64| {
            let seed = first.wrapping_add(at);
            let bytes = Painting { painter: "gateway mock", prompt: &prompt, seed, size }.to_png();
            let picture = Picture::of(bytes).expect("the painter paints whole pictures");
            Made { picture, words: Map::from_iter([("seed".to_owned(), seed.into())]) }
        };
        (0..count).map(one).collect::<Vec<_>>()
    });
    let made = made.await;
    match made.first() {
        Some(only) if demand.stream => {
            let name = demand.task.completed_event();
            Answer::Events(Events::one(grant, name, &completed(name, size, only)))
        }
        _ => Answer::Pictures(Pictures { grant, made, rest: Map::new() }),
    }
}

/// With every key that the SDKs' types demand.
fn completed(name: &str, size: Size, made: &Made) -> Value {
    json!({
        "type": name,
        "b64_json": base64_simd::STANDARD.encode_to_string(made.picture.bytes()),
        "created_at": unix_now(),
        "size": size.to_string(),
        "quality": "auto",
        "background": "opaque",
        "output_format": "png",
        "usage": Usage::default(),
        "seed": made.words["seed"],
    })
}
