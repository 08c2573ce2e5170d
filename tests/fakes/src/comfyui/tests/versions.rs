//! What older servers lack.

use super::{recorded::shapes, *};

async fn of(version: ComfyVersion) -> FakeComfy {
    let fake = FakeComfy::start().await;
    fake.script(|script| {
        script.version = version;
        script.checkpoints = vec!["tiny-sd15.safetensors".to_owned()];
    });
    fake
}

#[tokio::test]
async fn older_servers_answer_and_tell_as_recorded() {
    let answers: Value =
        serde_json::from_str(include_str!("../../../../fixtures/comfyui/answers.json")).unwrap();
    for version in [ComfyVersion::V0_12_1, ComfyVersion::V0_3_64] {
        let recorded = &answers[version.to_string()];
        let fake = of(version).await;
        fake.script(|script| script.previews = true);
        let stats = get(&fake, "/system_stats").await;
        assert_eq!(stats["system"]["comfyui_version"], json!(version.to_string()));
        let mut socket = follow_with_flags(&fake, CLIENT).await;
        let mut told = frames(&mut socket, is_of("feature_flags")).await;
        enqueue(&fake, &txt2img(1)).await;
        told.extend(frames(&mut socket, is_last).await);
        assert_eq!(shapes(&told), shapes(recorded["frames"].as_array().unwrap()), "{version}");

        let unknown = json!({"1": {"class_type": "NoSuch", "inputs": {}}});
        let mut absent = txt2img(1);
        absent["4"]["inputs"]["ckpt_name"] = json!("x");
        for (name, body) in [
            ("unknown_class_type", json!({ "prompt": unknown })),
            ("no_prompt", json!({})),
            ("bad_prompt_id", json!({"prompt": txt2img(1), "prompt_id": "abc"})),
            ("null_prompt_id", json!({"prompt": txt2img(1), "prompt_id": null})),
            ("unknown_ckpt", json!({ "prompt": absent })),
        ] {
            let answer = post(&fake, "/prompt", &body).await;
            assert_eq!(
                json!({"status": answer.status, "answer": answer.json}),
                recorded[name],
                "{version} {name}"
            );
        }
        for (asked, status) in recorded.as_object().unwrap() {
            let Some((method, path)) = asked.split_once(' ') else { continue };
            let answer = ask(&fake, method.parse().unwrap(), path, None).await;
            assert_eq!(json!(answer.status), *status, "{version} {asked}");
        }
    }
}

#[tokio::test]
async fn previews_on_request_came_after_0_3_64() {
    let fake = of(ComfyVersion::V0_3_64).await;
    let mut socket = follow(&fake, CLIENT).await;
    let extra = json!({"preview_method": "latent2rgb", "api_key_comfy_org": "shown"});
    let body = json!({"prompt": txt2img(1), "client_id": CLIENT, "extra_data": extra});
    let id = post(&fake, "/prompt", &body).await.json["prompt_id"].as_str().unwrap().to_owned();
    let told = frames(&mut socket, is_last).await;
    assert!(!types(&told).contains(&"binary"));
    let extra = entry(&fake, &id).await["prompt"][3].clone();
    assert_eq!((&extra["api_key_comfy_org"], extra.get("create_time")), (&json!("shown"), None));
}

#[tokio::test]
async fn an_interrupt_that_names_another_prompt_stopped_whatever_ran_up_to_0_3_56() {
    for (version, end) in
        [(ComfyVersion::V0_3_56, PromptStatus::Interrupted), (ComfyVersion::V0_3_64, PromptStatus::Completed)]
    {
        let fake = of(version).await;
        fake.script(|script| script.hold = true);
        let mut socket = follow(&fake, CLIENT).await;
        enqueue(&fake, &txt2img(1)).await;
        frames(&mut socket, is_of("progress")).await;
        let other = json!({"prompt_id": "00000000-0000-0000-0000-000000000000"});
        assert_eq!(post(&fake, "/interrupt", &other).await.status, 200);
        fake.script(|script| script.hold = false);
        fake.until_idle().await;
        assert_eq!(fake.items()[0].status, end, "{version}");
    }
}

#[tokio::test]
async fn a_cross_site_page_was_not_refused_up_to_0_18_1() {
    let fake = of(ComfyVersion::V0_12_1).await;
    let request = http().get(format!("{}/queue", fake.url())).header("sec-fetch-site", "cross-site");
    assert_eq!(request.send().await.unwrap().status(), 200);
}
