//! What is kept beside each image: how it was made, who may read that, and how to keep none of it.

use std::path::PathBuf;

use e2e::gateway::{Gateway, gpu_heavy};
use fakes::{
    TestResponse,
    form::{KIND, file, form, text},
    stream_client::StreamClient,
    upstream::{
        Upstream, UpstreamReply, fake_image,
        sse::{SseStep, completed},
    },
};
use reqwest::Method;
use serde_json::{Value, json};
use wire::openai::images::ImageSize;

const ALICE: &str = "alice-0123456789abcdef";
const BOB: &str = "bob-0123456789abcdef";

/// The prompt that a page would like least, and a log, and a shell.
const PROMPT: &str = "<img src=x onerror=alert(1)> & \"q\" \u{0}\u{1}\u{1b}[31m\r\n\u{202e}\u{1F408} ${HOME}";

fn name_of(url: &Value) -> String {
    url.as_str().unwrap().strip_prefix("/ui/images/").unwrap().to_owned()
}

async fn describe(gateway: &Gateway, name: &str) -> Value {
    let answer = gateway.get(&format!("/v1/gateway/images/{name}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json
}

/// Of the only image, or the newest one.
async fn newest(gateway: &Gateway) -> Value {
    let list = gateway.get("/v1/gateway/images?limit=1").await;
    describe(gateway, list.json["data"][0]["name"].as_str().unwrap()).await
}

/// The members that say how an image was made; how long it took is checked.
fn settings(image: &Value) -> Value {
    let mut image = image.as_object().unwrap().clone();
    let store = [
        "bytes",
        "content_type",
        "created",
        "name",
        "owners",
        "request_id",
        "request_ids",
        "thumbnail",
        "url",
    ];
    image.retain(|name, _| !store.contains(&name.as_str()));
    let seconds = image.remove("duration_seconds").unwrap().as_f64().unwrap();
    assert!((0.0..60.0).contains(&seconds), "{seconds}");
    image.into()
}

/// An answer as a sidecar's: an image with these settings.
fn made_with(settings: &Value) -> UpstreamReply {
    let image = base64_simd::STANDARD.encode_to_string(fake_image("p", 9, ImageSize::new(32, 32)));
    let data = json!([{"b64_json": image, "seed": 9, "settings": settings}]);
    UpstreamReply::json(200, json!({"created": 1, "data": data, "size": "32x32", "ignored": ["strength"]}))
}

fn sidecar_settings() -> Value {
    json!({"model": "SDXL 1.0", "preset": "fast", "task": "generate", "steps": 8, "cfg_scale": 1.0,
        "scheduler": "euler", "size": "32x32", "seed": 9, "loras": [{"name": "l", "weight": 0.5}]})
}

#[tokio::test]
async fn an_images_settings_are_what_was_asked_for_and_what_the_backend_did() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    let requested = json!({"model": "fast", "size": "64x64", "n": 1, "quality": "high", "steps": 20,
        "cfg_scale": 7.5, "scheduler": "ddim", "seed": 7, "strength": 0.5, "loras": [{"name": "l", "weight": 1.0}]});
    let ask = |format: &str| {
        json!({"prompt": PROMPT, "negative": "bad", "model": "fast", "size": "64x64", "n": 1, "quality": "high",
            "num_inference_steps": 20, "guidance_scale": 7.5, "sampler": "ddim", "seed": 7, "strength": 0.5,
            "loras": [{"name": "l", "weight": 1.0}], "user": "u", "response_format": format})
    };
    for format in ["url", "b64_json"] {
        upstream.next_image(made_with(&sidecar_settings()));
        let answer = gateway.generate(&ask(format)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let image = newest(&gateway).await;
        let mut expected = sidecar_settings();
        expected["prompt"] = json!(PROMPT);
        expected["negative_prompt"] = json!("bad");
        expected["ignored"] = json!(["strength"]);
        expected["requested"] = requested.clone();
        assert_eq!(settings(&image), expected, "{format}");
        assert_eq!(image["request_id"], answer.header("x-request-id"));
        let id = answer.header("x-request-id");
        let list = gateway.get(&format!("/v1/gateway/images?request_id={id}")).await;
        let entry = &list.json["data"][0];
        assert_eq!(
            (&entry["prompt"], &entry["model"], &entry["size"], &entry["seed"], &entry["steps"]),
            (&json!(PROMPT), &json!("SDXL 1.0"), &json!("32x32"), &json!(9), &json!(8))
        );
        assert!(entry.get("requested").is_none() && entry["duration_seconds"].is_f64(), "{entry}");
    }
    // A backend that says nothing: what is known all the same.
    gateway.generate(&json!({"prompt": "p", "model": "other", "size": "64x64", "seed": 3, "steps": 5})).await;
    let requested = json!({"model": "other", "size": "64x64", "seed": 3, "steps": 5});
    let expected = json!({"task": "generate", "prompt": "p", "model": "other", "size": "64x64", "seed": 3,
        "requested": requested});
    assert_eq!(settings(&newest(&gateway).await), expected);
    assert_eq!(upstream.images()[0].body["num_inference_steps"], 20, "passed on as it was");
}

#[tokio::test]
async fn each_image_of_a_request_has_its_own_seed() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    let answer = gateway.generate(&json!({"prompt": "p", "n": 3, "seed": 5, "size": "64x64"})).await;
    for (nth, entry) in answer.json["data"].as_array().unwrap().iter().enumerate() {
        let image = describe(&gateway, &name_of(&entry["url"])).await;
        assert_eq!((&image["seed"], &image["requested"]["seed"]), (&json!(5 + nth), &json!(5)));
    }
}

#[tokio::test]
async fn an_edits_settings_name_its_files_and_mask() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    let heads = [
        file("image[]", "/home/me/a cat.png"),
        file("image[]", &format!("C:\\{}.png", "b".repeat(200))),
        file("mask", "m.png"),
        text("prompt"),
        text("steps"),
        text("steps"),
        text("guidance_scale"),
        text("negative_prompt"),
    ];
    let contents: [&[u8]; 8] = [b"png", b"png", b"png", b"p", b"9", b"20", b"7.5", b"bad"];
    let parts: Vec<_> = heads.iter().map(String::as_str).zip(contents).collect();
    let answer = TestResponse::read(gateway.edit(KIND, form(&parts)).send().await.unwrap()).await;
    let image = describe(&gateway, &name_of(&answer.json["data"][0]["url"])).await;
    let expected = json!({"task": "inpaint", "prompt": "p", "negative_prompt": "bad", "size": "64x64", "seed": 0,
        "mask": true, "references": ["a cat.png", "b".repeat(120)],
        "requested": {"steps": 20, "cfg_scale": 7.5}});
    assert_eq!(settings(&image), expected);
    // Other words, or it might be the same image of the same second.
    let body = json!({"prompt": "q", "image": "data:image/png;base64,aGk=", "strength": 0.25}).to_string();
    let answer = TestResponse::read(gateway.edit("application/json", body).send().await.unwrap()).await;
    let image = describe(&gateway, &name_of(&answer.json["data"][0]["url"])).await;
    let expected =
        json!({"task": "edit", "prompt": "q", "size": "64x64", "seed": 0, "requested": {"strength": 0.25}});
    assert_eq!(settings(&image), expected);
}

