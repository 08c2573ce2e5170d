//! One setting: its names, its default, and what may be done with it.

use clap::Arg;

use crate::service::secret::{redacted, redacted_address};

/// One setting.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "marks of a setting that are independent of each other")]
pub struct Key {
    /// The key in the file; with dashes for underscores, the flag.
    pub name: &'static str,
    /// The environment variable.
    pub env: &'static str,
    /// The value if nothing gives one.
    pub default: Option<&'static str>,
    /// Never shown, and not a flag unless the contract wants it: command lines are public.
    pub secret: bool,
    /// Whether the file may hold a map under it, which is then read from its text.
    pub structured: bool,
    /// Whether it cannot change while the service runs.
    pub fixed: bool,
    /// Whether it is an address, which is never shown with user name, password or query.
    pub address: bool,
    /// The flag, where it is not made from the key.
    pub long: Option<&'static str>,
    /// What to do instead, where it is going to be removed in the next version.
    pub outdated: Option<Outdated>,
    /// What it means, for `--help`.
    pub help: &'static str,
}

/// What takes the place of a key that is going to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outdated {
    /// This setting.
    ReplacedBy(&'static str),
    /// Nothing, and why it is not needed.
    Removed(&'static str),
}

impl Key {
    /// A key without default.
    pub const fn new(name: &'static str, env: &'static str, help: &'static str) -> Self {
        Self {
            name,
            env,
            default: None,
            secret: false,
            structured: false,
            fixed: false,
            address: false,
            long: None,
            outdated: None,
            help,
        }
    }

    /// With this default.
    #[must_use]
    pub const fn or(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self
    }

    /// With this flag.
    #[must_use]
    pub const fn long(mut self, flag: &'static str) -> Self {
        self.long = Some(flag);
        self
    }

    /// Never shown.
    #[must_use]
    pub const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// An address, which people put passwords into.
    #[must_use]
    pub const fn address(mut self) -> Self {
        self.address = true;
        self
    }

    /// Read at start only.
    #[must_use]
    pub const fn fixed(mut self) -> Self {
        self.fixed = true;
        self
    }

    /// With a map in the file.
    #[must_use]
    pub const fn structured(mut self) -> Self {
        self.structured = true;
        self
    }

    /// Going to be removed in the next version, in favour of this.
    #[must_use]
    pub const fn replaced_by(mut self, other: &'static str) -> Self {
        self.outdated = Some(Outdated::ReplacedBy(other));
        self
    }

    /// Going to be removed in the next version, for this reason.
    #[must_use]
    pub const fn removed(mut self, why: &'static str) -> Self {
        self.outdated = Some(Outdated::Removed(why));
        self
    }

    /// The flag, without the leading dashes.
    pub fn flag(&self) -> String {
        self.long.map_or_else(|| self.name.to_ascii_lowercase().replace('_', "-"), str::to_owned)
    }

    /// A value of it as it may be shown.
    pub(super) fn shown(&self, value: &str) -> String {
        match value {
            "" => String::new(),
            _ if self.secret => "[redacted]".to_owned(),
            address if self.address => redacted_address(address),
            text => redacted(text),
        }
    }

    /// The command-line argument.
    pub fn arg(&self) -> Arg {
        let default = self.default.map_or_else(String::new, |default| format!(" [default: {default}]"));
        Arg::new(self.name)
            .long(self.flag())
            .value_name("VALUE")
            .global(true)
            .allow_hyphen_values(true)
            .help(format!("{} [env: {}]{default}", self.help, self.env))
            .hide(self.outdated.is_some())
    }
}
