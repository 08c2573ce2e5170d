//! Thumbnails of stored images: made when first asked for, kept, and removed with their images.

use std::{
    io::Cursor,
    path::Path,
    time::{Duration, SystemTime},
};

use e2e::gateway::{Gateway, gpu_heavy};
use fakes::{TestResponse, upstream::Upstream};
use futures_util::future::join_all;
use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use reqwest::Method;
use serde_json::json;

/// More than may wait at once.
const CROWD: usize = 90;

/// A colourful image.
fn picture(width: u32, height: u32, format: ImageFormat) -> Vec<u8> {
    let pixel = |x: u32, y: u32| Rgb([x * 7, y * 3, (x ^ y) * 5].map(|sample| sample.to_le_bytes()[0]));
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::from(RgbImage::from_fn(width, height, pixel)).write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// Puts a file into the store.
fn put(store: &Path, nth: usize, extension: &str, bytes: &[u8]) -> String {
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() - 3600;
    let name = format!("{unix}_{nth:016x}.{extension}");
    std::fs::create_dir_all(store).unwrap();
    std::fs::write(store.join(&name), bytes).unwrap();
    name
}

/// Without a token.
async fn ask(gateway: &Gateway, method: Method, name: &str, lines: &[(&str, &str)]) -> TestResponse {
    let request = gateway.anonymous(method, &format!("/ui/thumbnails/{name}"));
    let request = lines.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    TestResponse::read(request.send().await.unwrap()).await
}

fn kept(gateway: &Gateway) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(gateway.store.join(".thumbnails")) else { return Vec::new() };
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn every_format_has_a_small_webp_with_the_images_headers() {
    let gateway = Gateway::start(&Upstream::start().await, &[]).await;
    for (nth, (extension, format)) in
        [("png", ImageFormat::Png), ("jpg", ImageFormat::Jpeg), ("webp", ImageFormat::WebP)]
            .into_iter()
            .enumerate()
    {
        let name = put(&gateway.store, nth, extension, &picture(1024, 512, format));
        let thumbnail = ask(&gateway, Method::GET, &name, &[]).await;
        assert_eq!((thumbnail.status, thumbnail.header("content-type")), (200, "image/webp"), "{name}");
        let small = image::load_from_memory_with_format(&thumbnail.bytes, ImageFormat::WebP).unwrap();
        assert_eq!((small.width(), small.height()), (384, 192), "{name}");
        assert!(thumbnail.bytes.len() < 100_000, "{name}: {} bytes", thumbnail.bytes.len());
        for (header, expected) in [
            ("cache-control", "public, max-age=31536000, immutable"),
            ("x-content-type-options", "nosniff"),
            ("content-security-policy", "sandbox; default-src 'none'"),
        ] {
            assert_eq!(thumbnail.header(header), expected, "{name}");
        }
        let tag = thumbnail.header("etag").to_owned();
        let image = gateway.anonymous(Method::HEAD, &format!("/ui/images/{name}")).send().await.unwrap();
        assert_ne!(image.headers()["etag"], tag.as_str(), "{name}: other bytes, another tag");
        let head = ask(&gateway, Method::HEAD, &name, &[]).await;
        assert_eq!((head.status, head.bytes.len(), head.header("etag")), (200, 0, tag.as_str()), "{name}");
        assert_eq!(head.header("content-length"), thumbnail.bytes.len().to_string(), "{name}");
        let again = ask(&gateway, Method::GET, &name, &[("if-none-match", &tag)]).await;
        assert_eq!((again.status, again.bytes.len()), (304, 0), "{name}");
    }
}

#[tokio::test]
async fn it_is_made_once_and_is_gone_with_its_image() {
    let dir = fakes::fresh_dir("thumbnails");
    let upstream = Upstream::start().await;
    let start = async || Gateway::start_in(dir.clone(), &gpu_heavy(&upstream), &[]).await;
    let gateway = start().await;
    let made = gateway.generate(&json!({"prompt": "p", "size": "64x64"})).await;
    let name = made.json["data"][0]["url"].as_str().unwrap().strip_prefix("/ui/images/").unwrap().to_owned();
    let totals = gateway.get("/v1/gateway/images").await.json["total"].clone();
    let answers = join_all((0..4).map(|_| ask(&gateway, Method::GET, &name, &[]))).await;
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.bytes == answers[0].bytes));
    assert_eq!(kept(&gateway), [format!("{name}.webp")]);
    assert_eq!(gateway.get("/v1/gateway/images").await.json["total"], totals, "it does not count");
    let file = gateway.store.join(".thumbnails").join(format!("{name}.webp"));
    std::fs::write(&file, "the same").unwrap();
    assert_eq!(ask(&gateway, Method::GET, &name, &[]).await.bytes, "the same", "it is not made again");
    gateway.stop().await;
    let gateway = start().await;
    assert_eq!(ask(&gateway, Method::GET, &name, &[]).await.bytes, "the same", "nor after a restart");
    let deleted =
        gateway.request(Method::DELETE, &format!("/v1/gateway/images/{name}")).send().await.unwrap();
    assert_eq!((deleted.status().as_u16(), kept(&gateway)), (204, Vec::new()));
    for lines in [&[][..], &[("if-none-match", "*")]] {
        assert_eq!(ask(&gateway, Method::GET, &name, lines).await.status, 404);
    }
    let by_hand = put(&gateway.store, 7, "png", &picture(64, 64, ImageFormat::Png));
    assert_eq!(ask(&gateway, Method::GET, &by_hand, &[]).await.status, 200);
    gateway.stop().await;
    std::fs::remove_file(dir.join("pictures").join(by_hand)).unwrap();
    assert_eq!(kept(&start().await), [""; 0], "a start removes what has no image");
}

