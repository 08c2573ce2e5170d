//! Validates every graph against the engine's nodes whenever the engine starts or changes, so that a node missing after an
//! upgrade is known before a request fails. Runs nothing in the engine.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use service::{lifecycle::Lifecycle, reload::Reloadable};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::{
    config::Config,
    engine::{Engine, EngineError, monitor::EngineState},
    images::{
        Task,
        graph_set::GraphSet,
        models::{self, EngineModel, Preset, Runner},
        template::Template,
    },
};

/// For all graphs together.
const TIMEOUT: Duration = Duration::from_secs(30);
/// After a validation that failed to run, and the least distance between two.
const RETRY: Duration = Duration::from_secs(5);
/// While graphs have errors: nodes and files can be installed without a visible restart.
const RECHECK_INTERVAL: Duration = Duration::from_mins(1);

/// One line per error. Also empty before the first validation.
pub(crate) type GraphErrors = Arc<[String]>;

pub(crate) struct GraphValidator {
    pub(crate) engine: Engine,
    pub(crate) state: watch::Receiver<EngineState>,
    pub(crate) config: Reloadable<Arc<Config>>,
}

/// What the last validation covered. Another start, version or configuration of the engine needs a new one.
struct LastValidation {
    start: u64,
    version: String,
    config: Arc<Config>,
    validated_at: Instant,
    /// None without errors: valid until something changes.
    valid_for: Option<Duration>,
}

impl GraphValidator {
    /// Starts the worker. The builtin engine runs no graphs.
    pub(crate) fn start(self, lifecycle: &Lifecycle) -> watch::Receiver<GraphErrors> {
        let (sender, receiver) = watch::channel(GraphErrors::default());
        if self.engine.runs_graphs() {
            lifecycle.spawn_worker("graph validation", self.run(sender));
        }
        receiver
    }

    async fn run(mut self, sender: watch::Sender<GraphErrors>) {
        let mut last: Option<LastValidation> = None;
        while self.state.changed().await.is_ok() {
            let state = self.state.borrow_and_update().clone();
            let Some(status) = state.last_status.as_ref().filter(|_| state.is_reachable()) else { continue };
            let (version, config) = (status.version.clone(), self.config.load());
            if !is_due(last.as_ref(), state.starts, &version, &config, Instant::now()) {
                continue;
            }
            for warning in models::undeclared_model_warnings(&config.models, &status.models)
                .iter()
                .filter(|_| status.unclassified_models == 0)
            {
                warn!("{warning}");
            }
            let templates = all_templates(&status.models, &config.presets);
            let result = tokio::time::timeout(TIMEOUT, validate_all(&self.engine, &templates)).await;
            let valid_for = match result {
                Ok(Ok(errors)) => {
                    log_errors(&version, templates.len(), &sender.borrow(), &errors);
                    let valid_for = (!errors.is_empty()).then_some(RECHECK_INTERVAL);
                    sender.send_replace(errors.into());
                    valid_for
                }
                Ok(Err(error)) => {
                    debug!(%error, "cannot validate graphs; trying again");
                    Some(RETRY)
                }
                Err(_) => {
                    warn!("validating the graphs timed out after {TIMEOUT:?}; trying again");
                    Some(RETRY)
                }
            };
            last = Some(LastValidation {
                start: state.starts,
                version,
                config,
                validated_at: Instant::now(),
                valid_for,
            });
        }
        // The engine's monitor has ended; a worker must not return.
        std::future::pending::<()>().await;
    }
}

/// Errors and failures expire; a change is validated at once, or after [`RETRY`] if the last result was one of those.
fn is_due(
    last: Option<&LastValidation>,
    start: u64,
    version: &str,
    config: &Arc<Config>,
    now: Instant,
) -> bool {
    let Some(last) = last else { return true };
    let same = last.start == start && last.version == version && Arc::ptr_eq(&last.config, config);
    let age = now.saturating_duration_since(last.validated_at);
    match last.valid_for {
        None => !same,
        Some(valid_for) => age >= if same { valid_for } else { RETRY },
    }
}

fn log_errors(version: &str, count: usize, before: &[String], now: &[String]) {
    if before == now {
        return;
    }
    for error in now {
        warn!(version, "invalid graph: {error}");
    }
    if now.is_empty() {
        info!(version, count, "all graphs are valid in the engine");
    }
}

