//! The engine: its faults, its model, its queue, our slots.

use super::*;

#[test]
fn the_engines_faults_gate_in_their_own_words() {
    let with = |fault| engine().next(Err(fault), Instant::now() + Duration::from_mins(1));
    let mut paused = engine();
    paused.survey.as_mut().unwrap().paused = true;
    let mut bare = engine();
    bare.survey.as_mut().unwrap().models = Arc::new([]);
    for (state, name, says) in [
        (
            with(EngineError::Refused("connection refused".into())),
            "engine_reachable",
            "systemctl start invokeai.service",
        ),
        (with(EngineError::NoAnswer("no answer in time".into())), "engine_reachable", "does not answer"),
        (with(EngineError::Strange("not InvokeAI".into())), "engine_reachable", "not InvokeAI"),
        (
            with(EngineError::Unresolved("the name \"ada9\" cannot be resolved".into())),
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
        world.expect(name, CheckStatus::Fail, says);
        assert_eq!(world.status(), Status::NotReady);
    }
    let mut world = World::healthy();
    world.rules.default_model = Some("gone".into());
    world.expect("engine_model", CheckStatus::Fail, "\"gone\" does not exist");
    let mut world = World::healthy();
    world.engine.survey.as_mut().unwrap().caution = Some("untested".into());
    world.expect("engine_reachable", CheckStatus::Warn, "untested");
    assert_eq!(world.status(), Status::Degraded);
}

#[test]
fn where_the_engine_answers_is_told() {
    let expected = |url: Option<&str>| {
        let mut world = World::healthy();
        world.rules.engine_url = url.map(str::to_owned);
        world.judge();
        world.check("engine_reachable").expected.clone()
    };
    assert_eq!(expected(Some("http://e:1/")), "invokeai answers at http://e:1/");
    assert_eq!(expected(None), "invokeai answers in this process");
}

#[test]
fn a_model_that_is_being_loaded_gates_until_it_is_and_again_after_a_restart() {
    let mut world = World::healthy();
    for (warm_up, status, says) in [
        (WarmUp::Due, CheckStatus::Fail, "warming"),
        (WarmUp::Running, CheckStatus::Fail, "warming"),
        (WarmUp::Done(1), CheckStatus::Pass, ""),
        (WarmUp::Failed(1, "out of memory".into()), CheckStatus::Warn, "out of memory"),
        (WarmUp::Done(0), CheckStatus::Fail, "warming"),
    ] {
        world.warm_up = warm_up;
        world.expect("engine_model", status, says);
    }
    world.warm_up = WarmUp::Done(1);
    world.engine.starts = 2;
    world.expect("engine_model", CheckStatus::Fail, "warming");
}

#[test]
fn a_busy_sidecar_is_ready_and_a_cancel_that_is_not_confirmed_gates_after_a_minute() {
    let mut world = World::healthy();
    world.inflight = 4;
    for (seconds, status) in [(0, Status::Ready), (59, Status::Ready), (60, Status::NotReady)] {
        world.oldest_cancel = Some(Duration::from_secs(seconds));
        assert_eq!(world.judge().status, status, "{seconds}");
    }
    world.oldest_cancel = None;
    assert_eq!(world.judge().status, Status::Ready, "clears when the engine answers without the job");
}

#[test]
fn a_graph_that_the_engine_does_not_run_any_more_warns_before_the_first_picture_fails() {
    let mut world = World::healthy();
    world.graphs = vec!["built in, edit: the node \"3\" is of class \"Gone\"".into()];
    world.expect(
        "engine_model",
        CheckStatus::Warn,
        "built in, edit: the node \"3\" is of class \"Gone\"; install",
    );
    assert_eq!(world.status(), Status::Degraded);
    world.graphs.push("preset \"flux\", generate: the node \"9\" takes no input \"x\"".into());
    world.expect("engine_model", CheckStatus::Warn, "and 1 more (`ada2-sidecar check-config --live`)");
    world.warm_up = WarmUp::Failed(1, "out of memory".into());
    world.expect("engine_model", CheckStatus::Warn, "out of memory");
    world.warm_up = WarmUp::Due;
    world.expect("engine_model", CheckStatus::Fail, "warming");
    world.warm_up = WarmUp::Off;
    world.graphs.clear();
    world.expect("engine_model", CheckStatus::Pass, "");
}
