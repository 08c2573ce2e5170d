//! Placeholder pictures made by the gateway itself: deterministic, no GPU, and they say so on their face. The way
//! back when the GPU host is gone. Admission counts as for the real thing.

use picture::painter::ProceduralImage;
use serde_json::{Map, Value, json};
use service::clock::unix_now;
use wire::openai::images::{ImageSize, Usage};

use super::{BackendResponse, GeneratedImage, GeneratedImages, ResponseEnvelope, events::EventStream};
use crate::{
    admission::Grant,
    blocking::run_blocking_with_permit,
    request::image_request::ImageRequest,
    store::{EncodedImage, StoreError, disk::ImageStore},
};

/// What `auto` means here.
const SIZE: ImageSize = ImageSize::new(1024, 1024);

/// Paints what was asked for, also where pictures were sent to be edited.
pub(crate) async fn paint(
    store: &ImageStore,
    grant: Grant,
    image_request: &ImageRequest,
) -> Result<BackendResponse, StoreError> {
    let (prompt, size, count) =
        (image_request.prompt.clone(), image_request.size.unwrap_or(SIZE), image_request.count);
    let first = image_request.seed.unwrap_or(0);
    let painted = move |seed| {
        let bytes = ProceduralImage { label: "gateway mock", prompt: &prompt, seed, size }.to_png();
        EncodedImage::from_bytes(bytes).expect("the painter paints whole pictures")
    };
    if image_request.stream {
        let name = image_request.task.completed_event();
        let event = run_blocking_with_permit(grant.slot(), move || {
            completed_event_json(name, size, first, &painted(first))
        })
        .await;
        return Ok(BackendResponse::Events(EventStream::single(grant, name, &event), Box::default()));
    }
    let store = store.clone();
    let made = run_blocking_with_permit(grant.slot(), move || {
        let one = |at: u64| {
            let seed = first.wrapping_add(at);
            let words = Map::from_iter([("seed".to_owned(), seed.into())]);
            Ok(GeneratedImage { image: store.write(&painted(seed))?, metadata: words })
        };
        (0..count).map(one).collect::<Result<_, StoreError>>()
    });
    Ok(BackendResponse::Images(GeneratedImages {
        grant,
        images: made.await?,
        envelope: ResponseEnvelope::empty(),
    }))
}

/// With every key that the SDKs' types demand.
fn completed_event_json(name: &str, size: ImageSize, seed: u64, image: &EncodedImage) -> Value {
    json!({
        "type": name,
        "b64_json": base64_simd::STANDARD.encode_to_string(image.bytes()),
        "created_at": unix_now(),
        "size": size.to_string(),
        "quality": "auto",
        "background": "opaque",
        "output_format": "png",
        "usage": Usage::default(),
        "seed": seed,
    })
}
