//! Three references through both programs: they arrive in order, and one too many is refused alike by both.

use base64_simd::STANDARD;
use e2e::{gateway::Gateway, sidecar::Sidecar};
use fakes::{TestResponse, comfyui::ComfyState, engine::Fake, form, invokeai::InvokeState};
use serde_json::{Value, json};

use super::{
    installation::{FamilyEngine, while_held},
    request::picture,
};

#[tokio::test]
async fn three_references_reach_comfyui_in_order() {
    three_references::<ComfyState>("qwen-image-edit-2509").await;
}

#[tokio::test]
async fn three_references_reach_invokeai_in_order() {
    three_references::<InvokeState>("qwen-image-edit").await;
}

async fn three_references<E: FamilyEngine>(family: &str) {
    let installation = E::installation(family);
    let fake = Fake::<E>::start().await;
    fake.script(|script| *script = installation.script.clone());
    let sidecar = Sidecar::of(&fake, &[]).await;
    sidecar.until_ready().await;
    let gateway = Gateway::with_backends(
        &format!(
            "backends:\n  gpu_heavy: {{base_url: \"{}\", supported_capabilities: [images]}}\n",
            sidecar.url
        ),
        &[],
    )
    .await;
    gateway.until_ready("gpu_heavy", true).await;
    let fields = [("model", installation.model.as_str()), ("prompt", "all three in one room")];
    for (kind, body) in bodies(&fields, 3) {
        let sent = async { TestResponse::read(gateway.edit(kind, body).send().await.unwrap()).await };
        let (places, answer) = while_held(&fake, sent).await;
        assert_eq!(answer.status, 200, "{kind}: {answer:?}");
        assert_eq!(places, [0, 1, 2], "{kind}");
        assert_eq!(answer.json["data"][0]["settings"]["images"], 3, "{kind}");
    }
    let before = fake.items().len();
    for (kind, body) in bodies(&fields, 4) {
        let by_gateway = TestResponse::read(gateway.edit(kind, body.clone()).send().await.unwrap()).await;
        let request = fakes::http().post(format!("{}/v1/images/edits", sidecar.url));
        let request = request.header("content-type", kind).body(body);
        let by_sidecar = TestResponse::read(request.send().await.unwrap()).await;
        for answer in [&by_gateway, &by_sidecar] {
            assert_eq!((answer.status, &answer.json["error"]["param"]), (400, &json!("image")), "{answer:?}");
            assert!(answer.message().contains("takes at most 3 images, not 4"), "{}", answer.message());
        }
        for part in ["message", "type", "param", "code"] {
            let (passed, own) = (&by_gateway.json["error"][part], &by_sidecar.json["error"][part]);
            assert_eq!(passed, own, "{kind}: the envelope passes unchanged");
        }
    }
    assert_eq!(fake.items().len(), before, "the engine never heard of it");
}

/// The request as SDKs send it: a form with `image[]`, and JSON with `images` in both of its forms.
fn bodies(fields: &[(&str, &str)], pictures: u8) -> Vec<(&'static str, Vec<u8>)> {
    let texts = fields.iter().map(|(name, value)| (form::text(name), value.as_bytes().to_vec()));
    let files = (0..pictures).map(|nth| (form::file("image[]", "a.png"), picture(nth)));
    let parts: Vec<_> = texts.chain(files).collect();
    let parts: Vec<_> = parts.iter().map(|(head, content)| (head.as_str(), content.as_slice())).collect();
    let url = |nth| format!("data:image/png;base64,{}", STANDARD.encode_to_string(picture(nth)));
    let as_json = |images: Value| {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), json!(value)));
        let body: Value = fields.chain([("images".to_owned(), images)]).collect();
        ("application/json", body.to_string().into_bytes())
    };
    vec![
        (form::KIND, form::form(&parts)),
        as_json((0..pictures).map(|nth| json!({"image_url": url(nth)})).collect()),
        as_json((0..pictures).map(|nth| json!(url(nth))).collect()),
    ]
}
