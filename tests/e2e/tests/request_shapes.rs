//! Requests as current clients write them, to the sidecar alone and through the gateway in front of it: both parse them
//! alike.

/// Edits whose images come in JSON.
mod json_edits;

use e2e::{
    gateway::{Gateway, TOKEN},
    sidecar::Sidecar,
};
use fakes::{
    TestResponse,
    comfyui::FakeComfy,
    form::{KIND, file, form, text},
    sse::SseReader,
    upstream::{Upstream, UpstreamReply},
};
use serde_json::{Value, json};

const PORTRAIT: &[u8] = include_bytes!("../../fixtures/requests/exif6-portrait.jpg");
const TWICE: &[u8] = include_bytes!("../../fixtures/requests/edit-unknown-field-twice.multipart");
const JSON: &str = "application/json";

/// A sidecar, and a gateway in front of it.
struct Both {
    gateway: Gateway,
    sidecar: Sidecar,
}

async fn in_front_of(sidecar: Sidecar) -> Both {
    sidecar.until_ready().await;
    let backends = format!(
        "backends:\n  gpu_heavy:\n    base_url: {}\n    supported_capabilities: [images]\n    \
         concurrency_limits: {{images: 2}}\n",
        sidecar.url
    );
    let gateway = Gateway::with_backends(&backends, &[]).await;
    gateway.until_ready("gpu_heavy", true).await;
    Both { gateway, sidecar }
}

async fn both() -> Both {
    in_front_of(Sidecar::builtin(&[]).await).await
}

impl Both {
    /// What each of the two answers, the sidecar first.
    async fn post(&self, path: &str, kind: &str, body: &[u8]) -> [TestResponse; 2] {
        let mut answers = Vec::new();
        for base in [&self.sidecar.url, &self.gateway.url] {
            let request = fakes::http().post(format!("{base}{path}")).bearer_auth(TOKEN);
            let request = request.header("content-type", kind).body(body.to_vec());
            answers.push(TestResponse::read(request.send().await.unwrap()).await);
        }
        answers.try_into().unwrap()
    }

    async fn generate(&self, body: &Value) -> [TestResponse; 2] {
        self.post("/v1/images/generations", JSON, body.to_string().as_bytes()).await
    }

    async fn edit(&self, body: &Value) -> [TestResponse; 2] {
        self.post("/v1/images/edits", JSON, body.to_string().as_bytes()).await
    }
}

/// Asserts that all responses have images.
fn made(answers: &[TestResponse], what: &str) {
    for answer in answers {
        assert_eq!(answer.status, 200, "{what}: {answer:?}");
        assert!(answer.json["data"][0].is_object(), "{what}: {answer:?}");
    }
}

/// Asserts that all refuse this field, with this text in the message.
fn refused(answers: &[TestResponse], param: Option<&str>, text: &str, what: &str) {
    for answer in answers {
        assert_eq!(
            (answer.status, &answer.json["error"]["param"]),
            (400, &json!(param)),
            "{what}: {answer:?}"
        );
        assert!(answer.message().contains(text), "{what}: {answer:?}");
    }
}

fn pixels(answer: &TestResponse) -> image::RgbImage {
    let base64 = answer.json["data"][0]["b64_json"].as_str().unwrap_or_default();
    image::load_from_memory(&base64_simd::STANDARD.decode_to_vec(base64).unwrap()).unwrap().into_rgb8()
}

fn address(bytes: &[u8]) -> String {
    format!("data:image/jpeg;base64,{}", base64_simd::STANDARD.encode_to_string(bytes))
}

fn with(mut base: Value, more: &Value) -> Value {
    for (name, value) in more.as_object().unwrap() {
        base[name] = value.clone();
    }
    base
}

fn least() -> Value {
    json!({"prompt": "a", "size": "64x64", "steps": 1, "response_format": "b64_json"})
}

#[tokio::test]
async fn exif_orientation_is_respected() {
    let both = both().await;
    let upright = {
        let stored = image::load_from_memory(PORTRAIT).unwrap().into_rgb8();
        assert_eq!(stored.dimensions(), (640, 448), "it lies on its side");
        image::imageops::rotate90(&stored)
    };
    let heads = ["prompt", "strength", "steps", "response_format"].map(text);
    let complete = form(&[
        (&file("image", "a.jpg"), PORTRAIT),
        (&heads[0], b"a"),
        (&heads[1], b"0"),
        (&heads[2], b"1.0"),
        (&heads[3], b"b64_json"),
    ]);
    for answer in both.post("/v1/images/edits", KIND, &complete).await {
        made(std::slice::from_ref(&answer), "a form");
        assert_eq!(answer.json["size"], "448x640");
        let made = pixels(&answer);
        assert_eq!(made.dimensions(), (448, 640));
        let differs = |(a, b): (&u8, &u8)| a.abs_diff(*b) > 8;
        let wrong = made.as_raw().iter().zip(upright.as_raw()).filter(|pair| differs(*pair)).count();
        assert!(wrong * 100 < made.as_raw().len(), "{wrong} bytes differ");
    }
}

