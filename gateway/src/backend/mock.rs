//! Placeholder pictures made by the gateway itself: deterministic, no GPU, and they say so on their face. The way
//! back when the GPU host is gone. Admission counts as for the real thing.

use picture::paint::Painting;
use serde_json::{Map, Value, json};
use service::clock::unix_now;
use wire::openai::images::{Size, Usage};

use super::{Answer, Made, Pictures, Rest, events::Events};
use crate::{
    admission::Grant,
    blocking::blocking_under,
    request::demand::Demand,
    store::{Picture, StoreFault, disk::Store},
};

/// What `auto` means here.
const SIZE: Size = Size::new(1024, 1024);

/// Paints what was asked for, also where pictures were sent to be edited.
pub(crate) async fn paint(store: &Store, grant: Grant, demand: &Demand) -> Result<Answer, StoreFault> {
    let (prompt, size, count) = (demand.prompt.clone(), demand.size.unwrap_or(SIZE), demand.count);
    let first = demand.seed.unwrap_or(0);
    let painted = move |seed| {
        let bytes = Painting { painter: "gateway mock", prompt: &prompt, seed, size }.to_png();
        Picture::of(bytes).expect("the painter paints whole pictures")
    };
    if demand.stream {
        let name = demand.task.completed_event();
        let event =
            blocking_under(grant.place(), move || completed(name, size, first, &painted(first))).await;
        return Ok(Answer::Events(Events::one(grant, name, &event), Box::default()));
    }
    let store = store.clone();
    let made = blocking_under(grant.place(), move || {
        let one = |at: u64| {
            let seed = first.wrapping_add(at);
            let words = Map::from_iter([("seed".to_owned(), seed.into())]);
            Ok(Made { picture: store.write(&painted(seed))?, words })
        };
        (0..count).map(one).collect::<Result<_, StoreFault>>()
    });
    Ok(Answer::Pictures(Pictures { grant, made: made.await?, rest: Rest::none() }))
}

/// With every key that the SDKs' types demand.
fn completed(name: &str, size: Size, seed: u64, picture: &Picture) -> Value {
    json!({
        "type": name,
        "b64_json": base64_simd::STANDARD.encode_to_string(picture.bytes()),
        "created_at": unix_now(),
        "size": size.to_string(),
        "quality": "auto",
        "background": "opaque",
        "output_format": "png",
        "usage": Usage::default(),
        "seed": seed,
    })
}
