//! The one table of settings, in the order and under the headings of the help.

use service::{
    client_info::PRIVATE_RANGES,
    settings::{SettingSpec, nearest_variable},
};

const NETWORK: &str = "Reach it";
const ACCESS: &str = "Who may use it";
const BACKENDS: &str = "Backends";
const IMAGES: &str = "Images";
const STORE: &str = "Image store";
const TEXT: &str = "Chat and embeddings";
const LIMITS: &str = "Limits";
const OLD: &str = "Old gateway";
const SERVICE: &str = "Service, data and log";

const fn key(group: &'static str, env: &'static str, help: &'static str) -> SettingSpec {
    SettingSpec::new(env, env, help).group(group)
}

/// Every setting. The flag is the name in lower case with dashes.
pub const KEYS: &[SettingSpec] = &[
    key(NETWORK, "GATEWAY_HOST", "Address to listen on; 0.0.0.0 for all networks")
        .with_default("127.0.0.1")
        .requires_restart()
        .value_name("ADDRESS")
        .common(),
    key(NETWORK, "GATEWAY_PORT", "Port; 0 = any free port").with_default("8800").requires_restart().value_name("PORT").common(),
    key(NETWORK, "GATEWAY_TLS", "off: plain HTTP").with_default("on").requires_restart().value_name("on|off").common(),
    key(NETWORK, "GATEWAY_TLS_CERT_PATH", "Certificate chain (PEM)")
        .value_name("FILE")
        .default_help("made by the gateway, see gateway ca"),
    key(NETWORK, "GATEWAY_TLS_KEY_PATH", "Private key of that certificate (PEM)").value_name("FILE"),
    key(NETWORK, "PUBLIC_BASE_URL", "Base URL for absolute image URLs, such as https://ai2.local:8800")
        .url()
        .value_name("URL")
        .default_help("image URLs are relative"),
    key(
        NETWORK,
        "GATEWAY_ALLOWED_HOSTS",
        "Further host names that clients may use for this server, comma-separated; .example.org allows every name below it. \
         IP addresses and private names (ai2, ai2.local) always work",
    )
    .value_name("NAMES"),
    key(
        NETWORK,
        "GATEWAY_ALLOWED_ORIGINS",
        "Web origins whose pages may call this gateway and read its answers, such as https://ui.example.org",
    )
    .value_name("ORIGINS"),
    key(
        NETWORK,
        "TRUST_PROXY_CIDRS",
        "Address ranges (CIDR) of reverse proxies whose X-Forwarded-For, -Proto, -Host, Forwarded and X-Real-IP are trusted",
    )
    .value_name("CIDRS")
    .default_help("none"),
    key(
        ACCESS,
        "GATEWAY_BEARER_TOKEN_FILE",
        "File with the bearer token that clients send; or set GATEWAY_BEARER_TOKEN",
    )
    .value_name("FILE")
    .common(),
    key(ACCESS, "GATEWAY_BEARER_TOKEN", "The bearer token that clients send").secret().no_flag(),
    key(
        ACCESS,
        "GATEWAY_BEARER_TOKENS_FILE",
        "File with several tokens, separated by commas or line ends; or set GATEWAY_BEARER_TOKENS",
    )
    .value_name("FILE"),
    key(
        ACCESS,
        "GATEWAY_BEARER_TOKENS",
        "Several tokens, comma-separated: TOKEN, NAME=TOKEN, or NAME=TOKEN;max=N for at most N requests at once",
    )
    .secret()
    .no_flag(),
    key(
        ACCESS,
        "GATEWAY_OWNER_TOKENS",
        "Names of the tokens that see and delete everybody's images; the others see their own",
    )
    .value_name("NAMES")
    .default_help("the only token there is"),
    key(ACCESS, "GATEWAY_AUTH", "off: clients need no token; allowed on loopback only").with_default("on").value_name("on|off"),
    key(ACCESS, "IP_ALLOWLIST", "Address ranges (CIDR) that may use the API").value_name("CIDRS").default_help("any"),
    key(ACCESS, "UI_IP_ALLOWLIST", "Address ranges (CIDR) that may open /ui and fetch images; empty = nobody")
        .with_default(PRIVATE_RANGES)
        .value_name("CIDRS")
        .default_help("loopback, private, 100.64/10"),
    key(BACKENDS, "BACKENDS_CONFIG", "YAML file of backends")
        .long("backends")
        .value_name("FILE")
        .default_help("backends_config.yaml beside the env file")
        .common(),
    key(BACKENDS, "HEALTH_CHECK_INTERVAL_SEC", "Seconds between probes of a ready backend; others are probed every 2 s")
        .with_default("30")
        .value_name("SECONDS"),
    key(BACKENDS, "HEALTH_CHECK_TIMEOUT_SEC", "Seconds for one probe").with_default("15").value_name("SECONDS"),
    key(
        BACKENDS,
        "HEALTH_CHECK_FAILURE_THRESHOLD",
        "Failed probes in a row after which a ready backend counts as not ready",
    )
    .with_default("3")
    .value_name("NUMBER"),
    key(BACKENDS, "BACKEND_VERIFY_TLS", "Whether backends' certificates are verified").with_default("true").value_name("true|false"),
    key(BACKENDS, "BACKEND_CA_BUNDLE", "Further authorities for backends' certificates (PEM)").value_name("FILE"),
    key(BACKENDS, "BACKEND_CLIENT_CERT", "Client certificate and key for backends (PEM)").value_name("FILE"),
    key(IMAGES, "IMAGES_BACKEND", "http_openai_images, or mock: placeholder images without a GPU")
        .with_default("http_openai_images")
        .value_name("NAME")
        .common(),
    key(IMAGES, "IMAGES_HTTP_BASE_URL", "Address of the image backend, such as http://ada2:7860")
        .url()
        .value_name("URL")
        .default_help("base_url in --backends")
        .common(),
    key(IMAGES, "IMAGES_BACKEND_CLASS", "The one backend class that image requests go to")
        .with_default("gpu_heavy")
        .value_name("CLASS"),
    key(IMAGES, "IMAGES_OPENAI_MODEL", "Model to ask for when a request names none")
        .value_name("NAME")
        .default_help("the backend's own"),
    key(
        IMAGES,
        "IMAGES_GPT_ALIASES_BASE64",
        "Whether requests for gpt-image models get base64 unless they ask for a URL",
    )
    .with_default("true")
    .value_name("true|false"),
    key(STORE, "UI_IMAGE_DIR", "Folder that images are stored in")
        .with_default("/var/lib/gateway/data/ui_images")
        .requires_restart()
        .value_name("FOLDER")
        .common(),
    key(STORE, "UI_IMAGE_STORE_MAX_BYTES", "Delete the oldest images above this size, such as 20GiB; 0 = never")
        .value_name("SIZE")
        .default_help("never"),
    key(STORE, "UI_IMAGE_STORE_MAX_AGE_DAYS", "Delete images older than this many days; 0 = never")
        .value_name("DAYS")
        .default_help("never"),
    key(
        TEXT,
        "MODEL_ALIASES_JSON",
        "Names for models: {\"name\": {\"backend\": …, \"model\": …}}; wins over MODEL_ALIASES_PATH",
    )
    .value_name("JSON"),
    key(TEXT, "MODEL_ALIASES_PATH", "JSON file of the same").value_name("FILE"),
    key(TEXT, "DEFAULT_BACKEND", "Backend class for requests whose model no backend offers")
        .value_name("CLASS")
        .default_help("the first that can serve them"),
    key(LIMITS, "IMAGES_HTTP_TIMEOUT_SEC", "Seconds for a whole image request").with_default("280").value_name("SECONDS"),
    key(LIMITS, "IMAGES_MAX_PIXELS", "Pixels per image; more is 400").with_default("4194304").value_name("NUMBER"),
    key(
        LIMITS,
        "MAX_REQUEST_BYTES",
        "Bytes of a request's body; more is 413. 0 leaves only the 128 MiB that one client may hold",
    )
    .with_default("33554432")
    .value_name("BYTES"),
    key(OLD, "GATEWAY_LEGACY_UPSTREAM", "Address of the old gateway, which gets every path that is not ours")
        .url()
        .value_name("URL")
        .default_help("none"),
    key(OLD, "GATEWAY_LEGACY_BEARER_TOKEN", "Bearer token for the old gateway; clients' tokens are not passed on")
        .secret()
        .no_flag(),
    key(SERVICE, "GATEWAY_DATA_DIR", "Folder for the certificate authority and model lists")
        .with_default("/var/lib/gateway/data")
        .requires_restart()
        .value_name("FOLDER")
        .common(),
    key(SERVICE, "GATEWAY_LOG_FILE", "Log file to append to; SIGHUP reopens it")
        .value_name("FILE")
        .default_help("standard error")
        .common(),
    key(SERVICE, "GATEWAY_LOG_FORMAT", "Format of the log").with_default("text").requires_restart().value_name("text|json"),
    key(
        SERVICE,
        "GATEWAY_METRICS_LISTEN",
        "Address and port that serve /metrics alone, in plain HTTP and without a token, such as 127.0.0.1:8801",
    )
    .requires_restart()
    .value_name("ADDRESS")
    .default_help("none"),
    key(SERVICE, "GATEWAY_SHUTDOWN_GRACE", "How long running requests may take to finish after SIGTERM")
        .with_default("30s")
        .requires_restart()
        .value_name("DURATION"),
];

/// Keys whose blank value says something: nobody may come, or a token was forgotten.
pub(super) const BLANK_IS_SIGNIFICANT: &[&str] =
    &["UI_IP_ALLOWLIST", "GATEWAY_BEARER_TOKEN", "GATEWAY_BEARER_TOKENS", "GATEWAY_LEGACY_BEARER_TOKEN"];

/// The key of ours that a name most likely meant.
pub(super) fn nearest_key(name: &str) -> Option<&'static str> {
    nearest_variable(name, KEYS.iter().map(|key| key.env))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelling_finds_its_key_and_a_stranger_none() {
        assert_eq!(nearest_key("GATEWAY_BEARER_TOKNE"), Some("GATEWAY_BEARER_TOKEN"));
        assert_eq!(nearest_key("gateway-port"), Some("GATEWAY_PORT"));
        assert_eq!(nearest_key("UI_IP_ALLOW_LIST"), Some("UI_IP_ALLOWLIST"));
        for stranger in
            ["OLLAMA_HOST", "UI_IMAGE_TTL_SEC", "UI_IMAGE_MAX_BYTES", "IMAGES_BACKEND_URL", "HOME", "PORT"]
        {
            assert_eq!(nearest_key(stranger), None, "{stranger}");
        }
    }
}
