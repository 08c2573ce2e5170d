//! Table of contents: one module per behaviour.

#![expect(clippy::unwrap_used, reason = "a test that meets a None has failed")]

/// What only a ComfyUI has: graphs, files, versions, history.
mod comfyui;
/// Readiness of a sidecar in front of a ComfyUI.
mod comfyui_readyz;
/// Help and man pages of both programs.
mod command_line;
/// What pages of other origins may read of both programs.
mod cors;
/// The source, mask and form of edits.
mod edit_form;
/// What the sidecar does in front of any engine, over every fake.
mod engine_behaviour;
/// The gateway in front of a fake backend: access, routing, admission, health, errors, images.
mod gateway;
/// The thread that looks at the card, and how it outlives every trouble.
mod gpu_readings;
mod gpu_sampler;
/// What only an InvokeAI has: graphs, models, batches, a bounded queue.
mod invokeai;
/// No import runs against the layers of ARCHITECTURE.md.
mod layers;
/// What a model is: what is ready, listed, the default, and refused.
mod models;
/// Everything that is not the sidecar's own, on its way to the engine and back.
mod passthrough;
/// Refusals arrive, however much of the request is unread.
mod refusals;
/// Requests as today's clients write them, read alike by both programs.
mod request_shapes;
/// The files for systemd and launchd, read as these read them.
mod service_files;
/// The edge: hosts, origins, bodies, tokens, paths.
mod sidecar_edge;
/// Edits: an image from an image.
mod sidecar_edits;
/// The card over HTTP: as nvidia-smi tells it, for Prometheus, and every latch seen from outside.
mod sidecar_gpu;
/// Behind a proxy that is trusted: addresses, names, origins.
mod sidecar_proxies;
/// Readiness: engine and card, each fault with its own message.
mod sidecar_readyz;
/// Streams, formats, presets and templates.
mod sidecar_smi;
mod sidecar_stream;
mod sidecar_vram;
/// The default model is loaded before anybody asks for an image.
mod sidecar_warm_up;
mod sidecar_works;
/// Users' templates, from the request to what the engine is handed.
mod templates;
/// The list of behaviours of the migration, through both services down to the engine.
mod whole_path;
