//! The list of stored images, deletion by hand, and by age and size.

use std::{
    fs::File,
    path::Path,
    time::{Duration, SystemTime},
};

use e2e::gateway::{Gateway, gpu_heavy};
use fakes::{TestResponse, upstream::Upstream};
use reqwest::Method;
use serde_json::{Value, json};

const HOUR: u64 = 3600;

fn unix_now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

/// An image that is so many seconds old.
fn old(store: &Path, age: u64, nth: u64) -> String {
    let name = format!("{}_{nth:016x}.png", unix_now() - age);
    std::fs::create_dir_all(store).unwrap();
    std::fs::write(store.join(&name), b"\x89PNG\r\n\x1a\n and so on").unwrap();
    let file = File::options().write(true).open(store.join(&name)).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
    name
}

fn names(list: &TestResponse) -> Vec<String> {
    let data = list.json["data"].as_array().unwrap();
    data.iter().map(|entry| entry["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn images_are_listed_newest_first_page_by_page() {
    let upstream = Upstream::start().await;
    let dir = fakes::fresh_dir("gallery");
    let store = dir.join("pictures");
    let oldest: Vec<_> = (1..=4).map(|nth| old(&store, nth * HOUR, nth)).collect();
    let gateway = Gateway::start_in(dir, &gpu_heavy(&upstream), &["--public-base-url", "https://ai2"]).await;
    let made = gateway.generate(&json!({"prompt": "p", "size": "64x64"})).await;
    let url = made.json["data"][0]["url"].as_str().unwrap();
    let list = gateway.get("/v1/gateway/images?limit=3").await;
    let newest = url.rsplit('/').next().unwrap().to_owned();
    assert_eq!(names(&list), [newest.clone(), oldest[0].clone(), oldest[1].clone()]);
    let path = url.strip_prefix("https://ai2").unwrap();
    let unix: u64 = newest.split('_').next().unwrap().parse().unwrap();
    let seconds = list.json["data"][0]["duration_seconds"].as_f64().unwrap();
    let expected = json!({"name": newest, "url": url, "bytes": gateway.image(path).await.len(),
        "created": unix, "content_type": "image/png", "thumbnail": format!("/ui/thumbnails/{newest}"),
        "prompt": "p", "size": "64x64", "seed": 0, "duration_seconds": seconds});
    assert_eq!(list.json["data"][0], expected);
    let unknown = list.json["data"][1].as_object().unwrap();
    let keys: Vec<_> = unknown.keys().collect();
    assert_eq!(keys, ["bytes", "content_type", "created", "name", "thumbnail", "url"]);
    assert_eq!((&list.json["has_more"], &list.json["total"]["pictures"]), (&json!(true), &json!(5)));
    let next = list.json["next_before"].as_str().unwrap();
    let rest = gateway.get(&format!("/v1/gateway/images?before={next}&limit=3")).await;
    assert_eq!(names(&rest), oldest[2..]);
    assert_eq!((&rest.json["has_more"], &rest.json["next_before"]), (&json!(false), &Value::Null));
    let wrong = gateway.get("/v1/gateway/images?limit=1000").await;
    assert_eq!((wrong.status, &wrong.json["error"]["param"]), (400, &json!("limit")));
}

#[tokio::test]
async fn a_list_has_the_images_that_match() {
    let upstream = Upstream::start().await;
    let dir = fakes::fresh_dir("filtered");
    let store = dir.join("pictures");
    let ancient = old(&store, 48 * HOUR, 1);
    let described = old(&store, 24 * HOUR, 2);
    // As an earlier version wrote it, and as a later one might.
    std::fs::write(store.join(format!("{ancient}.json")), r#"{"owners":["alice"],"request_ids":["r0"]}"#)
        .unwrap();
    let later = json!({"owners": [], "prompt": "An Old CAT", "model": "SDXL", "later": {"a": [1]}});
    std::fs::write(store.join(format!("{described}.json")), later.to_string()).unwrap();
    let gateway = Gateway::start_in(dir, &gpu_heavy(&upstream), &[]).await;
    let made =
        gateway.generate(&json!({"prompt": "a new cat & <dog>", "model": "sdxl", "size": "64x64"})).await;
    let new = made.json["data"][0]["url"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    let day_ago = unix_now() - 24 * HOUR;
    for (query, expected) in [
        ("", vec![&new, &described, &ancient]),
        ("text=cat", vec![&new, &described]),
        ("text=CAT+%26+%3Cdog%3E", vec![&new]),
        ("text=sdxl", vec![&new, &described]),
        ("text=nothing", vec![]),
        ("model=sdxl", vec![&new, &described]),
        ("model=sd", vec![]),
        (&*format!("from={}", day_ago - 60), vec![&new, &described]),
        (&*format!("until={}", day_ago + 60), vec![&described, &ancient]),
        (&*format!("from={}&until={}&text=cat", day_ago - 60, day_ago + 60), vec![&described]),
        ("request_id=r0", vec![&ancient]),
        ("request_id=r0&text=cat", vec![]),
    ] {
        let list = gateway.get(&format!("/v1/gateway/images?{query}")).await;
        assert_eq!(names(&list).iter().collect::<Vec<_>>(), expected, "{query}");
        assert_eq!(list.json["total"]["pictures"], expected.len(), "{query}");
    }
    let page = gateway.get("/v1/gateway/images?text=cat&limit=1").await;
    assert_eq!((names(&page), &page.json["total"]["pictures"]), (vec![new.clone()], &json!(2)));
    let next = page.json["next_before"].as_str().unwrap();
    let rest = gateway.get(&format!("/v1/gateway/images?text=cat&limit=1&before={next}")).await;
    assert_eq!((names(&rest), &rest.json["has_more"]), (vec![described.clone()], &json!(false)));
    let one = gateway.get(&format!("/v1/gateway/images/{described}")).await;
    assert_eq!((&one.json["later"], &one.json["prompt"]), (&json!({"a": [1]}), &json!("An Old CAT")));
    let one = gateway.get(&format!("/v1/gateway/images/{ancient}")).await;
    assert_eq!((one.status, &one.json["request_id"]), (200, &json!("r0")));
    for (query, param) in [("text=%ff", "text"), ("from=yesterday", "from")] {
        let answer = gateway.get(&format!("/v1/gateway/images?{query}")).await;
        assert_eq!((answer.status, &answer.json["error"]["param"]), (400, &json!(param)), "{query}");
    }
}

#[tokio::test]
async fn an_image_can_be_deleted_once_and_nothing_else_can() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    std::fs::write(gateway.store.join("secret.txt"), b"x").unwrap();
    let made = gateway.generate(&json!({"prompt": "p", "size": "64x64"})).await;
    let url = made.json["data"][0]["url"].as_str().unwrap();
    let name = url.strip_prefix("/ui/images/").unwrap();
    let delete = async |name: &str| {
        let request = gateway.request(Method::DELETE, &format!("/v1/gateway/images/{name}"));
        request.send().await.unwrap().status().as_u16()
    };
    for other in ["secret.txt", ".lock", "%2e%2e%2f.env", "1_0123456789abcdef.png"] {
        assert_eq!(delete(other).await, 404, "{other}");
    }
    assert!(gateway.store.join("secret.txt").exists());
    assert_eq!(delete(name).await, 204);
    assert_eq!(delete(name).await, 404);
    assert_eq!(gateway.anonymous(Method::GET, url).send().await.unwrap().status().as_u16(), 404);
    let list = gateway.get("/v1/gateway/images").await;
    assert_eq!((names(&list).len(), &list.json["total"]), (0, &json!({"pictures": 0, "bytes": 0})));
}

#[tokio::test]
async fn list_and_deletion_are_for_clients_with_a_token() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    let name = old(&gateway.store, HOUR, 1);
    for (method, path) in [
        (Method::GET, "/v1/gateway/images".to_owned()),
        (Method::DELETE, format!("/v1/gateway/images/{name}")),
    ] {
        let answer = TestResponse::read(gateway.anonymous(method, &path).send().await.unwrap()).await;
        assert_eq!((answer.status, answer.code()), (401, "invalid_api_key"), "{path}");
    }
    assert!(gateway.store.join(name).exists());
}

#[tokio::test]
async fn retention_at_start_deletes_expired_and_excess_images() {
    let upstream = Upstream::start().await;
    let dir = fakes::fresh_dir("retention");
    let store = dir.join("pictures");
    let (ancient, young) = (old(&store, 25 * HOUR, 1), old(&store, HOUR, 2));
    let start = async |flags: &[&str]| Gateway::start_in(dir.clone(), &gpu_heavy(&upstream), flags).await;
    let until_deleted = async |name: &str| {
        let path = store.join(name);
        fakes::eventually("it is deleted", async || (!path.exists()).then_some(())).await;
    };
    let gateway = start(&["--ui-image-store-max-age-days", "1"]).await;
    until_deleted(&ancient).await;
    assert!(store.join(&young).exists());
    let made = gateway.generate(&json!({"prompt": "p", "size": "64x64"})).await;
    gateway.stop().await;
    let gateway = start(&["--ui-image-store-max-bytes", "1"]).await;
    until_deleted(&young).await;
    gateway.image(made.json["data"][0]["url"].as_str().unwrap()).await;
}
