//! An InvokeAI in multi-user mode, which asks the sidecar for a login.

use e2e::sidecar::Sidecar;
use fakes::{
    TestResponse,
    invokeai::{FakeInvoke, PASSWORD, USER, Users},
};
use serde_json::{Value, json};

/// A sidecar that logs in with this password at an engine in multi-user mode.
async fn start(password: &str) -> (FakeInvoke, Sidecar) {
    let engine = FakeInvoke::start().await;
    engine.script(|script| script.users = Users::Multiple);
    let file = fakes::fresh_dir("engine-login").join("engine_auth");
    std::fs::write(&file, format!("{USER}\n{password}\n")).unwrap();
    let flags = ["--engine-auth-file", &file.display().to_string()];
    let sidecar = Sidecar::invokeai(&engine.url(), &flags).await;
    (engine, sidecar)
}

fn small() -> Value {
    json!({"prompt": "a", "size": "64x64"})
}

/// What the engine got as `Authorization` for requests whose path contains this.
fn authorization(engine: &FakeInvoke, path: &str) -> Vec<Option<String>> {
    let requests = engine.requests();
    let of_path = requests.into_iter().filter(|request| request.path.contains(path));
    of_path.map(|request| request.authorization).collect()
}

#[tokio::test]
async fn it_logs_in_once_makes_images_follows_events_and_uses_the_refreshed_token() {
    let (engine, sidecar) = start(PASSWORD).await;
    sidecar.until_ready().await;
    engine.until_followed(1).await;
    for _ in 0..2 {
        let answer = sidecar.generate(&small()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.headers.get("x-refreshed-token").is_none(), "our token is for nobody else");
        assert!(!answer.json.to_string().contains("fake-token"));
    }
    assert_eq!(engine.logins(), 1);
    let submitted = authorization(&engine, "enqueue_batch");
    assert!(submitted.iter().all(Option::is_some), "{submitted:?}");
    assert_ne!(submitted[0], submitted[1], "the second one has the token that came with the first response");
    assert!(authorization(&engine, "/full").iter().all(Option::is_some), "images need it, too");
}

#[tokio::test]
async fn an_expired_token_is_replaced_by_one_login_in_the_middle_of_a_request() {
    let (engine, sidecar) = start(PASSWORD).await;
    sidecar.until_ready().await;
    engine.until_followed(1).await;
    let before = engine.logins();
    engine.expire_tokens();
    engine.drop_sockets();
    let answer = sidecar.generate(&small()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(engine.items().len(), 1, "a request that was answered with 401 did nothing");
    assert_eq!(engine.logins(), before + 1);
    engine.until_followed(1).await;
    assert!(sidecar.until_ready().await.admits());
}

#[tokio::test]
async fn a_wrong_password_is_told_by_readiness_and_does_not_load_the_engine() {
    let (engine, sidecar) = start("wr0ng-pa55word").await;
    let check = sidecar.until_fails("engine_reachable").await;
    assert!(check.message.contains("refuses the user name and password of engine_auth_file"), "{check:?}");
    assert!(check.message.contains("sudo ada2-sidecar reload"), "{check:?}");
    let polls = || authorization(&engine, "/queue/default/").len();
    let (logins, seen) = (engine.logins(), polls());
    fakes::eventually("further polls", async || (polls() > seen + 4).then_some(())).await;
    assert_eq!((logins, engine.logins()), (1, 1), "the next login is seconds away");
    let refused = sidecar.generate(&small()).await;
    assert_eq!((refused.status, refused.code()), (503, "backend_not_ready"));
    for text in [check.message.as_str(), refused.message()] {
        assert!(!text.contains("wr0ng") && !text.contains(USER), "{text}");
    }
}

#[tokio::test]
async fn the_pass_through_carries_the_callers_login_and_never_ours() {
    let (engine, sidecar) = start(PASSWORD).await;
    sidecar.until_ready().await;
    let url = format!("{}/api/v2/models/?of=caller", sidecar.url);
    let get = async |token: Option<&str>| {
        let request = fakes::http().get(&url);
        let request = match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        TestResponse::read(request.send().await.unwrap()).await
    };
    assert_eq!(get(None).await.status, 401, "the engine asks the caller for a login");
    assert_eq!(get(Some("not-a-token")).await.status, 401);
    let sent = authorization(&engine, "of=caller");
    assert_eq!(sent, [None, Some("Bearer not-a-token".to_owned())]);
}

#[tokio::test]
async fn a_login_that_the_engine_does_not_ask_for_is_not_made() {
    let (engine, sidecar) = start(PASSWORD).await;
    engine.script(|script| script.users = Users::Single);
    sidecar.until_ready().await;
    let logins = engine.logins();
    assert_eq!(sidecar.generate(&small()).await.status, 200);
    assert_eq!(engine.logins(), logins);
}
