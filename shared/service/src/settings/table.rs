//! A table of settings: each row gives a setting's names, default, help and parser, and the field that holds its value.

use super::Settings;

/// How the text of a setting becomes a value of type `T`.
#[derive(Debug, Clone, Copy)]
pub struct Parser<T> {
    kind: ParserKind<T>,
    /// The value where nothing gives one.
    missing: Option<fn() -> T>,
}

#[derive(Debug, Clone, Copy)]
enum ParserKind<T> {
    Expecting(&'static str, fn(&str) -> Option<T>),
    Explaining(fn(&str) -> Result<T, Vec<String>>),
}

impl<T> Parser<T> {
    /// A function that returns nothing for a text that is not `expected`, which completes "expected …, found …".
    pub const fn expecting(expected: &'static str, parse: fn(&str) -> Option<T>) -> Self {
        Self { kind: ParserKind::Expecting(expected, parse), missing: None }
    }

    /// A function that says what is wrong, in a message for each problem.
    pub const fn explaining(parse: fn(&str) -> Result<T, Vec<String>>) -> Self {
        Self { kind: ParserKind::Explaining(parse), missing: None }
    }

    /// Gives `T::default()` where nothing gives a value.
    #[must_use]
    pub const fn or_default(self) -> Self
    where
        T: Default,
    {
        Self { missing: Some(T::default), ..self }
    }
}

/// What a field can hold of a setting: its value, or an `Option` of it where nothing may be given.
pub trait FieldValue<T>: Sized {
    /// `None` where the field needs a value and there is none.
    fn from_setting(value: Option<T>) -> Option<Self>;
}

impl<T> FieldValue<T> for T {
    fn from_setting(value: Option<T>) -> Option<Self> {
        value
    }
}

impl<T> FieldValue<T> for Option<T> {
    fn from_setting(value: Self) -> Option<Self> {
        Some(value)
    }
}

impl Settings {
    /// The value of a setting. `None` means a problem, which is noted.
    pub fn read<T, F: FieldValue<T>>(&mut self, name: &str, parser: &Parser<T>) -> Option<F> {
        let given = match parser.kind {
            ParserKind::Expecting(expected, parse) => self.optional(name, expected, parse)?,
            ParserKind::Explaining(parse) => match self.raw(name).map(parse).transpose() {
                Ok(given) => given,
                Err(messages) => {
                    for message in messages {
                        self.add_problem(name, message);
                    }
                    return None;
                }
            },
        };
        let field = F::from_setting(given.or_else(|| parser.missing.map(|missing| missing())));
        if field.is_none() {
            let expected = match parser.kind {
                ParserKind::Expecting(expected, _) => expected,
                ParserKind::Explaining(_) => "a value",
            };
            self.add_problem(name, format!("expected {expected}, found nothing"));
        }
        field
    }
}

/// Declares the settings of a program: the constant with every row, for command line and file, and structs of their values.
///
/// Rows stand under the headings of the help. A row is `pub field: Type = parser => row spec;`, or `row spec;` where a setting is read by hand, for example together
/// with another. `Section::read` reads every field of a section, so that all problems are found at once. The fields of
/// `with { … }` behind a section are no settings: `read` takes them, `None` where making one met a problem.
///
/// ```
/// use service::settings::{Parser, SettingSpec, duration};
///
/// service::settings! {
///     /// Every setting.
///     pub const KEYS;
///
///     /// Their values.
///     #[derive(Debug)]
///     pub struct Values {
///         "Limits" {
///             /// How long a request may take.
///             pub timeout: std::time::Duration = Parser::expecting("a duration like 30s", duration) =>
///             row SettingSpec::new("timeout", "MY_TIMEOUT", "For a whole request").with_default("30s");
///         }
///         "Who may use it" {
///             row SettingSpec::new("token_file", "MY_TOKEN_FILE", "File with a token");
///         }
///     }
/// }
///
/// assert_eq!(KEYS.len(), 2);
/// ```
#[macro_export]
macro_rules! settings {
    (
        $(#[$keys_meta:meta])*
        pub const $KEYS:ident;
        $(
            $(#[$meta:meta])*
            pub struct $Section:ident {
                $($heading:literal {
                    $(
                        $($(#[$field_meta:meta])* pub $field:ident: $Type:ty = $parser:expr =>)?
                        row $spec:expr;
                    )*
                })*
            } $(with { $($(#[$made_meta:meta])* $made:ident: $Made:ty,)* })?
        )*
    ) => {
        $(#[$keys_meta])*
        pub const $KEYS: &[$crate::settings::SettingSpec] = &[$($($($spec.group($heading),)*)*)*];
        $(
            $(#[$meta])*
            pub struct $Section {
                $($($($(#[$field_meta])* pub $field: $Type,)?)*)*
                $($($(#[$made_meta])* pub $made: $Made,)*)?
            }

            impl $Section {
                /// Reads every setting of the section. `None` means problems, which are noted.
                pub fn read(
                    settings: &mut $crate::settings::Settings,
                    $($($made: Option<$Made>,)*)?
                ) -> Option<Self> {
                    $($($(let $field = {
                        const SPEC: $crate::settings::SettingSpec = $spec;
                        settings.read(SPEC.name, &$parser)
                    };)?)*)*
                    Some(Self { $($($($field: $field?,)?)*)* $($($made: $made?,)*)? })
                }
            }
        )*
    };
}

#[cfg(test)]
mod tests {
    #![expect(unreachable_pub, reason = "tables are part of a program's interface")]

    use clap::{ArgMatches, Command};

    use super::*;
    use crate::settings::{SettingSpec, list, whole_number_in};

    crate::settings! {
        /// Every row.
        pub const ROWS;

        /// What they hold.
        #[derive(Debug, PartialEq)]
        pub struct Limits {
            "Limits" {
                pub most: u8 = Parser::expecting("a whole number from 1 to 9", whole_number_in::<_, 1, 9>) =>
                row SettingSpec::new("most", "T_MOST", "").with_default("4");
                row SettingSpec::new("by_hand", "T_HAND", "");
                pub least: Option<u8> = Parser::expecting("a whole number from 1 to 9", whole_number_in::<u8, 1, 9>) =>
                row SettingSpec::new("least", "T_LEAST", "");
            }
            "Names" {
                pub names: Vec<String> = Parser::expecting("names", |text| list(text, |name| Some(name.to_owned()))).or_default() =>
                row SettingSpec::new("names", "T_NAMES", "");
                pub odd: Option<u8> = Parser::explaining(odd) =>
                row SettingSpec::new("odd", "T_ODD", "");
                pub needed: u8 = Parser::expecting("a number", |text| text.parse().ok()) =>
                row SettingSpec::new("needed", "T_NEEDED", "");
            }
        }
    }

    fn odd(text: &str) -> Result<u8, Vec<String>> {
        Err(vec![format!("{text} is even"), "and not odd".to_owned()])
    }

    fn read(given: &[(&str, &str)]) -> Result<Limits, Vec<String>> {
        let flags: ArgMatches = Command::new("t").get_matches_from(["t"]);
        let environment = |name: &str| {
            given.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned())
        };
        let mut settings = Settings::resolve(ROWS, &flags, &environment, &|_| None);
        let limits = Limits::read(&mut settings);
        limits.ok_or_else(|| settings.problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_section_has_every_value_or_every_problem() {
        assert_eq!(
            ROWS.iter().map(|row| row.name).collect::<Vec<_>>(),
            ["most", "by_hand", "least", "names", "odd", "needed"]
        );
        assert_eq!(ROWS.iter().map(|row| row.group).collect::<Vec<_>>()[2..4], ["Limits", "Names"]);
        let limits = Limits { most: 4, least: None, names: Vec::new(), odd: None, needed: 7 };
        assert_eq!(read(&[("T_NEEDED", "7")]), Ok(limits));
        let problems =
            read(&[("T_MOST", "10"), ("T_LEAST", "x"), ("T_NAMES", "a,b"), ("T_ODD", "2")]).unwrap_err();
        assert_eq!(
            problems,
            [
                "environment T_MOST: most: expected a whole number from 1 to 9, found \"10\"",
                "environment T_LEAST: least: expected a whole number from 1 to 9, found \"x\"",
                "environment T_ODD: odd: 2 is even",
                "environment T_ODD: odd: and not odd",
                "default: needed: expected a number, found nothing",
            ]
        );
    }
}
