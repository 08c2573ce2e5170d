//! The engine behind us, and our slots in it.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use wire::health::{Check, CheckStatus};

use super::{Inputs, Rules};
use crate::{
    engine::{EngineError, Survey, monitor::EngineState},
    images::{
        choice,
        models::{self, EngineModel, Preset},
    },
    readiness::WarmUp,
};

/// A cancelled job that the engine has not let go of for this long gates.
const CANCEL_LIMIT: Duration = Duration::from_mins(1);
const MIB: u64 = 1 << 20;
/// Models and presets that a message names.
const SHOWN: usize = 5;

pub(super) fn checks(inputs: &Inputs<'_>, rules: &Rules) -> Vec<Check> {
    vec![
        engine_reachable(inputs.engine, rules),
        engine_process(inputs, rules),
        engine_queue(inputs.engine),
        with_graphs(engine_model(inputs, rules), inputs.graphs),
    ]
}

fn engine_reachable(engine: &EngineState, rules: &Rules) -> Check {
    let name = rules.engine;
    let expected = match &rules.engine_url {
        Some(url) => format!("{name} answers at {url}"),
        None => format!("{name} answers in this process"),
    };
    let url = rules.engine_url.as_deref().unwrap_or_default();
    let check = |observed: String| Check::pass("engine_reachable", observed, expected.clone());
    match (&engine.fault, &engine.survey) {
        (None, Some(survey)) => {
            let check = check(format!("{name} {}", survey.version));
            match &survey.caution {
                Some(caution) => check.but(CheckStatus::Warn, caution.clone()),
                None => check,
            }
        }
        (None, None) => check("not asked yet".to_owned())
            .but(CheckStatus::Fail, "the engine has not answered yet; wait a moment"),
        (Some(EngineError::Refused(words)), _) => check(words.clone()).but(
            CheckStatus::Fail,
            format!(
                "nothing listens at {url}: start the engine (`sudo systemctl start {}`) or correct --engine-url",
                rules.engine_unit
            ),
        ),
        (Some(EngineError::NoAnswer(words)), _) => check(words.clone()).but(
            CheckStatus::Fail,
            format!(
                "the engine at {url} does not answer ({words}): look at `systemctl status {}`",
                rules.engine_unit
            ),
        ),
        (Some(EngineError::Unresolved(words)), _) => check("unknown host".to_owned())
            .but(CheckStatus::Fail, format!("{words}: correct --engine-url ({url}), DNS or /etc/hosts")),
        (Some(EngineError::LoginRequired(words)), _) => check("login required".to_owned())
            .but(CheckStatus::Fail, format!("{name} at {url} asks for a login: {words}")),
        (Some(fault), _) => check("unusable".to_owned())
            .but(CheckStatus::Fail, format!("{fault}; check --engine and --engine-url ({url})")),
    }
}

/// Informs: whether the engine works is `engine_reachable`'s business.
fn engine_process(inputs: &Inputs<'_>, rules: &Rules) -> Check {
    let limit = rules.host.max_engine_memory;
    let expected = if limit == 0 { "any".to_owned() } else { format!("at most {} MiB", limit / MIB) };
    let check = |observed: String| Check::pass("engine_process", observed, expected);
    match inputs.host.and_then(|sample| sample.engine.as_ref()) {
        Some(process) => {
            let resident = process.resident / MIB;
            let check =
                check(format!("pid {}, {} in all, {resident} MiB resident", process.pid, process.count));
            if limit == 0 || process.resident <= limit {
                return check;
            }
            let words = format!(
                "the engine holds {resident} MiB of host memory, more than --max-engine-memory: free its caches or restart {}",
                rules.engine_unit
            );
            check.but(CheckStatus::Warn, words)
        }
        None => check("not seen".to_owned()).but(
            CheckStatus::Unknown,
            format!(
                "{} has no process: the engine is down, or runs outside that unit (--engine-unit)",
                rules.engine_unit
            ),
        ),
    }
}

fn unseen(name: &str, expected: &str) -> Check {
    Check::pass(name, "unknown", expected)
        .but(CheckStatus::Unknown, "the engine cannot be asked, see engine_reachable")
}

fn engine_queue(engine: &EngineState) -> Check {
    let expected = "not paused";
    let Some(survey) = engine.survey.as_ref().filter(|_| engine.reachable()) else {
        return unseen("engine_queue", expected);
    };
    if survey.paused {
        return Check::pass("engine_queue", "paused", expected).but(
            CheckStatus::Fail,
            "the engine's queue is paused, new jobs would wait for ever: resume it in the engine's own web page",
        );
    }
    let observed = format!("{} jobs, {} of others waiting", survey.queue_depth, survey.others_waiting);
    Check::pass("engine_queue", observed, expected)
}

