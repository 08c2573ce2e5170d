use clap::ArgMatches;
use service::doctor::Verdict::{self, Fail, Ok, Skip, Warn};

use super::*;
use crate::{cli, config::inspect, store::disk::tests::temporary};

const TOKEN: &str = "GATEWAY_BEARER_TOKEN=0123456789abcdef\n";

/// The findings about these files.
fn findings_in(env: &str, backends: Option<&str>) -> Vec<Finding> {
    let dir = temporary("doctor-settings");
    std::fs::write(dir.join(".env"), env).unwrap();
    if let Some(backends) = backends {
        std::fs::write(dir.join("backends_config.yaml"), backends).unwrap();
    }
    let path = dir.join(".env").display().to_string();
    let matches: ArgMatches = cli::command().get_matches_from(["gateway", "--env-file", &path]);
    findings(&inspect(&matches, &|_| None, &[]), None)
}

#[test]
fn a_valid_configuration_has_no_findings_and_each_fault_is_reported_once() {
    let table: [(&str, &str, Verdict, &str); 18] = [
        ("", "configuration", Ok, ""),
        ("GATEWAY_HOST=0.0.0.0\nOLLAMA_HOST=1\n", "listener", Ok, ""),
        ("GATEWAY_PORT=what\n", "configuration", Fail, "correct GATEWAY_PORT in "),
        ("GATEWAY_PROT=1\n", "spelling", Warn, "rename GATEWAY_PROT in "),
        ("GATEWAY_BEARER_TOKENS=alice=0123456789abcdefg\n", "tokens", Warn, "GATEWAY_OWNER_TOKENS=NAME"),
        (
            "GATEWAY_BEARER_TOKENS=short\nGATEWAY_OWNER_TOKENS=token\n",
            "tokens",
            Warn,
            "gateway token new NAME",
        ),
        ("TRUST_PROXY_CIDRS=0.0.0.0/0\n", "listener", Warn, "the proxy's own address"),
        ("IP_ALLOWLIST=10.0.0.0/8\n", "listener", Warn, "127.0.0.1"),
        ("IP_ALLOWLIST=10.0.0.0/8,127.0.0.1,::1\n", "listener", Ok, ""),
        ("PUBLIC_BASE_URL=https://ai2.local:8800\n", "listener", Warn, "GATEWAY_HOST=0.0.0.0"),
        ("PUBLIC_BASE_URL=https://ai2.local:8800\nGATEWAY_HOST=0.0.0.0\n", "listener", Ok, ""),
        ("PUBLIC_BASE_URL=https://[fd00::1]:8800\nGATEWAY_HOST=::\n", "listener", Ok, ""),
        (
            "PUBLIC_BASE_URL=https://ai.example.org\nGATEWAY_HOST=0.0.0.0\n",
            "listener",
            Warn,
            "GATEWAY_ALLOWED_HOSTS=ai.example.org",
        ),
        (
            "PUBLIC_BASE_URL=https://ai.example.org\nTRUST_PROXY_CIDRS=127.0.0.1\nGATEWAY_ALLOWED_HOSTS=.example.org\n",
            "listener",
            Ok,
            "",
        ),
        ("GATEWAY_TLS=off\nGATEWAY_HOST=0.0.0.0\n", "listener", Warn, "GATEWAY_TLS=on"),
        ("GATEWAY_TLS=off\n", "listener", Ok, ""),
        ("IMAGES_BACKEND=mock\n", "images", Warn, "IMAGES_BACKEND=http_openai_images"),
        ("IMAGES_HTTP_TIMEOUT_SEC=300\n", "limits", Warn, "IMAGES_HTTP_TIMEOUT_SEC=280"),
    ];
    for (env, name, verdict, fix) in table {
        let found = findings_in(&format!("{TOKEN}{env}"), None);
        let finding = found.iter().find(|finding| finding.name == name);
        assert_eq!(finding.map_or(Ok, |finding| finding.verdict), verdict, "{env} {found:?}");
        assert!(
            finding.and_then(|finding| finding.fix.as_deref()).unwrap_or_default().contains(fix),
            "{env} {finding:?}"
        );
        assert!(found.iter().all(|other| other.name == name || other.verdict == Ok), "{env} {found:?}");
    }
}

#[test]
fn every_problem_has_a_line_and_paths_are_left_to_their_own_check() {
    let found = findings_in("GATEWAY_PORT=what\nIMAGES_MAX_PIXELS=lots\nUI_IMAGE_DIR=/dev/null/x\n", None);
    let fixes: Vec<_> = found.iter().filter_map(|finding| finding.fix.as_deref()).collect();
    let begin =
        ["correct GATEWAY_PORT in /", "set GATEWAY_BEARER_TOKEN in /", "correct IMAGES_MAX_PIXELS in /"];
    assert!(
        fixes.len() == 3 && fixes.iter().zip(begin).all(|(fix, begin)| fix.starts_with(begin)),
        "{fixes:?}"
    );
}

#[test]
fn foreign_backends_are_not_reported_and_names_without_backend_are() {
    let backends = "version: 3\nbackends:\n  gpu_heavy:\n    base_url: http://127.0.0.1:1\n    supported_capabilities: [images, music]\n  \
                    tts:\n    base_url: http://127.0.0.1:2\n    supported_capabilities: [tts]\nlegacy_mapping: {mlx: local_mlx}\n";
    let found = findings_in(TOKEN, Some(backends));
    let finding: Vec<_> =
        found.iter().filter(|finding| finding.verdict != Ok).map(|finding| finding.name).collect();
    assert_eq!(finding, ["routing"], "{found:?}");
}

#[test]
fn an_unreadable_env_file_is_skipped() {
    let dir = temporary("doctor-hidden");
    let path = dir.join("nothing").display().to_string();
    let matches = cli::command().get_matches_from(["gateway", "--env-file", &path]);
    let found = findings(&inspect(&matches, &|_| None, &[]), Some("sudo -u _gateway gateway doctor"));
    assert_eq!((found.len(), found[0].verdict), (1, Skip), "{found:?}");
    assert!(found[0].message.ends_with("run: sudo -u _gateway gateway doctor"), "{found:?}");
}