/// Every graph that may be sent to the engine, with its name for people: the built-in ones of its models, and the presets'.
pub(crate) fn all_templates(models: &[EngineModel], presets: &[Arc<Preset>]) -> Vec<(String, Arc<Template>)> {
    let mut sets: Vec<(&EngineModel, &Arc<GraphSet>)> = Vec::new();
    for model in models {
        if let Runner::Graphs { set, .. } = &model.runner
            && !sets.iter().any(|(_, other)| other.family.name == set.family.name)
        {
            sets.push((model, set));
        }
    }
    let built_in = sets.into_iter().flat_map(|(model, set)| {
        let name = move |task: &Task| format!("built in, {} for {}", task.name(), set.family.label);
        let of_model = |template: &Template| Arc::new(template.with_inputs(model.inputs()));
        set.templates.iter().map(move |(task, template)| (name(task), of_model(template)))
    });
    built_in.chain(named_templates(presets).map(|(name, template)| (name, template.clone()))).collect()
}

/// A line for what each preset's template binds, and one for each edge that a binding replaces.
pub(crate) fn describe_templates(presets: &[Arc<Preset>]) -> Vec<String> {
    let lines = named_templates(presets).flat_map(|(name, template)| {
        let binds = format!("{name}: binds {}; output {}", template.summary(), template.output);
        let dropped = template.dropped_edges().into_iter().map(move |edge| format!("{name}: {edge}"));
        std::iter::once(binds).chain(dropped)
    });
    lines.collect()
}

/// Once per configuration.
pub(crate) fn log_dropped_edges(presets: &[Arc<Preset>]) {
    for (name, template) in named_templates(presets) {
        for edge in template.dropped_edges() {
            info!("{name}: {edge}");
        }
    }
}

fn named_templates(presets: &[Arc<Preset>]) -> impl Iterator<Item = (String, &Arc<Template>)> {
    presets.iter().flat_map(|preset| {
        let name = move |task: &str| format!("preset {:?}, {task}", preset.name);
        preset.templates.iter().map(move |(task, template)| (name(task.name()), template))
    })
}

/// Returns the engine's errors, each with its graph's name.
pub(crate) async fn validate_all(
    engine: &Engine,
    templates: &[(String, Arc<Template>)],
) -> Result<Vec<String>, EngineError> {
    let graphs: Vec<_> = templates.iter().map(|(_, template)| &**template).collect();
    let errors = engine.validate(&graphs).await?;
    let lines = templates
        .iter()
        .zip(errors)
        .flat_map(|((name, _), errors)| errors.into_iter().map(move |error| format!("{name}: {error}")));
    Ok(lines.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Arc<Config> {
        let flags = crate::cli::command().get_matches_from(["ada2-sidecar", "--engine", "builtin"]);
        Arc::new(crate::config::load(&flags, &|_| None).unwrap().config)
    }

    #[test]
    fn graphs_are_validated_for_each_start_version_and_configuration_and_again_while_they_have_errors() {
        let (one, other, at) = (config(), config(), Instant::now());
        let due = |valid_for: Option<u64>, start, version, config: &Arc<Config>, seconds| {
            let valid_for = valid_for.map(Duration::from_secs);
            let last = LastValidation {
                start: 1,
                version: "6.14.2".into(),
                config: one.clone(),
                validated_at: at,
                valid_for,
            };
            is_due(Some(&last), start, version, config, at + Duration::from_secs(seconds))
        };
        assert!(is_due(None, 1, "6.14.2", &one, at));
        assert!(!due(None, 1, "6.14.2", &one, 1_000_000), "there were no errors");
        assert!(due(None, 2, "6.14.2", &one, 0), "it restarted");
        assert!(due(None, 1, "6.15.0", &one, 0), "it was upgraded unnoticed");
        assert!(due(None, 1, "6.14.2", &other, 0), "other presets");
        assert!(!due(Some(60), 1, "6.14.2", &one, 59) && due(Some(60), 1, "6.14.2", &one, 60));
        assert!(!due(Some(60), 2, "6.14.2", &one, 4) && due(Some(60), 2, "6.14.2", &one, 5));
    }
}
