use service::doctor::Verdict;

use super::*;
use crate::images::models::SDXL;

fn config(flags: &[&str]) -> Config {
    let all = [&["ada2-sidecar", "--engine", "invokeai"], flags].concat();
    let flags = crate::cli::command().get_matches_from(all);
    crate::config::load_for_reload(&flags, &|_| None, &[]).unwrap().config
}

/// The lines that are not `ok` for a good engine after `change`.
fn evaluate(flags: &[&str], change: impl Fn(&mut EngineFacts<'_>)) -> Vec<(&'static str, Verdict, String)> {
    let (config, fixes) = (config(flags), FixHints { file: "/etc/c.yaml".into(), managed_by_unit: true });
    let models: Arc<[_]> = Arc::new([EngineModel::in_process("k", "sd_xl_base", &SDXL)]);
    let mut facts = EngineFacts {
        url: config.engine_url.as_ref().unwrap(),
        config: &config,
        fixes: &fixes,
        identity: Ok(EngineIdentity { version: "6.14.2".into(), warning: None }),
        models: Some(Ok(models)),
        websocket: Some(Ok(())),
        graph_errors: Some(Ok(Vec::new())),
        unit: Some(SystemdUnit::parse("invokeai.service", "LoadState=loaded\nActiveState=active\n")),
        listener: None,
        unit_listeners: vec!["127.0.0.1:9090".parse().unwrap()],
        exposed_addresses: Vec::new(),
        reachable_from_service: false,
    };
    change(&mut facts);
    let problems = facts.evaluate().into_iter().filter(|finding| finding.verdict != Verdict::Ok);
    problems
        .map(|one| (one.name, one.verdict, format!("{} -> {}", one.message, one.fix.unwrap_or_default())))
        .collect()
}

fn evaluate_one(change: impl Fn(&mut EngineFacts<'_>)) -> (&'static str, Verdict, String) {
    let mut problems = evaluate(&[], change);
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems.remove(0)
}

#[test]
fn a_healthy_engine_has_no_problem() {
    assert_eq!(evaluate(&[], |_| {}), []);
}

/// The line for an engine that cannot be reached, with its unit in this state and listening at these addresses.
fn evaluate_unreachable(error: &EngineError, unit: &str, listens: &[&str]) -> String {
    let (name, verdict, line) = evaluate_one(|facts| {
        (facts.identity, facts.models) = (Err(error.clone()), None);
        facts.unit = Some(SystemdUnit::parse("invokeai.service", unit));
        facts.unit_listeners = listens.iter().map(|address| address.parse().unwrap()).collect();
    });
    assert_eq!((name, verdict), ("engine", Verdict::Fail), "{line}");
    line
}

#[test]
fn a_refused_connection_is_explained_by_the_state_of_the_unit() {
    for (unit, listens, expected) in [
        ("ActiveState=inactive", &[][..], "is not running -> sudo systemctl enable --now invokeai.service"),
        ("ActiveState=failed\nResult=signal", &[], "failed (signal) -> sudo journalctl -u invokeai.service"),
        ("ActiveState=active", &[], "may still be starting -> sudo journalctl -u invokeai.service"),
        ("ActiveState=active", &["127.0.0.1:9091"], "9091 -> write `engine_url: http://127.0.0.1:9091`"),
        ("ActiveState=active", &["127.0.0.1:9091", "127.0.0.1:9092"], "may still be starting"),
    ] {
        let line = evaluate_unreachable(
            &EngineError::ConnectionRefused("no".into()),
            &format!("LoadState=loaded\n{unit}"),
            listens,
        );
        assert!(line.contains(expected), "{line}");
    }
    let line = evaluate_unreachable(
        &EngineError::ConnectionRefused("no".into()),
        "LoadState=not-found\nActiveState=inactive",
        &[],
    );
    assert!(line.contains("there is no invokeai.service -> start the engine, or correct"), "{line}");
}

#[test]
fn any_other_unreachable_engine_is_one_line_with_a_fix() {
    let unexpected = || EngineError::UnexpectedResponse("what answers is not InvokeAI".into());
    for (error, listens, expected) in [
        (unexpected(), &["0.0.0.0:9091"][..], "`engine_url: http://127.0.0.1:9091`"),
        (unexpected(), &[], "not InvokeAI -> correct engine and engine_url"),
        (EngineError::HostUnresolved("no such name".into()), &[], "correct the name in engine_url"),
        (EngineError::Unresponsive("late".into()), &[], "(late) -> sudo systemctl restart invokeai.service"),
    ] {
        let line = evaluate_unreachable(&error, "LoadState=loaded\nActiveState=active", listens);
        assert!(line.contains(expected), "{line}");
    }
    let busy = evaluate_one(|facts| {
        facts.identity = Err(EngineError::Unresponsive("no answer within 5 s".into()));
        (facts.models, facts.reachable_from_service) = (None, true);
    });
    assert_eq!(busy.1, Verdict::Skip, "it loads a model");
    let login =
        evaluate_one(|facts| facts.models = Some(Err(EngineError::LoginRequired("multi-user".into()))));
    assert!(login.2.contains("requires a login") && login.2.contains("multiuser: false"), "{login:?}");
    assert!(login.2.contains("engine_auth_file: /etc/ada2-sidecar/engine_auth"), "{login:?}");
}

#[test]
fn a_reachable_engine_is_checked_for_what_images_need() {
    let (name, verdict, line) = evaluate_one(|facts| {
        facts.identity =
            Ok(EngineIdentity { version: "7".into(), warning: Some("InvokeAI 7 is untested here".into()) });
    });
    assert!((name, verdict) == ("engine_version", Verdict::Warn) && line.contains("untested"), "{line}");
    let (name, verdict, line) = evaluate_one(|facts| facts.websocket = Some(Err("HTTP error: 502".into())));
    assert!((name, verdict) == ("engine_websocket", Verdict::Warn) && line.contains("502"), "{line}");
    let (name, verdict, line) =
        evaluate_one(|facts| facts.exposed_addresses = vec!["0.0.0.0".parse().unwrap()]);
    assert!(
        (name, verdict) == ("engine_listen", Verdict::Warn) && line.contains("host: 127.0.0.1"),
        "{line}"
    );
    let (name, verdict, line) = evaluate_one(|facts| facts.models = Some(Ok(Arc::new([]))));
    assert!(
        (name, verdict) == ("engine_models", Verdict::Fail)
            && line.contains("none of its 0 models is supported"),
        "{line}"
    );
    let (name, verdict, line) = evaluate_one(|facts| {
        facts.graph_errors = Some(Ok(vec!["preset \"x\": the node \"1\" is unknown".into()]));
    });
    assert!((name, verdict) == ("templates", Verdict::Fail) && line.contains("the node \"1\""), "{line}");
    let problems = evaluate(&["--default-model", "gone"], |_| {});
    assert!(problems.len() == 1 && problems[0].2.contains("correct default_model: gone in"), "{problems:?}");
}

#[test]
fn only_loopback_addresses_are_examined_on_this_host() {
    let at = |text: &str| loopback_address(&text.parse().unwrap()).map(|address| address.to_string());
    assert_eq!(at("http://127.0.0.1:9090").as_deref(), Some("127.0.0.1:9090"));
    assert_eq!(at("http://localhost:8188/").as_deref(), Some("127.0.0.1:8188"));
    assert_eq!(at("http://[::1]:9090").as_deref(), Some("[::1]:9090"));
    assert_eq!((at("http://192.168.1.7:9090"), at("http://engine:9090")), (None, None));
}
