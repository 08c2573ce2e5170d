//! The one table of settings.

use shared::service::{
    guard::PRIVATE_RANGES,
    settings::{Key, nearest_variable},
};

const fn key(env: &'static str, help: &'static str) -> Key {
    Key::new(env, env, help)
}

/// Every setting. The flag is the name in lower case with dashes.
pub const KEYS: &[Key] = &[
    key("GATEWAY_HOST", "Address to listen on").or("127.0.0.1").fixed(),
    key("GATEWAY_PORT", "Port to listen on; 0 takes a free one").or("8800").fixed(),
    key("GATEWAY_TLS", "on, or off for plain HTTP").or("on").fixed(),
    key(
        "GATEWAY_TLS_CERT_PATH",
        "Certificate chain, PEM; without one the gateway's own authority signs one (see `gateway ca`)",
    ),
    key("GATEWAY_TLS_KEY_PATH", "Its private key, PEM"),
    key("GATEWAY_AUTH", "off asks nobody for a token; only on loopback").or("on"),
    key("GATEWAY_BEARER_TOKEN", "The callers' token").secret(),
    key("GATEWAY_BEARER_TOKEN_FILE", "A file that holds the callers' token instead"),
    key(
        "GATEWAY_BEARER_TOKENS",
        "Comma-separated tokens, each bare, name=token, or name=token;max=N for at most N requests at once",
    )
    .secret(),
    key("GATEWAY_BEARER_TOKENS_FILE", "A file that holds these instead, separated by commas or line ends"),
    key(
        "GATEWAY_OWNER_TOKENS",
        "Names of the tokens that see and delete everybody's pictures [default: the only one there is]",
    ),
    key(
        "GATEWAY_ALLOWED_HOSTS",
        "Further Host names to answer to, besides addresses and private names; .example.org is every name below it",
    ),
    key(
        "GATEWAY_ALLOWED_ORIGINS",
        "Web origins whose pages may call this gateway and read its answers, such as https://ui.example.org",
    ),
    key("IP_ALLOWLIST", "CIDR ranges that may use the API [default: any]"),
    key("UI_IP_ALLOWLIST", "CIDR ranges that may fetch pictures; empty is nobody").or(PRIVATE_RANGES),
    key(
        "TRUST_PROXY_CIDRS",
        "CIDR ranges of proxies whose X-Forwarded-For, -Proto and -Host, Forwarded and X-Real-IP are trusted [default: none]",
    ),
    key("MAX_REQUEST_BYTES", "Longest request body; 0 leaves only the 128 MiB that one caller may hold")
        .or("33554432"),
    key("IMAGES_BACKEND", "http_openai_images, or mock for placeholder pictures without GPU")
        .or("http_openai_images"),
    key("IMAGES_BACKEND_CLASS", "The one backend class that images go to").or("gpu_heavy"),
    key("IMAGES_HTTP_BASE_URL", "Overrides the base_url of that class").address(),
    key("IMAGES_OPENAI_MODEL", "Model to ask for when a request names none"),
    key("IMAGES_MAX_PIXELS", "Most pixels of one picture").or("4194304"),
    key("IMAGES_HTTP_TIMEOUT_SEC", "For a whole image request").or("280"),
    key("IMAGES_GPT_ALIASES_BASE64", "Whether gpt-image names get base64 unless they ask otherwise")
        .or("true"),
    key("UI_IMAGE_DIR", "Where pictures are kept").or("/var/lib/gateway/data/ui_images").fixed(),
    key(
        "UI_IMAGE_STORE_MAX_AGE_DAYS",
        "Delete pictures older than so many days; 0 is no limit [default: none]",
    ),
    key(
        "UI_IMAGE_STORE_MAX_BYTES",
        "Delete the oldest pictures beyond so many bytes, such as 20GiB; 0 is no limit [default: none]",
    ),
    key("PUBLIC_BASE_URL", "Makes picture addresses absolute, for example https://ai2.local:8800").address(),
    key(
        "MODEL_ALIASES_JSON",
        "Names for models of chat and embeddings: {\"name\": {\"backend\": …, \"model\": …}}",
    ),
    key("MODEL_ALIASES_PATH", "JSON file of the same; a name in both means what MODEL_ALIASES_JSON says"),
    key(
        "DEFAULT_BACKEND",
        "Class for chat and embeddings that nothing else leads anywhere [default: the first that can]",
    ),
    key("HEALTH_CHECK_INTERVAL_SEC", "Between probes of a ready backend; others are asked every 2 s")
        .or("30"),
    key("HEALTH_CHECK_TIMEOUT_SEC", "For one probe").or("15"),
    key("HEALTH_CHECK_FAILURE_THRESHOLD", "Unanswered probes until a ready backend counts as not ready")
        .or("3"),
    key(
        "GATEWAY_DATA_DIR",
        "Where the local authority, its certificates and the backends' lists of models are kept",
    )
    .or("/var/lib/gateway/data")
    .fixed(),
    key("GATEWAY_LOG_FILE", "Log file to append to [default: standard error]"),
    key("GATEWAY_LOG_FORMAT", "text, or json for machines").or("text").fixed(),
    key(
        "GATEWAY_METRICS_LISTEN",
        "Address and port that serve /metrics alone, in plain HTTP and without token, such as 127.0.0.1:8801",
    )
    .fixed(),
    key("GATEWAY_SHUTDOWN_GRACE", "How long running requests may take to finish at shutdown")
        .or("30s")
        .fixed(),
    key("GATEWAY_LEGACY_UPSTREAM", "Address of the old gateway: it gets every path that is not ours")
        .address(),
    key(
        "GATEWAY_LEGACY_BEARER_TOKEN",
        "The token that the old gateway asks for; a caller's is not passed on",
    )
    .secret(),
    key("BACKEND_VERIFY_TLS", "Whether backends' certificates are checked").or("true"),
    key("BACKEND_CA_BUNDLE", "PEM file of further authorities that backends' certificates may come from"),
    key("BACKEND_CLIENT_CERT", "PEM file of certificate and key to show to backends"),
    key("BACKENDS_CONFIG", "YAML file of backends [default: backends_config.yaml beside the env file]")
        .long("backends"),
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
