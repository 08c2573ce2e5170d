//! Each token has its own images and slots: which images it sees and deletes, and how many slots it may take.

use std::os::unix::fs::PermissionsExt;

use e2e::gateway::{Gateway, TOKEN, gpu_heavy, with_local_mlx};
use fakes::{
    TestResponse,
    upstream::{Upstream, UpstreamReply},
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const ALICE: &str = "alice-0123456789abcdef";
const BOB: &str = "bob-0123456789abcdef";
const BARE: &str = "bare-0123456789abcdef";

/// A gateway whose env file has these lines, with the mock's images: as different as their prompts.
async fn with(env: &str, dir: Option<std::path::PathBuf>) -> Gateway {
    let upstream = Upstream::start().await;
    let dir = dir.unwrap_or_else(|| fakes::fresh_dir("people"));
    std::fs::write(dir.join(".env"), env).unwrap();
    Gateway::start_in(dir, &gpu_heavy(&upstream), &["--images-backend", "mock"]).await
}

fn three() -> String {
    format!("GATEWAY_BEARER_TOKENS=alice={ALICE},bob={BOB},{BARE}\n")
}

async fn ask(gateway: &Gateway, method: Method, path: &str, token: &str) -> TestResponse {
    TestResponse::read(gateway.anonymous(method, path).bearer_auth(token).send().await.unwrap()).await
}

/// Has an image made; returns its name and the request's id.
async fn made(gateway: &Gateway, token: &str, prompt: &str) -> (String, String) {
    let body = json!({"prompt": prompt, "size": "64x64", "response_format": "url"}).to_string();
    let request = gateway.anonymous(Method::POST, "/v1/images/generations").bearer_auth(token);
    let request = request.header("content-type", "application/json").body(body);
    let answer = TestResponse::read(request.send().await.unwrap()).await;
    let name =
        answer.json["data"][0]["url"].as_str().unwrap().strip_prefix("/ui/images/").unwrap().to_owned();
    (name, answer.header("x-request-id").to_owned())
}

/// The names of a list, and its totals.
async fn list(gateway: &Gateway, token: &str, query: &str) -> (Vec<String>, Value) {
    let answer = ask(gateway, Method::GET, &format!("/v1/gateway/images{query}"), token).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let data = answer.json["data"].as_array().unwrap();
    let mut names: Vec<_> = data.iter().map(|entry| entry["name"].as_str().unwrap().to_owned()).collect();
    names.sort_unstable();
    (names, answer.json["total"]["pictures"].clone())
}

fn sorted<const N: usize>(names: [&String; N]) -> Vec<String> {
    let mut names: Vec<_> = names.into_iter().cloned().collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn a_token_sees_and_deletes_its_own_images_and_an_owner_token_all() {
    let gateway = with(&format!("{}GATEWAY_OWNER_TOKENS=bob\n", three()), None).await;
    let (alices, _) = made(&gateway, ALICE, "a").await;
    let (bobs, _) = made(&gateway, BOB, "b").await;
    let (unnamed, _) = made(&gateway, BARE, "c").await;
    let older = "1736697234_0123456789abcdef.png".to_owned();
    std::fs::write(gateway.store.join(&older), b"\x89PNG\r\n\x1a\n and so on").unwrap();
    assert_eq!(list(&gateway, ALICE, "").await, (vec![alices.clone()], json!(1)));
    assert_eq!(list(&gateway, BARE, "").await, (vec![unnamed.clone()], json!(1)));
    assert_eq!(list(&gateway, BOB, "").await, (sorted([&alices, &bobs, &unnamed]), json!(3)));
    let path = |name: &str| format!("/v1/gateway/images/{name}");
    for (token, name, status) in [
        (ALICE, &alices, 200),
        (ALICE, &bobs, 404),
        (ALICE, &unnamed, 404),
        (ALICE, &older, 404),
        (BARE, &alices, 404),
        (BARE, &unnamed, 200),
        (BOB, &alices, 200),
        (BOB, &older, 200),
    ] {
        assert_eq!(ask(&gateway, Method::GET, &path(name), token).await.status, status, "{token} {name}");
    }
    for (token, name) in [(ALICE, &bobs), (ALICE, &unnamed), (ALICE, &older), (BARE, &alices)] {
        let answer = ask(&gateway, Method::DELETE, &path(name), token).await;
        assert_eq!((answer.status, answer.code()), (404, "not_found"), "{token} {name}");
        assert!(gateway.store.join(name).exists());
    }
    gateway.image(&format!("/ui/images/{bobs}")).await;
    assert_eq!(ask(&gateway, Method::DELETE, &path(&alices), ALICE).await.status, 204);
    assert_eq!(ask(&gateway, Method::DELETE, &path(&alices), ALICE).await.status, 404);
    for name in [&unnamed, &older] {
        assert_eq!(ask(&gateway, Method::DELETE, &path(name), BOB).await.status, 204, "{name}");
    }
    let left: Vec<_> = gateway.records().iter().map(|path| path.file_name().unwrap().to_owned()).collect();
    assert_eq!(left, [format!("{bobs}.json").as_str()], "a record is deleted with its image");
}

#[tokio::test]
async fn an_images_record_is_stored_beside_it_and_never_served() {
    let gateway = with(&format!("{}GATEWAY_OWNER_TOKENS=bob\n", three()), None).await;
    let (alices, id) = made(&gateway, ALICE, "a").await;
    let (unnamed, _) = made(&gateway, BARE, "c").await;
    let one = ask(&gateway, Method::GET, &format!("/v1/gateway/images/{alices}"), ALICE).await;
    let size = gateway.image(&format!("/ui/images/{alices}")).await.len();
    assert_eq!(
        (&one.json["name"], &one.json["bytes"], &one.json["content_type"]),
        (&json!(alices), &json!(size), &json!("image/png"))
    );
    assert_eq!((&one.json["owners"], &one.json["request_ids"]), (&json!(["alice"]), &json!([id])));
    let other = ask(&gateway, Method::GET, &format!("/v1/gateway/images/{unnamed}"), BOB).await;
    assert_eq!(other.json["owners"], json!(["token3"]), "as the log calls it");
    let record = std::fs::read_to_string(gateway.store.join(format!("{unnamed}.json"))).unwrap();
    assert!(!record.contains("bare-") && !record.contains("token3"), "{record}");
    let mode = std::fs::metadata(gateway.store.join(format!("{unnamed}.json"))).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    for path in [format!("/ui/images/{alices}.json"), format!("/v1/gateway/images/{alices}.json")] {
        assert_eq!(ask(&gateway, Method::GET, &path, BOB).await.status, 404, "{path}");
    }
    // What a later version wrote is kept, and reported.
    let path = gateway.store.join(format!("{alices}.json"));
    std::fs::write(&path, json!({"owners": ["alice"], "prompt": "a", "name": "no"}).to_string()).unwrap();
    let one = ask(&gateway, Method::GET, &format!("/v1/gateway/images/{alices}"), ALICE).await;
    assert_eq!((&one.json["prompt"], &one.json["name"]), (&json!("a"), &json!(alices)));
    std::fs::write(&path, "no JSON").unwrap();
    assert_eq!(ask(&gateway, Method::GET, &format!("/v1/gateway/images/{alices}"), ALICE).await.status, 404);
    let damaged = ask(&gateway, Method::GET, &format!("/v1/gateway/images/{alices}"), BOB).await;
    assert_eq!((damaged.status, &damaged.json["owners"]), (200, &json!([])));
}

#[tokio::test]
async fn ownership_survives_a_restart_and_a_reordered_token_list() {
    let gateway = with(&three(), None).await;
    let (alices, _) = made(&gateway, ALICE, "a").await;
    let (unnamed, _) = made(&gateway, BARE, "c").await;
    let dir = gateway.dir.clone();
    gateway.stop().await;
    let env = format!("GATEWAY_BEARER_TOKENS=other-0123456789,{BARE},alice=another-0123456789abcdef\n");
    let gateway = with(&env, Some(dir.clone())).await;
    assert_eq!(list(&gateway, BARE, "").await.0, [unnamed.as_str()]);
    assert_eq!(
        list(&gateway, "another-0123456789abcdef", "").await.0,
        [alices.as_str()],
        "a name, not a secret"
    );
    assert_eq!(list(&gateway, "other-0123456789", "").await.0, [""; 0]);
    gateway.set_env(&format!("GATEWAY_BEARER_TOKENS=carol={BARE},bob={BOB}\nGATEWAY_OWNER_TOKENS=bob\n"));
    assert_eq!(gateway.reload(BARE).await["last_error"], Value::Null);
    assert_eq!(list(&gateway, BARE, "").await.0, [unnamed.as_str()], "a bare token that got a name");
    assert_eq!(list(&gateway, BOB, "").await.0, sorted([&alices, &unnamed]), "a reload makes an owner");
}

#[tokio::test]
async fn a_single_token_and_requests_without_one_see_all() {
    let gateway = with(&format!("GATEWAY_BEARER_TOKEN={TOKEN}\n"), None).await;
    let (mine, _) = made(&gateway, TOKEN, "a").await;
    let older = "1736697234_0123456789abcdef.png".to_owned();
    std::fs::write(gateway.store.join(&older), b"\x89PNG\r\n\x1a\n and so on").unwrap();
    let dir = gateway.dir.clone();
    gateway.stop().await;
    let gateway = with(&format!("GATEWAY_BEARER_TOKENS=alice={ALICE}\n"), Some(dir.clone())).await;
    assert_eq!(list(&gateway, ALICE, "").await.0, sorted([&mine, &older]));
    gateway.stop().await;
    let gateway = with("GATEWAY_AUTH=off\n", Some(dir)).await;
    assert_eq!(list(&gateway, "any", "").await.0, sorted([&mine, &older]));
    let (nobodys, _) = made(&gateway, "any", "b").await;
    let one = ask(&gateway, Method::GET, &format!("/v1/gateway/images/{nobodys}"), "any").await;
    assert_eq!(one.json["owners"], json!([]));
}

#[tokio::test]
async fn an_image_of_two_owners_is_kept_until_both_deleted_it() {
    let gateway = with(&three(), None).await;
    // In the same second, at the latest at the next try.
    let pair = async || {
        let (alices, bobs) = (made(&gateway, ALICE, "same").await.0, made(&gateway, BOB, "same").await.0);
        (alices == bobs).then_some(alices)
    };
    let same = fakes::eventually("both in one second", pair).await;
    let path = format!("/v1/gateway/images/{same}");
    let sees_it = async |token| list(&gateway, token, "?limit=1").await.0 == [same.clone()];
    assert!(sees_it(ALICE).await && sees_it(BOB).await);
    let one = ask(&gateway, Method::GET, &path, ALICE).await;
    assert_eq!(one.json["owners"], json!(["alice"]), "other owners are not listed");
    assert_eq!(ask(&gateway, Method::DELETE, &path, ALICE).await.status, 204);
    assert!(!sees_it(ALICE).await && sees_it(BOB).await && gateway.store.join(&same).exists());
    assert_eq!(ask(&gateway, Method::DELETE, &path, ALICE).await.status, 404);
    assert_eq!(ask(&gateway, Method::DELETE, &path, BOB).await.status, 204);
    assert!(!gateway.store.join(&same).exists());
}

#[tokio::test]
async fn the_images_of_a_request_are_found_by_its_id_and_by_its_token_only() {
    let gateway = with(&three(), None).await;
    let (first, id) = made(&gateway, ALICE, "a").await;
    made(&gateway, ALICE, "b").await;
    let query = format!("?request_id={id}");
    assert_eq!(list(&gateway, ALICE, &query).await, (vec![first.clone()], json!(1)));
    assert_eq!(list(&gateway, BOB, &query).await, (vec![], json!(0)));
    assert_eq!(list(&gateway, ALICE, "?request_id=none").await.0, [""; 0]);
    let dir = gateway.dir.clone();
    gateway.stop().await;
    let gateway = with(&three(), Some(dir)).await;
    assert_eq!(list(&gateway, ALICE, &query).await.0, [first], "after a restart, too");
}

#[tokio::test]
async fn pages_of_a_tokens_images_leave_out_those_of_others() {
    let gateway = with(&three(), None).await;
    let mut alices = Vec::new();
    for nth in 0..3 {
        alices.push(made(&gateway, ALICE, &format!("a{nth}")).await.0);
        made(&gateway, BOB, &format!("b{nth}")).await;
    }
    let first = ask(&gateway, Method::GET, "/v1/gateway/images?limit=2", ALICE).await;
    assert_eq!((&first.json["has_more"], first.json["data"].as_array().unwrap().len()), (&json!(true), 2));
    let next = first.json["next_before"].as_str().unwrap();
    let rest = list(&gateway, ALICE, &format!("?limit=2&before={next}")).await;
    let data = first.json["data"].as_array().unwrap();
    let mut all: Vec<_> = data.iter().map(|entry| entry["name"].as_str().unwrap().to_owned()).collect();
    all.extend(rest.0);
    all.sort_unstable();
    alices.sort_unstable();
    assert_eq!((all, rest.1), (alices, json!(3)));
}

#[tokio::test]
async fn a_limited_token_leaves_the_other_slots_to_others() {
    let (upstream, mlx) = (Upstream::start().await, Upstream::start().await);
    let dir = fakes::fresh_dir("bounded");
    let env = |bound: &str| {
        format!("GATEWAY_BEARER_TOKENS=alice={ALICE}{bound},bob={BOB}\nGATEWAY_OWNER_TOKENS=bob\n")
    };
    std::fs::write(dir.join(".env"), env(";max=1")).unwrap();
    let gateway = Gateway::start_in(dir, &with_local_mlx(&upstream, &mlx), &[]).await;
    upstream.set_images(UpstreamReply::Hold);
    let send = |token: &'static str| {
        let request = gateway.anonymous(Method::POST, "/v1/images/generations").bearer_auth(token);
        request.header("content-type", "application/json").body(r#"{"prompt":"p"}"#).send()
    };
    let at_limit = |answer: &TestResponse, text: &str| {
        assert_eq!(
            (answer.status, answer.code(), answer.header("retry-after")),
            (429, "backend_overloaded", "5")
        );
        assert_eq!(answer.message(), text);
    };
    #[expect(clippy::disallowed_methods, reason = "a waiting client")]
    let waiting = tokio::spawn(send(ALICE));
    upstream.until_held(1).await;
    at_limit(
        &TestResponse::read(send(ALICE).await.unwrap()).await,
        "Token alice is at its limit of 1 request at once",
    );
    let chat = gateway.anonymous(Method::POST, "/v1/chat/completions").bearer_auth(ALICE);
    let chat = chat.header("content-type", "application/json").body(r#"{"model":"local_mlx","messages":[]}"#);
    gateway_ready(&gateway).await;
    at_limit(
        &TestResponse::read(chat.send().await.unwrap()).await,
        "Token alice is at its limit of 1 request at once",
    );
    let status = async |token| {
        ask(&gateway, Method::GET, "/v1/gateway/status", token).await.json["token_limits"].clone()
    };
    let full = json!({"alice": {"limit": 1, "available": 0, "inflight": 1}});
    assert_eq!((status(ALICE).await, status(BOB).await), (full.clone(), full));
    let metrics = gateway.anonymous(Method::GET, "/metrics").bearer_auth(BOB).send().await.unwrap();
    assert!(metrics.text().await.unwrap().contains("gateway_token_inflight{token=\"alice\"} 1\n"));
    #[expect(clippy::disallowed_methods, reason = "a waiting client")]
    let other = tokio::spawn(send(BOB));
    upstream.until_held(2).await;
    upstream.release();
    assert_eq!(waiting.await.unwrap().unwrap().status(), StatusCode::OK);
    assert_eq!(other.await.unwrap().unwrap().status(), StatusCode::OK);
    let freed = async || (status(ALICE).await["alice"]["inflight"] == 0).then_some(());
    fakes::eventually("the slot is free", freed).await;
    gateway.set_env(&env(""));
    assert_eq!(gateway.reload(BOB).await["last_error"], Value::Null);
    assert_eq!(status(BOB).await, json!({}), "a reload removes the limit");
}

async fn gateway_ready(gateway: &Gateway) {
    let ready = async || {
        let status = ask(gateway, Method::GET, "/v1/gateway/status", BOB).await;
        (status.json["backend_health"]["local_mlx"]["ready"] == true).then_some(())
    };
    fakes::eventually("the chat backend", ready).await;
}

#[tokio::test]
async fn invalid_owners_and_limits_are_reported_without_any_token() {
    for (env, text) in [
        (format!("{}GATEWAY_OWNER_TOKENS=carol\n", three()), "alice, bob; entry 1 is none of them"),
        (format!("{}GATEWAY_OWNER_TOKENS=bob,{ALICE}\n", three()), "entry 2 is none of them"),
        (
            format!("{}GATEWAY_OWNER_TOKENS=token3\n", three()),
            "GATEWAY_OWNER_TOKENS: expected names of tokens",
        ),
        (
            format!("GATEWAY_BEARER_TOKENS=alice={ALICE};max=0\n"),
            "GATEWAY_BEARER_TOKENS: expected nothing after",
        ),
        (format!("GATEWAY_BEARER_TOKENS=alice={ALICE};foo=1\n"), "but `;max=N`"),
        (
            format!("GATEWAY_BEARER_TOKENS=alice={ALICE};max=1,alice={BOB};max=2\n"),
            "one `;max=N` for each name",
        ),
    ] {
        let dir = fakes::fresh_dir("wrong");
        std::fs::write(dir.join(".env"), &env).unwrap();
        let problems = Gateway::try_start_in(dir, "backends: {}\n", &[]).await.unwrap_err().join("\n");
        assert!(problems.contains(text), "{env}: {problems}");
        assert!(!problems.contains("0123456789"), "{problems}");
    }
}
