//! Images from images: what passes byte for byte, and what is refused.

use e2e::gateway::{Gateway, with_local_mlx};
use fakes::{
    TestResponse,
    form::{BOUNDARY, KIND, RawPart, file, form, text},
    upstream::{Upstream, UpstreamReply, fake_image},
};
use picture::Format;
use serde_json::{Value, json};
use wire::openai::images::ImageSize;

async fn send(gateway: &Gateway, parts: &[RawPart<'_>]) -> TestResponse {
    TestResponse::read(gateway.edit(KIND, form(parts)).send().await.unwrap()).await
}

/// The least edit, with these texts.
async fn edit(gateway: &Gateway, texts: &[(&str, &str)]) -> TestResponse {
    let heads: Vec<_> = texts.iter().map(|(name, _)| text(name)).collect();
    let image = file("image", "a.png");
    let mut parts: Vec<RawPart> = vec![(&image, b"png")];
    parts.extend(heads.iter().zip(texts).map(|(head, (_, value))| (head.as_str(), value.as_bytes())));
    send(gateway, &parts).await
}

#[tokio::test]
async fn an_edit_is_stored_and_served_as_any_other_image() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    let answer = edit(&gateway, &[("prompt", "a red cat"), ("size", "64x64"), ("seed", "7")]).await;
    assert_eq!(answer.status, 200, "{:?}", answer.json);
    let entry = answer.json["data"][0].as_object().unwrap();
    assert!(!entry.contains_key("b64_json"));
    assert_eq!(entry["seed"], 7);
    let url = entry["url"].as_str().unwrap();
    assert_eq!(gateway.image(url).await, fake_image("a red cat", 7, ImageSize::new(64, 64)));
    for (name, value) in [
        ("x-backend-used", "gpu_heavy"),
        ("x-router-reason", "backend_class"),
        ("x-model-used", "default"),
        ("content-type", "application/json"),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
    let answer = edit(&gateway, &[("prompt", "p"), ("response_format", "b64_json")]).await;
    assert!(answer.json["data"][0]["b64_json"].is_string());
    let answer = edit(&gateway, &[("prompt", "p"), ("model", "gpt-image-1")]).await;
    assert!(answer.json["data"][0]["b64_json"].is_string(), "a client that cannot fetch");
    assert!(upstream.images().is_empty());
    let metrics = gateway.metrics().await;
    let line = r#"gateway_requests_total{backend="gpu_heavy",route="/v1/images/edits",status="200"} 3"#;
    assert!(metrics.contains(line), "{metrics}");
}

#[tokio::test]
async fn every_part_but_model_and_response_format_is_relayed_unchanged_and_in_order() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &["--images-openai-model", "sd-xl-base-1.0"]).await;
    let look_alike = format!("\r\n--{}\r\n--\r\n\r\n\n--{BOUNDARY}\r\0\u{1}\r", &BOUNDARY[..31]).into_bytes();
    let all_bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let (path, odd) =
        (file("image[]", "/abs/client/path/a.png"), file("image[]", "\u{e9} \\\"x\\\"; name=y.png"));
    let (mask, prompt, user) = (file("mask", "blob"), text("prompt"), text("user"));
    let aiohttp = format!("Content-Type: text/plain; charset=\"utf-8\"\r\n{}", text("n"));
    let other = "content-disposition: form-data; name=x-own\r\nX-Own: 1".to_owned();
    let (form_of, twice) = (text("response_format"), text("tags"));
    let parts: Vec<RawPart> = vec![
        (&path, &all_bytes),
        (&prompt, "p \u{e9}\r\nsecond line".as_bytes()),
        (&odd, &look_alike),
        (&form_of, b"url"),
        (&mask, b""),
        (&aiohttp, b"2"),
        (&other, b"1"),
        (&twice, b"a"),
        (&twice, b"b"),
        (&user, b"u"),
    ];
    let answer = send(&gateway, &parts).await;
    assert_eq!((answer.status, answer.json["data"].as_array().unwrap().len()), (200, 2), "{:?}", answer.json);
    let request = &upstream.edits()[0];
    let mut expected = parts.clone();
    expected[3].1 = b"b64_json";
    let model = text("model");
    expected.push((&model, b"sd-xl-base-1.0"));
    assert_eq!(request.bytes, form(&expected));
    assert_eq!(request.header("content-type"), KIND);
    assert_eq!(request.header("content-length"), request.bytes.len().to_string());
    assert_eq!(request.parts[0].bytes, all_bytes);
    assert_eq!(request.parts[2].bytes, look_alike);
}

/// The texts and files of the requests that were recorded, in their order. `name@file name` is a file.
const RECORDED: [(&str, &[&str]); 6] = [
    (
        "openai-python 3.54",
        &[
            "prompt=p",
            "background=auto",
            "model=gpt-image-1",
            "n=2",
            "size=64x64",
            "image@a.png",
            "mask@m.png",
        ],
    ),
    ("openai-python 3.54, bytes", &["prompt=p", "image@upload"]),
    (
        "openai-node 7.57",
        &["image@a.png", "mask@m.png", "prompt=p", "model=gpt-image-1", "n=2", "quality=high"],
    ),
    ("ai 7", &["model=flux-dev", "prompt=p", "image[]@blob", "image[]@blob", "n=1"]),
    ("litellm 1.106", &["model=flux-dev", "prompt=p", "image[]@/abs/client/path/a.png"]),
    (
        "open-webui 0.12",
        &["model=flux-dev", "prompt=p", "n=1", "size=512x512", "response_format=b64_json", "image@0.png"],
    ),
];

