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
/// Requests through both services down to the engine.
mod end_to_end;
/// What the sidecar does in front of any engine, over every fake.
mod engine_behaviour;
/// The families that ship: what each can do, what an engine needs for it.
mod families;
/// The gateway in front of a fake backend.
mod gateway;
/// Readings of the card, and which processes hold its memory.
mod gpu_readings;
/// The thread that reads the card, and how it survives every fault.
mod gpu_sampler;
/// What only an InvokeAI has: graphs, models, batches, a bounded queue.
mod invokeai;
/// An InvokeAI in multi-user mode, which asks the sidecar for a login.
mod invokeai_login;
/// No import runs against the layers of ARCHITECTURE.md.
mod layers;
/// Models: which are ready, listed and the default, and which are refused.
mod models;
/// Paths that the sidecar does not serve itself, on their way to the engine and back.
mod passthrough;
/// Refusals arrive, however much of the request is unread.
mod refusals;
/// Requests as current clients write them, parsed alike by both programs.
mod request_shapes;
/// The files for systemd and launchd, parsed as these parse them.
mod service_files;
/// Access: hosts, origins, bodies, tokens, paths.
mod sidecar_access;
/// Edits: their forms, and what is refused.
mod sidecar_edits;
/// The card over HTTP: as nvidia-smi prints it, for Prometheus, and every latch seen from outside.
mod sidecar_gpu;
/// What the outcomes of recent images and missing nodes say about the engine.
mod sidecar_outcomes;
/// Behind a trusted proxy: addresses, names, origins.
mod sidecar_proxies;
/// Readiness: engine and card, each fault with its own message.
mod sidecar_readyz;
/// nvidia-smi's CSV and the exporter's metrics, from a fake card.
mod sidecar_smi;
/// Streams, formats, presets and delivery by address.
mod sidecar_stream;
/// The card's memory in readiness.
mod sidecar_vram;
/// The default model is loaded before the first request.
mod sidecar_warm_up;
/// Users' templates, from the request to what the engine gets.
mod templates;
