//! The one table of settings, in the order and under the headings of the help.

use service::{
    guard::PRIVATE_RANGES,
    settings::{Key, nearest_variable},
};

const REACH: &str = "Reach it";
const ACCESS: &str = "Who may use it";
const BACKENDS: &str = "Backends";
const IMAGES: &str = "Images";
const STORE: &str = "Image store";
const TEXT: &str = "Chat and embeddings";
const LIMITS: &str = "Limits";
const OLD: &str = "Old gateway";
const SERVICE: &str = "Service, data and log";

const fn key(group: &'static str, env: &'static str, help: &'static str) -> Key {
    Key::new(env, env, help).group(group)
}

/// Every setting. The flag is the name in lower case with dashes.
pub const KEYS: &[Key] = &[
    key(REACH, "GATEWAY_HOST", "Address to listen on; 0.0.0.0 for all networks")
        .or("127.0.0.1")
        .fixed()
        .value("ADDRESS")
        .common(),
    key(REACH, "GATEWAY_PORT", "Port; 0 = any free port").or("8800").fixed().value("PORT").common(),
    key(REACH, "GATEWAY_TLS", "off: plain HTTP").or("on").fixed().value("on|off").common(),
    key(REACH, "GATEWAY_TLS_CERT_PATH", "Certificate chain (PEM)")
        .value("FILE")
        .default_words("made by the gateway, see gateway ca"),
    key(REACH, "GATEWAY_TLS_KEY_PATH", "Private key of that certificate (PEM)").value("FILE"),
    key(REACH, "PUBLIC_BASE_URL", "Base URL for absolute image URLs, such as https://ai2.local:8800")
        .address()
        .value("URL")
        .default_words("image URLs are relative"),
    key(
        REACH,
        "GATEWAY_ALLOWED_HOSTS",
        "Further host names that clients may use for this server, comma-separated; .example.org allows every name below it. \
         IP addresses and private names (ai2, ai2.local) always work",
    )
    .value("NAMES"),
    key(
        REACH,
        "GATEWAY_ALLOWED_ORIGINS",
        "Web origins whose pages may call this gateway and read its answers, such as https://ui.example.org",
    )
    .value("ORIGINS"),
    key(
        REACH,
        "TRUST_PROXY_CIDRS",
        "Address ranges (CIDR) of reverse proxies whose X-Forwarded-For, -Proto, -Host, Forwarded and X-Real-IP are trusted",
    )
    .value("CIDRS")
    .default_words("none"),
    key(
        ACCESS,
        "GATEWAY_BEARER_TOKEN_FILE",
        "File with the bearer token that clients send; or set GATEWAY_BEARER_TOKEN",
    )
    .value("FILE")
    .common(),
    key(ACCESS, "GATEWAY_BEARER_TOKEN", "The bearer token that clients send").secret().flagless(),
    key(
        ACCESS,
        "GATEWAY_BEARER_TOKENS_FILE",
        "File with several tokens, separated by commas or line ends; or set GATEWAY_BEARER_TOKENS",
    )
    .value("FILE"),
    key(
        ACCESS,
        "GATEWAY_BEARER_TOKENS",
        "Several tokens, comma-separated: TOKEN, NAME=TOKEN, or NAME=TOKEN;max=N for at most N requests at once",
    )
    .secret()
    .flagless(),
    key(
        ACCESS,
        "GATEWAY_OWNER_TOKENS",
        "Names of the tokens that see and delete everybody's images; the others see their own",
    )
    .value("NAMES")
    .default_words("the only token there is"),
    key(ACCESS, "GATEWAY_AUTH", "off: clients need no token; allowed on loopback only").or("on").value("on|off"),
    key(ACCESS, "IP_ALLOWLIST", "Address ranges (CIDR) that may use the API").value("CIDRS").default_words("any"),
    key(ACCESS, "UI_IP_ALLOWLIST", "Address ranges (CIDR) that may open /ui and fetch images; empty = nobody")
        .or(PRIVATE_RANGES)
        .value("CIDRS")
        .default_words("loopback, private, 100.64/10"),
    key(BACKENDS, "BACKENDS_CONFIG", "YAML file of backends")
        .long("backends")
        .value("FILE")
        .default_words("backends_config.yaml beside the env file")
        .common(),
    key(BACKENDS, "HEALTH_CHECK_INTERVAL_SEC", "Seconds between probes of a ready backend; others are probed every 2 s")
        .or("30")
        .value("SECONDS"),
    key(BACKENDS, "HEALTH_CHECK_TIMEOUT_SEC", "Seconds for one probe").or("15").value("SECONDS"),
    key(
        BACKENDS,
        "HEALTH_CHECK_FAILURE_THRESHOLD",
        "Failed probes in a row after which a ready backend counts as not ready",
    )
    .or("3")
    .value("NUMBER"),
    key(BACKENDS, "BACKEND_VERIFY_TLS", "Whether backends' certificates are verified").or("true").value("true|false"),
    key(BACKENDS, "BACKEND_CA_BUNDLE", "Further authorities for backends' certificates (PEM)").value("FILE"),
    key(BACKENDS, "BACKEND_CLIENT_CERT", "Client certificate and key for backends (PEM)").value("FILE"),
    key(IMAGES, "IMAGES_BACKEND", "http_openai_images, or mock: placeholder images without a GPU")
        .or("http_openai_images")
        .value("NAME")
        .common(),
    key(IMAGES, "IMAGES_HTTP_BASE_URL", "Address of the image backend, such as http://ada2:7860")
        .address()
        .value("URL")
        .default_words("base_url in --backends")
        .common(),
    key(IMAGES, "IMAGES_BACKEND_CLASS", "The one backend class that image requests go to")
        .or("gpu_heavy")
        .value("CLASS"),
    key(IMAGES, "IMAGES_OPENAI_MODEL", "Model to ask for when a request names none")
        .value("NAME")
        .default_words("the backend's own"),
    key(
        IMAGES,
        "IMAGES_GPT_ALIASES_BASE64",
        "Whether requests for gpt-image models get base64 unless they ask for a URL",
    )
    .or("true")
    .value("true|false"),
    key(STORE, "UI_IMAGE_DIR", "Folder that images are stored in")
        .or("/var/lib/gateway/data/ui_images")
        .fixed()
        .value("FOLDER")
        .common(),
    key(STORE, "UI_IMAGE_STORE_MAX_BYTES", "Delete the oldest images above this size, such as 20GiB; 0 = never")
        .value("SIZE")
        .default_words("never"),
    key(STORE, "UI_IMAGE_STORE_MAX_AGE_DAYS", "Delete images older than this many days; 0 = never")
        .value("DAYS")
        .default_words("never"),
    key(
        TEXT,
        "MODEL_ALIASES_JSON",
        "Names for models: {\"name\": {\"backend\": …, \"model\": …}}; wins over MODEL_ALIASES_PATH",
    )
    .value("JSON"),
    key(TEXT, "MODEL_ALIASES_PATH", "JSON file of the same").value("FILE"),
    key(TEXT, "DEFAULT_BACKEND", "Backend class for requests whose model no backend offers")
        .value("CLASS")
        .default_words("the first that can serve them"),
    key(LIMITS, "IMAGES_HTTP_TIMEOUT_SEC", "Seconds for a whole image request").or("280").value("SECONDS"),
    key(LIMITS, "IMAGES_MAX_PIXELS", "Pixels per image; more is 400").or("4194304").value("NUMBER"),
    key(
        LIMITS,
        "MAX_REQUEST_BYTES",
        "Bytes of a request's body; more is 413. 0 leaves only the 128 MiB that one client may hold",
    )
    .or("33554432")
    .value("BYTES"),
    key(OLD, "GATEWAY_LEGACY_UPSTREAM", "Address of the old gateway, which gets every path that is not ours")
        .address()
        .value("URL")
        .default_words("none"),
    key(OLD, "GATEWAY_LEGACY_BEARER_TOKEN", "Bearer token for the old gateway; clients' tokens are not passed on")
        .secret()
        .flagless(),
    key(SERVICE, "GATEWAY_DATA_DIR", "Folder for the certificate authority and model lists")
        .or("/var/lib/gateway/data")
        .fixed()
        .value("FOLDER")
        .common(),
    key(SERVICE, "GATEWAY_LOG_FILE", "Log file to append to; SIGHUP reopens it")
        .value("FILE")
        .default_words("standard error")
        .common(),
    key(SERVICE, "GATEWAY_LOG_FORMAT", "Format of the log").or("text").fixed().value("text|json"),
    key(
        SERVICE,
        "GATEWAY_METRICS_LISTEN",
        "Address and port that serve /metrics alone, in plain HTTP and without a token, such as 127.0.0.1:8801",
    )
    .fixed()
    .value("ADDRESS")
    .default_words("none"),
    key(SERVICE, "GATEWAY_SHUTDOWN_GRACE", "How long running requests may take to finish after SIGTERM")
        .or("30s")
        .fixed()
        .value("DURATION"),
];

/// Keys whose blank value says something: nobody may come, or a token was forgotten.
pub(super) const BLANK_COUNTS: &[&str] =
    &["UI_IP_ALLOWLIST", "GATEWAY_BEARER_TOKEN", "GATEWAY_BEARER_TOKENS", "GATEWAY_LEGACY_BEARER_TOKEN"];

/// The key of ours that a name most likely meant.
pub(super) fn meant(name: &str) -> Option<&'static str> {
    nearest_variable(name, KEYS.iter().map(|key| key.env))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelling_finds_its_key_and_a_stranger_none() {
        assert_eq!(meant("GATEWAY_BEARER_TOKNE"), Some("GATEWAY_BEARER_TOKEN"));
        assert_eq!(meant("gateway-port"), Some("GATEWAY_PORT"));
        assert_eq!(meant("UI_IP_ALLOW_LIST"), Some("UI_IP_ALLOWLIST"));
        for stranger in
            ["OLLAMA_HOST", "UI_IMAGE_TTL_SEC", "UI_IMAGE_MAX_BYTES", "IMAGES_BACKEND_URL", "HOME", "PORT"]
        {
            assert_eq!(meant(stranger), None, "{stranger}");
        }
    }
}
