//! The engine: its faults, its model, its queue, our slots.

use std::collections::BTreeMap;

use super::*;
use crate::{
    engine::comfyui,
    images::{
        Task,
        models::{Evidence, ModelDeclaration, ModelKind, ModelVariant, Preset, family_named},
        template::Template,
        tests::model_of_kind,
    },
};

#[test]
fn engine_errors_gate_with_their_own_messages() {
    let with = |fault| engine().apply(Err(fault), false, Instant::now() + Duration::from_mins(1));
    let mut paused = engine();
    paused.last_status.as_mut().unwrap().paused = true;
    let mut bare = engine();
    bare.last_status.as_mut().unwrap().models = Arc::new([]);
    for (state, name, expected) in [
        (
            with(EngineError::ConnectionRefused("connection refused".into())),
            "engine_reachable",
            "systemctl start invokeai.service",
        ),
        (with(EngineError::Unresponsive("timed out".into())), "engine_reachable", "does not answer"),
        (with(EngineError::UnexpectedResponse("not InvokeAI".into())), "engine_reachable", "not InvokeAI"),
        (
            with(EngineError::HostUnresolved("the name \"ada9\" cannot be resolved".into())),
            "engine_reachable",
            "the name \"ada9\" cannot be resolved: correct --engine-url",
        ),
        (
            with(EngineError::LoginRequired("multi-user mode".into())),
            "engine_reachable",
            "asks for a login: multi-user mode",
        ),
        (EngineState::default(), "engine_reachable", "not answered yet"),
        (paused, "engine_queue", "paused"),
        (bare, "engine_model", "install one"),
    ] {
        let mut world = World::healthy();
        world.engine = state;
        world.expect(name, CheckStatus::Fail, expected);
        assert_eq!(world.status(), ReadyStatus::NotReady);
    }
    let mut world = World::healthy();
    world.rules.default_model = Some("gone".into());
    world.expect("engine_model", CheckStatus::Fail, "\"gone\" does not exist");
    let mut world = World::healthy();
    world.engine.last_status.as_mut().unwrap().warning = Some("untested".into());
    world.expect("engine_reachable", CheckStatus::Warn, "untested");
    assert_eq!(world.status(), ReadyStatus::Degraded);
}

#[test]
fn the_engines_address_is_reported() {
    let expected = |url: Option<&str>| {
        let mut world = World::healthy();
        world.rules.engine_url = url.map(str::to_owned);
        world.evaluate();
        world.check("engine_reachable").expected.clone()
    };
    assert_eq!(expected(Some("http://e:1/")), "invokeai answers at http://e:1/");
    assert_eq!(expected(None), "invokeai answers in this process");
}

#[test]
fn the_warm_up_gates_until_it_ends_and_again_after_a_restart() {
    let mut world = World::healthy();
    for (warm_up, status, expected) in [
        (WarmUp::Pending, CheckStatus::Fail, "warming"),
        (WarmUp::Running, CheckStatus::Fail, "warming"),
        (WarmUp::Done(1), CheckStatus::Pass, ""),
        (WarmUp::Failed(1, "out of memory".into()), CheckStatus::Warn, "out of memory"),
        (WarmUp::Done(0), CheckStatus::Fail, "warming"),
    ] {
        world.warm_up = warm_up;
        world.expect("engine_model", status, expected);
    }
    world.warm_up = WarmUp::Done(1);
    world.engine.starts = 2;
    world.expect("engine_model", CheckStatus::Fail, "warming");
}

#[test]
fn a_busy_sidecar_is_ready_and_a_cancel_that_is_not_confirmed_gates_after_a_minute() {
    let mut world = World::healthy();
    world.inflight = 4;
    for (seconds, status) in [(0, ReadyStatus::Ready), (59, ReadyStatus::Ready), (60, ReadyStatus::NotReady)]
    {
        world.oldest_cancel = Some(Duration::from_secs(seconds));
        assert_eq!(world.evaluate().status, status, "{seconds}");
    }
    world.oldest_cancel = None;
    assert_eq!(world.evaluate().status, ReadyStatus::Ready, "clears when the engine answers without the job");
}

