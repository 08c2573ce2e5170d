//! What is wrong with a graph: some of it is refused, the rest fails the item.

use super::*;

fn with(change: impl FnOnce(&mut Value)) -> Value {
    let mut batch = batch(&[]);
    change(&mut batch["batch"]["graph"]);
    batch
}

fn edge((from, output): (&str, &str), (to, input): (&str, &str)) -> Value {
    json!({"source": {"node_id": from, "field": output}, "destination": {"node_id": to, "field": input}})
}

fn with_edge(edge: Value) -> Value {
    with(|graph| graph["edges"].as_array_mut().unwrap().push(edge))
}

fn with_value(node: &str, field: &str, value: Value) -> Value {
    with(|graph| graph["nodes"][node][field] = value)
}

#[tokio::test]
async fn enqueueing_refuses_in_the_real_servers_words() {
    let fake = FakeInvoke::start().await;
    for (body, kind, message) in [
        (
            with_value("noise", "type", json!("no_such_node")),
            "union_tag_invalid",
            "Input tag 'no_such_node' found",
        ),
        (with_value("noise", "width", json!(63)), "multiple_of", "Input should be a multiple of 8"),
        (with_value("denoise", "steps", json!(0)), "greater_than", "Input should be greater than 0"),
        (
            with_value("denoise", "scheduler", json!("nope")),
            "literal_error",
            "Input should be 'ddim', 'ddpm'",
        ),
        (
            with_edge(edge(("zzz", "vae"), ("l2i", "vae"))),
            "value_error",
            "Value error, Edge source node zzz does not exist in the graph",
        ),
        (
            with_edge(edge(("loader", "nofield"), ("l2i", "vae"))),
            "value_error",
            "Value error, Edge source field nofield does not exist in node loader",
        ),
        (
            with_edge(edge(("loader", "vae"), ("denoise", "noise"))),
            "value_error",
            "Value error, Edge source and target types do not match (loader.vae -> denoise.noise)",
        ),
        (
            with(|graph| {
                graph["nodes"]["a"] = json!({"id": "a", "type": "img_resize"});
                graph["nodes"]["b"] = json!({"id": "b", "type": "img_resize"});
                let edges = graph["edges"].as_array_mut().unwrap();
                edges.push(edge(("a", "image"), ("b", "image")));
                edges.push(edge(("b", "image"), ("a", "image")));
            }),
            "value_error",
            "Value error, Graph contains cycles",
        ),
    ] {
        let (status, answer) = enqueue(&fake, &body).await;
        let detail = &answer["detail"][0];
        assert_eq!((status, &detail["type"]), (422, &json!(kind)), "{message}");
        assert!(detail["msg"].as_str().unwrap().starts_with(message), "{detail}");
    }
    let body = with_value("noise", "unknown", json!(1));
    assert_eq!(enqueue(&fake, &body).await.0, 200, "an unknown field is no mistake");
}

fn model(kind: &str, base: &str, rest: &Value) -> Value {
    let mut model =
        json!({"key": format!("{kind}-{base}"), "hash": "", "name": kind, "base": base, "type": kind});
    for (name, value) in rest.as_object().unwrap() {
        model[name] = value.clone();
    }
    model
}

#[tokio::test]
async fn what_enqueueing_lets_pass_fails_when_it_runs() {
    let fake = FakeInvoke::start().await;
    fake.script(|script| {
        script.models.push(model("main", "z-image", &json!({"format": "diffusers", "variant": "turbo"})));
        script.models.push(model("qwen3_encoder", "any", &json!({"variant": "qwen3_8b"})));
        script.models.push(model("vae", "flux", &json!({})));
    });
    let named = |kind: &str, base: &str| model(kind, base, &json!({}));
    let z_image = |fields: &[(&str, Value)]| {
        let fields = fields.to_vec();
        with(|graph| {
            graph["nodes"]["z"] =
                json!({"id": "z", "type": "z_image_model_loader", "model": named("main", "z-image")});
            for (name, value) in fields {
                graph["nodes"]["z"][name] = value;
            }
        })
    };
    let no_unet = with(|graph| {
        graph["edges"].as_array_mut().unwrap().retain(|edge| edge["destination"]["field"] != "unet");
    });
    let load = json!({"id": "load", "type": "image", "image": {"image_name": "nope.png"}});
    let foreign = fake.look(|state| state.script.models[1].clone());
    let (encoder, vae) = (named("qwen3_encoder", "any"), named("vae", "flux"));
    let parts = [("qwen3_encoder_model", encoder), ("vae_model", vae)];
    for (body, kind, message) in [
        (
            with_value("loader", "model", Value::Null),
            "MissingInputException",
            "Node main_model_loader missing value or connection for field model",
        ),
        (no_unet, "RequiredConnectionException", "Node denoise_latents missing connections for field unet"),
        (with_value("loader", "model", named("main", "sd-1")), "Exception", "Unknown model main-sd-1"),
        (with_value("loader", "model", foreign), "TypeError", "argument of type 'NoneType' is not iterable"),
        (
            with(|graph| graph["nodes"]["load"] = load),
            "ImageRecordNotFoundException",
            "Image record not found",
        ),
        (z_image(&[]), "ValueError", "No VAE source provided."),
        (z_image(&parts), "ValueError", "Qwen3 encoder variant mismatch: \"qwen3_8b\" instead of qwen3_4b"),
    ] {
        assert_eq!(enqueue(&fake, &body).await.0, 200, "{message}");
        fake.until_idle().await;
        let failure = fake.items().pop().unwrap().failure.expect(message);
        assert_eq!((failure.error_type.as_str(), failure.message.as_str()), (kind, message));
    }
    let whole = z_image(&[("qwen3_source_model", named("main", "z-image"))]);
    enqueue(&fake, &whole).await;
    fake.until_idle().await;
    assert_eq!(fake.items().pop().unwrap().status, ItemStatus::Completed);
}

#[tokio::test]
async fn models_are_listed_as_the_query_asks() {
    let fake = FakeInvoke::start().await;
    fake.script(|script| script.models.push(model("vae", "flux", &json!({}))));
    for (query, count) in [
        ("", 3),
        ("?model_type=main", 2),
        ("?model_type=vae", 1),
        ("?model_type=lora", 0),
        ("?model_type=main&base_models=sdxl", 1),
        ("?base_models=sdxl&base_models=flux", 2),
    ] {
        let (_, answer) = ask(&fake, Method::GET, &format!("/api/v2/models/{query}"), None).await.unwrap();
        assert_eq!(answer["models"].as_array().unwrap().len(), count, "{query}");
    }
}
