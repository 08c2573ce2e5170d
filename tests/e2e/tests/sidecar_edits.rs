//! Edits: an image from an image, on the builtin engine and a fake InvokeAI.

use e2e::sidecar::Sidecar;
use fakes::{TestResponse, engine::RequestKind, form, invokeai::FakeInvoke, large_images::FORTY_MEGAPIXELS};
use image::{DynamicImage, ImageFormat, Rgb, Rgba, RgbaImage};
use serde_json::{Value, json};

use crate::edit_form::{EditForm, HEIGHT, WIDTH, assert_left_half_replaced, encoded, image_of, mask, source};

#[tokio::test]
async fn opaque_mask_pixels_keep_the_source_byte_for_byte_on_both_engines() {
    let fake = FakeInvoke::start().await;
    let png = encoded(&source(), ImageFormat::Png);
    for sidecar in [Sidecar::builtin(&[]).await, Sidecar::invokeai(&fake.url(), &[]).await] {
        sidecar.until_ready().await;
        for base in ["sd-v1-5", "sd-xl-base-1.0"] {
            let form = EditForm::new().text("prompt", "a cat").text("model", base).text("steps", "2");
            let answer = form.file("image", &png).file("mask", &mask()).send(&sidecar).await;
            assert_left_half_replaced(&image_of(&answer));
            assert_eq!(answer.json["size"], "128x96", "the image's actual size");
        }
    }
    let last = fake.items().pop().unwrap();
    let nodes = &last.graph["nodes"];
    assert_eq!(
        (nodes["denoise"]["denoising_start"].as_f64(), &nodes["paste"]["mask_blur"]),
        (Some(0.0), &json!(0))
    );
    let uploads = fake.requests_of(RequestKind::Upload);
    assert_eq!(uploads.len(), 4, "two edits of a picture with its mask");
    assert!(
        uploads.iter().all(|upload| upload.path.contains("is_intermediate=true")),
        "out of sight of the gallery"
    );
    let left = || {
        let uploaded = fake.requests_of(RequestKind::Upload).len();
        let removed = fake.requests().iter().filter(|request| request.method == "DELETE").count();
        uploaded - removed
    };
    fakes::eventually("uploads are taken out again", async || (left() == 0).then_some(())).await;
}

#[tokio::test]
async fn the_images_alpha_channel_is_a_mask() {
    let sidecar = Sidecar::builtin(&[]).await;
    sidecar.until_ready().await;
    let rgb = source().into_rgb8();
    let pixel = |x: u32, y: u32| {
        let Rgb([r, g, b]) = *rgb.get_pixel(x, y);
        Rgba([r, g, b, if x < WIDTH / 2 { 0 } else { 255 }])
    };
    let png = encoded(&DynamicImage::ImageRgba8(RgbaImage::from_fn(WIDTH, HEIGHT, pixel)), ImageFormat::Png);
    let form = EditForm::new().file("image", &png).text("prompt", "a cat").text("steps", "1");
    assert_left_half_replaced(&image_of(&form.send(&sidecar).await));
}

#[tokio::test]
async fn invalid_edits_are_refused_before_the_engine_gets_them() {
    let fake = FakeInvoke::start().await;
    let sidecar = Sidecar::invokeai(&fake.url(), &[]).await;
    sidecar.until_ready().await;
    let png = encoded(&source(), ImageFormat::Png);
    let base = || EditForm::new().text("prompt", "a cat");
    for (form, param) in [
        (base(), "image"),
        (base().file("image", b"GIF89a"), "image"),
        (base().file("image", &png[..200]), "image"),
        (base().file("image", &png).file("image", &png), "image"),
        (base().file("image", &png).file("mask", &png), "mask"),
        (base().file("image", &png).text("strength", "2"), "strength"),
        (base().file("image", &png).text("n", "two"), "n"),
        (base().file("image", &png).text("size", "1x1"), "size"),
        (EditForm::new().file("image", &png), "prompt"),
    ] {
        let answer = form.send(&sidecar).await;
        assert_eq!((answer.status, &answer.json["error"]["param"]), (400, &json!(param)), "{answer:?}");
    }
    assert!(!fake.requests().iter().any(|request| request.method == "POST"));
    assert_eq!(
        sidecar.readyz().await.checks.iter().find(|check| check.name == "slots").unwrap().observed,
        "0 of 4 taken"
    );
}

#[tokio::test]
async fn an_undecodable_image_is_an_error_response_even_with_stream() {
    let fake = FakeInvoke::start().await;
    let sidecar = Sidecar::invokeai(&fake.url(), &[]).await;
    sidecar.until_ready().await;
    let png = encoded(&source(), ImageFormat::Png);
    let form = EditForm::new().text("prompt", "a cat").text("stream", "true").file("image", &png[..200]);
    let answer = form.send(&sidecar).await;
    assert_eq!((answer.status, &answer.json["error"]["param"]), (400, &json!("image")), "{answer:?}");
    assert!(!fake.requests().iter().any(|request| request.method == "POST"));
}

#[tokio::test]
async fn the_request_timeout_covers_decoding() {
    // Made before the fake starts, which cannot answer meanwhile.
    let (prompt, image) = (form::text("prompt"), form::file("image", "a.png"));
    let body = form::form(&[(&*prompt, &b"a cat"[..]), (&*image, &FORTY_MEGAPIXELS)]);
    let fake = FakeInvoke::start().await;
    let sidecar = Sidecar::invokeai(&fake.url(), &[]).await;
    sidecar.until_ready().await;
    let request = fakes::http().post(format!("{}/v1/images/edits", sidecar.url));
    let request = request.header("content-type", form::KIND).header("x-request-timeout-ms", "100");
    let answer = TestResponse::read(request.body(body).send().await.unwrap()).await;
    assert_eq!((answer.status, answer.code()), (504, "engine_timeout"), "{answer:?}");
    sidecar.until_inflight(0).await;
    assert!(!fake.requests().iter().any(|request| request.method == "POST"));
}

#[tokio::test]
async fn json_with_a_data_url_is_an_edit_too() {
    let sidecar = Sidecar::builtin(&[]).await;
    sidecar.until_ready().await;
    let address = format!(
        "data:image/png;base64,{}",
        base64_simd::STANDARD.encode_to_string(encoded(&source(), ImageFormat::Png))
    );
    let body = json!({"prompt": "a", "steps": 1, "images": [{"image_url": address}]});
    let answer = fakes::post(&format!("{}/v1/images/edits", sidecar.url), &body).await;
    assert_eq!(image_of(&answer).dimensions(), (WIDTH, HEIGHT));
    let fetched = json!({"prompt": "a", "images": [{"image_url": "http://127.0.0.1:1/x.png"}]});
    let answer = fakes::post(&format!("{}/v1/images/edits", sidecar.url), &fetched).await;
    assert_eq!((answer.status, &answer.json["error"]["param"]), (400, &Value::from("images")));
}