#[tokio::test]
async fn retention_deletes_it_with_the_image() {
    let dir = fakes::fresh_dir("thumbnails-retention");
    let upstream = Upstream::start().await;
    let bytes = picture(64, 64, ImageFormat::Png);
    let name = put(&dir.join("pictures"), 1, "png", &bytes);
    let gateway = Gateway::start_in(dir.clone(), &gpu_heavy(&upstream), &[]).await;
    assert_eq!(ask(&gateway, Method::GET, &name, &[]).await.status, 200);
    gateway.stop().await;
    let path = dir.join("pictures").join(&name);
    let old = std::fs::File::options().write(true).open(&path).unwrap();
    old.set_modified(SystemTime::now() - Duration::from_hours(1)).unwrap();
    let gateway =
        Gateway::start_in(dir.clone(), &gpu_heavy(&upstream), &["--ui-image-store-max-bytes", "1"]).await;
    fakes::eventually("both are deleted", async || {
        (!path.exists() && kept(&gateway).is_empty()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_decoded_has_none_and_other_addresses_get_none() {
    let gateway = Gateway::start(&Upstream::start().await, &[]).await;
    let png = picture(300, 300, ImageFormat::Png);
    let mut huge = png.clone();
    huge[16..24].copy_from_slice(&[0, 0, 0x40, 0, 0, 0, 0x40, 0]);
    let names = [
        put(&gateway.store, 1, "png", &png[..png.len() / 2]),
        put(&gateway.store, 2, "svg", b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>"),
        put(&gateway.store, 3, "png", b"no image"),
        put(&gateway.store, 4, "png", &huge),
        "1_0123456789abcdef.png".to_owned(),
        "1_0123456789abcdef.png.webp".to_owned(),
    ];
    for name in &names {
        let answer = ask(&gateway, Method::GET, name, &[]).await;
        assert_eq!((answer.status, answer.code()), (404, "not_found"), "{name}");
    }
    assert_eq!(kept(&gateway), [""; 0]);
    let closed = Gateway::start(&Upstream::start().await, &["--ui-ip-allowlist", "10.0.0.0/8"]).await;
    let name = put(&closed.store, 1, "png", &png);
    assert_eq!(ask(&closed, Method::GET, &name, &[]).await.code(), "ip_not_allowed");
}

#[tokio::test]
async fn a_crowd_is_bounded_and_delays_no_image() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    let bytes = picture(500, 500, ImageFormat::Png);
    let names: Vec<_> = (0..CROWD).map(|nth| put(&gateway.store, nth, "png", &bytes)).collect();
    let crowd = join_all(names.iter().map(|name| ask(&gateway, Method::GET, name, &[])));
    let image = async {
        let made = gateway.generate(&json!({"prompt": "p", "size": "64x64"})).await;
        (made.status, kept(&gateway).len())
    };
    let (answers, (status, thumbnails)) = tokio::join!(crowd, image);
    let made = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(status, 200);
    assert!(thumbnails < made, "the image came after {thumbnails} of {made} thumbnails");
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status != 200).collect();
    assert!((1..=CROWD - 65).contains(&refused.len()), "{} were refused", refused.len());
    for answer in refused {
        assert_eq!(
            (answer.status, answer.code(), answer.header("retry-after")),
            (503, "gateway_overloaded", "1")
        );
    }
}
