//! The table of settings, under the headings of the help. A row is the only place where a setting is declared; its value is
//! read as `config.<field>`, or as a field of its section.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use ipnet::IpNet;
use reqwest::{Certificate, Identity};
use service::{
    client_info::PRIVATE_RANGES,
    guard::Guard,
    settings::{Parser, SettingSpec, boolean, bytes, duration, limit_bytes, nearest_variable},
    telemetry::LogFormat,
};

use super::{
    images::ImageEngine,
    parsers::{RANGES, host, limit_days, path, positive, public_base_url, ranges, socket, trimmed},
    pem_files,
    tokens::Token,
};

const fn key(env: &'static str, help: &'static str) -> SettingSpec {
    SettingSpec::new(env, env, help)
}

service::settings! {
    /// Every setting. The flag is the name in lower case with dashes.
    pub const KEYS;

    /// The settings without a section of their own.
    #[derive(Debug, Clone)]
    #[expect(missing_docs, reason = "the help of a row says what its field is")]
    pub struct SettingValues {
        "Make it reachable" {
            pub host: String = Parser::expecting("an IP address, or localhost", host) =>
            row key("GATEWAY_HOST", "Address to listen on; 0.0.0.0 for all networks")
                .with_default("127.0.0.1").requires_restart().value_name("ADDRESS").common();

            pub port: u16 = Parser::expecting("a port number", |text| text.parse().ok()) =>
            row key("GATEWAY_PORT", "Port; 0 = any free port")
                .with_default("8800").requires_restart().value_name("PORT").common();

            row key("GATEWAY_TLS", "off: plain HTTP")
                .with_default("on").requires_restart().value_name("on|off").common();

            row key("GATEWAY_TLS_CERT_PATH", "Certificate chain (PEM)")
                .value_name("FILE").default_help("made by the gateway, see gateway ca");

            row key("GATEWAY_TLS_KEY_PATH", "Private key of that certificate (PEM)").value_name("FILE");

            pub public_base_url: Option<String> = Parser::explaining(public_base_url) =>
            row key("PUBLIC_BASE_URL", "Base URL for absolute image URLs, such as https://ai2.local:8800")
                .url().value_name("URL").default_help("image URLs are relative");

            row key(
                "GATEWAY_ALLOWED_HOSTS",
                "Further host names that clients may use for this server, comma-separated; .example.org allows every name below it. \
                 IP addresses and private names (ai2, ai2.local) always work",
            ).value_name("NAMES");

            row key(
                "GATEWAY_ALLOWED_ORIGINS",
                "Web origins whose pages may call this gateway and read its answers, such as https://ui.example.org",
            ).value_name("ORIGINS");
        }
        "Control access" {
            row key(
                "GATEWAY_BEARER_TOKEN_FILE",
                "File with the bearer token that clients send; or set GATEWAY_BEARER_TOKEN",
            ).value_name("FILE").common();

            row key("GATEWAY_BEARER_TOKEN", "The bearer token that clients send").secret().no_flag();

            row key(
                "GATEWAY_BEARER_TOKENS_FILE",
                "File with several tokens, separated by commas or line ends; or set GATEWAY_BEARER_TOKENS",
            ).value_name("FILE");

            row key(
                "GATEWAY_BEARER_TOKENS",
                "Several tokens, comma-separated: TOKEN, NAME=TOKEN, or NAME=TOKEN;max=N for at most N requests at once",
            ).secret().no_flag();

            row key(
                "GATEWAY_OWNER_TOKENS",
                "Names of the tokens that see and delete everybody's images; the others see their own",
            ).value_name("NAMES").default_help("the only token, if there is one");
        }
        "Connect backends" {
            row key("BACKENDS_CONFIG", "YAML file of backends")
                .long("backends").value_name("FILE")
                .default_help("backends_config.yaml beside the env file").common();
        }
        "Serve images" {
            row key("IMAGES_HTTP_BASE_URL", "Address of the image backend, such as http://ada2:7860")
                .url().value_name("URL").default_help("base_url in --backends").common();
        }
        "Store images" {
            pub store_dir: PathBuf = Parser::expecting("a directory", path) =>
            row key("UI_IMAGE_DIR", "Directory that images are stored in")
                .with_default("/var/lib/gateway/data/ui_images").requires_restart().value_name("DIR")
                .common();

            pub store_max_bytes: Option<u64> =
                Parser::expecting("a number of bytes such as 20GiB; 0 or nothing is no limit", limit_bytes).or_default() =>
            row key(
                "UI_IMAGE_STORE_MAX_BYTES",
                "Delete the oldest images above this size, such as 20GiB; 0 = never",
            ).value_name("SIZE").default_help("never");

            pub store_max_age: Option<Duration> =
                Parser::expecting("a number of days; 0 or nothing is no limit", limit_days).or_default() =>
            row key("UI_IMAGE_STORE_MAX_AGE_DAYS", "Delete images older than this many days; 0 = never")
                .value_name("DAYS").default_help("never");

            pub record_settings: bool = Parser::expecting("on or off", boolean) =>
            row key(
                "UI_IMAGE_SETTINGS",
                "Whether each image's prompt and settings are kept beside it; off: only its owner and request",
            ).with_default("on").value_name("on|off");
        }
        "Route chat and embeddings" {
            row key(
                "MODEL_ALIASES_JSON",
                "Names for models: {\"name\": {\"backend\": …, \"model\": …}}; wins over MODEL_ALIASES_PATH",
            ).value_name("JSON");

            row key("MODEL_ALIASES_PATH", "JSON file of such names").value_name("FILE");

            row key("DEFAULT_BACKEND", "Backend class for requests whose model no backend offers")
                .value_name("CLASS").default_help("the first that can serve them");
        }
        "Limit requests" {
            pub max_request_bytes: usize = Parser::expecting("a number of bytes", |text| bytes(text)?.try_into().ok()) =>
            row key(
                "MAX_REQUEST_BYTES",
                "Bytes of a request's body; more is 413. 0 leaves only the 128 MiB that one client may hold",
            ).with_default("33554432").value_name("BYTES");
        }
        "Keep an old gateway" {
            row key(
                "GATEWAY_LEGACY_UPSTREAM",
                "Address of an old gateway, which gets every path that this one does not serve",
            ).url().value_name("URL").default_help("none");

            row key(
                "GATEWAY_LEGACY_BEARER_TOKEN",
                "Bearer token for the old gateway; clients' tokens are not passed on",
            ).secret().no_flag();
        }
        "Run the service" {
            pub data_dir: PathBuf = Parser::expecting("a directory", path) =>
            row key("GATEWAY_DATA_DIR", "Directory for the certificate authority and model lists")
                .with_default("/var/lib/gateway/data").requires_restart().value_name("DIR").common();

            pub metrics_listen: Option<SocketAddr> = Parser::expecting("an IP address with a port, such as 127.0.0.1:8801", socket) =>
            row key(
                "GATEWAY_METRICS_LISTEN",
                "Address and port that serve /metrics alone, in plain HTTP and without a token, such as 127.0.0.1:8801",
            ).requires_restart().value_name("ADDRESS").default_help("none");

            pub shutdown_grace: Duration = Parser::expecting("a time such as 30s", duration) =>
            row key("GATEWAY_SHUTDOWN_GRACE", "How long running requests may take to finish after SIGTERM")
                .with_default("30s").requires_restart().value_name("DURATION");
        }
    }

    /// Who may use the gateway.
    #[derive(Debug, Clone)]
    #[expect(missing_docs, reason = "the help of a row says what its field is")]
    pub struct AccessConfig {
        "Make it reachable" {
            pub trusted_proxies: Vec<IpNet> = Parser::expecting(RANGES, ranges).or_default() =>
            row key(
                "TRUST_PROXY_CIDRS",
                "Address ranges (CIDR) of reverse proxies whose X-Forwarded-For, -Proto, -Host, Forwarded and X-Real-IP are trusted",
            ).value_name("CIDRS").default_help("none");
        }
        "Control access" {
            pub auth_required: bool = Parser::expecting("on or off", boolean) =>
            row key("GATEWAY_AUTH", "off: clients need no token; allowed on loopback only")
                .with_default("on").value_name("on|off");

            pub api_ranges: Vec<IpNet> = Parser::expecting(RANGES, ranges).or_default() =>
            row key("IP_ALLOWLIST", "Address ranges (CIDR) that may use the API")
                .value_name("CIDRS").default_help("any");

            pub ui_ranges: Vec<IpNet> = Parser::expecting(RANGES, ranges) =>
            row key(
                "UI_IP_ALLOWLIST",
                "Address ranges (CIDR) that may open /ui and fetch images; empty = nobody",
            ).with_default(PRIVATE_RANGES).value_name("CIDRS").default_help("loopback, private, 100.64/10");
        }
    } with {
        /// The clients' tokens; empty without authentication.
        tokens: Vec<Arc<Token>>,
        /// The allowed host names and origins.
        guard: Guard,
    }

    /// When a backend counts as ready.
    #[derive(Debug, Clone, Copy)]
    #[expect(missing_docs, reason = "the help of a row says what its field is")]
    pub struct ProbeRules {
        "Connect backends" {
            pub interval: Duration = Parser::expecting("a time in seconds", duration) =>
            row key(
                "HEALTH_CHECK_INTERVAL_SEC",
                "Seconds between probes of a ready backend; others are probed every 2 s",
            ).with_default("30").value_name("SECONDS");

            pub timeout: Duration = Parser::expecting("a time in seconds", duration) =>
            row key("HEALTH_CHECK_TIMEOUT_SEC", "Timeout of one probe, in seconds")
                .with_default("15").value_name("SECONDS");

            pub threshold: u32 = Parser::expecting("a whole number above 0", positive) =>
            row key(
                "HEALTH_CHECK_FAILURE_THRESHOLD",
                "Failed probes in a row after which a ready backend counts as not ready",
            ).with_default("3").value_name("NUMBER");
        }
    }

    /// How backends' certificates are verified, and our client certificate.
    #[derive(Debug, Clone)]
    #[expect(missing_docs, reason = "the help of a row says what its field is")]
    pub struct OutboundTls {
        "Connect backends" {
            pub verify_certificates: bool = Parser::expecting("true or false", boolean) =>
            row key("BACKEND_VERIFY_TLS", "Whether backends' certificates are verified")
                .with_default("true").value_name("true|false");

            pub root_certificates: Vec<Certificate> = Parser::explaining(pem_files::certificates).or_default() =>
            row key("BACKEND_CA_BUNDLE", "Additional certificate authorities for backends (PEM)")
                .value_name("FILE");

            pub identity: Option<Identity> = Parser::explaining(pem_files::identity) =>
            row key("BACKEND_CLIENT_CERT", "Client certificate and key for backends (PEM)").value_name("FILE");
        }
    }

    /// The images route.
    #[derive(Debug, Clone)]
    #[expect(missing_docs, reason = "the help of a row says what its field is")]
    pub struct ImagesConfig {
        "Serve images" {
            pub engine: ImageEngine = Parser::expecting("http_openai_images or mock", ImageEngine::parse) =>
            row key("IMAGES_BACKEND", "http_openai_images, or mock: placeholder images without a GPU")
                .with_default("http_openai_images").value_name("NAME").common();

            pub class: String = Parser::expecting("a backend class", trimmed) =>
            row key("IMAGES_BACKEND_CLASS", "The one backend class that image requests go to")
                .with_default("gpu_heavy").value_name("CLASS");

            pub model: Option<String> = Parser::expecting("a model's name", trimmed) =>
            row key("IMAGES_OPENAI_MODEL", "Model for requests that name none")
                .value_name("NAME").default_help("the backend's own");

            pub gpt_aliases_base64: bool = Parser::expecting("true or false", boolean) =>
            row key(
                "IMAGES_GPT_ALIASES_BASE64",
                "Whether requests for gpt-image models get base64 unless they ask for a URL",
            ).with_default("true").value_name("true|false");
        }
        "Limit requests" {
            pub timeout: Duration = Parser::expecting("a time in seconds", duration) =>
            row key("IMAGES_HTTP_TIMEOUT_SEC", "Timeout of an image request, in seconds")
                .with_default("280").value_name("SECONDS");

            pub max_pixels: u64 = Parser::expecting("a number of pixels above 0", positive) =>
            row key("IMAGES_MAX_PIXELS", "Pixels per image; more is 400")
                .with_default("4194304").value_name("NUMBER");
        }
    }

    /// The log.
    #[derive(Debug, Clone)]
    #[expect(missing_docs, reason = "the help of a row says what its field is")]
    pub struct LogConfig {
        "Run the service" {
            pub file: Option<PathBuf> = Parser::expecting("a file", path) =>
            row key("GATEWAY_LOG_FILE", "Log file to append to; SIGHUP reopens it")
                .value_name("FILE").default_help("standard error").common();

            pub format: LogFormat = Parser::expecting("text or json", LogFormat::parse) =>
            row key("GATEWAY_LOG_FORMAT", "Format of the log")
                .with_default("text").requires_restart().value_name("text|json");
        }
    }
}

/// Keys whose blank value is significant: it means "nobody", or a token that was forgotten.
pub(super) const BLANK_IS_SIGNIFICANT: &[&str] =
    &["UI_IP_ALLOWLIST", "GATEWAY_BEARER_TOKEN", "GATEWAY_BEARER_TOKENS", "GATEWAY_LEGACY_BEARER_TOKEN"];

/// The key that a misspelled name probably means.
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
