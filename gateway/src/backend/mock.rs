//! Placeholder pictures made by the gateway itself: deterministic, no GPU, and they say so on their face. The way
//! back when the GPU host is gone. Admission counts as for the real thing.

use serde_json::Map;
use shared::{openai::images::Size, picture::paint::Painting};

use super::{Answer, Made};
use crate::{
    blocking::blocking,
    policy::{admission::Grant, demand::Demand},
    store::Picture,
};

/// What `auto` means here.
const SIZE: Size = Size::new(1024, 1024);

/// Paints what was asked for.
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
        (0..count).map(one).collect()
    });
    Answer { grant, made: made.await, rest: Map::new() }
}
