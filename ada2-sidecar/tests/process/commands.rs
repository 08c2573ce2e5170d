//! What a person at a terminal sees, with and without a running sidecar.

use fakes::{comfyui::FakeComfy, gpu::FakeCard};

use crate::running::{Running, run, text};

/// Nothing listens there.
const UNUSED_ADDRESS: &str = "127.0.0.1:9";

#[tokio::test]
async fn readyz_asks_the_running_sidecar_and_its_exit_code_is_the_verdict() {
    let card = FakeCard::new();
    let library = card.library().display().to_string();
    let state = fakes::fresh_dir("show");
    let sidecar = Running::start(&state, &["--engine", "builtin", "--nvml-lib", &library]);
    sidecar.ready().await;
    let address = sidecar.url.trim_start_matches("http://").to_owned();
    let ask = |arguments: &[&str]| run(&[arguments, &["--listen", &address]].concat());
    let output = ask(&["readyz"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(
        text(&output).contains("[+]engine_reachable ok builtin")
            && text(&output).ends_with("readyz check passed\n")
    );
    let output = ask(&["gpu", "--query", "memory.free,temperature.gpu", "--format", "csv,noheader,nounits"]);
    assert_eq!((output.status.code(), text(&output).as_str()), (Some(0), "45459, 54\n"));
    let json: serde_json::Value = serde_json::from_slice(&ask(&["gpu", "--json"]).stdout).unwrap();
    assert_eq!(json["memory.free"], 45_459);
    assert!(text(&ask(&["gpu"])).ends_with("readiness: ready\n"));
    let output = ask(&["gpu", "--query", "memory.fre"]);
    assert!(
        output.status.code() == Some(1) && text(&output).contains("not a valid field"),
        "{}",
        text(&output)
    );
    card.xid(79);
    fakes::eventually("it gates", async || (ask(&["readyz"]).status.code() == Some(1)).then_some(())).await;
    let output = ask(&["readyz", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &report["status"]), (Some(1), &"not_ready".into()));
}

#[test]
fn another_program_at_the_address_is_not_taken_for_a_sidecar() {
    let bodies = ["<html>an engine's page</html>", "{\"engine's\": \"page\"}", "engine's page, 54\n"];
    let commands: [&[&str]; 5] = [
        &["readyz"],
        &["readyz", "--json"],
        &["gpu"],
        &["gpu", "--json"],
        &["gpu", "--query", "memory.free,temperature.gpu", "--format", "csv,noheader"],
    ];
    for (body, kind) in bodies.into_iter().zip(["text/html", "application/json", "text/plain"]) {
        for command in commands {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let serve = std::thread::spawn(move || {
                use std::io::{Read, Write};
                let (mut client, _) = listener.accept().unwrap();
                let _ = client.read(&mut [0; 4096]);
                let length = body.len();
                let head =
                    format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n");
                client.write_all((head + body).as_bytes()).unwrap();
            });
            let output = run(&[command, &["--listen", &address]].concat());
            serve.join().unwrap();
            let printed = text(&output);
            assert_eq!(output.status.code(), Some(1), "{command:?}: {printed}");
            assert!(printed.contains("not the sidecar"), "{command:?}: {printed}");
            assert!(printed.contains("sudo ada2-sidecar doctor"), "{command:?}: {printed}");
            assert!(!printed.contains("engine's"), "{command:?}: {printed}");
        }
    }
}

#[test]
fn without_a_running_sidecar_card_and_host_are_read_directly() {
    let card = FakeCard::new();
    let library = card.library().display().to_string();
    let state = fakes::fresh_dir("direct").display().to_string();
    let ask = |arguments: &[&str]| {
        run(&[arguments, &["--listen", UNUSED_ADDRESS, "--nvml-lib", &library, "--state-dir", &state]]
            .concat())
    };
    let output = ask(&["readyz"]);
    let printed = text(&output);
    assert_eq!(output.status.code(), Some(1), "requests are not served: {printed}");
    assert!(
        printed.starts_with("no sidecar runs at 127.0.0.1:9") && printed.contains("[+]ecc ok"),
        "{printed}"
    );
    assert!(
        printed.contains("[-]service failed: no sidecar runs; start it: ada2-sidecar serve"),
        "{printed}"
    );
    assert!(
        printed.ends_with("readyz check failed\n") && !printed.contains("readyz check passed"),
        "{printed}"
    );
    assert!(!printed.contains("engine_reachable"), "the engine was not checked: {printed}");
    let output = ask(&["gpu", "--query", "memory.free", "--format", "csv,noheader,nounits"]);
    assert_eq!((output.status.code(), text(&output).as_str()), (Some(0), "45459\n"));
    let output = ask(&["readyz", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &report["status"]), (Some(1), &"not_ready".into()));
    card.set(|scenario| scenario.gpus[0].recovery_action = 2);
    assert!(text(&ask(&["readyz"])).contains("[-]recovery_action failed"));
    card.set(|scenario| scenario.init_error = 9);
    let output = ask(&["gpu"]);
    assert!(
        output.status.code() == Some(1) && text(&output).contains("couldn't communicate"),
        "{}",
        text(&output)
    );
}

#[tokio::test]
async fn a_driver_that_starts_slowly_is_waited_for_even_where_no_card_is_required() {
    let card = FakeCard::new();
    card.set(|scenario| scenario.hang = vec!["nvmlInit_v2".into()]);
    let library = card.library().display().to_string();
    let state = fakes::fresh_dir("slow");
    let sidecar = Running::start(&state, &["--engine", "builtin", "--nvml-lib", &library]);
    let failed = async || {
        let answer = fakes::http().get(format!("{}/readyz", sidecar.url)).send().await.unwrap();
        let report: serde_json::Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        let failed = report["checks"].as_array().unwrap().iter().filter(|check| check["status"] == "fail");
        failed.map(|check| check["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    // After 5 s a hanging driver is reported as well.
    let of_the_driver = |name: &String| name == "nvml" || name == "snapshot_fresh";
    fakes::eventually("all else is well", async || failed().await.iter().all(of_the_driver).then_some(()))
        .await;
    assert!(failed().await.contains(&"nvml".to_owned()));
    card.set(|scenario| scenario.hang.clear());
    sidecar.ready().await;
}

#[tokio::test]
async fn ack_goes_through_the_state_directory_with_and_without_a_running_sidecar() {
    let card = FakeCard::new();
    let library = card.library().display().to_string();
    let state = fakes::fresh_dir("ack");
    let dir = state.display().to_string();
    let flags = ["--engine", "builtin", "--nvml-lib", &library];
    let mut sidecar = Running::start(&state, &flags);
    sidecar.ready().await;
    let latch = async |sidecar: &Running| {
        card.xid(79);
        fakes::eventually("kept", async || {
            std::fs::read_to_string(state.join("latch.json")).ok().filter(|text| text.contains("\"79\""))
        })
        .await;
        let answer = fakes::http().get(format!("{}/readyz", sidecar.url)).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 503);
    };
    latch(&sidecar).await;
    let output = run(&["ack", "--state-dir", &dir]);
    assert_eq!(
        (output.status.code(), text(&output).as_str()),
        (Some(0), "acknowledged: XID 79 (GPU has fallen off the bus)\n")
    );
    sidecar.ready().await;
    let output = run(&["ack", "--state-dir", &dir]);
    assert_eq!((output.status.code(), text(&output).as_str()), (Some(0), "nothing was latched\n"));
    latch(&sidecar).await;
    sidecar.child.kill().unwrap();
    sidecar.child.wait().unwrap();
    let output = run(&["ack", "--state-dir", &dir]);
    assert!(output.status.code() == Some(0) && text(&output).contains("XID 79"), "{}", text(&output));
    Running::start(&state, &flags).ready().await;
    let output = run(&["ack", "--state-dir", "/no/such/folder"]);
    assert!(output.status.code() == Some(1) && text(&output).contains("--state-dir"), "{}", text(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn check_config_live_validates_every_graph_with_the_engine() {
    let fake = FakeComfy::start().await;
    let dir = fakes::fresh_dir("live");
    let graph = r#"{"3":{"class_type":"KSampler","inputs":{"seed":1,"positive":["6",0]}},
        "6":{"class_type":"CLIPTextEncode","inputs":{"text":""}},
        "9":{"class_type":"SaveImageFancy","inputs":{"images":["3",0]}}}"#;
    std::fs::write(dir.join("mine.json"), graph).unwrap();
    let bindings = "output: '9'\nbindings: {prompt: ['6.text'], seed: ['3.seed']}";
    std::fs::write(dir.join("mine.yaml"), bindings).unwrap();
    let file = dir.join("config.yaml").display().to_string();
    let ask = |text: &str| {
        std::fs::write(&file, text).unwrap();
        run(&["check-config", "--live", "--config", &file])
    };
    let engine = format!("engine: comfyui\nengine_url: {}\n", fake.url());
    let output = ask(&engine);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).ends_with("# comfyui accepts all 3 graphs\n"));
    fake.script(|script| script.checkpoints.push("dreamshaper_8.safetensors".to_owned()));
    let output = ask(&format!("{engine}models: {{gone: {{base: sdxl}}, random-sd15: {{base: sd-1}}}}"));
    let printed = text(&output);
    assert_eq!(output.status.code(), Some(0), "warnings are not errors: {printed}");
    for warning in [
        "warning: models: \"gone\" is declared, but the engine has no such model",
        "warning: models: cannot detect the kind of \"dreamshaper_8\"",
    ] {
        assert!(printed.contains(warning), "{printed}");
    }
    assert!(!printed.contains("random-sd15\" is"), "{printed}");
    let output = ask(&format!("{engine}presets: {{mine: {{template: mine.json}}}}"));
    let printed = text(&output);
    assert_eq!(output.status.code(), Some(78), "{printed}");
    for error in [
        "preset \"mine\", generate: the node \"3\" (KSampler) is missing its input \"steps\"\n",
        "preset \"mine\", generate: the node \"9\" is of class \"SaveImageFancy\", which this ComfyUI does not know\n",
    ] {
        assert!(printed.contains(error), "{printed}");
    }
    assert!(
        !fake.requests().iter().any(|request| request.method == "POST"),
        "nothing was run, nothing cancelled"
    );
    fake.stop().await;
    let output = ask(&engine);
    assert_eq!(output.status.code(), Some(78));
    assert!(text(&output).ends_with("cannot validate the graphs: connection refused\n"), "{}", text(&output));
}

/// `check-config` with the shared fixtures beside a file of these presets.
fn check_templates(engine: &str, presets: &str, more: &[(&str, &str)]) -> (Option<i32>, String) {
    let dir = fakes::template_dir();
    for (name, text) in more {
        std::fs::write(dir.join(name), text).expect("the directory can be written");
    }
    let file = dir.join("config.yaml").display().to_string();
    std::fs::write(&file, format!("engine: {engine}\npresets: {presets}\n"))
        .expect("the directory can be written");
    let output = run(&["check-config", "--config", &file]);
    (output.status.code(), text(&output))
}

#[test]
fn check_config_prints_the_bindings_of_each_template_and_the_edges_that_it_drops() {
    let (code, printed) = check_templates("invokeai", "{edge: {template: invoke-seed-from-edge.json}}", &[]);
    assert_eq!(code, Some(0), "{printed}");
    for line in [
        "# preset \"edge\", generate: binds prompt (pos.prompt), seed (noise.seed); output l2i\n",
        "# preset \"edge\", generate: the edge from rnd.value to noise.seed is dropped: the binding seed sets that input\n",
    ] {
        assert!(printed.contains(line), "{printed}");
    }
    let presets = "{turbo: {template: comfy-turbo.json}, fixed: {template: comfy-fixed-size.json}, bom: {template: \
                   comfy-bom.json}, own: {template: comfy-null-model.json}, edit: {template: {edit: comfy-edit.json}}}";
    let (code, printed) = check_templates("comfyui", presets, &[]);
    assert_eq!(code, Some(0), "{printed}");
    let scheduler = "scheduler (7.sampler_name, 7.scheduler); output 9\n";
    assert!(printed.contains(scheduler) && !printed.contains("dropped"), "{printed}");
}

#[test]
fn check_config_names_every_binding_and_setting_that_cannot_work() {
    let bindings = "output: '9'\nbindings: {prompt: ['4.text'], seed: ['7.seed'], steps: ['7.seed'], width: ['6.width'], \
                    strength: ['7.denoise']}";
    let (code, printed) = check_templates(
        "comfyui",
        "{mine: {template: comfy-turbo.json}, fixed: {steps: 4, size: 512x512, template: comfy-fixed-size.json}}",
        &[("comfy-turbo.yaml", bindings)],
    );
    assert_eq!(code, Some(78), "{printed}");
    let lines: Vec<_> = printed.lines().collect();
    for part in [
        "7.seed is bound twice, by seed and by steps",
        "width is bound and height is not",
        "steps: has no effect: no template of this preset binds steps",
        "size: has no effect: no template of this preset binds width and height",
    ] {
        let line =
            lines.iter().find(|line| line.contains(part)).unwrap_or_else(|| panic!("{part}: {printed}"));
        assert!(line.contains("config.yaml: presets: "), "{line}");
    }
}

#[test]
fn check_config_warns_of_settings_that_warn_only_replaces_and_rejects_unknown_checks() {
    let output = run(&["check-config", "--row-remap-failure", "degraded", "--warn-only", "disk"]);
    let printed = text(&output);
    assert_eq!(output.status.code(), Some(0), "{printed}");
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("warn_only: disk  # --warn-only\n"),
        "{printed}"
    );
    let warning = "warning: --row-remap-failure: row_remap_failure: read for this version only; set warn_only: row_remap";
    assert!(String::from_utf8_lossy(&output.stderr).starts_with(warning), "{printed}");
    let output = run(&["check-config", "--warn-only", "disc,nvml"]);
    let printed = text(&output);
    assert_eq!(output.status.code(), Some(78), "{printed}");
    assert!(printed.contains("did you mean \"disk\"?") && printed.contains("nvml always gates"), "{printed}");
}