#[tokio::test]
async fn the_image_of_a_stream_has_settings_too() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    let SseStep::Send(event) = completed("image_generation", &fake_image("p", 7, ImageSize::new(32, 32)))
    else {
        panic!("an event")
    };
    let said = r#"data: {"settings":{"model":"SDXL 1.0","steps":8},"size":"32x32","ignored":["n"],"#;
    let event = String::from_utf8(event).unwrap().replacen("data: {", said, 1);
    upstream.set_images(UpstreamReply::Events(vec![SseStep::Send(event.into_bytes())]));
    let ask = json!({"prompt": "p", "stream": true, "steps": 20});
    let mut client = StreamClient::start(gateway.image_request(&ask)).await;
    assert!(client.end().await);
    let image = describe(&gateway, &name_of(&client.last_event().1["url"])).await;
    let expected = json!({"task": "generate", "prompt": "p", "model": "SDXL 1.0", "steps": 8, "size": "32x32",
        "seed": 7, "ignored": ["n"], "requested": {"steps": 20}});
    assert_eq!(settings(&image), expected);
    assert_eq!(image["request_id"], client.header("x-request-id"));
}

#[tokio::test]
async fn placeholders_have_settings_too() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &["--images-backend", "mock"]).await;
    let ask = json!({"prompt": "p", "size": "64x64", "seed": 3});
    let expected = json!({"task": "generate", "prompt": "p", "model": "mock", "size": "64x64", "seed": 3,
        "requested": {"size": "64x64", "seed": 3}});
    gateway.generate(&ask).await;
    assert_eq!(settings(&newest(&gateway).await), expected);
    let mut ask = ask;
    (ask["stream"], ask["prompt"]) = (json!(true), json!("q"));
    let mut client = StreamClient::start(gateway.image_request(&ask)).await;
    assert!(client.end().await);
    let image = describe(&gateway, &name_of(&client.last_event().1["url"])).await;
    assert_eq!((&image["prompt"], &image["model"], &image["seed"]), (&json!("q"), &json!("mock"), &json!(3)));
}

