//! The table of settings, in the order and under the headings of the help. A row is the only place where a setting is
//! declared; its value is read as `config.<field>`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;
use reqwest::Url;
use service::{
    client_info::PRIVATE_RANGES,
    secret::Secret,
    settings::{Parser, SettingSpec, boolean, bytes, duration, duration_in, limit_bytes, whole_number_in},
    telemetry::LogFormat,
};

use super::{
    checks, models,
    parsers::{
        LISTEN, absolute, any_or_boolean, either, gates, gpu_id, log_filter, non_empty, parse_engine_url,
        ranges, request_bytes,
    },
};
use crate::{engine::EngineKind, images::models::ModelDeclaration};

/// What a token must be.
const TOKEN: &str =
    "a token that is not empty, of printable ASCII characters (leave the setting out for none)";

service::settings! {
    /// Every setting.
    pub const KEYS;

    /// The value of each setting that stands for itself. Sizes are in bytes.
    #[derive(Debug)]
    #[expect(missing_docs, reason = "the help of a row says what its field is")]
    pub struct SettingValues {
        "Make it reachable" {
            pub listen: Vec<SocketAddr> = LISTEN =>
            row SettingSpec::new("listen", "ADA2_LISTEN", "Addresses to listen on")
                .with_default("0.0.0.0:7860").requires_restart().value_name("ADDRESSES").common();

            row SettingSpec::new(
                "allowed_hosts",
                "ADA2_ALLOWED_HOSTS",
                "Further host names that clients may use for this server, comma-separated; .example.org allows every name below it. \
                 IP addresses and private names (ada2, ada2.local) always work",
            ).value_name("NAMES");

            row SettingSpec::new(
                "allowed_origins",
                "ADA2_ALLOWED_ORIGINS",
                "Web origins whose pages may call this server and read its answers, such as https://ui.example.org",
            ).value_name("ORIGINS");

            pub trusted_proxies: Vec<IpNet> = Parser::expecting("ranges like 192.168.1.7/32", ranges).or_default() =>
            row SettingSpec::new(
                "trusted_proxies",
                "ADA2_TRUSTED_PROXIES",
                "Address ranges (CIDR) of reverse proxies whose X-Forwarded-For, -Proto, -Host, Forwarded and X-Real-IP are trusted",
            ).value_name("CIDRS").default_help("none");
        }
        "Control access" {
            pub allow_from: Vec<IpNet> = Parser::expecting("ranges like 192.168.0.0/16", ranges) =>
            row SettingSpec::new(
                "allow_from",
                "ADA2_ALLOW_FROM",
                "Address ranges that may use engine and API; health is for everyone",
            )
            .with_default(PRIVATE_RANGES).value_name("CIDRS").default_help("loopback, private, 100.64/10")
            .common();

            pub token: Option<Secret> = Parser::expecting(TOKEN, |text| Secret::token(text).ok()) =>
            row SettingSpec::new("token", "ADA2_TOKEN", "Bearer token that /v1 requires; command lines are public, prefer --token-file")
                .secret().value_name("TOKEN").default_help("none");

            row SettingSpec::new("token_file", "ADA2_TOKEN_FILE", "File with a bearer token that /v1 requires")
                .value_name("FILE").common();
        }
        "Choose engine and models" {
            pub engine: EngineKind = Parser::expecting("invokeai, comfyui or builtin", EngineKind::parse) =>
            row SettingSpec::new("engine", "ADA2_ENGINE", "invokeai, comfyui, or builtin (procedural images, to try it out)")
                .with_default("invokeai").requires_restart().value_name("NAME").common();

            pub explicit_engine_url: Option<Url> = Parser::expecting("an address like http://127.0.0.1:9090", parse_engine_url) =>
            row SettingSpec::new("engine_url", "ADA2_ENGINE_URL", "The engine's address, such as http://127.0.0.1:9090")
                .url().requires_restart().value_name("URL")
                .default_help("local port 9090, or 8188 for comfyui").common();

            row SettingSpec::new(
                "engine_auth_file",
                "ADA2_ENGINE_AUTH_FILE",
                "File with user name and password, one line each, for an InvokeAI in multi-user mode",
            ).value_name("FILE").default_help("none");

            pub explicit_engine_unit: Option<String> = Parser::expecting("a unit name like invokeai.service", non_empty) =>
            row SettingSpec::new(
                "engine_unit",
                "ADA2_ENGINE_UNIT",
                "The engine's systemd unit; the GPU memory of its processes counts as the engine's own",
            )
            .requires_restart().value_name("UNIT")
            .default_help("invokeai.service or comfyui.service, by engine");

            pub engine_model_dir: Option<PathBuf> = Parser::expecting("an absolute path", absolute) =>
            row SettingSpec::new(
                "engine_model_dir",
                "ADA2_ENGINE_MODEL_DIR",
                "ComfyUI's models directory on this host; tells what a model is if its metadata does not",
            ).requires_restart().value_name("DIR");

            pub discard_outputs: bool = Parser::expecting("keep or discard", |text| either(text, "keep", "discard")) =>
            row SettingSpec::new(
                "engine_outputs",
                "ADA2_ENGINE_OUTPUTS",
                "Whether images made through the API stay in the engine's own gallery",
            ).with_default("keep").value_name("keep|discard");

            pub warm_up: bool = Parser::expecting("on or off", boolean) =>
            row SettingSpec::new(
                "warm_up",
                "ADA2_WARM_UP",
                "Load the default model with a small image at start and whenever the engine restarts",
            ).with_default("off").requires_restart().value_name("on|off");

            pub default_model: Option<String> = Parser::expecting("a model's name", non_empty) =>
            row SettingSpec::new("default_model", "ADA2_DEFAULT_MODEL", "Model for requests that name none")
                .value_name("NAME").default_help("the engine's first suitable model").common();

            pub models: Vec<ModelDeclaration> = Parser::explaining(models::parse).or_default() =>
            row SettingSpec::new(
                "models",
                "ADA2_MODELS",
                "Base and variant of models that cannot be detected: a map of names to {base, variant}, in the file",
            ).structured().value_name("YAML");

            row SettingSpec::new(
                "presets",
                "ADA2_PRESETS",
                "Names for a model together with its settings, or for a workflow of your own: a map, in the file",
            ).structured().value_name("YAML");
        }
        "Choose the GPU" {
            pub gpu_required: bool = Parser::expecting("required or optional", |text| either(text, "optional", "required")) =>
            row SettingSpec::new("gpu", "ADA2_GPU", "required, or optional: a missing GPU is reported, not fatal")
                .with_default("required").value_name("VALUE").common();

            pub gpu_id: String = Parser::expecting("an index like 0 or a UUID like GPU-…", gpu_id) =>
            row SettingSpec::new("gpu_id", "ADA2_GPU_ID", "Index or UUID")
                .with_default("0").requires_restart().value_name("ID").common();

            pub min_free_vram: u64 = Parser::expecting("a size like 8GiB, or 0", bytes) =>
            row SettingSpec::new(
                "min_free_vram",
                "ADA2_MIN_FREE_VRAM",
                "Not ready with less VRAM than this for the engine; 0 = off",
            ).with_default("8GiB").value_name("SIZE").common();

            pub sample_interval: Duration = Parser::expecting("a duration from 10ms to 5s", duration_in::<10, 5_000>) =>
            row SettingSpec::new("sample_interval", "ADA2_SAMPLE_INTERVAL", "How often the GPU is read, from 10ms to 5s")
                .with_default("500ms").requires_restart().value_name("DURATION");

            pub nvml_lib: Option<PathBuf> = Parser::expecting("an absolute path", absolute) =>
            row SettingSpec::new("nvml_lib", "ADA2_NVML_LIB", "Absolute path of libnvidia-ml.so.1")
                .requires_restart().value_name("FILE").default_help("the system's");
        }
        "Decide when it is ready" {
            pub warn_only: Vec<&'static str> = Parser::explaining(checks::parse_list).or_default() =>
            row SettingSpec::new(
                "warn_only",
                "ADA2_WARN_ONLY",
                "Checks that only warn instead of making the service not ready, comma-separated (row_remap, ecc, disk …)",
            ).value_name("CHECKS").default_help("none");

            pub engine_output_dir: Option<PathBuf> = Parser::expecting("an absolute path", absolute) =>
            row SettingSpec::new(
                "engine_output_dir",
                "ADA2_ENGINE_OUTPUT_DIR",
                "Directory that the engine writes its images to; the free space of its disk is checked",
            ).requires_restart().value_name("DIR");

            pub min_free_disk: u64 = Parser::expecting("a size like 1GiB, or 0", bytes) =>
            row SettingSpec::new(
                "min_free_disk",
                "ADA2_MIN_FREE_DISK",
                "Not ready with less free space than this on that disk, a warning below twice as much; 0 = off",
            ).with_default("1GiB").value_name("SIZE");

            pub min_free_memory: u64 = Parser::expecting("a size like 1GiB, or 0", bytes) =>
            row SettingSpec::new(
                "min_free_memory",
                "ADA2_MIN_FREE_MEMORY",
                "Not ready with less available host memory than this, a warning below twice as much; 0 = off",
            ).with_default("1GiB").value_name("SIZE");

            pub ecc_mode: Option<bool> = Parser::expecting("any, on or off", any_or_boolean) =>
            row SettingSpec::new("ecc_mode", "ADA2_ECC_MODE", "on or off: warn if the GPU's error correction is set otherwise")
                .with_default("any")
                .removed("ecc warns of a mode that changes at the next reboot; warn_only: ecc keeps it from gating")
                .conflicts_with("warn_only", "ecc");

            pub ecc_errors_gate: bool = Parser::expecting("degraded or not_ready", gates) =>
            row SettingSpec::new(
                "ecc_errors",
                "ADA2_ECC_ERRORS",
                "Uncorrected memory errors from before the start: degraded or not_ready (new ones always gate)",
            )
            .with_default("degraded")
            .removed("errors from before our start warn, new ones gate unless warn_only: ecc")
                .conflicts_with("warn_only", "ecc");

            pub row_remap_pending_gates: bool = Parser::expecting("degraded or not_ready", gates) =>
            row SettingSpec::new(
                "row_remap_pending",
                "ADA2_ROW_REMAP_PENDING",
                "A memory row that a reset will replace: degraded or not_ready",
            )
            .with_default("degraded")
            .removed("a row that waits warns, one that failed gates unless warn_only: row_remap")
                .conflicts_with("warn_only", "row_remap");

            pub row_remap_failure_gates: bool = Parser::expecting("degraded or not_ready", gates) =>
            row SettingSpec::new(
                "row_remap_failure",
                "ADA2_ROW_REMAP_FAILURE",
                "A memory row that could not be replaced: not_ready, or degraded to go on with a faulty GPU",
            ).with_default("not_ready").replaced_by("warn_only", "row_remap");

            pub max_swap_used: u64 = Parser::expecting("a whole number from 1 to 100", whole_number_in::<_, 1, 100>) =>
            row SettingSpec::new("max_swap_used", "ADA2_MAX_SWAP_USED", "A warning above this percentage of swap in use; 100 = off")
                .with_default("90")
                .removed("swap only ever warns; for short memory there is warn_only: host_memory")
                .conflicts_with("warn_only", "host_memory");

            pub max_engine_memory: u64 = Parser::expecting("a size like 48GiB, or 0", bytes) =>
            row SettingSpec::new(
                "max_engine_memory",
                "ADA2_MAX_ENGINE_MEMORY",
                "A warning above this much host memory of the engine's processes; 0 = off",
            )
            .with_default("0")
            .removed("min_free_memory is the floor that gates, unless warn_only: host_memory")
                .conflicts_with("warn_only", "host_memory");
        }
        "Limit requests" {
            pub max_inflight: usize = Parser::expecting("a whole number from 1 to 64", whole_number_in::<_, 1, 64>) =>
            row SettingSpec::new("max_inflight", "ADA2_MAX_INFLIGHT", "Image requests at once; one more gets 429")
                .with_default("4").value_name("NUMBER").common();

            pub request_timeout: Duration = Parser::expecting("a duration from 1s to 1h", duration_in::<1_000, 3_600_000>) =>
            row SettingSpec::new("request_timeout", "ADA2_REQUEST_TIMEOUT", "Timeout of an image request, from 1s to 1h")
                .with_default("270s").value_name("DURATION").common();

            pub max_engine_queue: u64 = Parser::expecting("a whole number from 0 to 1000000", whole_number_in::<_, 0, 1_000_000>) =>
            row SettingSpec::new(
                "max_engine_queue",
                "ADA2_MAX_ENGINE_QUEUE",
                "A request gets 429 while more jobs of other users than this wait in the engine",
            ).with_default("4").value_name("NUMBER");

            pub max_n: u64 = Parser::expecting("a whole number from 1 to 10", whole_number_in::<_, 1, 10>) =>
            row SettingSpec::new("max_n", "ADA2_MAX_N", "Images per request, at most 10")
                .with_default("4").value_name("NUMBER");

            pub max_pixels: u64 = Parser::expecting("a whole number from 4096 to 100000000", whole_number_in::<_, 4_096, 100_000_000>) =>
            row SettingSpec::new("max_pixels", "ADA2_MAX_PIXELS", "Pixels per image")
                .with_default("4194304").value_name("NUMBER");

            pub max_request_bytes: usize = Parser::expecting("a size from 1KiB to 256MiB", request_bytes) =>
            row SettingSpec::new("max_request_bytes", "ADA2_MAX_REQUEST_BYTES", "Size of a request's body, at most 256MiB")
                .with_default("32MiB").value_name("SIZE");

            pub max_upload: Option<u64> = Parser::expecting("a size like 4GiB, or 0", limit_bytes) =>
            row SettingSpec::new(
                "max_upload_bytes",
                "ADA2_MAX_UPLOAD_BYTES",
                "Size of a body sent to the engine's own paths; 0 = no limit",
            ).with_default("0").requires_restart().value_name("SIZE");
        }
        "Protect privacy" {
            pub strip_metadata: bool = Parser::expecting("keep or strip", |text| either(text, "keep", "strip")) =>
            row SettingSpec::new(
                "png_metadata",
                "ADA2_PNG_METADATA",
                "What the engine writes into a PNG: the prompt, the whole workflow",
            ).with_default("keep").value_name("keep|strip");

            pub log_prompts: bool = Parser::expecting("on or off", boolean) =>
            row SettingSpec::new("log_prompts", "ADA2_LOG_PROMPTS", "Whether prompts are written to the log")
                .with_default("off").value_name("on|off");
        }
        "Run the service" {
            pub shutdown_grace: Duration = Parser::expecting("a duration like 30s", duration) =>
            row SettingSpec::new(
                "shutdown_grace",
                "ADA2_SHUTDOWN_GRACE",
                "How long running requests may take to finish after SIGTERM",
            ).with_default("30s").requires_restart().value_name("DURATION");

            row SettingSpec::new(
                "state_dir",
                "ADA2_STATE_DIR",
                "Directory for what outlives a restart: identity and latched errors; STATE_DIRECTORY (systemd) wins",
            ).with_default("/var/lib/ada2-sidecar").requires_restart().value_name("DIR");

            pub log_format: LogFormat = Parser::expecting("text or json", LogFormat::parse) =>
            row SettingSpec::new("log_format", "ADA2_LOG_FORMAT", "Format of the log")
                .with_default("text").requires_restart().value_name("text|json");

            pub log_filter: String = Parser::expecting("a filter like info or ada2_sidecar=debug", log_filter) =>
            row SettingSpec::new("log_filter", "ADA2_LOG", "Which lines are logged, as in RUST_LOG")
                .with_default("info").requires_restart().value_name("FILTER");
        }
    }
}
