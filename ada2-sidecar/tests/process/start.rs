//! The start: no request is refused because nothing was read yet.

use std::time::{Duration, Instant};

use fakes::{gpu::FakeCard, invokeai::FakeInvoke};
use serde_json::json;
use tokio::net::UnixDatagram;

use crate::running::Running;

const INIT: &str = "nvmlInit_v2";

/// With a card, which `gpu: optional` does not excuse, and the builtin engine.
fn start(name: &str, card: &FakeCard, environment: &[(&str, &str)]) -> Running {
    let library = card.library().display().to_string();
    let flags = ["--engine", "builtin", "--nvml-lib", &library];
    Running::start_with(&fakes::fresh_dir(name), &flags, environment)
}

#[tokio::test]
async fn requests_before_the_first_sample_wait_for_it_and_none_is_refused() {
    let card = FakeCard::new();
    card.set(|scenario| scenario.delay_ms = [(INIT.to_owned(), 800)].into());
    let started = Instant::now();
    let sidecar = start("first-look", &card, &[]);
    let url = format!("{}/v1/images/generations", sidecar.url);
    let generate = async || fakes::post(&url, &json!({"prompt": "a", "size": "64x64", "steps": 1})).await;
    let (one, two, readyz) = tokio::join!(generate(), generate(), async {
        fakes::http().get(format!("{}/readyz", sidecar.url)).send().await.unwrap().status()
    });
    assert_eq!((one.status, two.status, readyz.as_u16()), (200, 200, 200), "{one:?} {two:?}");
    assert!(started.elapsed() > Duration::from_millis(700), "the driver took its time");
}

#[tokio::test]
async fn a_hanging_driver_delays_the_start_for_5_s_while_the_watchdog_is_fed() {
    let card = FakeCard::new();
    card.set(|scenario| scenario.hang = vec![INIT.into()]);
    let path = fakes::fresh_dir("hang-notify").join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let address = path.display().to_string();
    let environment = [("NOTIFY_SOCKET", address.as_str()), ("WATCHDOG_USEC", "300000")];
    let started = Instant::now();
    let sidecar = start("hang", &card, &environment);
    // The end of a reload would notify that the service is ready.
    sidecar.signal("-HUP");
    let health =
        async { fakes::http().get(format!("{}/healthz", sidecar.url)).send().await.unwrap().status() };
    let ready = async {
        let (mut message, mut pings) = (vec![0; 4096], 0);
        loop {
            let length = manager.recv(&mut message).await.unwrap();
            let text = String::from_utf8_lossy(&message[..length]).into_owned();
            pings += usize::from(text.contains("WATCHDOG=1"));
            if text.contains("READY=1") {
                return (pings, started.elapsed());
            }
        }
    };
    let both = Box::pin(async { tokio::join!(ready, health) });
    let ((pings, ready), health) = Box::pin(fakes::bounded("it begins", both)).await;
    assert_eq!(health, 200, "alive, whatever the driver does");
    assert!(pings >= 10, "{pings}");
    assert!((4.5..8.0).contains(&ready.as_secs_f64()), "{ready:?}");
    let nvml = fakes::http().get(format!("{}/readyz/nvml", sidecar.url)).send().await.unwrap();
    assert_eq!(nvml.status(), 503);
    assert!(nvml.text().await.unwrap().contains("the driver has not answered yet"));
    card.set(|scenario| scenario.hang.clear());
    sidecar.ready().await;
}

#[tokio::test]
async fn a_host_without_root_certificates_is_enough() {
    let fake = FakeInvoke::start().await;
    let none = [("SSL_CERT_FILE", "/dev/null"), ("SSL_CERT_DIR", "/nonexistent")];
    let flags = ["--engine-url", &fake.url()];
    let sidecar = Running::start_with(&fakes::fresh_dir("no-authorities"), &flags, &none);
    sidecar.ready().await;
}

#[tokio::test]
async fn sigterm_before_the_first_sample_ends_at_once() {
    let card = FakeCard::new();
    card.set(|scenario| scenario.hang = vec![INIT.into()]);
    let sidecar = start("term-early", &card, &[]);
    let started = Instant::now();
    sidecar.signal("-TERM");
    let (code, log) = sidecar.end().await;
    assert_eq!(code, Some(0), "{log}");
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}
