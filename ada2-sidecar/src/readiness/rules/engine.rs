//! The engine, and our slots in it.

use std::{fmt::Write as _, time::Duration};

use wire::health::{Check, CheckStatus};

use super::{EvaluationInputs, Rules};
use crate::{
    engine::{EngineError, EngineStatus, monitor::EngineState},
    images::{
        choice,
        models::{self, EngineModel, Runner},
    },
    readiness::WarmUp,
};

/// A cancel that the engine has not confirmed for this long gates.
const CANCEL_TIMEOUT: Duration = Duration::from_mins(1);
const MIB: u64 = 1 << 20;
/// Models and presets that a message names.
const MAX_LISTED: usize = 5;

pub(super) fn checks(inputs: &EvaluationInputs<'_>, rules: &Rules) -> Vec<Check> {
    vec![
        engine_reachable(inputs.engine, rules),
        engine_process(inputs, rules),
        engine_queue(inputs.engine),
        with_graph_faults(engine_model(inputs, rules), inputs.graphs),
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
    match (&engine.error, &engine.last_status) {
        (None, Some(status)) => {
            let check = check(format!("{name} {}", status.version));
            match &status.warning {
                Some(caution) => check.with_status(CheckStatus::Warn, caution.clone()),
                None => check,
            }
        }
        (None, None) => check("no response yet".to_owned())
            .with_status(CheckStatus::Fail, "the engine has not answered yet; wait a moment"),
        (Some(EngineError::ConnectionRefused(cause)), _) => check(cause.clone()).with_status(
            CheckStatus::Fail,
            format!(
                "nothing listens at {url}: start the engine (`sudo systemctl start {}`) or correct --engine-url",
                rules.engine_unit
            ),
        ),
        (Some(EngineError::Unresponsive(cause)), _) => check(cause.clone()).with_status(
            CheckStatus::Fail,
            format!(
                "the engine at {url} does not answer ({cause}): check `systemctl status {}`",
                rules.engine_unit
            ),
        ),
        (Some(EngineError::HostUnresolved(cause)), _) => check("unknown host".to_owned())
            .with_status(CheckStatus::Fail, format!("{cause}: correct --engine-url ({url}), DNS or /etc/hosts")),
        (Some(EngineError::LoginRequired(cause)), _) => check("login required".to_owned())
            .with_status(CheckStatus::Fail, format!("{name} at {url} asks for a login: {cause}")),
        (Some(fault), _) => check("unusable".to_owned())
            .with_status(CheckStatus::Fail, format!("{fault}; check --engine and --engine-url ({url})")),
    }
}

/// Informs only: `engine_reachable` says whether the engine works.
fn engine_process(inputs: &EvaluationInputs<'_>, rules: &Rules) -> Check {
    let limit = rules.host.max_engine_memory;
    let expected = if limit == 0 { "any".to_owned() } else { format!("at most {} MiB", limit / MIB) };
    let check = |observed: String| Check::pass("engine_process", observed, expected);
    match inputs.host.and_then(|sample| sample.engine.as_ref()) {
        Some(process) => {
            let resident = process.resident_bytes / MIB;
            let check =
                check(format!("pid {}, {} in all, {resident} MiB resident", process.pid, process.count));
            if limit == 0 || process.resident_bytes <= limit {
                return check;
            }
            let message = format!(
                "the engine holds {resident} MiB of host memory, more than --max-engine-memory: free its caches or restart {}",
                rules.engine_unit
            );
            check.with_status(CheckStatus::Warn, message)
        }
        None => check("not seen".to_owned()).with_status(
            CheckStatus::Unknown,
            format!(
                "{} has no process: the engine is down, or runs outside that unit (--engine-unit)",
                rules.engine_unit
            ),
        ),
    }
}

fn unreachable_engine(name: &str, expected: &str) -> Check {
    Check::pass(name, "unknown", expected)
        .with_status(CheckStatus::Unknown, "the engine is not reachable, see engine_reachable")
}

fn engine_queue(engine: &EngineState) -> Check {
    let expected = "not paused";
    let Some(status) = engine.last_status.as_ref().filter(|_| engine.is_reachable()) else {
        return unreachable_engine("engine_queue", expected);
    };
    if status.paused {
        return Check::pass("engine_queue", "paused", expected).with_status(
            CheckStatus::Fail,
            "the engine's queue is paused, so new jobs would never start: resume it in the engine's own web page",
        );
    }
    let observed = format!("{} jobs, {} of others waiting", status.queue_depth, status.others_waiting);
    Check::pass("engine_queue", observed, expected)
}

fn engine_model(inputs: &EvaluationInputs<'_>, rules: &Rules) -> Check {
    let engine = inputs.engine;
    let expected = match &rules.default_model {
        Some(model) => format!("{model:?} is installed"),
        None => "a supported model is installed".to_owned(),
    };
    let Some(status) = engine.last_status.as_ref().filter(|_| engine.is_reachable()) else {
        return unreachable_engine("engine_model", &expected);
    };
    let models = models::apply_declarations(&rules.models, &status.models);
    let check = Check::pass("engine_model", format!("{} models", servable_models(status, rules)), expected);
    if status.unclassified_models > 0 {
        let message = format!(
            "{} of the engine's models are still being read; wait a moment",
            status.unclassified_models
        );
        return check.with_status(CheckStatus::Fail, message);
    }
    let default = rules.default_model.as_deref();
    let makes_new = choice::resolve_for_new_images(&models, &rules.presets, default).is_some();
    let model = match choice::resolve_default(&models, &rules.presets, default) {
        // There is nothing to load in advance by a new image.
        Ok(_) if !makes_new => return check,
        Ok(model) => model,
        Err(refused) if default.is_some() => {
            return check
                .with_status(CheckStatus::Fail, format!("--default-model cannot be used: {refused}"));
        }
        // Requests must name a model: there is nothing to load in advance.
        Err(_) if !choice::usable_preset_names(&models, &rules.presets).is_empty() => return check,
        Err(_) => return check.with_status(CheckStatus::Fail, no_servable_model(&models, rules)),
    };
    match inputs.warm_up.for_start(engine.starts) {
        WarmUp::Off | WarmUp::Done(_) => check,
        WarmUp::Pending | WarmUp::Running => Check { observed: "warming".to_owned(), ..check }.with_status(
            CheckStatus::Fail,
            format!("warming: the engine loads {:?}; wait a moment", model.name),
        ),
        WarmUp::Failed(_, cause) => Check { observed: "not warmed".to_owned(), ..check }.with_status(
            CheckStatus::Warn,
            format!(
                "{:?} could not be loaded in advance ({cause}): the first image may take long, or fail too",
                model.name
            ),
        ),
    }
}

/// How many models the built-in graphs can run.
pub(super) fn servable_models(status: &EngineStatus, rules: &Rules) -> usize {
    models::apply_declarations(&rules.models, &status.models)
        .iter()
        .filter(|model| model.is_usable() && model.is_listed)
        .count()
}

/// The models that cannot be used, and the fix.
fn no_servable_model(models: &[EngineModel], rules: &Rules) -> String {
    let install =
        format!("install one{}", rules.model_location.map(|place| format!(" {place}")).unwrap_or_default());
    let mut message = "the engine has no model that the built-in graphs can run".to_owned();
    let has_incomplete = models.iter().any(|model| !model.is_installed());
    let models: Vec<_> = models.iter().filter(|model| model.is_installed()).collect();
    if models.is_empty() {
        let _ = write!(message, ": {install}, or name presets that bring graphs of their own");
    } else {
        let listed = models.iter().take(MAX_LISTED).map(|model| match &model.runner {
            Runner::Incomplete { lacks, .. } => {
                format!("{:?} ({}, beside which {lacks} is missing)", model.name, model.kind)
            }
            _ => format!("{:?} ({})", model.name, model.kind),
        });
        let _ = write!(message, ", only {}", listed.collect::<Vec<_>>().join(", "));
        if let more @ 1.. = models.len().saturating_sub(MAX_LISTED) {
            let _ = write!(message, " and {more} more");
        }
        let _ = write!(
            message,
            ": {install}, or name presets that bring graphs for these (presets: {{NAME: {{template: FILE}}}})"
        );
    }
    if let Some(unknown) = models.iter().find(|model| model.kind.is_unknown()) {
        let _ = write!(
            message,
            ", or declare what is of unknown kind (models: {{{:?}: {{base: sd-1}}}})",
            unknown.name
        );
    }
    if has_incomplete {
        message.push_str("; `ada2-sidecar check-config --live` says what each family lacks");
    }
    let unusable = rules.presets.iter().filter_map(|preset| Some((&preset.name, preset.model.as_ref()?)));
    for (preset, model) in unusable.take(MAX_LISTED) {
        let _ = write!(message, "; the preset {preset:?} cannot be used with the model {model:?}");
    }
    message
}

/// An installed model is not served by a graph that the engine rejects.
fn with_graph_faults(check: Check, faults: &[String]) -> Check {
    let Some(first) =
        faults.first().filter(|_| matches!(check.status, CheckStatus::Pass | CheckStatus::Warn))
    else {
        return check;
    };
    let more = match faults.len() - 1 {
        0 => String::new(),
        more => format!(", and {more} more (`ada2-sidecar check-config --live`)"),
    };
    let message = format!(
        "a graph does not fit this engine: {first}{more}; install what is missing, or fix the preset's template"
    );
    let before = if check.message.is_empty() { String::new() } else { format!("; {}", check.message) };
    check.with_status(CheckStatus::Warn, message + &before)
}

/// Informs only: a busy sidecar is ready and answers 429. Gates only while the engine does not confirm a cancel.
pub(super) fn slots(inputs: &EvaluationInputs<'_>) -> Check {
    let observed = format!("{} of {} taken", inputs.inflight, inputs.slot_limit);
    let check = Check::pass("slots", observed, "any; cancelled jobs end");
    match inputs.oldest_cancel_age {
        Some(age) if age >= CANCEL_TIMEOUT => check.with_status(
            CheckStatus::Fail,
            format!(
                "the engine has not confirmed a cancel for {} s: restart it if it does not recover",
                age.as_secs()
            ),
        ),
        _ => check,
    }
}
