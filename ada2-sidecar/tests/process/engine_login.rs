//! The login at an InvokeAI in multi-user mode: what doctor says of it, the file after a reload, and the log.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use fakes::invokeai::{FakeInvoke, PASSWORD, USER, Users};
use serde_json::{Value, json};

use crate::running::{Running, run, text};

const WRONG: &str = "wr0ng-pa55word";

/// Status and text of doctor's line for the engine.
fn engine_line(flags: &[&str]) -> (String, String) {
    let output = run(&[&["doctor", "--json", "--listen", "127.0.0.1:9"], flags].concat());
    assert!(!text(&output).contains(WRONG) && !text(&output).contains(PASSWORD), "{}", text(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let line = report["checks"].as_array().unwrap().iter().find(|check| check["name"] == "engine").unwrap();
    (line["status"].as_str().unwrap().to_owned(), line.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_explained_a_reload_corrects_it_and_no_secret_is_ever_printed() {
    let engine = FakeInvoke::start().await;
    engine.script(|script| script.users = Users::Multiple);
    let (dir, url) = (fakes::fresh_dir("engine-login"), engine.url());
    let file = dir.join("engine_auth");
    let path = file.display().to_string();
    std::fs::write(&file, format!("{USER}\n{WRONG}\n")).unwrap();
    let without = ["--engine-url", url.as_str()];
    let with = ["--engine-url", url.as_str(), "--engine-auth-file", &path];
    let (status, line) = engine_line(&without);
    assert!(status == "fail" && line.contains("engine_auth_file: "), "{line}");
    let (status, line) = engine_line(&with);
    assert!(status == "fail" && line.contains("refuses the user name and password"), "{line}");

    let sidecar = Running::start(&dir.join("state"), &[&with[..], &["--log-filter", "debug"]].concat());
    fakes::eventually("the refusal is published", async || {
        let answer =
            fakes::http().get(format!("{}/readyz/engine_reachable", sidecar.url)).send().await.ok()?;
        answer.text().await.ok()?.contains("refuses the user name and password").then_some(())
    })
    .await;
    let refused = engine.logins();
    std::fs::write(&file, format!("{USER}\n{PASSWORD}\n")).unwrap();
    sidecar.signal("-HUP");
    sidecar.ready().await;
    assert_eq!(engine.logins(), refused + 1, "the reload waits for no delay");
    assert_eq!(engine_line(&with).0, "ok");
    let printed = text(&run(&[&["check-config"], &with[..]].concat()));
    assert!(printed.contains(&path) && !printed.contains(PASSWORD) && !printed.contains(USER), "{printed}");
    let printed = text(&run(&[&["check-config", "--live"], &with[..]].concat()));
    assert!(printed.contains("invokeai accepts all"), "{printed}");
    engine.expire_tokens();
    let request = json!({"prompt": "a", "size": "64x64"});
    let answer = fakes::post(&format!("{}/v1/images/generations", sidecar.url), &request).await;
    assert_eq!(answer.status, 200, "{answer:?}");

    let first_lines = sidecar.first_lines.clone();
    sidecar.signal("-TERM");
    let (code, log) = sidecar.end().await;
    let log = first_lines + &log;
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("refuses the user name and password"), "{log}");
    for secret in [WRONG, PASSWORD, USER, "fake-token"] {
        assert!(!log.contains(secret), "{secret}: {log}");
    }
}

#[test]
fn a_file_that_is_no_login_is_a_configuration_error_that_quotes_nothing() {
    let dir = fakes::fresh_dir("engine-login-errors");
    let file = dir.join("engine_auth");
    let path = file.display().to_string();
    for (engine, content, expected) in [
        ("invokeai", "", "expected a user name in its first line"),
        ("invokeai", "hush-hush", "expected a password in its second line"),
        ("invokeai", "a@b.c\nhush-hush\nhush-hush", "expected two lines"),
        ("comfyui", "a@b.c\nhush-hush", "comfyui has no login"),
        ("builtin", "a@b.c\nhush-hush", "builtin has no login"),
    ] {
        std::fs::write(&file, content).unwrap();
        let output = run(&["check-config", "--engine", engine, "--engine-auth-file", &path]);
        let printed = text(&output);
        assert_eq!(output.status.code(), Some(78), "{printed}");
        assert!(printed.contains("engine_auth_file: ") && printed.contains(expected), "{printed}");
        assert!(!printed.contains("hush-hush"), "{printed}");
    }
    let output = run(&["check-config", "--engine-auth-file", "/nowhere/at-all"]);
    assert!(text(&output).contains("engine_auth_file: expected a readable file"), "{}", text(&output));
}
