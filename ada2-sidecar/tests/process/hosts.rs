//! Hosts with other files and models than a family needs: what readiness, the list of models, requests and
//! `check-config --live` say.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use fakes::{
    comfyui::{ComfyScript, ComfyVersion, FakeComfy},
    engine::{Fake, FakeEngine},
    invokeai::{FakeInvoke, InvokeScript},
};
use serde_json::{Value, json};

use crate::running::{Running, run, text};

/// What is expected of a host.
struct Expected {
    /// Status and words of the check `engine_model`.
    readiness: (&'static str, &'static str),
    /// `/v1/models`.
    listed: &'static [&'static str],
    /// A model that a request names, and its answer's status and words.
    requests: &'static [(&'static str, u16, &'static str)],
    /// Lines of `check-config --live`.
    live: &'static [&'static str],
}

async fn check<E: FakeEngine>(host: &str, fake: &Fake<E>, expected: &Expected) {
    let url = fake.url();
    let flags = ["--engine", E::NAME, "--engine-url", &url, "--warm-up", "on"];
    let sidecar = Running::start(&fakes::fresh_dir("hosts"), &flags);
    let (status, words) = expected.readiness;
    let get = async |path: &str| {
        let answer = fakes::http().get(format!("{}{path}", sidecar.url)).send().await.unwrap();
        fakes::TestResponse::read(answer).await
    };
    let readiness = fakes::eventually(&format!("{host}: engine_model {status}"), async || {
        let check = get("/readyz/engine_model").await.json;
        let is_settled = check["status"] == status && check["observed"] != "warming";
        is_settled.then_some(check)
    })
    .await;
    assert!(readiness["message"].as_str().unwrap_or_default().contains(words), "{host}: {readiness}");
    let list = get("/v1/models").await.json;
    let ids: Vec<_> =
        list["data"].as_array().unwrap().iter().filter_map(|model| model["id"].as_str()).collect();
    assert_eq!(ids, expected.listed, "{host}");
    let is_default = |model: &&serde_json::Value| model["default"] == true;
    let defaults = list["data"].as_array().unwrap().iter().filter(is_default).count();
    assert_eq!(defaults, ids.len().min(1), "{host}: one of them is what requests without a model get");
    for (model, status, words) in expected.requests {
        let request = json!({"model": model, "prompt": "a", "size": "128x96", "steps": 2});
        let url = format!("{}/v1/images/generations", sidecar.url);
        let answers = [fakes::post(&url, &request).await, get(&format!("/v1/models/{model}")).await];
        // A host that is not ready refuses every request for images alike.
        let is_ready = expected.readiness.0 != "fail";
        for answer in &answers[usize::from(!is_ready)..] {
            assert_eq!(answer.status, *status, "{host}: {model}: {answer:?}");
            assert!(answer.message().contains(words), "{host}: {model}: {}", answer.message());
        }
    }
    let printed = text(&run(&[&["check-config", "--live"], &flags[..]].concat()));
    for line in expected.live {
        assert!(printed.lines().any(|printed| printed == *line), "{host}: no {line:?} in\n{printed}");
    }
}

fn files(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| format!("{name}.safetensors")).collect()
}

async fn comfyui(host: &str, change: impl FnOnce(&mut ComfyScript), expected: &Expected) {
    let fake = FakeComfy::start().await;
    fake.script(|script| {
        *script =
            ComfyScript { version: ComfyVersion::NEWEST, checkpoints: Vec::new(), ..ComfyScript::default() };
        change(script);
    });
    check(host, &fake, expected).await;
}

async fn invokeai(host: &str, models: &[Value], expected: &Expected) {
    let fake = FakeInvoke::start().await;
    fake.script(|script| *script = InvokeScript { models: models.to_vec(), ..InvokeScript::default() });
    check(host, &fake, expected).await;
}

fn model(model_type: &str, base: &str, variant: Option<&str>, format: &str, name: &str) -> Value {
    json!({"key": name, "hash": "blake3:0", "name": name, "base": base, "type": model_type, "variant": variant,
        "format": format})
}

fn z_image(script: &mut ComfyScript) {
    script.diffusion_models = Some(files(&["z_image_turbo_bf16"]));
    script.text_encoders = files(&["qwen_3_4b"]);
    script.vae = files(&["ae"]);
}

