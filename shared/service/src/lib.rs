//! What a long-running HTTP service needs, whatever it serves: used by both binaries, free of their policy.

pub mod body;
pub mod client_info;
pub mod clock;
pub mod command_line;
pub mod cors;
pub mod descriptors;
pub mod doctor;
pub mod expiring;
pub mod files;
pub mod framing;
pub mod guard;
pub mod lifecycle;
pub mod multipart;
pub mod nearest_route;
pub mod outbound;
pub mod parsing;
pub mod proxy_headers;
pub mod reload;
pub mod request_id;
pub mod secret;
pub mod serve;
pub mod settings;
pub mod slots;
pub mod subprocess;
pub mod telemetry;
pub mod text;