#[tokio::test]
async fn the_forms_of_current_clients_are_accepted() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    let png = fake_image("p", 0, ImageSize::new(8, 8));
    for (client, fields) in RECORDED {
        let parts: Vec<(String, &[u8])> = fields
            .iter()
            .map(|field| {
                let texts = field.split_once('=').map(|(name, value)| (text(name), value.as_bytes()));
                let files = || field.split_once('@').map(|(name, path)| (file(name, path), png.as_slice()));
                texts.or_else(files).unwrap()
            })
            .collect();
        let parts: Vec<RawPart> = parts.iter().map(|(head, content)| (head.as_str(), *content)).collect();
        // openai-node sends a file stream in chunks, without a length.
        let complete = form(&parts);
        let chunks: Vec<Result<Vec<u8>, std::io::Error>> =
            complete.chunks(7).map(|chunk| Ok(chunk.to_vec())).collect();
        let chunked = reqwest::Body::wrap_stream(futures_util::stream::iter(chunks));
        for body in [reqwest::Body::from(complete.clone()), chunked] {
            let answer = TestResponse::read(gateway.edit(KIND, body).send().await.unwrap()).await;
            assert_eq!(answer.status, 200, "{client}: {:?}", answer.json);
            let request = upstream.edits().pop().unwrap();
            let files = request.parts.iter().filter(|part| part.file.is_some());
            assert!(files.clone().count() > 0 && files.clone().all(|part| part.bytes == png), "{client}");
            assert_eq!(request.body["response_format"], "b64_json", "{client}");
        }
    }
}

#[tokio::test]
async fn a_json_edit_with_inline_images_is_relayed() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    let data = json!({"image_url": "data:image/png;base64,aGk="});
    let ask = json!({"prompt": "p", "images": [data], "mask": data, "strength": 0.5, "model": "m"});
    let answer =
        TestResponse::read(gateway.edit("application/json", ask.to_string()).send().await.unwrap()).await;
    assert_eq!(answer.status, 200, "{:?}", answer.json);
    let mut expected = ask;
    expected["response_format"] = json!("b64_json");
    let request = &upstream.edits()[0];
    assert_eq!((&request.body, request.header("content-type")), (&expected, "application/json"));
}

#[tokio::test]
async fn several_images_reach_the_backend_in_order() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    let contents = [b"first", &b"second"[..], b"third"];
    for names in [
        ["image[]"; 3],
        ["image"; 3],
        ["image[0]", "image[1]", "image[2]"],
        ["image", "ref_images", "ref_images"],
    ] {
        let heads = names.map(|name| file(name, "a.png"));
        let prompt = text("prompt");
        let images = heads.iter().zip(contents).map(|(head, content)| (head.as_str(), content));
        let parts: Vec<RawPart> = images.chain([(prompt.as_str(), &b"p"[..])]).collect();
        assert_eq!(send(&gateway, &parts).await.status, 200, "{names:?}");
        let request = upstream.edits().pop().unwrap();
        let files: Vec<_> = request.parts.iter().filter(|part| part.file.is_some()).collect();
        assert_eq!(files.iter().map(|part| part.name.as_str()).collect::<Vec<_>>(), names);
        assert_eq!(files.iter().map(|part| &part.bytes[..]).collect::<Vec<_>>(), contents, "{names:?}");
    }
    let [a, b, c] = contents
        .map(|content| format!("data:image/png;base64,{}", base64_simd::STANDARD.encode_to_string(content)));
    for images in [json!({"image": [a, b, {"image_url": c}]}), json!({"images": [a], "ref_images": [b, c]})] {
        let mut body = images;
        body["prompt"] = json!("p");
        let request = gateway.edit("application/json", body.to_string());
        assert_eq!(TestResponse::read(request.send().await.unwrap()).await.status, 200, "{body}");
        body["response_format"] = json!("b64_json");
        assert_eq!(upstream.edits().pop().unwrap().body, body);
    }
}

