//! Why the engine cannot be reached, and where it listens instead.

use std::net::SocketAddr;

use service::{doctor::Finding, secret::redact_url};

use super::EngineFacts;
use crate::{commands::systemd::SystemdUnit, engine::EngineError, port};

impl EngineFacts<'_> {
    pub(super) fn reachability_finding(&self) -> Finding {
        const NAME: &str = "engine";
        let url = redact_url(self.url);
        let (kind, url) = (self.config.engine.name(), url.trim_end_matches('/'));
        let fail = |message: String, fix: String| Finding::fail(NAME, message, fix);
        let error =
            self.identity.as_ref().err().or(self.models.as_ref().and_then(|models| models.as_ref().err()));
        let Some(error) = error else { return Finding::ok(NAME, format!("{kind} answers at {url}")) };
        match error {
            EngineError::LoginRequired(cause) if self.config.engine_login.is_some() => fail(
                format!("{kind} at {url} asks for a login: {cause}"),
                "correct the two lines of engine_auth_file, then sudo ada2-sidecar reload".to_owned(),
            ),
            EngineError::LoginRequired(_) => match self.config.engine.fixes().and_then(|fixes| fixes.login) {
                Some(fix) => fail(
                    format!("{kind} at {url} requires a login (its multi-user mode is on)"),
                    format!(
                        "write user name and password, one line each, into a file, and {}; or {fix}, then \
                         sudo systemctl restart {}",
                        self.fixes.setting("engine_auth_file", "/etc/ada2-sidecar/engine_auth"),
                        self.config.engine_unit
                    ),
                ),
                None => fail(
                    format!("{kind} at {url} requires a login"),
                    self.fixes.edit("name the address of the engine itself as engine_url in"),
                ),
            },
            EngineError::HostUnresolved(_) => fail(
                format!("{error} (engine_url {url})"),
                self.fixes.edit("correct the name in engine_url in"),
            ),
            EngineError::Unresponsive(_) if self.reachable_from_service => Finding::skip(
                NAME,
                format!(
                    "{kind} at {url} is busy and does not answer now ({error}); the service reached it a moment ago"
                ),
            ),
            EngineError::Unresponsive(_) => fail(
                format!("{kind} at {url} does not answer ({error})"),
                format!("sudo systemctl restart {}", self.config.engine_unit),
            ),
            EngineError::ConnectionRefused(_) => self.connection_refused(url),
            _ => self.unexpected_response(url, error),
        }
    }

    fn connection_refused(&self, url: &str) -> Finding {
        const NAME: &str = "engine";
        let unit = &self.config.engine_unit;
        let message = format!("nothing listens at {url}");
        if let Some(elsewhere) = self.actual_address() {
            return Finding::fail(
                NAME,
                format!("{message}; {unit} listens at {elsewhere}"),
                self.engine_url_fix(elsewhere),
            );
        }
        let state = self.unit.as_ref().map_or("", |unit| unit.get("ActiveState"));
        let loaded = self.unit.as_ref().is_some_and(SystemdUnit::is_loaded);
        match state {
            _ if !loaded => Finding::fail(
                NAME,
                format!("{message}, and there is no {unit}"),
                self.fixes.edit("start the engine, or correct engine_url and engine_unit in"),
            ),
            "active" | "reloading" => Finding::fail(
                NAME,
                format!("{message}; {unit} is active and may still be starting"),
                format!("sudo journalctl -u {unit} -n 30 # then run doctor again in a minute"),
            ),
            "failed" => {
                let result = self.unit.as_ref().map_or("", |unit| unit.get("Result"));
                Finding::fail(
                    NAME,
                    format!("{message}: {unit} failed ({result})"),
                    format!("sudo journalctl -u {unit} -n 30; sudo systemctl restart {unit}"),
                )
            }
            "activating" => Finding::fail(
                NAME,
                format!("{message}: {unit} is starting, or restarts again and again"),
                format!("sudo journalctl -u {unit} -n 30"),
            ),
            _ => Finding::fail(
                NAME,
                format!("{message}: {unit} is not running"),
                format!("sudo systemctl enable --now {unit}"),
            ),
        }
    }

    fn unexpected_response(&self, url: &str, error: &EngineError) -> Finding {
        const NAME: &str = "engine";
        let who = match &self.listener {
            Some(port::Process { name, pid, .. }) => {
                format!("; {name} (pid {pid}) listens there")
            }
            None => String::new(),
        };
        // InvokeAI takes the next port if its own is taken, and says so only in its log.
        match self.actual_address() {
            Some(elsewhere) => Finding::fail(
                NAME,
                format!("at {url}: {error}{who}, and {} listens at {elsewhere}", self.config.engine_unit),
                self.engine_url_fix(elsewhere),
            ),
            None => Finding::fail(
                NAME,
                format!("at {url}: {error}{who}"),
                self.fixes.edit("correct engine and engine_url in"),
            ),
        }
    }

    /// Another address at which the engine's unit listens.
    fn actual_address(&self) -> Option<SocketAddr> {
        let expected = self.url.port_or_known_default();
        let mut others = self.unit_listeners.iter().filter(|address| Some(address.port()) != expected);
        // Of several addresses it is not known which one is the engine's.
        let only = others.next().filter(|_| others.next().is_none() && self.unit_listeners.len() == 1)?;
        Some(*only)
    }

    fn engine_url_fix(&self, elsewhere: SocketAddr) -> String {
        let host =
            if elsewhere.ip().is_unspecified() { "127.0.0.1".to_owned() } else { elsewhere.ip().to_string() };
        self.fixes.setting("engine_url", &format!("http://{host}:{}", elsewhere.port()))
    }
}
