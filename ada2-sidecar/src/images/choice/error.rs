//! Why a request's `model` cannot be used, and what to do about it.

use std::fmt;

use crate::images::{
    Task,
    models::{Evidence, ModelKind, ModelVariant},
};

/// Why there is no model for a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelChoiceError {
    /// No such model.
    NotFound {
        /// The name.
        requested: String,
        /// The family that it stands for, if it is an alias.
        alias: Option<&'static str>,
        /// The usable names.
        available: Vec<String>,
    },
    /// No model was named, and there is no default.
    NoDefault {
        /// What was to be made.
        task: Task,
        /// The usable names.
        available: Vec<String>,
    },
    /// It exists, and no built-in graph can run it.
    UnsupportedKind {
        /// Its name.
        model: String,
        /// Its kind.
        kind: ModelKind,
    },
    /// Built-in graphs could run it, and miss something.
    Incomplete {
        /// Its name.
        model: String,
        /// What is missing.
        lacks: String,
        /// Whether the engine has the model itself.
        is_installed: bool,
    },
    /// It exists, and its kind is unknown.
    UnknownKind {
        /// Its name.
        model: String,
    },
}

impl ModelChoiceError {
    /// Whether no such model exists (404). In all other cases the request can be fixed.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::NotFound { .. } => true,
            Self::NoDefault { available, .. } => available.is_empty(),
            Self::Incomplete { is_installed, .. } => !is_installed,
            Self::UnsupportedKind { .. } | Self::UnknownKind { .. } => false,
        }
    }
}

impl fmt::Display for ModelChoiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { requested, alias, available } => {
                match alias {
                    Some(family) => write!(
                        f,
                        "The model {requested:?} does not exist: the name stands for the engine's {family} text-to-image model, \
                         and it has none."
                    )?,
                    None => write!(f, "The model {requested:?} does not exist.")?,
                }
                list(f, available)
            }
            Self::NoDefault { available, .. } if available.is_empty() => {
                f.write_str("The engine has no supported model.")
            }
            Self::NoDefault { task, available } => {
                write!(
                    f,
                    "No default model is set, and no model of the engine's is made for this (task {}): name one in \"model\", or \
                     set default_model in the sidecar's configuration.",
                    task.name()
                )?;
                list(f, available)
            }
            Self::UnsupportedKind { model, kind } => {
                write!(
                    f,
                    "The model {model:?} exists, but its kind ({kind}) has no built-in graph: it needs a graph of its own, \
                     named by a preset in the sidecar's configuration (presets: {{NAME: {{model: {model:?}, template: FILE}}}})."
                )?;
                if kind.evidence == Evidence::Name && kind.variant != ModelVariant::Split {
                    write!(
                        f,
                        " The kind was guessed from its name; if it is wrong, declare it (models: {{{model:?}: {{base: sdxl}}}})."
                    )?;
                }
                Ok(())
            }
            Self::Incomplete { model, lacks, is_installed: true } => {
                write!(
                    f,
                    "The model {model:?} exists, but the engine lacks what it needs beside it: {lacks}. Install it."
                )
            }
            Self::Incomplete { model, lacks, .. } => {
                write!(f, "The model {model:?} is not complete on this engine: it lacks {lacks}.")
            }
            Self::UnknownKind { model } => write!(
                f,
                "The model {model:?} exists, but its kind could not be detected from its file or name: declare it in the \
                 sidecar's configuration (models: {{{model:?}: {{base: sd-1}}}}; or sdxl …), or name a preset for it that \
                 brings a graph of its own."
            ),
        }
    }
}

fn list(f: &mut fmt::Formatter<'_>, available: &[String]) -> fmt::Result {
    if available.is_empty() {
        return f.write_str(" The engine has no supported model.");
    }
    write!(f, " Available: {}.", available.join(", "))
}