#[tokio::test]
async fn integers_as_floats_random_seeds_and_zero_guidance_are_accepted() {
    let both = both().await;
    let recorded: Value =
        serde_json::from_str(include_str!("../../fixtures/requests/integers-as-1.0.json")).unwrap();
    made(&both.generate(&recorded).await, "as recorded");
    for more in [
        json!({"n": 1.0, "seed": 7.0, "partial_images": 2.0, "output_compression": 80.0}),
        json!({"seed": -1}),
        json!({"seed": -1.0, "guidance_scale": 0}),
        json!({"cfg_scale": 0.0}),
    ] {
        made(&both.generate(&with(least(), &more)).await, &more.to_string());
    }
    for (more, param, text) in [
        (json!({"n": 1.5}), "n", "whole number"),
        (json!({"steps": 20.5}), "steps", "from 1 to 150"),
        (json!({"seed": -2}), "seed", "from 0 to 4294967295, or -1 for a random one"),
        (json!({"seed": 4_294_967_296_u64}), "seed", "from 0 to 4294967295"),
        (json!({"seed": 0.5}), "seed", "whole number"),
        (json!({"guidance_scale": 0.5}), "guidance_scale", "0 (none) or a number from 1 to 30"),
    ] {
        refused(&both.generate(&with(least(), &more)).await, Some(param), text, &more.to_string());
    }
    let heads = ["prompt", "n", "seed", "size", "steps", "mask", "negative_prompt"].map(text);
    let values: [&[u8]; 7] = [b"a", b"1.0", b"-1", b"64x64", b"1", b"", b""];
    let image = file("image", "a.jpg");
    let parts = heads.iter().zip(values).map(|(head, value)| (head.as_str(), value));
    let parts: Vec<_> = parts.chain([(image.as_str(), PORTRAIT)]).collect();
    made(&both.post("/v1/images/edits", KIND, &form(&parts)).await, "a form");
}

#[tokio::test]
async fn comfyui_accepts_every_64_bit_seed() {
    let fake = FakeComfy::start().await;
    let both = in_front_of(Sidecar::comfyui(&fake.url(), &[]).await).await;
    fake.until_followed(1).await;
    for (first, seeds) in [
        (u64::MAX, vec![u64::MAX, 0]),
        (9_007_199_254_740_993, vec![9_007_199_254_740_993, 9_007_199_254_740_994]),
    ] {
        let answers = both.generate(&with(least(), &json!({"n": 2, "seed": first}))).await;
        made(&answers, "64 bits");
        for answer in &answers {
            let reported = answer.json["data"].as_array().unwrap().iter().map(|image| image["seed"].as_u64());
            assert_eq!(reported.collect::<Vec<_>>(), seeds.iter().copied().map(Some).collect::<Vec<_>>());
        }
        let requests = fake.requests();
        let submissions = requests
            .iter()
            .rev()
            .filter(|request| request.method == "POST" && request.path == "/prompt")
            .take(2);
        let mut submitted: Vec<_> = submissions
            .map(|request| serde_json::from_slice::<Value>(&request.body).unwrap())
            .map(|submission| submission["prompt"]["sampler"]["inputs"]["seed"].as_u64().unwrap())
            .collect();
        submitted.reverse();
        assert_eq!(submitted, seeds, "what the engine was given");
    }
    let body = br#"{"prompt":"a","seed":18446744073709551616}"#;
    let answers = both.post("/v1/images/generations", JSON, body).await;
    refused(&answers, Some("seed"), "from 0 to 18446744073709551615", "one more");
}

#[tokio::test]
async fn blank_fields_are_absent_and_a_prompt_is_required() {
    let both = both().await;
    let blank = json!({"prompt": "a", "steps": 1, "size": "64x64", "model": "", "n": "", "seed": "", "quality": "",
        "negative_prompt": "", "response_format": "", "output_format": "", "background": " ", "stream": "",
        "scheduler": "", "cfg_scale": "", "strength": "", "partial_images": "", "image": "", "mask": null});
    made(&both.generate(&blank).await, "blank");
    let unsized_ = json!({"prompt": "a", "steps": 1, "size": "", "model": "sd-v1-5"});
    made(&both.generate(&unsized_).await, "a blank size");
    for body in [json!({}), json!({"prompt": null}), json!({"prompt": ""}), json!({"prompt": " \n\t"})] {
        let answers = both.generate(&body).await;
        refused(&answers, Some("prompt"), "prompt is required", &body.to_string());
        assert_eq!(answers[0].message(), answers[1].message());
        let edit = with(body, &json!({"image": address(PORTRAIT)}));
        refused(&both.edit(&edit).await, Some("prompt"), "prompt is required", "an edit");
    }
    let parts = [(file("image", "a.jpg"), PORTRAIT), (text("prompt"), &b" "[..])];
    let parts: Vec<_> = parts.iter().map(|(head, content)| (head.as_str(), *content)).collect();
    refused(
        &both.post("/v1/images/edits", KIND, &form(&parts)).await,
        Some("prompt"),
        "is required",
        "a form",
    );
}

