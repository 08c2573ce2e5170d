//! Edits through the sidecar from a fake ComfyUI.

use e2e::sidecar::Sidecar;
use fakes::{
    TestResponse,
    comfyui::FakeComfy,
    form::{KIND, file, form, text},
};
use image::{DynamicImage, ImageFormat, Rgb, RgbImage, Rgba, RgbaImage};

const WIDTH: u32 = 128;
const HEIGHT: u32 = 96;

fn png(picture: &DynamicImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    picture.write_to(&mut std::io::Cursor::new(&mut bytes), ImageFormat::Png).unwrap();
    bytes
}

fn source() -> RgbImage {
    RgbImage::from_fn(WIDTH, HEIGHT, |x, y| Rgb([u8::try_from(x).unwrap(), u8::try_from(y).unwrap(), 99]))
}

/// Transparent in its left half: to be repainted.
fn mask() -> DynamicImage {
    let pixel = |x: u32, _| Rgba([0, 0, 0, if x < WIDTH / 2 { 0 } else { 255 }]);
    DynamicImage::ImageRgba8(RgbaImage::from_fn(WIDTH, HEIGHT, pixel))
}

async fn edit(sidecar: &Sidecar, texts: &[(&str, &str)], mask: Option<&DynamicImage>) -> TestResponse {
    let picture = png(&DynamicImage::ImageRgb8(source()));
    let mask = mask.map(png);
    let heads: Vec<_> = texts.iter().map(|(name, _)| text(name)).collect();
    let mut parts: Vec<(&str, &[u8])> = Vec::new();
    parts.extend(heads.iter().zip(texts).map(|(head, (_, value))| (head.as_str(), value.as_bytes())));
    let (of_image, of_mask) = (file("image", "in.png"), file("mask", "mask.png"));
    parts.push((&of_image, &picture));
    if let Some(mask) = &mask {
        parts.push((&of_mask, mask));
    }
    let request = fakes::http().post(format!("{}/v1/images/edits", sidecar.url));
    let request = request.header("content-type", KIND).body(form(&parts));
    TestResponse::read(request.send().await.unwrap()).await
}

fn picture(answer: &TestResponse) -> RgbImage {
    assert_eq!(answer.status, 200, "{answer:?}");
    let base64 = answer.json["data"][0]["b64_json"].as_str().unwrap();
    image::load_from_memory(&base64_simd::STANDARD.decode_to_vec(base64).unwrap()).unwrap().into_rgb8()
}

#[tokio::test]
async fn a_mask_keeps_what_is_not_transparent_to_the_byte() {
    let fake = FakeComfy::start().await;
    let sidecar = Sidecar::comfyui(&fake.url(), &[]).await;
    sidecar.until_ready().await;
    let answer = edit(&sidecar, &[("prompt", "a cat"), ("steps", "2")], Some(&mask())).await;
    let made = picture(&answer);
    let source = source();
    assert_eq!(made.dimensions(), (WIDTH, HEIGHT));
    let differs = |(x, y, pixel): &(u32, u32, &Rgb<u8>)| *pixel != source.get_pixel(*x, *y);
    let changed: Vec<_> = made.enumerate_pixels().filter(differs).collect();
    assert!(changed.iter().all(|(x, ..)| *x < WIDTH / 2), "a kept pixel changed");
    assert!(changed.len() > (WIDTH * HEIGHT / 4) as usize, "the rest was repainted");
    assert_eq!(fake.items()[0].node("KSampler").unwrap()["denoise"], 1.0);
}

#[tokio::test]
async fn a_picture_alone_is_started_from_as_far_as_strength_says() {
    let fake = FakeComfy::start().await;
    let sidecar = Sidecar::comfyui(&fake.url(), &[]).await;
    sidecar.until_ready().await;
    let texts = [("prompt", "a cat"), ("strength", "0.25"), ("size", "256x192"), ("n", "2"), ("steps", "2")];
    let answer = edit(&sidecar, &texts, None).await;
    assert_eq!(picture(&answer).dimensions(), (256, 192));
    assert_eq!(answer.json["data"].as_array().unwrap().len(), 2);
    assert_eq!(fake.items()[0].node("KSampler").unwrap()["denoise"], 0.25);
    let seen = fake.requests();
    assert_eq!(seen.iter().filter(|seen| seen.path == "/upload/image").count(), 1, "once for both, no mask");
    let uploads: Vec<_> = fake.files().into_iter().filter(|file| file.contains("ada2-sidecar/")).collect();
    assert!(uploads.len() == 1 && uploads[0].starts_with("temp/"), "where the engine tidies up: {uploads:?}");
}