/// A gateway with tokens of two people, with the mock's images.
async fn of_two(dir: PathBuf, flags: &[&str]) -> Gateway {
    let upstream = Upstream::start().await;
    std::fs::write(dir.join(".env"), format!("GATEWAY_BEARER_TOKENS=alice={ALICE},bob={BOB}\n")).unwrap();
    let flags = [&["--images-backend", "mock"], flags].concat();
    Gateway::start_in(dir, &gpu_heavy(&upstream), &flags).await
}

#[tokio::test]
async fn settings_are_for_the_token_that_made_the_image() {
    let gateway = of_two(fakes::fresh_dir("private"), &[]).await;
    let ask = async |method: Method, path: &str, token: Option<&str>| {
        let request = gateway.anonymous(method, path);
        let request = match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        TestResponse::read(request.send().await.unwrap()).await
    };
    let body = json!({"prompt": "a secret cat", "size": "64x64", "response_format": "url"}).to_string();
    let request = gateway.anonymous(Method::POST, "/v1/images/generations").bearer_auth(ALICE);
    let made = request.header("content-type", "application/json").body(body).send().await.unwrap();
    let name = name_of(&TestResponse::read(made).await.json["data"][0]["url"]);
    let path = format!("/v1/gateway/images/{name}");
    assert_eq!(ask(Method::GET, &path, Some(ALICE)).await.json["prompt"], "a secret cat");
    for (token, status) in [(Some(BOB), 404), (None, 401), (Some("wrong-0123456789"), 401)] {
        let answer = ask(Method::GET, &path, token).await;
        assert_eq!((answer.status, answer.json.get("prompt")), (status, None), "{token:?}");
    }
    for path in [format!("/ui/images/{name}.json"), format!("/ui/images/{name}%2ejson")] {
        assert_eq!(ask(Method::GET, &path, None).await.status, 404, "{path}");
    }
    for (token, found) in [(ALICE, 1), (BOB, 0)] {
        let list = ask(Method::GET, "/v1/gateway/images?text=secret", Some(token)).await;
        assert_eq!(list.json["data"].as_array().unwrap().len(), found, "{token}");
        assert_eq!(list.json["total"]["pictures"], found, "nor does the total tell");
    }
    assert_eq!(ask(Method::DELETE, &path, Some(ALICE)).await.status, 204);
    assert!(gateway.records().is_empty(), "deleted with the image");
}

#[tokio::test]
async fn without_settings_only_owner_and_request_are_kept() {
    let dir = fakes::fresh_dir("off");
    let make = async |gateway: &Gateway, prompt: &str| {
        let request = gateway.anonymous(Method::POST, "/v1/images/generations").bearer_auth(ALICE);
        let body = json!({"prompt": prompt, "negative_prompt": "bad", "size": "64x64"}).to_string();
        let sent = request.header("content-type", "application/json").body(body).send().await.unwrap();
        name_of(&TestResponse::read(sent).await.json["data"][0]["url"])
    };
    let gateway = of_two(dir.clone(), &["--ui-image-settings", "off"]).await;
    let name = make(&gateway, "a secret cat").await;
    let record = std::fs::read(gateway.store.join(format!("{name}.json"))).unwrap();
    let record: Value = serde_json::from_slice(&record).unwrap();
    assert_eq!(record.as_object().unwrap().keys().collect::<Vec<_>>(), ["owners", "request_ids"]);
    gateway.stop().await;
    // Only new images have settings after it was turned on.
    let gateway = of_two(dir, &["--ui-image-settings", "on"]).await;
    make(&gateway, "a known cat").await;
    let list = gateway.anonymous(Method::GET, "/v1/gateway/images").bearer_auth(ALICE).send().await.unwrap();
    let list = TestResponse::read(list).await.json;
    assert_eq!((&list["data"][0]["prompt"], list["data"][1].get("prompt")), (&json!("a known cat"), None));
}

#[tokio::test]
async fn a_long_prompt_is_cut_and_its_record_stays_small() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    let long = "\u{1F408}".repeat(32_001);
    let answer = gateway.generate(&json!({"prompt": long, "negative_prompt": long, "size": "64x64"})).await;
    assert_eq!(answer.status, 200);
    assert_eq!(upstream.images()[0].body["prompt"], long, "passed on as a whole");
    let record = &gateway.records()[0];
    assert!(std::fs::metadata(record).unwrap().len() <= 64 << 10);
    let image = newest(&gateway).await;
    assert!(long.starts_with(image["prompt"].as_str().unwrap()));
    let list = gateway.get("/v1/gateway/images").await;
    assert_eq!(list.json["data"][0]["prompt"].as_str().unwrap().chars().count(), 300);
    assert_eq!(list.json["data"][0]["size"], "64x64");
}
