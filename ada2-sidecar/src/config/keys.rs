//! The one table of settings.

use shared::service::{guard::PRIVATE_RANGES, settings::Key};

/// Every setting.
pub const KEYS: &[Key] = &[
    Key::new("listen", "ADA2_LISTEN", "Addresses to listen on, comma-separated").or("0.0.0.0:7860").fixed(),
    Key::new(
        "allow_from",
        "ADA2_ALLOW_FROM",
        "Address ranges (CIDR) that may use the engine and order pictures; health answers everybody",
    )
    .or(PRIVATE_RANGES),
    Key::new(
        "trusted_proxies",
        "ADA2_TRUSTED_PROXIES",
        "Address ranges (CIDR) of proxies in front, whose X-Forwarded-For, -Proto and -Host, Forwarded and X-Real-IP are trusted",
    ),
    Key::new("token", "ADA2_TOKEN", "If set, /v1 needs this bearer token as well").secret(),
    Key::new("token_file", "ADA2_TOKEN_FILE", "A file that holds the token instead, such as a systemd credential"),
    Key::new("allowed_hosts", "ADA2_ALLOWED_HOSTS", "Further names that this server is reached by; .example.org is every name below it"),
    Key::new("allowed_origins", "ADA2_ALLOWED_ORIGINS", "Web origins whose pages may call this server and read its answers, such as https://ui.example.org"),
    Key::new(
        "engine",
        "ADA2_ENGINE",
        "invokeai, comfyui, or builtin (procedural pictures, for trying things out)",
    )
    .or("invokeai").fixed(),
    Key::new(
        "engine_url",
        "ADA2_ENGINE_URL",
        "The engine's address (by engine: http://127.0.0.1:9090 or :8188)",
    ).address().fixed(),
    Key::new(
        "engine_unit",
        "ADA2_ENGINE_UNIT",
        "The engine's systemd unit, whose GPU memory counts as its own (by engine: invokeai.service or comfyui.service)",
    ).fixed(),
    Key::new(
        "default_model",
        "ADA2_DEFAULT_MODEL",
        "Model for requests that name none (without: the engine's first SD 1.5 or SDXL model)",
    ),
    Key::new("gpu", "ADA2_GPU", "required: no GPU, not ready. optional: an absent GPU does not gate")
        .or("required"),
    Key::new("gpu_id", "ADA2_GPU_ID", "Index or UUID of the card").or("0").fixed(),
    Key::new("nvml_lib", "ADA2_NVML_LIB", "Absolute path of libnvidia-ml.so.1 (without: the system's)").fixed(),
    Key::new(
        "min_free_vram",
        "ADA2_MIN_FREE_VRAM",
        "Not ready below this much VRAM that the engine could have; 0 = off",
    )
    .or("8GiB"),
    Key::new("sample_interval", "ADA2_SAMPLE_INTERVAL", "How often the card is read").or("500ms").fixed(),
    Key::new(
        "warn_only",
        "ADA2_WARN_ONLY",
        "Names of checks, comma-separated, that warn where they would gate (row_remap, ecc, disk …)",
    ),
    Key::new("ecc_mode", "ADA2_ECC_MODE", "on or off: warn if the card's error correction is otherwise")
        .or("any")
        .removed("ecc warns of a mode that changes at the next reboot; warn_only: ecc keeps it from gating"),
    Key::new(
        "ecc_errors",
        "ADA2_ECC_ERRORS",
        "Uncorrected memory errors from before our start: degraded or not_ready (new ones always gate)",
    )
    .or("degraded")
    .removed("errors from before our start warn, new ones gate unless warn_only: ecc"),
    Key::new(
        "row_remap_pending",
        "ADA2_ROW_REMAP_PENDING",
        "A memory row that waits for a reset to be replaced: degraded or not_ready",
    )
    .or("degraded")
    .removed("a row that waits warns, one that failed gates unless warn_only: row_remap"),
    Key::new(
        "row_remap_failure",
        "ADA2_ROW_REMAP_FAILURE",
        "A memory row that could not be replaced: not_ready, or degraded to go on with a faulty card",
    )
    .or("not_ready")
    .replaced_by("warn_only: row_remap"),
    Key::new(
        "engine_output_dir",
        "ADA2_ENGINE_OUTPUT_DIR",
        "Folder that the engine writes its pictures to, whose disk is watched",
    ).fixed(),
    Key::new(
        "min_free_disk",
        "ADA2_MIN_FREE_DISK",
        "Not ready below this much room there, a warning below twice as much; 0 = off",
    )
    .or("1GiB"),
    Key::new(
        "min_free_memory",
        "ADA2_MIN_FREE_MEMORY",
        "Not ready below this much available host memory, a warning below twice as much; 0 = off",
    )
    .or("1GiB"),
    Key::new(
        "max_swap_used",
        "ADA2_MAX_SWAP_USED",
        "A warning above this percentage of swap in use; 100 = off",
    )
    .or("90")
    .removed("swap only ever warns; for short memory there is warn_only: host_memory"),
    Key::new(
        "max_engine_memory",
        "ADA2_MAX_ENGINE_MEMORY",
        "A warning above this much host memory of the engine's processes; 0 = off",
    )
    .or("0")
    .removed("min_free_memory is the floor that gates, unless warn_only: host_memory"),
    Key::new(
        "warm_up",
        "ADA2_WARM_UP",
        "on: load the default model by a smallest picture at start and after the engine's restarts",
    )
    .or("off").fixed(),
    Key::new("models", "ADA2_MODELS", "What models are, where nothing tells; a map of names to {base}, in the file")
        .structured(),
    Key::new("presets", "ADA2_PRESETS", "Names for models and how they are run; a map, in the file")
        .structured(),
    Key::new(
        "engine_outputs",
        "ADA2_ENGINE_OUTPUTS",
        "keep or discard: whether pictures made here show in the engine's own gallery",
    )
    .or("keep"),
    Key::new(
        "png_metadata",
        "ADA2_PNG_METADATA",
        "keep or strip: what the engine writes into a PNG (the prompt, the whole graph)",
    )
    .or("keep"),
    Key::new("log_prompts", "ADA2_LOG_PROMPTS", "on: prompts are written to the log").or("off"),
    Key::new("max_inflight", "ADA2_MAX_INFLIGHT", "Image requests at once; one more gets 429").or("4"),
    Key::new(
        "max_engine_queue",
        "ADA2_MAX_ENGINE_QUEUE",
        "Waiting jobs of others in the engine above which a request gets 429",
    )
    .or("4"),
    Key::new("max_n", "ADA2_MAX_N", "Pictures a request").or("4"),
    Key::new("max_pixels", "ADA2_MAX_PIXELS", "Pixels a picture").or("4194304"),
    Key::new("max_request_bytes", "ADA2_MAX_REQUEST_BYTES", "Bytes of a request's body").or("32MiB"),
    Key::new(
        "max_upload_bytes",
        "ADA2_MAX_UPLOAD_BYTES",
        "Bytes of a body that goes to the engine's own paths; 0 = no limit",
    )
    .or("0").fixed(),
    Key::new("request_timeout", "ADA2_REQUEST_TIMEOUT", "For a whole image request").or("270s"),
    Key::new("shutdown_grace", "ADA2_SHUTDOWN_GRACE", "For running requests to finish on SIGTERM").or("30s").fixed(),
    Key::new("state_dir", "ADA2_STATE_DIR", "Where this instance keeps its identity; STATE_DIRECTORY wins")
        .or("/var/lib/ada2-sidecar").fixed(),
    Key::new("log_format", "ADA2_LOG_FORMAT", "text or json").or("text").fixed(),
    Key::new("log_filter", "ADA2_LOG", "Which lines are logged, as in RUST_LOG").or("info").fixed(),
];