fn engine_model(inputs: &Inputs<'_>, rules: &Rules) -> Check {
    let engine = inputs.engine;
    let expected = match &rules.default_model {
        Some(model) => format!("{model:?} is installed"),
        None => "a model that is served here is installed".to_owned(),
    };
    let Some(survey) = engine.survey.as_ref().filter(|_| engine.reachable()) else {
        return unseen("engine_model", &expected);
    };
    let models = models::apply(&rules.models, &survey.models);
    let check = Check::pass("engine_model", format!("{} models", served(survey, rules)), expected);
    if survey.unread > 0 {
        let words =
            format!("what {} of the engine's models are is still being read; wait a moment", survey.unread);
        return check.but(CheckStatus::Fail, words);
    }
    let default = rules.default_model.as_deref();
    let model = match choice::resolve(&models, &rules.presets, None, default) {
        Ok(model) => model,
        Err(refused) if default.is_some() => {
            return check.but(CheckStatus::Fail, format!("--default-model cannot be used: {refused}"));
        }
        // Requests must say which they mean: there is nothing to load in advance.
        Err(_) if !choice::usable(&models, &rules.presets).is_empty() => return check,
        Err(_) => return check.but(CheckStatus::Fail, nothing_to_serve(&models, &rules.presets)),
    };
    match inputs.warm_up.for_start(engine.starts) {
        WarmUp::Off | WarmUp::Done(_) => check,
        WarmUp::Due | WarmUp::Running => Check { observed: "warming".to_owned(), ..check }
            .but(CheckStatus::Fail, format!("warming: the engine loads {:?}; wait a moment", model.name)),
        WarmUp::Failed(_, words) => Check { observed: "not warmed".to_owned(), ..check }.but(
            CheckStatus::Warn,
            format!(
                "{:?} could not be loaded in advance ({words}): the first picture may take long, or fail too",
                model.name
            ),
        ),
    }
}

/// Of how many models the built-in graphs serve the kind.
pub(super) fn served(survey: &Survey, rules: &Rules) -> usize {
    models::apply(&rules.models, &survey.models).iter().filter(|model| model.graphs().is_some()).count()
}

/// What is there and cannot be used, and what to do about it.
fn nothing_to_serve(models: &[EngineModel], presets: &[Arc<Preset>]) -> String {
    const INSTALL: &str = "install one (InvokeAI: in its model manager; ComfyUI: in models/checkpoints)";
    let mut words = "the engine has no SD 1.5 or SDXL main model".to_owned();
    if models.is_empty() {
        let _ = write!(words, ": {INSTALL}, or name presets that bring graphs of their own");
    } else {
        let shown = models.iter().take(SHOWN).map(|model| format!("{:?} ({})", model.name, model.kind));
        let _ = write!(words, ", only {}", shown.collect::<Vec<_>>().join(", "));
        if let more @ 1.. = models.len().saturating_sub(SHOWN) {
            let _ = write!(words, " and {more} more");
        }
        let _ = write!(
            words,
            ": {INSTALL}, or name presets that bring graphs for these (presets: {{NAME: {{template: FILE}}}})"
        );
    }
    if let Some(unknown) = models.iter().find(|model| model.kind.is_unknown()) {
        let _ = write!(
            words,
            ", or declare what is of unknown kind (models: {{{:?}: {{base: sd-1}}}})",
            unknown.name
        );
    }
    let lost = presets.iter().filter_map(|preset| Some((&preset.name, preset.model.as_ref()?)));
    for (preset, model) in lost.take(SHOWN) {
        let _ = write!(words, "; the preset {preset:?} cannot be used with the model {model:?}");
    }
    words
}

/// A model that is there is not served by a graph that the engine does not run.
fn with_graphs(check: Check, faults: &[String]) -> Check {
    let Some(first) =
        faults.first().filter(|_| matches!(check.status, CheckStatus::Pass | CheckStatus::Warn))
    else {
        return check;
    };
    let more = match faults.len() - 1 {
        0 => String::new(),
        more => format!(", and {more} more (`ada2-sidecar check-config --live`)"),
    };
    let words = format!(
        "a graph does not fit this engine: {first}{more}; install what is missing, or fix the preset's template"
    );
    let before = if check.message.is_empty() { String::new() } else { format!("; {}", check.message) };
    check.but(CheckStatus::Warn, words + &before)
}

/// Informs: a busy sidecar is ready and answers 429. Gates only while the engine does not let go of a cancelled job.
pub(super) fn slots(inputs: &Inputs<'_>) -> Check {
    let observed = format!("{} of {} taken", inputs.inflight, inputs.limit);
    let check = Check::pass("slots", observed, "any; cancelled jobs are let go of");
    match inputs.oldest_cancel {
        Some(age) if age >= CANCEL_LIMIT => check.but(
            CheckStatus::Fail,
            format!(
                "the engine has not confirmed a cancel for {} s: restart it if it does not recover",
                age.as_secs()
            ),
        ),
        _ => check,
    }
}
