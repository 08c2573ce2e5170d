//! The table of engines: one row each. Everything that depends on the engine alone stands in its row.

use std::{path::Path, sync::Arc};

use reqwest::Url;

use super::{ImageEngine, builtin, comfyui, invokeai};
use crate::images::{graph_set::GraphCatalog, template::GraphFormat};

/// An engine's row.
#[derive(Debug)]
pub struct EngineSpec {
    /// The value of the setting `engine`.
    pub name: &'static str,
    /// Its systemd unit, unless configured.
    pub default_unit: &'static str,
    /// The largest seed: all bits of its width.
    pub max_seed: u64,
    /// The names that the parameter `scheduler` takes.
    pub schedulers: &'static [&'static str],
    /// Its built-in graphs.
    pub graphs: Option<fn() -> &'static GraphCatalog>,
    /// How its graphs are written. None: it runs none, and presets cannot have templates.
    pub graph_format: Option<GraphFormat>,
    /// How it is reached.
    pub access: EngineAccess,
}

/// What is configured of an engine.
#[derive(Debug, Clone, Copy, Default)]
pub struct EngineSetup<'a> {
    /// Its address; by default its usual one.
    pub url: Option<&'a Url>,
    /// Marks our jobs in it. Empty: jobs of others stay untouched.
    pub tag: &'a str,
    /// Its models directory as this host sees it, for what its own lists do not say.
    pub model_dir: Option<&'a Path>,
}

/// How an engine is reached.
#[derive(Debug)]
pub enum EngineAccess {
    /// It runs in this process.
    InProcess(fn() -> Arc<dyn ImageEngine>),
    /// It is a server.
    Http {
        /// Where it listens, unless configured.
        default_url: &'static str,
        /// Makes the engine at this URL.
        connect: fn(Url, &EngineSetup) -> Arc<dyn ImageEngine>,
        /// What an operator does to it, for messages.
        fixes: EngineFixes,
    },
}

/// What an operator does to an engine, for messages.
#[derive(Debug)]
pub struct EngineFixes {
    /// To listen on loopback only.
    pub loopback: &'static str,
    /// Where to install a model that the built-in graphs can run, with its preposition.
    pub model_location: &'static str,
    /// The path of the `PUT` that resumes a paused queue. None: it has no pause, or only its web page ends it.
    pub resume_path: Option<&'static str>,
    /// To switch off its own login. None: it has none; a proxy in front asks for it.
    pub login: Option<&'static str>,
}

macro_rules! engines {
    ($($(#[$doc:meta])* $kind:ident => $spec:path;)*) => {
        /// Which engine.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum EngineKind { $($(#[$doc])* $kind,)* }

        impl EngineKind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// Its row.
            pub const fn spec(self) -> &'static EngineSpec {
                match self { $(Self::$kind => &$spec,)* }
            }
        }
    };
}

engines! {
    /// InvokeAI.
    InvokeAi => invokeai::SPEC;
    /// ComfyUI.
    ComfyUi => comfyui::SPEC;
    /// In this process.
    Builtin => builtin::SPEC;
}

impl EngineKind {
    /// Reads the setting.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == text)
    }

    /// The value of the setting.
    pub const fn name(self) -> &'static str {
        self.spec().name
    }

    /// See [`EngineSpec::max_seed`].
    pub const fn max_seed(self) -> u64 {
        self.spec().max_seed
    }

    /// See [`EngineSpec::schedulers`].
    pub const fn schedulers(self) -> &'static [&'static str] {
        self.spec().schedulers
    }

    /// See [`EngineSpec::graph_format`].
    pub const fn graph_format(self) -> Option<GraphFormat> {
        self.spec().graph_format
    }

    /// See [`EngineSpec::graphs`].
    pub fn graphs(self) -> Option<&'static GraphCatalog> {
        self.spec().graphs.map(|graphs| graphs())
    }

    /// See [`EngineSpec::default_unit`].
    pub const fn default_unit(self) -> &'static str {
        self.spec().default_unit
    }

    /// See [`EngineFixes`]; none for an engine in this process.
    pub const fn fixes(self) -> Option<&'static EngineFixes> {
        match &self.spec().access {
            EngineAccess::InProcess(_) => None,
            EngineAccess::Http { fixes, .. } => Some(fixes),
        }
    }

    /// Whether it can ask for a login of its own.
    pub fn has_login(self) -> bool {
        self.fixes().is_some_and(|fixes| fixes.login.is_some())
    }

    /// Whether it runs in this process.
    pub const fn is_in_process(self) -> bool {
        matches!(self.spec().access, EngineAccess::InProcess(_))
    }

    /// The engines that are servers.
    pub fn servers() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(|kind| !kind.is_in_process())
    }

    /// Where the engine listens, unless configured; none for one in this process.
    pub fn default_url(self) -> Option<Url> {
        match &self.spec().access {
            EngineAccess::InProcess(_) => None,
            EngineAccess::Http { default_url, .. } => Some(default_url.parse().expect("checked by a test")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_complete() {
        for kind in EngineKind::ALL {
            assert_eq!(EngineKind::parse(kind.name()), Some(*kind));
            assert!(kind.default_unit().ends_with(".service"), "{kind:?}");
            assert!(kind.schedulers().contains(&"euler"), "{kind:?}");
            assert_eq!(kind.default_url().is_none(), kind.is_in_process());
            assert_eq!(kind.graphs().is_none(), kind.is_in_process());
        }
    }
}
