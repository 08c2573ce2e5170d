//! What an attacker can cost the two services: each attack against a fresh process, while `/healthz` is polled over new
//! connections. Printed are the most memory it cost over the idle process, beside the bytes that were sent, how the attack
//! was answered, and how long health took.
//!
//! `cargo bench -p benches --bench hostile` for all, `-- NAME` for one row.

mod attack;
mod client;
mod probe;

use std::{
    io::Write,
    time::{Duration, Instant},
};

use e2e::{
    gateway::{Gateway, TOKEN},
    sidecar::Sidecar,
};
use fakes::{
    child::{self, Child},
    invokeai::FakeInvoke,
    upstream::Upstream,
};

use self::{
    attack::{Attack, Target},
    probe::HealthProbe,
};

/// Of `/healthz` while it is attacked.
const GOAL_P99: Duration = Duration::from_millis(50);
/// Memory for each byte sent in a body.
const GOAL_FACTOR: f64 = 4.0;

#[tokio::main]
async fn main() {
    let given: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match &given[..] {
        [service, backend] if service == "sidecar" => {
            let sidecar = Sidecar::invokeai(backend, &[]).await;
            sidecar.until_ready().await;
            child::listening(&sidecar.url).await;
        }
        [service, backend] if service == "gateway" => {
            let gateway =
                Gateway::with_backends(&backends(backend), &["--gateway-legacy-upstream", backend]).await;
            gateway.until_ready("gpu_heavy", true).await;
            gateway.set_env(&format!("GATEWAY_BEARER_TOKENS=one={TOKEN},other={}\n", attack::OTHER_TOKEN));
            gateway.reload(TOKEN).await;
            child::listening(&gateway.url).await;
        }
        _ => attack_all(given.first().map_or("", String::as_str)).await,
    }
}

/// One address for images and for chat.
fn backends(url: &str) -> String {
    format!(
        "backends:\n  gpu_heavy:\n    base_url: {url}\n    supported_capabilities: [images]\n    \
         concurrency_limits: {{images: 2}}\n  local_mlx:\n    base_url: {url}/v1\n    \
         supported_capabilities: [chat]\n    concurrency_limits: {{chat: 2}}\n"
    )
}

async fn attack_all(filter: &str) {
    let (engine, upstream) = (FakeInvoke::start().await, Upstream::start().await);
    let backends = [("sidecar", engine.url()), ("gateway", upstream.url.clone())];
    say(
        "| attack | on | sent MiB | peak MiB over idle | factor | answered | /healthz p50, p99, max ms (n) |",
    );
    say("|---|---|--:|--:|--:|---|---|");
    for attack in attack::all() {
        for (service, backend) in &backends {
            if attack.targets.contains(service) && attack.name.contains(filter) {
                let (service, backend) = (*service, backend.clone());
                // Attackers and probe are threads that block, as other machines would be.
                let row = tokio::task::spawn_blocking(move || row(&attack, service, &backend));
                let flood = async {
                    if attack.flood {
                        attack::flood(&engine).await;
                    }
                };
                let (row, ()) = tokio::join!(row, flood);
                say(&row.expect("the attack came to its end"));
            }
        }
    }
}

fn row(attack: &Attack, service: &'static str, backend: &str) -> String {
    let victim = Child::start(&[service, backend]);
    let target = Target::new(service, &victim);
    let idle = child::resident_kib(victim.id()) >> 10;
    child::reset_peak(victim.id());
    let probe = HealthProbe::start(target.address);
    let start = Instant::now();
    let outcome = (attack.run)(&target);
    // What is worked on after the attacker left counts as well.
    let rest = attack.least.saturating_sub(start.elapsed());
    std::thread::sleep(rest);
    let health = probe.stop();
    let peak = child::peak_mib(victim.id()).saturating_sub(idle);
    #[expect(clippy::cast_precision_loss, reason = "megabytes")]
    let (sent, factor) = {
        let sent = outcome.largest_body as f64 / f64::from(1 << 20);
        (sent, if sent < 1.0 { None } else { Some(peak as f64 / sent) })
    };
    let too_much =
        factor.is_some_and(|factor| factor > GOAL_FACTOR) || health.p99 > GOAL_P99 || health.failed > 0;
    let mark = if too_much { " **missed**" } else { "" };
    let factor = factor.map_or_else(|| "–".to_owned(), |factor| format!("{factor:.1}"));
    format!(
        "| {} | {service} | {sent:.1} | {peak} | {factor} | {} | {health}{mark} |",
        attack.name, outcome.answered
    )
}

fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