#[tokio::test]
async fn a_byte_order_mark_is_skipped_on_every_route() {
    let both = both().await;
    let marked = |body: &Value| format!("\u{feff}{body}").into_bytes();
    made(&both.post("/v1/images/generations", JSON, &marked(&least())).await, "an image");
    let edit = with(least(), &json!({"images": [address(PORTRAIT)]}));
    made(&both.post("/v1/images/edits", JSON, &marked(&edit)).await, "an edit");
    let mlx = Upstream::start().await;
    let gateway = Gateway::with_backends(&e2e::gateway::with_local_mlx(&mlx, &mlx), &[]).await;
    gateway.until_ready("local_mlx", true).await;
    for path in ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"] {
        mlx.set(path, UpstreamReply::json(200, json!({"object": "x"})));
        let body = br#"{ "model":"m", "x":1.0, "messages":[], "input":"a" }"#;
        let marked = [b"\xef\xbb\xbf", &body[..]].concat();
        let answer = TestResponse::read(gateway.json_request(path, marked).send().await.unwrap()).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        assert_eq!(mlx.requests(path)[0].bytes, &body[..], "byte for byte but for the mark");
    }
}

#[tokio::test]
async fn unknown_fields_may_be_duplicated_and_used_ones_may_not() {
    let both = both().await;
    let kind = "multipart/form-data; boundary=bXyZ123";
    made(&both.post("/v1/images/edits", kind, TWICE).await, "the form as recorded");
    let images = format!(r#","image":"{}""#, address(PORTRAIT));
    for (path, more) in [("/v1/images/generations", ""), ("/v1/images/edits", images.as_str())] {
        let rest = r#""prompt":"a","size":"64x64","steps":1"#;
        let unknown = format!(r#"{{{rest},"foo":1,"foo":{{"foo":2}},"foo":2{more}}}"#);
        made(&both.post(path, JSON, unknown.as_bytes()).await, "unknown, twice");
        let duplicate = format!(r#"{{{rest},"prompt":"b"{more}}}"#);
        refused(
            &both.post(path, JSON, duplicate.as_bytes()).await,
            Some("prompt"),
            "given twice",
            "a used field, twice",
        );
    }
}

#[tokio::test]
async fn images_on_the_wrong_route_are_refused_with_the_right_one() {
    let both = both().await;
    let data = address(PORTRAIT);
    for name in ["image", "images", "image[]", "mask", "ref_images"] {
        for value in [json!(data), json!([data]), json!("http://x/y.png"), json!({"image_url": data})] {
            let body = with(least(), &json!({name: value}));
            refused(&both.generate(&body).await, Some(name), "/v1/images/edits", name);
        }
        for blank in [json!(null), json!(""), json!([])] {
            made(&both.generate(&with(least(), &json!({name: blank}))).await, name);
        }
    }
    let sent = form(&[(&file("image", "a.jpg"), PORTRAIT), (&text("prompt"), b"a")]);
    let answers = both.post("/v1/images/generations", KIND, &sent).await;
    refused(&answers, None, "/v1/images/edits", "a form");
}

#[tokio::test]
async fn both_programs_count_the_images_of_a_form_alike() {
    let both = both().await;
    let prompt = text("prompt");
    let post = async |names: &[&str]| {
        let heads: Vec<_> = names.iter().map(|name| file(name, "a.jpg")).collect();
        let images = heads.iter().map(|head| (head.as_str(), PORTRAIT));
        let parts: Vec<_> = images.chain([(prompt.as_str(), &b"a"[..])]).collect();
        both.post("/v1/images/edits", KIND, &form(&parts)).await
    };
    for (names, param, text) in [
        (&[][..], "image", "image is required"),
        (&["ref_images"], "image", "image is required"),
        (&["image[]", "images"], "images", "not both"),
        (&["image[]"; 17], "image", "at most 16 images, not 17"),
    ] {
        refused(&post(names).await, Some(param), text, &names.join(" "));
    }
    for names in [&["image[0]"][..], &["image[1]", "image[0]"], &["ref_images", "image"], &["image[]"; 16]] {
        made(&post(names).await, &names.join(" "));
    }
}

#[tokio::test]
async fn openais_newest_fields_are_refused_or_returned() {
    let both = both().await;
    let data = address(PORTRAIT);
    let body = with(least(), &json!({"markup": data}));
    refused(&both.generate(&body).await, Some("markup"), "draw the marks into image", "a new image");
    let edit = with(body, &json!({"image": data}));
    refused(&both.edit(&edit).await, Some("markup"), "draw the marks into image", "an edit");
    let parts = [
        (file("markup", "a.png"), PORTRAIT),
        (file("image", "a.jpg"), PORTRAIT),
        (text("prompt"), &b"a"[..]),
    ];
    let parts: Vec<_> = parts.iter().map(|(head, content)| (head.as_str(), *content)).collect();
    let answers = both.post("/v1/images/edits", KIND, &form(&parts)).await;
    refused(&answers, Some("markup"), "draw the marks into image", "a form");
    for answer in both.generate(&with(least(), &json!({"safety_identifier": "user-1", "markup": ""}))).await {
        assert_eq!((answer.status, &answer.json["safety_identifier"]), (200, &json!("user-1")), "{answer:?}");
    }
    for answer in both.generate(&least()).await {
        assert_eq!(answer.json.get("safety_identifier"), None, "only if it was sent");
    }
}

#[tokio::test]
async fn comments_of_a_stream_carry_its_progress() {
    let both = both().await;
    let body = with(least(), &json!({"stream": true, "steps": 4})).to_string();
    for base in [&both.sidecar.url, &both.gateway.url] {
        let request = fakes::http().post(format!("{base}/v1/images/generations")).bearer_auth(TOKEN);
        let request = request.header("content-type", JSON).body(body.clone());
        let mut events = SseReader::new(request.send().await.unwrap());
        while events.next().await.unwrap().is_some() {}
        let fractions = events.comments.iter().filter_map(|comment| comment.strip_prefix("progress "));
        let fractions: Vec<f64> = fractions.map(|fraction| fraction.parse().unwrap()).collect();
        assert!(!fractions.is_empty() && fractions.is_sorted() && fractions.len() <= 4, "{fractions:?}");
        assert!(fractions.iter().all(|fraction| (0.0..=1.0).contains(fraction)), "{fractions:?}");
    }
}

#[tokio::test]
async fn an_unknown_path_gets_a_suggestion() {
    let both = both().await;
    let ask = async |path: &str| both.post(path, JSON, b"{}").await;
    for (path, near) in [
        ("/v1/v1/images/generations", "/v1/images/generations"),
        ("/v1/images/generations/", "/v1/images/generations"),
        ("/v1//images/edits", "/v1/images/edits"),
        ("/images/generations", "/v1/images/generations"),
        ("/V1/Images/Edits", "/v1/images/edits"),
        ("/v1/image/generations", "/v1/images/generations"),
        ("/v1/models/", "/v1/models"),
        ("/openai/v1/models", "/v1/models"),
    ] {
        for answer in ask(path).await {
            assert_eq!((answer.status, answer.code()), (404, "not_found"), "{path}: {answer:?}");
            assert!(answer.message().ends_with(&format!("Did you mean {near}?")), "{path}: {answer:?}");
        }
    }
    for answer in ask("/v1/audio/speech").await {
        assert_eq!((answer.status, answer.code()), (404, "not_found"));
        assert!(!answer.message().contains("mean"), "{answer:?}");
    }
    for path in ["/chat/completions", "/v1/v1/chat/completions", "/v1/chat/completions/"] {
        let answer = TestResponse::read(both.gateway.json_request(path, "{}").send().await.unwrap()).await;
        assert!(answer.message().contains("Did you mean /v1/chat/completions?"), "{path}: {answer:?}");
    }
}

#[tokio::test]
async fn full_hd_is_allowed_by_default_and_four_megapixels_are_the_limit() {
    let both = both().await;
    let sized = |size: &str| json!({"prompt": "a", "steps": 1, "size": size, "response_format": "b64_json"});
    for (size, dimensions) in [("1920x1080", (1920, 1080)), ("2048x2048", (2048, 2048))] {
        for answer in both.generate(&sized(size)).await {
            assert_eq!(answer.status, 200, "{size}: {:?}", answer.json["error"]);
            assert_eq!(pixels(&answer).dimensions(), dimensions);
        }
    }
    let answers = both.generate(&sized("2048x2056")).await;
    refused(&answers, Some("size"), "4194304", "too large");
    assert!(answers.iter().all(|answer| answer.code() == "invalid_size"));
}
