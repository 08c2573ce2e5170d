//! `ada2-sidecar check-config --live`: has the engine look at every graph that could be sent to it, and looks at its models.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use service::settings::EXIT_CONFIG;

use crate::{
    config::Config,
    engine::Engine,
    graph_validation::{all_templates, validate_all},
    images::model_warnings,
};

/// A line for every fault; nothing is run, and nothing in the engine changes.
pub(super) fn check(config: &Config) -> io::Result<ExitCode> {
    // Without a tag: only whoever serves may take jobs for his own.
    let engine = Engine::new(config.engine, config.engine_url.as_ref(), "");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let templates = all_templates(&engine, &config.presets);
    let kind = config.engine.name();
    if let Ok(installed) = runtime.block_on(engine.list_models()) {
        for warning in model_warnings(&installed, &config.models, &config.presets) {
            writeln!(io::stderr(), "warning: {warning}")?;
        }
    }
    match runtime.block_on(validate_all(&engine, &templates)) {
        Ok(errors) if errors.is_empty() => {
            let mut out = io::stdout();
            writeln!(
                out,
                "# {kind} has nothing against the {} graphs that it was asked about",
                templates.len()
            )?;
            Ok(ExitCode::SUCCESS)
        }
        Ok(faults) => {
            let mut out = io::stderr();
            for fault in faults {
                writeln!(out, "{fault}")?;
            }
            Ok(ExitCode::from(EXIT_CONFIG))
        }
        Err(error) => {
            let url = config.engine_url.as_ref().map(service::secret::redact_url).unwrap_or_default();
            writeln!(io::stderr(), "{kind} at {url} cannot be asked about graphs: {error}")?;
            Ok(ExitCode::from(EXIT_CONFIG))
        }
    }
}
