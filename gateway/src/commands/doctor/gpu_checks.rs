//! The checks that cost GPU time, for who asks for them.

use service::doctor::{Finding, Verdict};

use super::running;
use crate::commands::{target::GatewayTarget, verify};

/// Checks whose failure is why a backend is not ready.
const BACKEND_FAILURES: [&str; 3] = ["backend", "backend_address", "local_network"];

/// What costs GPU time, after what was `found` before.
pub(super) async fn findings(
    asked: Option<&(GatewayTarget, serde_json::Value)>,
    generate: bool,
    overload: bool,
    found: &[Finding],
) -> Vec<Finding> {
    let wanted = [("generate", generate), ("overload", overload)];
    let skipped = |why: &str| {
        let wanted = wanted.into_iter().filter(|(_, wanted)| *wanted);
        wanted.map(|(name, _)| Finding::skip(name, why)).collect()
    };
    let Some((target, status)) = asked else { return skipped("needs a running gateway that answers") };
    let is_of_backend =
        |finding: &Finding| finding.verdict == Verdict::Fail && BACKEND_FAILURES.contains(&finding.name);
    if found.iter().any(is_of_backend) && verify::images_backend(status).is_err() {
        return skipped("the images backend is not ready, as reported above");
    }
    let done = running::run_gpu_checks(target, status, generate, overload).await;
    let finding = |(name, outcome): (&'static str, Result<String, String>)| match outcome {
        Ok(message) => Finding::ok(name, message),
        Err(why) => Finding::fail(name, why, "gateway status, and the logs of gateway and sidecar"),
    };
    done.into_iter().map(finding).collect()
}
