//! Why the engine cannot be used, and where it is instead.

use std::net::SocketAddr;

use service::{doctor::Finding, secret::redacted_url};

use super::{Facts, clean};
use crate::{commands::doctor::unit::Unit, config::EngineKind, engine::EngineError, port};

impl Facts<'_> {
    pub(super) fn reached(&self) -> Finding {
        const NAME: &str = "engine";
        let shown = redacted_url(self.url);
        let (kind, shown) = (self.config.engine.name(), shown.trim_end_matches('/'));
        let fail = |message: String, fix: String| Finding::fail(NAME, message, fix);
        let fault =
            self.identity.as_ref().err().or(self.models.as_ref().and_then(|models| models.as_ref().err()));
        let Some(error) = fault else { return Finding::ok(NAME, format!("{kind} answers at {shown}")) };
        let why = clean(&error.to_string());
        match error {
            EngineError::LoginRequired(_) if self.config.engine == EngineKind::InvokeAi => {
                let fix = format!(
                    "write multiuser: false into its invokeai.yaml, then sudo systemctl restart {}",
                    self.config.engine_unit
                );
                fail(format!("{kind} at {shown} asks for a login (its multi-user mode is on)"), fix)
            }
            EngineError::LoginRequired(_) => fail(
                format!("{kind} at {shown} asks for a login"),
                self.fixes.edit("name the address of the engine itself as engine_url in"),
            ),
            EngineError::Unresolved(_) => fail(
                format!("{why} (engine_url {shown})"),
                self.fixes.edit("correct the name in engine_url in"),
            ),
            EngineError::NoAnswer(_) if self.service_reaches_it => Finding::skip(
                NAME,
                format!(
                    "{kind} at {shown} is busy and does not answer now ({why}); the service reached it a moment ago"
                ),
            ),
            EngineError::NoAnswer(_) => fail(
                format!("{kind} at {shown} does not answer ({why})"),
                format!("sudo systemctl restart {}", self.config.engine_unit),
            ),
            EngineError::Refused(_) => self.refused(shown),
            _ => self.strange(shown, &why),
        }
    }

    /// Nobody listens there.
    fn refused(&self, shown: &str) -> Finding {
        const NAME: &str = "engine";
        let unit = &self.config.engine_unit;
        let nobody = format!("nothing listens at {shown}");
        if let Some(elsewhere) = self.elsewhere() {
            return Finding::fail(
                NAME,
                format!("{nobody}; {unit} listens at {elsewhere}"),
                self.other_address(elsewhere),
            );
        }
        let state = self.unit.as_ref().map_or("", |unit| unit.get("ActiveState"));
        let loaded = self.unit.as_ref().is_some_and(Unit::is_loaded);
        match state {
            _ if !loaded => Finding::fail(
                NAME,
                format!("{nobody}, and there is no {unit}"),
                self.fixes.edit("start the engine, or correct engine_url and engine_unit in"),
            ),
            "active" | "reloading" => Finding::fail(
                NAME,
                format!("{nobody}; {unit} runs: it may still be starting"),
                format!("wait a minute and look again; sudo journalctl -u {unit} -n 30"),
            ),
            "failed" => {
                let result = self.unit.as_ref().map_or("", |unit| unit.get("Result"));
                Finding::fail(
                    NAME,
                    format!("{nobody}: {unit} failed ({})", clean(result)),
                    format!("sudo journalctl -u {unit} -n 30; then sudo systemctl restart {unit}"),
                )
            }
            "activating" => Finding::fail(
                NAME,
                format!("{nobody}: {unit} is being started again and again, or for the first time"),
                format!("sudo journalctl -u {unit} -n 30"),
            ),
            _ => Finding::fail(
                NAME,
                format!("{nobody}: {unit} does not run"),
                format!("sudo systemctl enable --now {unit}"),
            ),
        }
    }

    /// Something else answers there.
    fn strange(&self, shown: &str, why: &str) -> Finding {
        const NAME: &str = "engine";
        let who = match &self.holder {
            Some(port::Process { name, pid, .. }) => format!("; {} (pid {pid}) listens there", clean(name)),
            None => String::new(),
        };
        // InvokeAI takes the next port where its own is taken, and says so in its log only.
        match self.elsewhere() {
            Some(elsewhere) => Finding::fail(
                NAME,
                format!("at {shown}: {why}{who}, and {} at {elsewhere}", self.config.engine_unit),
                self.other_address(elsewhere),
            ),
            None => Finding::fail(
                NAME,
                format!("at {shown}: {why}{who}"),
                self.fixes.edit("correct engine and engine_url in"),
            ),
        }
    }

    /// Another address at which the unit of the engine listens.
    fn elsewhere(&self) -> Option<SocketAddr> {
        let expected = self.url.port_or_known_default();
        let mut others = self.listens.iter().filter(|address| Some(address.port()) != expected);
        // One that listens where it should is not elsewhere, and of several nobody knows which is meant.
        let only = others.next().filter(|_| others.next().is_none() && self.listens.len() == 1)?;
        Some(*only)
    }

    fn other_address(&self, elsewhere: SocketAddr) -> String {
        let host =
            if elsewhere.ip().is_unspecified() { "127.0.0.1".to_owned() } else { elsewhere.ip().to_string() };
        self.fixes.setting("engine_url", &format!("http://{host}:{}", elsewhere.port()))
    }
}