#[tokio::test]
async fn an_edit_that_cannot_be_made_is_refused_before_the_backend_gets_it() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    for (texts, code, param) in [
        (&[][..], "invalid_value", "prompt"),
        (&[("prompt", "")], "invalid_value", "prompt"),
        (&[("prompt", "p"), ("prompt", "p")], "invalid_value", "prompt"),
        (&[("prompt", "p"), ("model", "a"), ("model", "b")], "invalid_value", "model"),
        (&[("prompt", "p"), ("n", "11")], "invalid_value", "n"),
        (&[("prompt", "p"), ("n", "1"), ("n", "1")], "invalid_value", "n"),
        (&[("prompt", "p"), ("n", "2"), ("stream", "true")], "invalid_value", "n"),
        (&[("prompt", "p"), ("size", "4096x4096")], "invalid_size", "size"),
        (&[("prompt", "p"), ("stream", "maybe")], "invalid_value", "stream"),
        (&[("prompt", "p"), ("response_format", "gif")], "invalid_value", "response_format"),
    ] {
        let answer = edit(&gateway, texts).await;
        assert_eq!((answer.status, answer.code()), (400, code), "{texts:?}");
        assert_eq!(answer.json["error"]["param"], param, "{texts:?}");
    }
    let answer = send(&gateway, &[(&text("prompt"), b"p")]).await;
    assert_eq!((answer.status, &answer.json["error"]["param"]), (400, &json!("image")));
    let remote = json!({"prompt": "p", "images": [{"image_url": format!("{}/x.png", upstream.url)}]});
    let mut cut = form(&[(&file("image", "a.png"), b"png"), (&text("prompt"), b"p")]);
    cut.truncate(cut.len() - 10);
    for (kind, body, code, param) in [
        (KIND.to_owned(), cut, "invalid_body", Value::Null),
        (KIND.to_owned(), b"{}".to_vec(), "invalid_body", Value::Null),
        ("multipart/form-data".to_owned(), form(&[]), "invalid_body", Value::Null),
        ("application/json".to_owned(), b"[]".to_vec(), "invalid_body", Value::Null),
        ("application/json".to_owned(), b"{\"prompt\":\"p\"}".to_vec(), "invalid_value", json!("images")),
        ("application/json".to_owned(), remote.to_string().into_bytes(), "invalid_value", json!("images")),
    ] {
        let answer = TestResponse::read(gateway.edit(&kind, body).send().await.unwrap()).await;
        assert_eq!((answer.status, answer.code()), (400, code), "{kind} {answer:?}");
        assert_eq!(answer.json["error"]["param"], param, "{kind}");
        assert!(param != Value::Null || answer.message().contains("multipart/form-data"), "{answer:?}");
    }
    assert!(upstream.edits().is_empty() && upstream.requests("/x.png").is_empty());
}

#[tokio::test]
async fn edits_have_the_same_order_of_checks_and_no_fallback() {
    let (heavy, mlx) = (Upstream::start().await, Upstream::start().await);
    let flags = ["--max-request-bytes", "1000"];
    let gateway = Gateway::with_backends(&with_local_mlx(&heavy, &mlx), &flags).await;
    let good = form(&[(&file("image", "a.png"), b"png"), (&text("prompt"), b"p")]);
    let large = form(&[(&file("image", "a.png"), &[0; 1000]), (&text("prompt"), b"p")]);
    let ask = async |token: &str, backend: &str, body: &[u8]| {
        let request = gateway
            .anonymous(reqwest::Method::POST, "/v1/images/edits")
            .bearer_auth(token)
            .header("content-type", KIND)
            .header("x-backend", backend);
        let answer = TestResponse::read(request.body(body.to_vec()).send().await.unwrap()).await;
        (answer.status, answer.code().to_owned())
    };
    let token = e2e::gateway::TOKEN;
    assert_eq!(ask("wrong", "local_mlx", &large).await, (401, "invalid_api_key".to_owned()));
    assert_eq!(ask(token, "local_mlx", &large).await, (413, "request_too_large".to_owned()));
    assert_eq!(ask(token, "local_mlx", b"no form").await, (400, "invalid_body".to_owned()));
    assert_eq!(ask(token, "local_mlx", &good).await, (400, "capability_not_supported".to_owned()));
    heavy.next_image(UpstreamReply::error(502, "engine_error", "the job failed"));
    assert_eq!(ask(token, "", &good).await, (502, "engine_error".to_owned()));
    assert_eq!((heavy.edits().len(), mlx.edits().len()), (1, 0), "one request, one try");
    heavy.stop().await;
    assert_eq!(ask(token, "", &good).await, (503, "backend_not_ready".to_owned()));
}

#[tokio::test]
async fn a_large_form_is_relayed_complete() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    let large: Vec<u8> = (0..=255).cycle().take(20 << 20).collect();
    let parts: [RawPart; 2] = [(&file("image", "a.png"), &large), (&text("prompt"), b"p")];
    assert_eq!(send(&gateway, &parts).await.status, 200);
    assert_eq!(upstream.edits()[0].parts[0].bytes, large);
}

#[tokio::test]
async fn the_mock_paints_for_edits_too() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &["--images-backend", "mock"]).await;
    let answer = edit(&gateway, &[("prompt", "p"), ("size", "64x48"), ("n", "2"), ("seed", "3")]).await;
    assert_eq!((answer.status, answer.header("x-backend-used")), (200, "mock"));
    let data = answer.json["data"].as_array().unwrap();
    assert_eq!((data.len(), &data[1]["seed"]), (2, &json!(4)));
    let first = gateway.image(data[0]["url"].as_str().unwrap()).await;
    assert_eq!(Format::detect(&first), Ok(Format::Png));
    assert!(upstream.edits().is_empty());
}
