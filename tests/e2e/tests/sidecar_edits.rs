//! Edits: a picture from a picture, on the builtin engine and a fake InvokeAI.

use e2e::sidecar::Sidecar;
use fakes::{TestResponse, form, invokeai::FakeInvoke, large_images::FORTY_MEGAPIXELS};
use image::{DynamicImage, ImageFormat, Rgb, RgbImage, Rgba, RgbaImage};
use reqwest::Client;
use serde_json::{Value, json};

const WIDTH: u32 = 128;
const HEIGHT: u32 = 96;

fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Vec::new();
    picture.write_to(&mut std::io::Cursor::new(&mut bytes), format).unwrap();
    bytes
}

fn source() -> DynamicImage {
    let pixel = |x: u32, y: u32| Rgb([u8::try_from(x).unwrap(), u8::try_from(y).unwrap(), 99]);
    DynamicImage::ImageRgb8(RgbImage::from_fn(WIDTH, HEIGHT, pixel))
}

/// Transparent in its left half: to be repainted.
fn mask() -> Vec<u8> {
    let pixel = |x: u32, _| Rgba([0, 0, 0, if x < WIDTH / 2 { 0 } else { 255 }]);
    encoded(&DynamicImage::ImageRgba8(RgbaImage::from_fn(WIDTH, HEIGHT, pixel)), ImageFormat::Png)
}

/// A form as openai-python sends it: texts first, files last.
struct Form(Vec<u8>);

impl Form {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn text(self, name: &str, text: &str) -> Self {
        self.part(&format!("name=\"{name}\""), text.as_bytes())
    }

    fn file(self, name: &str, bytes: &[u8]) -> Self {
        let head = format!("name=\"{name}\"; filename=\"upload\"\r\nContent-Type: application/octet-stream");
        self.part(&head, bytes)
    }

    fn part(mut self, head: &str, body: &[u8]) -> Self {
        self.0.extend_from_slice(
            format!("--b0undary\r\nContent-Disposition: form-data; {head}\r\n\r\n").as_bytes(),
        );
        self.0.extend_from_slice(body);
        self.0.extend_from_slice(b"\r\n");
        self
    }

    async fn send(mut self, client: &Client, sidecar: &Sidecar) -> TestResponse {
        self.0.extend_from_slice(b"--b0undary--\r\n");
        let request = client.post(format!("{}/v1/images/edits", sidecar.url));
        let request = request.header("content-type", "multipart/form-data; boundary=b0undary").body(self.0);
        TestResponse::read(request.send().await.unwrap()).await
    }
}

fn picture(answer: &TestResponse) -> RgbImage {
    assert_eq!(answer.status, 200, "{answer:?}");
    let base64 = answer.json["data"][0]["b64_json"].as_str().unwrap();
    image::load_from_memory(&base64_simd::STANDARD.decode_to_vec(base64).unwrap()).unwrap().into_rgb8()
}

/// The kept half is the source's to the byte, and the other is not.
fn assert_half_kept(made: &RgbImage) {
    let source = source().into_rgb8();
    assert_eq!(made.dimensions(), (WIDTH, HEIGHT));
    let differs = |(x, y, pixel): &(u32, u32, &Rgb<u8>)| *pixel != source.get_pixel(*x, *y);
    let changed: Vec<_> = made.enumerate_pixels().filter(differs).collect();
    assert!(changed.iter().all(|(x, ..)| *x < WIDTH / 2), "a kept pixel changed");
    assert!(changed.len() > (WIDTH * HEIGHT / 4) as usize, "the rest was repainted");
}

#[tokio::test]
async fn a_mask_keeps_what_is_not_transparent_to_the_byte_on_both_engines() {
    let fake = FakeInvoke::start().await;
    let png = encoded(&source(), ImageFormat::Png);
    for sidecar in [Sidecar::builtin(&[]).await, Sidecar::invokeai(&fake.url(), &[]).await] {
        sidecar.until_ready().await;
        for base in ["sd-v1-5", "sd-xl-base-1.0"] {
            let form = Form::new().text("prompt", "a cat").text("model", base).text("steps", "2");
            let answer = form.file("image", &png).file("mask", &mask()).send(fakes::http(), &sidecar).await;
            assert_half_kept(&picture(&answer));
            assert_eq!(answer.json["size"], "128x96", "the picture's own size");
        }
    }
    let last = fake.items().pop().unwrap();
    let nodes = &last.graph["nodes"];
    assert_eq!(
        (&nodes["denoise"]["denoising_start"], &nodes["paste"]["mask_blur"]),
        (&json!(0.0), &json!(0))
    );
    let left = || {
        let uploaded = fake.requests().iter().filter(|seen| seen.path.contains("/images/upload")).count();
        let removed = fake.requests().iter().filter(|seen| seen.method == "DELETE").count();
        uploaded - removed
    };
    fakes::eventually("uploads are taken out again", async || (left() == 0).then_some(())).await;
}

