//! Every graph that could be sent to the engine, looked at by the engine each time it came up or changed: a node that an
//! upgrade took away is known before the first picture fails of it. Runs nothing in the engine.

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
        models::{self, Preset},
        template::Template,
    },
};

/// For all of them together.
const TIMEOUT: Duration = Duration::from_secs(30);
/// After a look that failed.
const RETRY: Duration = Duration::from_secs(5);
/// While something is wrong: nodes and files can be installed without a restart that we would see.
const RECHECK_INTERVAL: Duration = Duration::from_mins(1);

/// What the engine has against our graphs: a line for each fault. Empty as well before the first look.
pub(crate) type GraphErrors = Arc<[String]>;

/// Looks at them, again and again.
pub(crate) struct GraphValidator {
    pub(crate) engine: Engine,
    pub(crate) state: watch::Receiver<EngineState>,
    pub(crate) config: Reloadable<Arc<Config>>,
}

/// What a look was about: another start, another version or other presets want another one.
struct LastValidation {
    start: u64,
    version: String,
    config: Arc<Config>,
    validated_at: Instant,
    /// How long what it gave holds; for good where nothing was wrong.
    valid_for: Option<Duration>,
}

impl GraphValidator {
    /// Starts it. The builtin engine runs no graphs.
    pub(crate) fn start(self, lifecycle: &Lifecycle) -> watch::Receiver<GraphErrors> {
        let (sender, receiver) = watch::channel(GraphErrors::default());
        if self.engine.runs_graphs() {
            lifecycle.spawn_worker("graph vetting", self.run(sender));
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
            let templates = all_templates(&self.engine, &config.presets);
            let result = tokio::time::timeout(TIMEOUT, validate_all(&self.engine, &templates)).await;
            let holds = match result {
                Ok(Ok(faults)) => {
                    log_errors(&version, templates.len(), &sender.borrow(), &faults);
                    let holds = (!faults.is_empty()).then_some(RECHECK_INTERVAL);
                    sender.send_replace(faults.into());
                    holds
                }
                Ok(Err(error)) => {
                    debug!(%error, "the engine cannot be asked about graphs; trying again");
                    Some(RETRY)
                }
                Err(_) => {
                    warn!("the engine did not look at the graphs within {TIMEOUT:?}; trying again");
                    Some(RETRY)
                }
            };
            last = Some(LastValidation {
                start: state.starts,
                version,
                config,
                validated_at: Instant::now(),
                valid_for: holds,
            });
        }
        // The monitor is gone, and with it everybody who could ask.
        std::future::pending::<()>().await;
    }
}

/// A look that found faults, or nobody to ask, is repeated after a while; looks that follow each other keep a distance.
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
        Some(holds) => age >= if same { holds } else { RETRY },
    }
}

fn log_errors(version: &str, count: usize, before: &[String], now: &[String]) {
    if before == now {
        return;
    }
    for fault in now {
        warn!(version, "a graph does not fit the engine: {fault}");
    }
    if now.is_empty() {
        info!(version, count, "the engine knows every node of our graphs");
    }
}

/// Every graph, and what to call it.
pub(crate) fn all_templates<'a>(
    engine: &'a Engine,
    presets: &'a [Arc<Preset>],
) -> Vec<(String, &'a Template)> {
    let shipped = engine
        .builtin_templates()
        .into_iter()
        .map(|(name, template)| (format!("built in, {name}"), template));
    shipped.chain(named_templates(presets)).collect()
}

/// What the presets' templates bind, and which of their edges give way: a line each, for people.
pub(crate) fn describe_templates(presets: &[Arc<Preset>]) -> Vec<String> {
    let lines = named_templates(presets).flat_map(|(name, template)| {
        let binds = format!("{name}: binds {}; output {}", template.summary(), template.output);
        let notes = template.notes().into_iter().map(move |note| format!("{name}: {note}"));
        std::iter::once(binds).chain(notes)
    });
    lines.collect()
}

/// What the author of a template should know, once for each configuration.
pub(crate) fn log_notes(presets: &[Arc<Preset>]) {
    for (name, template) in named_templates(presets) {
        for note in template.notes() {
            info!("{name}: {note}");
        }
    }
}

fn named_templates(presets: &[Arc<Preset>]) -> impl Iterator<Item = (String, &Template)> {
    presets.iter().flat_map(|preset| {
        let name = move |task: &str| format!("preset {:?}, {task}", preset.name);
        preset.templates.iter().map(move |(task, template)| (name(task.name()), template.as_ref()))
    })
}

/// What the engine has against them, each line with its graph's name.
pub(crate) async fn validate_all(
    engine: &Engine,
    templates: &[(String, &Template)],
) -> Result<Vec<String>, EngineError> {
    let graphs: Vec<_> = templates.iter().map(|(_, template)| *template).collect();
    let found = engine.validate(&graphs).await?;
    let lines = templates
        .iter()
        .zip(found)
        .flat_map(|((name, _), faults)| faults.into_iter().map(move |fault| format!("{name}: {fault}")));
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
    fn graphs_are_looked_at_once_for_each_start_version_and_configuration_and_again_while_they_fail() {
        let (one, other, at) = (config(), config(), Instant::now());
        let due = |holds: Option<u64>, start, version, config: &Arc<Config>, seconds| {
            let holds = holds.map(Duration::from_secs);
            let last = LastValidation {
                start: 1,
                version: "6.14.2".into(),
                config: one.clone(),
                validated_at: at,
                valid_for: holds,
            };
            is_due(Some(&last), start, version, config, at + Duration::from_secs(seconds))
        };
        assert!(is_due(None, 1, "6.14.2", &one, at));
        assert!(!due(None, 1, "6.14.2", &one, 1_000_000), "nothing was wrong");
        assert!(due(None, 2, "6.14.2", &one, 0), "it came up again");
        assert!(due(None, 1, "6.15.0", &one, 0), "it was upgraded unseen");
        assert!(due(None, 1, "6.14.2", &other, 0), "other presets");
        assert!(!due(Some(60), 1, "6.14.2", &one, 59) && due(Some(60), 1, "6.14.2", &one, 60));
        assert!(!due(Some(60), 2, "6.14.2", &one, 4) && due(Some(60), 2, "6.14.2", &one, 5));
    }
}