fn flux(script: &mut ComfyScript) {
    script.diffusion_models = Some(files(&["flux1-dev"]));
    script.text_encoders = files(&["clip_l", "t5xxl_fp16"]);
    script.vae = files(&["ae"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_flux_1() {
    comfyui(
        "only FLUX.1 dev",
        flux,
        &Expected {
            readiness: ("pass", ""),
            listed: &["flux1-dev"],
            requests: &[
                ("flux1-dev", 200, ""),
                (
                    "z-image-turbo",
                    404,
                    "The model \"z-image-turbo\" is not complete on this engine: it lacks a file",
                ),
                ("sd-v1-5", 404, "it has none"),
            ],
            live: &["# offered by built-in graphs: flux1-dev"],
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_z_image() {
    comfyui(
        "only Z-Image Turbo",
        z_image,
        &Expected {
            readiness: ("pass", ""),
            listed: &["z-image-turbo"],
            requests: &[("z-image-turbo", 200, ""), ("flux1-dev", 404, "in models/")],
            live: &[
                "# offered by built-in graphs: z-image-turbo",
                "# not offered: z-image: it lacks a file z_image_bf16 or z_image in models/diffusion_models",
            ],
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing() {
    comfyui(
        "nothing",
        |_| (),
        &Expected {
            readiness: ("fail", "the engine has no model that the built-in graphs can run: install one"),
            listed: &[],
            requests: &[("z-image-turbo", 404, "it lacks a file")],
            live: &["# offered by built-in graphs: no model"],
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_precisions() {
    comfyui(
        "Z-Image Turbo in fp8 and bf16",
        |script| {
            z_image(script);
            script.diffusion_models = Some(files(&["z_image_turbo_fp8_e4m3fn", "z_image_turbo_bf16"]));
        },
        &Expected {
            readiness: ("pass", ""),
            listed: &["z-image-turbo"],
            requests: &[("z-image-turbo", 200, ""), ("z_image_turbo_fp8_e4m3fn", 200, "")],
            live: &["# offered by built-in graphs: z-image-turbo"],
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_text_encoder() {
    comfyui(
        "Z-Image Turbo without its text encoder",
        |script| {
            z_image(script);
            script.text_encoders.clear();
        },
        &Expected {
            readiness: (
                "fail",
                "(Z-Image, a diffusion model without text encoder and VAE): install one in its models/checkpoints, or the files",
            ),
            listed: &[],
            requests: &[("z-image-turbo", 404, "in models/text_encoders")],
            live: &["# offered by built-in graphs: no model"],
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flux_checkpoint() {
    comfyui(
        "a FLUX.1 checkpoint",
        |script| script.checkpoints = files(&["flux1-dev-fp8"]),
        &Expected {
            readiness: ("pass", ""),
            listed: &["flux1-dev-fp8"],
            requests: &[("flux1-dev-fp8", 200, ""), ("flux1-dev", 404, "it lacks a file")],
            live: &["# offered by built-in graphs: flux1-dev-fp8"],
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_comfyui() {
    comfyui(
        "ComfyUI 0.33 with Qwen-Image 2.1",
        |script| {
            script.version = ComfyVersion::V0_33_0;
            script.diffusion_models = Some(files(&["qwen_image_2.1_bf16"]));
            script.vae = files(&["qwen_image_vae"]);
        },
        &Expected {
            readiness: ("fail", ""),
            listed: &[],
            requests: &[("qwen-image-2.1", 404, "which this ComfyUI does not have (update it")],
            live: &[
                "# not offered: qwen-image-2.1: it lacks the node TextEncodeQwenImage21, which this ComfyUI does not have \
                 (update it, or install its node pack)",
            ],
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_file_without_its_encoder() {
    let single_file = model("main", "z-image", Some("turbo"), "checkpoint", "Z-Image Turbo");
    invokeai(
        "InvokeAI with one file without its encoder",
        &[single_file],
        &Expected {
            readiness: ("fail", "beside which a model of type qwen3_encoder, variant qwen3_4b and"),
            listed: &[],
            requests: &[("Z-Image Turbo", 400, "the engine lacks what it needs beside it: a model of type qwen3_encoder")],
            live: &[
                "# offered by built-in graphs: no model",
                "# not offered: Z-Image Turbo: it lacks a model of type qwen3_encoder, variant qwen3_4b and a model of type vae, \
                 base flux",
            ],
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline() {
    invokeai(
        "InvokeAI with a pipeline",
        &[model("main", "z-image", Some("turbo"), "diffusers", "Z-Image Turbo")],
        &Expected {
            readiness: ("pass", ""),
            listed: &["Z-Image Turbo"],
            requests: &[("z-image turbo", 200, ""), ("z-image", 404, "Available: Z-Image Turbo.")],
            live: &["# offered by built-in graphs: Z-Image Turbo"],
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kontext_alone() {
    invokeai(
        "InvokeAI with FLUX.1 Kontext alone",
        &[
            model("main", "flux", Some("dev"), "checkpoint", "FLUX.1 Kontext dev"),
            model("t5_encoder", "any", None, "t5_encoder", "t5"),
            model("clip_embed", "any", Some("large"), "diffusers", "clip"),
            model("vae", "flux", None, "checkpoint", "vae"),
        ],
        &Expected {
            readiness: ("pass", ""),
            listed: &["FLUX.1 Kontext dev"],
            requests: &[("FLUX.1 Kontext dev", 200, "")],
            live: &["# offered by built-in graphs: FLUX.1 Kontext dev"],
        },
    )
    .await;
}
