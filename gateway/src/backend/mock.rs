//! Placeholder images that the gateway paints itself, labelled as such: the fallback an operator chooses while the GPU host is
//! away. Deterministic, without a GPU; admission applies as usual.

use picture::painter::ProceduralImage;
use serde_json::{Map, Value, json};
use service::clock::unix_now;
use wire::openai::images::{ImageSize, Usage};

use super::{
    events::EventStream,
    images::{BackendResponse, GeneratedImage, GeneratedImages, ResponseEnvelope},
};
use crate::{
    admission::Grant,
    blocking::run_blocking_with_permit,
    request::image_request::ImageRequest,
    store::{EncodedImage, StoreError, disk::ImageStore},
};

/// For `auto`.
const DEFAULT_SIZE: ImageSize = ImageSize::new(1024, 1024);

/// Paints what is requested; an edit gets a new image, too.
pub(crate) async fn paint(
    store: &ImageStore,
    grant: Grant,
    image_request: &ImageRequest,
) -> Result<BackendResponse, StoreError> {
    let (prompt, size, count) =
        (image_request.prompt.clone(), image_request.size.unwrap_or(DEFAULT_SIZE), image_request.count);
    let first_seed = image_request.seed.unwrap_or(0);
    let paint = move |seed| {
        let bytes = ProceduralImage { label: "gateway mock", prompt: &prompt, seed, size }.to_png();
        EncodedImage::from_bytes(bytes).expect("the painter makes complete images")
    };
    if image_request.stream {
        let name = image_request.task.completed_event();
        let event = run_blocking_with_permit(grant.slot(), move || {
            completed_event_json(name, size, first_seed, &paint(first_seed))
        })
        .await;
        return Ok(BackendResponse::Events(EventStream::single(grant, name, &event), Box::default()));
    }
    let store = store.clone();
    let images = run_blocking_with_permit(grant.slot(), move || {
        let one = |index: u64| {
            let seed = first_seed.wrapping_add(index);
            let settings = settings(size, seed);
            let metadata =
                Map::from_iter([("seed".to_owned(), seed.into()), ("settings".to_owned(), settings)]);
            Ok(GeneratedImage { file: store.write(&paint(seed))?, metadata })
        };
        (0..count).map(one).collect::<Result<_, StoreError>>()
    });
    Ok(BackendResponse::Images(GeneratedImages {
        grant,
        images: images.await?,
        envelope: ResponseEnvelope::empty(),
    }))
}

/// With every key that the SDKs' types require.
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
        "settings": settings(size, seed),
    })
}

/// What made the placeholder.
fn settings(size: ImageSize, seed: u64) -> Value {
    json!({"model": "mock", "size": size.to_string(), "seed": seed})
}