#[test]
fn a_graph_that_the_engine_rejects_warns_before_an_image_fails() {
    let mut world = World::healthy();
    world.graphs = vec!["built in, edit: the node \"3\" is of class \"Gone\"".into()];
    world.expect(
        "engine_model",
        CheckStatus::Warn,
        "built in, edit: the node \"3\" is of class \"Gone\"; install",
    );
    assert_eq!(world.status(), ReadyStatus::Degraded);
    world.graphs.push("preset \"flux\", generate: the node \"9\" takes no input \"x\"".into());
    world.expect("engine_model", CheckStatus::Warn, "and 1 more (`ada2-sidecar check-config --live`)");
    world.warm_up = WarmUp::Failed(1, "out of memory".into());
    world.expect("engine_model", CheckStatus::Warn, "out of memory");
    world.warm_up = WarmUp::Pending;
    world.expect("engine_model", CheckStatus::Fail, "warming");
    world.warm_up = WarmUp::Off;
    world.graphs.clear();
    world.expect("engine_model", CheckStatus::Pass, "");
}

#[test]
fn an_engine_without_supported_models_is_ready_only_with_a_preset() {
    let template = |name: &str| {
        let graph = r#"{"1":{"class_type":"A","inputs":{"text":"","seed":0}},"2":{"class_type":"B","inputs":{"a":["1",0]}}}"#;
        let bindings = "output: '2'\nbindings: {prompt: ['1.text'], seed: ['1.seed']}";
        let template = Arc::new(Template::read(comfyui::GRAPH_FORMAT, graph, bindings).unwrap());
        let templates = BTreeMap::from([(Task::Generate, template)]);
        Arc::new(Preset { name: name.into(), templates, ..Preset::default() })
    };
    let of = |name: &str, kind: ModelKind| model_of_kind(name, name, kind);
    let flux = of("flux1-dev", ModelKind::main(family_named("flux").unwrap(), Evidence::Name));
    let unknown = of("dreamshaper_8", ModelKind::unknown(ModelVariant::Main));
    for models in [vec![], vec![flux.clone(), unknown.clone()]] {
        let mut world = World::healthy();
        world.engine.last_status.as_mut().unwrap().models = models.into();
        world.expect("engine_model", CheckStatus::Fail, "or name presets");
        world.rules.presets = vec![template("turbo")];
        world.expect("engine_model", CheckStatus::Pass, "");
        world.rules.presets.push(template("other"));
        world.warm_up = WarmUp::Pending;
        world.expect("engine_model", CheckStatus::Pass, "");
    }
    let mut world = World::healthy();
    world.engine.last_status.as_mut().unwrap().models = Arc::new([flux, unknown.clone()]);
    world.expect(
        "engine_model",
        CheckStatus::Fail,
        "only \"flux1-dev\" (FLUX.1), \"dreamshaper_8\" (of unknown kind): install one",
    );
    world.expect(
        "engine_model",
        CheckStatus::Fail,
        "declare what is of unknown kind (models: {\"dreamshaper_8\": {base: sd-1}})",
    );
    let family = family_named("sd-1").unwrap();
    world.rules.models = vec![ModelDeclaration { model: "Dreamshaper_8".into(), family, variant: None }];
    world.expect("engine_model", CheckStatus::Pass, "");
    assert_eq!(world.check("engine_model").observed, "1 models");
    world.rules.models.clear();
    let lost = Preset { name: "fast".into(), model: Some("gone".into()), ..Preset::default() };
    world.rules.presets = vec![Arc::new(lost)];
    world.expect(
        "engine_model",
        CheckStatus::Fail,
        "the preset \"fast\" cannot be used with the model \"gone\"",
    );
    world.engine.last_status.as_mut().unwrap().models = (0..20).map(|_| unknown.clone()).collect();
    world.expect("engine_model", CheckStatus::Fail, "and 15 more");
}

#[test]
fn the_default_model_waits_until_the_models_are_classified() {
    let mut world = World::healthy();
    world.engine.last_status.as_mut().unwrap().unclassified_models = 7;
    world.expect(
        "engine_model",
        CheckStatus::Fail,
        "7 of the engine's models are still being read; wait a moment",
    );
    world.engine.last_status.as_mut().unwrap().unclassified_models = 0;
    world.expect("engine_model", CheckStatus::Pass, "");
}