#[tokio::test]
async fn a_picture_alone_is_started_from_as_far_as_strength_says() {
    let fake = FakeInvoke::start().await;
    let sidecar = Sidecar::invokeai(&fake.url(), &[]).await;
    sidecar.until_ready().await;
    let form = Form::new().file("image[]", &encoded(&source(), ImageFormat::Jpeg)).text("prompt", "a cat");
    let answer = form
        .text("strength", "0.25")
        .text("size", "256x192")
        .text("n", "2")
        .send(fakes::http(), &sidecar)
        .await;
    assert_eq!(
        (picture(&answer).dimensions(), answer.json["data"].as_array().unwrap().len()),
        ((256, 192), 2)
    );
    let item = &fake.items()[0];
    assert_eq!(item.graph["nodes"]["denoise"]["denoising_start"], 0.75);
    let uploads: Vec<_> =
        fake.requests().into_iter().filter(|seen| seen.path.contains("/images/upload")).collect();
    assert_eq!(uploads.len(), 1, "no mask");
    assert!(uploads[0].path.contains("is_intermediate=true"), "out of sight of the gallery");
}

#[tokio::test]
async fn transparency_of_the_picture_itself_is_a_mask() {
    let sidecar = Sidecar::builtin(&[]).await;
    sidecar.until_ready().await;
    let rgb = source().into_rgb8();
    let pixel = |x: u32, y: u32| {
        let Rgb([r, g, b]) = *rgb.get_pixel(x, y);
        Rgba([r, g, b, if x < WIDTH / 2 { 0 } else { 255 }])
    };
    let png = encoded(&DynamicImage::ImageRgba8(RgbaImage::from_fn(WIDTH, HEIGHT, pixel)), ImageFormat::Png);
    let form = Form::new().file("image", &png).text("prompt", "a cat").text("steps", "1");
    assert_half_kept(&picture(&form.send(fakes::http(), &sidecar).await));
}

#[tokio::test]
async fn what_cannot_be_edited_is_refused_by_name_and_the_engine_hears_nothing() {
    let fake = FakeInvoke::start().await;
    let sidecar = Sidecar::invokeai(&fake.url(), &[]).await;
    sidecar.until_ready().await;
    let png = encoded(&source(), ImageFormat::Png);
    let base = || Form::new().text("prompt", "a cat");
    for (form, param) in [
        (base(), "image"),
        (base().file("image", b"GIF89a"), "image"),
        (base().file("image", &png[..200]), "image"),
        (base().file("image", &png).file("image", &png), "image"),
        (base().file("image", &png).file("mask", &png), "mask"),
        (base().file("image", &png).text("strength", "2"), "strength"),
        (base().file("image", &png).text("n", "two"), "n"),
        (base().file("image", &png).text("size", "1x1"), "size"),
        (Form::new().file("image", &png), "prompt"),
    ] {
        let answer = form.send(fakes::http(), &sidecar).await;
        assert_eq!((answer.status, &answer.json["error"]["param"]), (400, &json!(param)), "{answer:?}");
    }
    assert!(!fake.requests().iter().any(|seen| seen.method == "POST"));
    assert_eq!(
        sidecar.readyz().await.checks.iter().find(|check| check.name == "slots").unwrap().observed,
        "0 of 4 taken"
    );
}

#[tokio::test]
async fn what_cannot_be_decoded_is_refused_with_a_status_where_a_stream_was_asked_for() {
    let fake = FakeInvoke::start().await;
    let sidecar = Sidecar::invokeai(&fake.url(), &[]).await;
    sidecar.until_ready().await;
    let png = encoded(&source(), ImageFormat::Png);
    let form = Form::new().text("prompt", "a cat").text("stream", "true").file("image", &png[..200]);
    let answer = form.send(fakes::http(), &sidecar).await;
    assert_eq!((answer.status, &answer.json["error"]["param"]), (400, &json!("image")), "{answer:?}");
    assert!(!fake.requests().iter().any(|seen| seen.method == "POST"));
}

#[tokio::test]
async fn a_requests_time_covers_the_decoding_and_the_engine_hears_nothing() {
    let fake = FakeInvoke::start().await;
    let sidecar = Sidecar::invokeai(&fake.url(), &[]).await;
    sidecar.until_ready().await;
    let parts = [(&*form::text("prompt"), &b"a cat"[..]), (&form::file("image", "a.png"), &FORTY_MEGAPIXELS)];
    let request = fakes::http().post(format!("{}/v1/images/edits", sidecar.url));
    let request = request.header("content-type", form::KIND).header("x-request-timeout-ms", "100");
    let answer = TestResponse::read(request.body(form::form(&parts)).send().await.unwrap()).await;
    assert_eq!((answer.status, answer.code()), (504, "engine_timeout"), "{answer:?}");
    sidecar.until_inflight(0).await;
    assert!(!fake.requests().iter().any(|seen| seen.method == "POST"));
}

#[tokio::test]
async fn json_with_a_data_address_is_an_edit_too() {
    let sidecar = Sidecar::builtin(&[]).await;
    sidecar.until_ready().await;
    let address = format!(
        "data:image/png;base64,{}",
        base64_simd::STANDARD.encode_to_string(encoded(&source(), ImageFormat::Png))
    );
    let body = json!({"prompt": "a", "steps": 1, "images": [{"image_url": address}]});
    let answer = fakes::post(&format!("{}/v1/images/edits", sidecar.url), &body).await;
    assert_eq!(picture(&answer).dimensions(), (WIDTH, HEIGHT));
    let fetched = json!({"prompt": "a", "images": [{"image_url": "http://127.0.0.1:1/x.png"}]});
    let answer = fakes::post(&format!("{}/v1/images/edits", sidecar.url), &fetched).await;
    assert_eq!((answer.status, &answer.json["error"]["param"]), (400, &Value::from("images")));
}
