//! How the fake behaves. The default is a healthy, fast server of the newest recorded version.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde_json::Value;

use crate::engine::{EngineFailure, Identity, ImageBytes};

/// Settings of the fake. Each applies until it is reset, unless it says otherwise.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a knob of its own")]
pub struct ComfyScript {
    /// The simulated version. It lacks later features.
    pub version: ComfyVersion,
    /// The response to `GET /system_stats`.
    pub stats: Identity,
    /// How long a prompt's sampling takes in all, spread over its steps.
    pub item: Duration,
    /// Prompts stop in mid-sampling, after the first step, until this is false again or they are interrupted.
    pub hold: bool,
    /// Every prompt fails in mid-sampling, after the first step.
    pub fail: Option<EngineFailure>,
    /// An interrupt is noticed only after this long, as while a checkpoint is loaded. The prompt runs on until then
    /// and nothing else starts. Setting it to zero ends it at once.
    pub cancel_tail: Duration,
    /// Text frames that contain any of these are not sent, for example `"execution_success"`.
    pub swallow: Vec<String>,
    /// The next prompt is accepted and runs, but its answer is never sent: the connection is cut instead. Once.
    pub lose_prompt_answer: bool,
    /// Connections are accepted and nothing is answered, sent or done, like a stopped process.
    pub hang: bool,
    /// The history entry appears this long after the terminal event; the prompt counts as running until then. Setting
    /// it to zero ends it at once.
    pub history_lag: Duration,
    /// What the bytes of an image are.
    pub image_bytes: ImageBytes,
    /// The checkpoint files that are installed.
    pub checkpoints: Vec<String>,
    /// The files of diffusion models alone; none where the server has no such directory.
    pub diffusion_models: Option<Vec<String>>,
    /// The text encoders.
    pub text_encoders: Vec<String>,
    /// The VAEs.
    pub vae: Vec<String>,
    /// The `LoRAs`.
    pub loras: Vec<String>,
    /// The `ControlNets`.
    pub controlnet: Vec<String>,
    /// Whether the custom nodes for GGUF files are installed: without them those files are in no list.
    pub gguf_nodes: bool,
    /// Diffusion models as GGUF.
    pub unet_gguf: Vec<String>,
    /// Text encoders as GGUF.
    pub clip_gguf: Vec<String>,
    /// The metadata in their headers, by file; null for a header that is junk.
    pub metadata: BTreeMap<String, Value>,
    /// When the files were last changed, in seconds.
    pub touched: f64,
    /// Whether it has the routes for that at all.
    pub serves_metadata: bool,
    /// Metadata requests hang until this is false again, as on a hung disk.
    pub hold_metadata: bool,
    /// Classes of nodes that this version has no more.
    pub removed_classes: Vec<String>,
    /// Classes of a broken node pack: their description is 500.
    pub broken_classes: Vec<String>,
    /// The route that cancels one job answers 500, and cancels nothing, until this is false again.
    pub broken_job_cancel: bool,
}

impl Default for ComfyScript {
    fn default() -> Self {
        Self {
            version: ComfyVersion::V0_33_0,
            stats: Identity::Engine,
            item: Duration::from_millis(20),
            hold: false,
            fail: None,
            cancel_tail: Duration::ZERO,
            swallow: Vec::new(),
            lose_prompt_answer: false,
            hang: false,
            history_lag: Duration::ZERO,
            image_bytes: ImageBytes::Complete,
            checkpoints: ["random-sd15.safetensors", "tiny-sd15.safetensors"].map(str::to_owned).to_vec(),
            diffusion_models: Some(Vec::new()),
            text_encoders: Vec::new(),
            vae: Vec::new(),
            loras: Vec::new(),
            controlnet: Vec::new(),
            gguf_nodes: false,
            unet_gguf: Vec::new(),
            clip_gguf: Vec::new(),
            metadata: BTreeMap::new(),
            touched: 1_764_500_000.25,
            serves_metadata: true,
            hold_metadata: false,
            removed_classes: Vec::new(),
            broken_classes: Vec::new(),
            broken_job_cancel: false,
        }
    }
}

impl ComfyScript {
    /// The files that are installed in a directory. None for a directory that the server has not.
    pub(super) fn folder(&self, name: &str) -> Option<&[String]> {
        match name {
            "checkpoints" => Some(&self.checkpoints),
            "diffusion_models" => self.diffusion_models.as_deref(),
            "text_encoders" => Some(&self.text_encoders),
            "vae" => Some(&self.vae),
            "loras" => Some(&self.loras),
            "controlnet" => Some(&self.controlnet),
            "upscale_models" => Some(&[]),
            "unet_gguf" => self.gguf_nodes.then_some(&self.unet_gguf),
            "clip_gguf" => self.gguf_nodes.then_some(&self.clip_gguf),
            _ => None,
        }
    }
}

/// A ComfyUI release. Three are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ComfyVersion(pub u16, pub u16, pub u16);

impl ComfyVersion {
    /// November 2026: not recorded. It has what the facts say that came after 0.33.
    pub const NEWEST: Self = Self(0, 46, 0);
    /// August 2026.
    pub const V0_33_0: Self = Self(0, 33, 0);
    /// February 2026: a client's `prompt_id` may be anything, jobs cannot be cancelled as such.
    pub const V0_12_1: Self = Self(0, 12, 1);
    /// October 2025: no jobs at all, no previews on request.
    pub const V0_3_64: Self = Self(0, 3, 64);
    /// The last one that stops whatever runs, no matter which `prompt_id` an interrupt names.
    pub const V0_3_56: Self = Self(0, 3, 56);
}

impl fmt::Display for ComfyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}
