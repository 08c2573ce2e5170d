//! Whether the engine is there, and is the engine.

use std::time::{Duration, Instant};

use e2e::sidecar::Sidecar;
use fakes::engine::{Fake, FakeEngine, Identity};
use serde_json::json;
use wire::health::{CheckStatus, ReadyStatus};

/// The status and the body of a page.
pub(crate) async fn text(url: &str) -> (u16, String) {
    let answer = fakes::http().get(url).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// An image request is refused, with this in the message.
pub(crate) async fn refused(sidecar: &Sidecar, text: &str) {
    let answer = sidecar.generate(&json!({"prompt": "a", "size": "64x64"})).await;
    assert_eq!((answer.status, answer.code()), (503, "backend_not_ready"), "{answer:?}");
    assert_eq!((answer.header("retry-after"), answer.header("x-should-retry")), ("30", "false"));
    assert!(answer.message().contains(text), "{}", answer.message());
}

async fn until_unreachable(sidecar: &Sidecar, text: &str) {
    fakes::eventually(text, async || {
        let check = sidecar.until_fails("engine_reachable").await;
        check.message.contains(text).then_some(())
    })
    .await;
}

/// Waits until the engine is reachable with this warning, and the verdict degraded (bounded).
pub(crate) async fn until_warning(sidecar: &Sidecar, text: &str) {
    fakes::eventually(text, async || {
        let report = sidecar.readyz().await;
        let check = report.checks.iter().find(|check| check.name == "engine_reachable")?.clone();
        let warned = check.status == CheckStatus::Warn && check.message.contains(text);
        (warned && report.status == ReadyStatus::Degraded).then_some(())
    })
    .await;
}

pub(super) async fn readiness_waits_for_an_engine_that_has_not_started<E: FakeEngine>() {
    let engine = Fake::<E>::start().await;
    engine.stop().await;
    let sidecar = Sidecar::of(&engine, &[]).await;
    sidecar.until_fails("engine_reachable").await;
    refused(&sidecar, "engine_reachable: ").await;
    let (status, health) = text(&format!("{}/healthz", sidecar.url)).await;
    assert_eq!(status, 200, "alive whatever the engine does");
    assert!(health.starts_with("ok\ngpu none not_ready: engine_reachable: nothing listens at"), "{health}");
    engine.restart();
    let report = sidecar.until_ready().await;
    assert_eq!((report.engine.kind.as_str(), report.engine.version.as_deref()), (E::NAME, Some(E::VERSION)));
    assert_eq!(report.engine.models, E::MODELS);
}

pub(super) async fn a_hanging_engine_is_distinguished_from_a_stopped_one<E: FakeEngine>() {
    let (engine, sidecar) = super::start::<E>(|_| (), &[]).await;
    engine.change(|engine| engine.set_hung(true));
    let start = Instant::now();
    let check = sidecar.until_fails("engine_reachable").await;
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert!(check.message.contains("does not answer"), "{}", check.message);
    engine.change(|engine| engine.set_hung(false));
    sidecar.until_ready().await;
}

pub(super) async fn another_program_on_the_port_is_not_the_engine<E: FakeEngine>() {
    let engine = Fake::<E>::start().await;
    let identify_as = |identity| engine.change(|engine| engine.identify_as(identity));
    identify_as(Identity::WebPage);
    let sidecar = Sidecar::of(&engine, &[]).await;
    until_unreachable(&sidecar, "or an unsupported version").await;
    identify_as(Identity::OtherJson);
    until_unreachable(&sidecar, "names no version").await;
    identify_as(Identity::Version(E::UNTESTED_VERSION));
    until_warning(&sidecar, "untested").await;
    identify_as(Identity::Engine);
    fakes::eventually("no warning", async || {
        Some(sidecar.readyz().await).filter(|report| report.status == ReadyStatus::Ready)
    })
    .await;
}
