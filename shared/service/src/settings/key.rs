//! One setting: its names, its default, and what may be done with it.

use clap::Arg;

use super::Deprecation;
use crate::secret::{redact, redact_url_text};

/// What a help text may take of a line of 100 columns that is its own.
pub const HELP_WIDTH: usize = 90;

/// One setting.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "marks of a setting that are independent of each other")]
pub struct SettingSpec {
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
    pub requires_restart: bool,
    /// Whether it is a URL, which is never shown with user name, password or query.
    pub is_url: bool,
    /// The flag, where it is not made from the key.
    pub long: Option<&'static str>,
    /// Whether it is no flag: the environment and the file alone may hold it.
    pub no_flag: bool,
    /// What to do instead, where the next version no longer reads it.
    pub deprecation: Option<Deprecation>,
    /// A list setting and the entry in it that this setting must not stand beside.
    pub conflict: Option<(&'static str, &'static str)>,
    /// Its heading in the help: what a reader wants to do.
    pub group: &'static str,
    /// Whether it is one of the few that people set, which the short help shows.
    pub common: bool,
    /// What a value is called in the help, such as `SIZE`.
    pub value_name: &'static str,
    /// How the default reads in the help, where the value itself is unclear or there is none.
    pub default_help: Option<&'static str>,
    /// What it means, for `--help`.
    pub help: &'static str,
}

impl SettingSpec {
    /// A key without default.
    pub const fn new(name: &'static str, env: &'static str, help: &'static str) -> Self {
        Self {
            name,
            env,
            default: None,
            secret: false,
            structured: false,
            requires_restart: false,
            is_url: false,
            long: None,
            no_flag: false,
            deprecation: None,
            conflict: None,
            group: "Other settings",
            common: false,
            value_name: "VALUE",
            default_help: None,
            help,
        }
    }

    /// With this default.
    #[must_use]
    pub const fn with_default(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self
    }

    /// With this flag.
    #[must_use]
    pub const fn long(mut self, flag: &'static str) -> Self {
        self.long = Some(flag);
        self
    }

    /// Under this heading of the help.
    #[must_use]
    pub const fn group(mut self, heading: &'static str) -> Self {
        self.group = heading;
        self
    }

    /// In the short help, too.
    #[must_use]
    pub const fn common(mut self) -> Self {
        self.common = true;
        self
    }

    /// With a value of this name.
    #[must_use]
    pub const fn value_name(mut self, name: &'static str) -> Self {
        self.value_name = name;
        self
    }

    /// With a default that reads so.
    #[must_use]
    pub const fn default_help(mut self, text: &'static str) -> Self {
        self.default_help = Some(text);
        self
    }

    /// Without a flag: command lines are public.
    #[must_use]
    pub const fn no_flag(mut self) -> Self {
        self.no_flag = true;
        self
    }

    /// Never shown.
    #[must_use]
    pub const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// A URL, which may contain a password.
    #[must_use]
    pub const fn url(mut self) -> Self {
        self.is_url = true;
        self
    }

    /// Read at start only.
    #[must_use]
    pub const fn requires_restart(mut self) -> Self {
        self.requires_restart = true;
        self
    }

    /// With a map in the file.
    #[must_use]
    pub const fn structured(mut self) -> Self {
        self.structured = true;
        self
    }

    /// Deprecated in favour of this entry of a list setting.
    #[must_use]
    pub const fn replaced_by(mut self, list: &'static str, entry: &'static str) -> Self {
        self.deprecation = Some(Deprecation::ReplacedBy { list, entry });
        self.conflicts_with(list, entry)
    }

    /// Deprecated without a replacement, for this reason.
    #[must_use]
    pub const fn removed(mut self, why: &'static str) -> Self {
        self.deprecation = Some(Deprecation::Removed(why));
        self
    }

    /// An error beside this entry of a list setting, which says the same or the contrary.
    #[must_use]
    pub const fn conflicts_with(mut self, list: &'static str, entry: &'static str) -> Self {
        self.conflict = Some((list, entry));
        self
    }

    /// The flag, without the leading dashes.
    pub fn flag(&self) -> String {
        self.long.map_or_else(|| self.name.to_ascii_lowercase().replace('_', "-"), str::to_owned)
    }

    /// A value of it as it may be shown.
    pub(super) fn display_value(&self, value: &str) -> String {
        match value {
            "" => String::new(),
            _ if self.secret => "[redacted]".to_owned(),
            address if self.is_url => redact_url_text(address),
            text => redact(text),
        }
    }

    /// The default as people read it.
    pub fn default_text(&self) -> Option<&'static str> {
        self.default_help.or(self.default)
    }

    /// What it means, with the variable and the default: on the same line where that fits into `width`.
    pub fn help_text(&self, width: usize) -> String {
        let default =
            self.default_text().map_or_else(String::new, |default| format!(" [default: {default}]"));
        let names = format!("[env: {}]{default}", self.env);
        let fits = self.help.chars().count() + 1 + names.chars().count() <= width;
        format!("{}{}{names}", self.help, if fits { " " } else { "\n" })
    }

    /// The command-line argument.
    pub fn arg(&self) -> Arg {
        Arg::new(self.name)
            .long(self.flag())
            .value_name(self.value_name)
            .global(true)
            .allow_hyphen_values(true)
            .help_heading(self.group)
            .help(self.help_text(HELP_WIDTH))
            .hide_short_help(!self.common)
            .hide(self.deprecation.is_some())
    }
}
