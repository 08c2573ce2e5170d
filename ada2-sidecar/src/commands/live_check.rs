//! `ada2-sidecar check-config --live`: checks with the engine every graph that could be sent to it, and its models.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use service::settings::EXIT_CONFIG;

use super::client::block_on;
use crate::{
    config::Config,
    engine::{Engine, EngineError},
    graph_validation::{all_templates, validate_all},
    images::{
        model_warnings,
        models::{self, EngineModel, Runner},
    },
};

/// One line for each problem. Nothing is run, and the engine does not change.
pub(super) fn check(config: &Config) -> io::Result<ExitCode> {
    // Without a tag: only the service may claim jobs.
    let engine = Engine::new(config.engine, &config.engine_setup(""));
    engine.set_login(config.engine_login.clone());
    let kind = config.engine.name();
    let installed = match block_on(engine.list_models())? {
        Ok(installed) => installed,
        Err(error) => return cannot_ask(config, &error),
    };
    for warning in model_warnings(&installed, &config.models, &config.presets) {
        writeln!(io::stderr(), "warning: {warning}")?;
    }
    let models = models::apply_declarations(&config.models, &installed);
    let templates = all_templates(&models, &config.presets);
    for line in offered(&models) {
        writeln!(io::stdout(), "# {line}")?;
    }
    match block_on(validate_all(&engine, &templates))? {
        Ok(errors) if errors.is_empty() => {
            let mut out = io::stdout();
            writeln!(out, "# {kind} accepts all {} graphs", templates.len())?;
            Ok(ExitCode::SUCCESS)
        }
        Ok(errors) => {
            let mut out = io::stderr();
            for error in errors {
                writeln!(out, "{error}")?;
            }
            Ok(ExitCode::from(EXIT_CONFIG))
        }
        Err(error) => cannot_ask(config, &error),
    }
}

fn cannot_ask(config: &Config, error: &EngineError) -> io::Result<ExitCode> {
    let kind = config.engine.name();
    let url = config.engine_url.as_ref().map(service::secret::redact_url).unwrap_or_default();
    writeln!(io::stderr(), "{kind} at {url} cannot validate the graphs: {error}")?;
    Ok(ExitCode::from(EXIT_CONFIG))
}

/// Which models built-in graphs run, and what the others lack.
fn offered(models: &[EngineModel]) -> Vec<String> {
    let usable: Vec<_> = models.iter().filter(|model| model.is_usable() && model.is_listed).collect();
    let names = usable.iter().map(|model| model.name.as_str()).collect::<Vec<_>>().join(", ");
    let offered = if usable.is_empty() { "no model".to_owned() } else { names };
    let incomplete = models.iter().filter_map(|model| match &model.runner {
        Runner::Incomplete { lacks, .. } => Some(format!("not offered: {}: it lacks {lacks}", model.name)),
        _ => None,
    });
    std::iter::once(format!("offered by built-in graphs: {offered}")).chain(incomplete).collect()
}
