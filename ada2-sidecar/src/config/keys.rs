//! The one table of settings, in the order and under the headings of the help.

use service::{client_info::PRIVATE_RANGES, settings::SettingSpec};

const REACH: &str = "Reach it";
const ACCESS: &str = "Who may use it";
const ENGINE: &str = "Engine and models";
const CARD: &str = "GPU";
const HOST: &str = "Host and checks";
const LIMITS: &str = "Limits";
const PRIVACY: &str = "Privacy";
const SERVICE: &str = "Service and log";

/// Every setting.
pub const KEYS: &[SettingSpec] = &[
    SettingSpec::new("listen", "ADA2_LISTEN", "Addresses to listen on")
        .with_default("0.0.0.0:7860")
        .requires_restart()
        .value_name("ADDRESSES")
        .group(REACH)
        .common(),
    SettingSpec::new(
        "allowed_hosts",
        "ADA2_ALLOWED_HOSTS",
        "Further host names that clients may use for this server, comma-separated; .example.org allows every name below it. \
         IP addresses and private names (ada2, ada2.local) always work",
    )
    .value_name("NAMES")
    .group(REACH),
    SettingSpec::new(
        "allowed_origins",
        "ADA2_ALLOWED_ORIGINS",
        "Web origins whose pages may call this server and read its answers, such as https://ui.example.org",
    )
    .value_name("ORIGINS")
    .group(REACH),
    SettingSpec::new(
        "trusted_proxies",
        "ADA2_TRUSTED_PROXIES",
        "Address ranges (CIDR) of reverse proxies whose X-Forwarded-For, -Proto, -Host, Forwarded and X-Real-IP are trusted",
    )
    .value_name("CIDRS")
    .default_help("none")
    .group(REACH),
    SettingSpec::new(
        "allow_from",
        "ADA2_ALLOW_FROM",
        "Address ranges that may use engine and API; health answers everybody",
    )
    .with_default(PRIVATE_RANGES)
    .value_name("CIDRS")
    .default_help("loopback, private, 100.64/10")
    .group(ACCESS)
    .common(),
    SettingSpec::new("token", "ADA2_TOKEN", "Bearer token that /v1 requires; command lines are public, prefer --token-file")
        .secret()
        .value_name("TOKEN")
        .default_help("none")
        .group(ACCESS),
    SettingSpec::new("token_file", "ADA2_TOKEN_FILE", "File with a bearer token that /v1 requires")
        .value_name("FILE")
        .group(ACCESS)
        .common(),
    SettingSpec::new("engine", "ADA2_ENGINE", "invokeai, comfyui, or builtin (procedural images, to try it out)")
        .with_default("invokeai")
        .requires_restart()
        .value_name("NAME")
        .group(ENGINE)
        .common(),
    SettingSpec::new("engine_url", "ADA2_ENGINE_URL", "Its address, such as http://127.0.0.1:9090")
        .url()
        .requires_restart()
        .value_name("URL")
        .default_help("local port 9090, or 8188 for comfyui")
        .group(ENGINE)
        .common(),
    SettingSpec::new(
        "engine_unit",
        "ADA2_ENGINE_UNIT",
        "The engine's systemd unit; the GPU memory of its processes counts as the engine's own",
    )
    .requires_restart()
    .value_name("UNIT")
    .default_help("invokeai.service or comfyui.service, by engine")
    .group(ENGINE),
    SettingSpec::new(
        "engine_outputs",
        "ADA2_ENGINE_OUTPUTS",
        "Whether images made through the API stay in the engine's own gallery",
    )
    .with_default("keep")
    .value_name("keep|discard")
    .group(ENGINE),
    SettingSpec::new(
        "warm_up",
        "ADA2_WARM_UP",
        "Load the default model with a small image at start and whenever the engine restarts",
    )
    .with_default("off")
    .requires_restart()
    .value_name("on|off")
    .group(ENGINE),
    SettingSpec::new("default_model", "ADA2_DEFAULT_MODEL", "Model for requests that name none")
        .value_name("NAME")
        .default_help("the engine's first SD model")
        .group(ENGINE)
        .common(),
    SettingSpec::new(
        "models",
        "ADA2_MODELS",
        "What a model is, where neither engine, metadata nor name tell: a map of names to {base, variant}, in the file",
    )
    .structured()
    .value_name("YAML")
    .group(ENGINE),
    SettingSpec::new(
        "presets",
        "ADA2_PRESETS",
        "Names for a model together with its settings, or for a workflow of your own: a map, in the file",
    )
    .structured()
    .value_name("YAML")
    .group(ENGINE),
    SettingSpec::new("gpu", "ADA2_GPU", "required, or optional: a missing GPU is reported and does not gate")
        .with_default("required")
        .value_name("VALUE")
        .group(CARD)
        .common(),
    SettingSpec::new("gpu_id", "ADA2_GPU_ID", "Index or UUID").with_default("0").requires_restart().value_name("ID").group(CARD).common(),
    SettingSpec::new(
        "min_free_vram",
        "ADA2_MIN_FREE_VRAM",
        "Not ready while the engine could have less VRAM than this; 0 = off",
    )
    .with_default("8GiB")
    .value_name("SIZE")
    .group(CARD)
    .common(),
    SettingSpec::new("sample_interval", "ADA2_SAMPLE_INTERVAL", "How often the GPU is read, from 10ms to 5s")
        .with_default("500ms")
        .requires_restart()
        .value_name("DURATION")
        .group(CARD),
    SettingSpec::new("nvml_lib", "ADA2_NVML_LIB", "Absolute path of libnvidia-ml.so.1")
        .requires_restart()
        .value_name("FILE")
        .default_help("the system's")
        .group(CARD),
    SettingSpec::new(
        "warn_only",
        "ADA2_WARN_ONLY",
        "Checks that only warn instead of making the service not ready, comma-separated (row_remap, ecc, disk …)",
    )
    .value_name("CHECKS")
    .default_help("none")
    .group(HOST),
    SettingSpec::new(
        "engine_output_dir",
        "ADA2_ENGINE_OUTPUT_DIR",
        "Folder that the engine writes its images to; the free space of its disk is checked",
    )
    .requires_restart()
    .value_name("FOLDER")
    .group(HOST),
    SettingSpec::new(
        "min_free_disk",
        "ADA2_MIN_FREE_DISK",
        "Not ready with less free space than this on that disk, a warning below twice as much; 0 = off",
    )
    .with_default("1GiB")
    .value_name("SIZE")
    .group(HOST),
    SettingSpec::new(
        "min_free_memory",
        "ADA2_MIN_FREE_MEMORY",
        "Not ready with less available host memory than this, a warning below twice as much; 0 = off",
    )
    .with_default("1GiB")
    .value_name("SIZE")
    .group(HOST),
    SettingSpec::new("ecc_mode", "ADA2_ECC_MODE", "on or off: warn if the GPU's error correction is set otherwise")
        .with_default("any")
        .removed("ecc warns of a mode that changes at the next reboot; warn_only: ecc keeps it from gating")
        .group(HOST),
    SettingSpec::new(
        "ecc_errors",
        "ADA2_ECC_ERRORS",
        "Uncorrected memory errors from before the start: degraded or not_ready (new ones always gate)",
    )
    .with_default("degraded")
    .removed("errors from before our start warn, new ones gate unless warn_only: ecc")
    .group(HOST),
    SettingSpec::new(
        "row_remap_pending",
        "ADA2_ROW_REMAP_PENDING",
        "A memory row that a reset will replace: degraded or not_ready",
    )
    .with_default("degraded")
    .removed("a row that waits warns, one that failed gates unless warn_only: row_remap")
    .group(HOST),
    SettingSpec::new(
        "row_remap_failure",
        "ADA2_ROW_REMAP_FAILURE",
        "A memory row that could not be replaced: not_ready, or degraded to go on with a faulty GPU",
    )
    .with_default("not_ready")
    .replaced_by("warn_only: row_remap")
    .group(HOST),
    SettingSpec::new("max_swap_used", "ADA2_MAX_SWAP_USED", "A warning above this percentage of swap in use; 100 = off")
        .with_default("90")
        .removed("swap only ever warns; for short memory there is warn_only: host_memory")
        .group(HOST),
    SettingSpec::new(
        "max_engine_memory",
        "ADA2_MAX_ENGINE_MEMORY",
        "A warning above this much host memory of the engine's processes; 0 = off",
    )
    .with_default("0")
    .removed("min_free_memory is the floor that gates, unless warn_only: host_memory")
    .group(HOST),
    SettingSpec::new("max_inflight", "ADA2_MAX_INFLIGHT", "Image requests at once; one more gets 429")
        .with_default("4")
        .value_name("NUMBER")
        .group(LIMITS)
        .common(),
    SettingSpec::new("request_timeout", "ADA2_REQUEST_TIMEOUT", "For a whole image request, from 1s to 1h")
        .with_default("270s")
        .value_name("DURATION")
        .group(LIMITS)
        .common(),
    SettingSpec::new(
        "max_engine_queue",
        "ADA2_MAX_ENGINE_QUEUE",
        "A request gets 429 while more jobs of other users than this wait in the engine",
    )
    .with_default("4")
    .value_name("NUMBER")
    .group(LIMITS),
    SettingSpec::new("max_n", "ADA2_MAX_N", "Images per request, at most 10").with_default("4").value_name("NUMBER").group(LIMITS),
    SettingSpec::new("max_pixels", "ADA2_MAX_PIXELS", "Pixels per image").with_default("4194304").value_name("NUMBER").group(LIMITS),
    SettingSpec::new("max_request_bytes", "ADA2_MAX_REQUEST_BYTES", "Size of a request's body, at most 256MiB")
        .with_default("32MiB")
        .value_name("SIZE")
        .group(LIMITS),
    SettingSpec::new(
        "max_upload_bytes",
        "ADA2_MAX_UPLOAD_BYTES",
        "Size of a body sent to the engine's own paths; 0 = no limit",
    )
    .with_default("0")
    .requires_restart()
    .value_name("SIZE")
    .group(LIMITS),
    SettingSpec::new(
        "png_metadata",
        "ADA2_PNG_METADATA",
        "What the engine writes into a PNG: the prompt, the whole workflow",
    )
    .with_default("keep")
    .value_name("keep|strip")
    .group(PRIVACY),
    SettingSpec::new("log_prompts", "ADA2_LOG_PROMPTS", "Whether prompts are written to the log")
        .with_default("off")
        .value_name("on|off")
        .group(PRIVACY),
    SettingSpec::new(
        "shutdown_grace",
        "ADA2_SHUTDOWN_GRACE",
        "How long running requests may take to finish after SIGTERM",
    )
    .with_default("30s")
    .requires_restart()
    .value_name("DURATION")
    .group(SERVICE),
    SettingSpec::new(
        "state_dir",
        "ADA2_STATE_DIR",
        "Folder for what outlives a restart: identity and latched errors; STATE_DIRECTORY (systemd) wins",
    )
    .with_default("/var/lib/ada2-sidecar")
    .requires_restart()
    .value_name("FOLDER")
    .group(SERVICE),
    SettingSpec::new("log_format", "ADA2_LOG_FORMAT", "Format of the log").with_default("text").requires_restart().value_name("text|json").group(SERVICE),
    SettingSpec::new("log_filter", "ADA2_LOG", "Which lines are logged, as in RUST_LOG")
        .with_default("info")
        .requires_restart()
        .value_name("FILTER")
        .group(SERVICE),
];
