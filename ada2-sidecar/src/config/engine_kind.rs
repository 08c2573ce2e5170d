//! Which engine, and what follows from that alone.

use reqwest::Url;

use crate::images::template::GraphFormat;

/// Which engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineKind {
    /// InvokeAI.
    InvokeAi,
    /// ComfyUI.
    ComfyUi,
    /// In this process.
    Builtin,
}

impl EngineKind {
    /// Reads the setting.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "invokeai" => Some(Self::InvokeAi),
            "comfyui" => Some(Self::ComfyUi),
            "builtin" => Some(Self::Builtin),
            _ => None,
        }
    }

    /// Its name in the setting.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InvokeAi => "invokeai",
            Self::ComfyUi => "comfyui",
            Self::Builtin => "builtin",
        }
    }

    /// The largest seed that it takes.
    pub const fn max_seed(self) -> u64 {
        match self {
            Self::InvokeAi | Self::Builtin => u32::MAX as u64,
            Self::ComfyUi => u64::MAX,
        }
    }

    /// What its graphs look like.
    pub const fn graph_format(self) -> GraphFormat {
        match self {
            Self::InvokeAi | Self::Builtin => GraphFormat::InvokeAi,
            Self::ComfyUi => GraphFormat::ComfyUi,
        }
    }

    /// The default address of the engine.
    pub fn default_url(self) -> Option<Url> {
        match self {
            Self::InvokeAi => "http://127.0.0.1:9090".parse().ok(),
            Self::ComfyUi => "http://127.0.0.1:8188".parse().ok(),
            Self::Builtin => None,
        }
    }

    /// The default systemd unit.
    pub const fn default_unit(self) -> &'static str {
        match self {
            Self::InvokeAi => "invokeai.service",
            Self::ComfyUi => "comfyui.service",
            Self::Builtin => "ada2-sidecar.service",
        }
    }
}
