//! The environment and command line that the unit gives the service, so that commands read the configuration as the
//! service does.

use std::{collections::BTreeMap, fs, io::ErrorKind, path::PathBuf};

use super::SystemdUnit;

/// The environment of the service.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ServiceEnvironment {
    pub(crate) variables: BTreeMap<String, String>,
    /// An environment file that this user may not read.
    pub(crate) unreadable: Option<PathBuf>,
    /// The environment files that were read.
    pub(crate) files: Vec<PathBuf>,
    /// A required environment file that does not exist: the service does not start.
    pub(crate) missing: Option<PathBuf>,
}

impl ServiceEnvironment {
    /// As systemd composes it from the unit's settings; later ones win.
    pub(crate) fn from_unit(service: &SystemdUnit) -> Self {
        let mut environment =
            Self { variables: parse_environment(service.get("Environment")).collect(), ..Self::default() };
        for line in service.get("EnvironmentFiles").lines() {
            let (path, optional) = match line.split_once(" (ignore_errors=") {
                Some((path, rest)) => (path, rest.starts_with("yes")),
                None => (line, false),
            };
            match fs::read_to_string(path) {
                Ok(text) => {
                    environment.variables.extend(parse_environment_file(&text));
                    environment.files.push(path.into());
                }
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    environment.unreadable = Some(path.into());
                }
                Err(_) if !optional => environment.missing = Some(path.into()),
                Err(_) => {}
            }
        }
        let state_dir = service.get("StateDirectory").split_whitespace().next().unwrap_or_default();
        if !state_dir.is_empty() {
            environment.variables.insert("STATE_DIRECTORY".to_owned(), format!("/var/lib/{state_dir}"));
        }
        environment
    }
}

/// The command line of `ExecStart={ path=… ; argv[]=/usr/bin/x serve --flag ; … }`.
pub(crate) fn exec_arguments(exec_start: &str) -> Option<Vec<String>> {
    let (_, rest) = exec_start.split_once("argv[]=")?;
    let arguments = rest.split(" ; ").next()?.split_whitespace().map(str::to_owned);
    Some(arguments.collect::<Vec<_>>()).filter(|arguments| !arguments.is_empty())
}

/// The program of `ExecStart=`.
pub(crate) fn exec_path(exec_start: &str) -> Option<PathBuf> {
    let (_, rest) = exec_start.split_once("path=")?;
    rest.split(" ; ").next().map(|path| PathBuf::from(path.trim())).filter(|path| path.is_absolute())
}

/// `A=b "C=d e"`, as `systemctl show` prints `Environment=`.
fn parse_environment(text: &str) -> impl Iterator<Item = (String, String)> {
    let mut chars = text.chars().peekable();
    std::iter::from_fn(move || {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        chars.peek()?;
        Some(parse_value(&mut chars, char::is_whitespace))
    })
    .filter_map(|word| word.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())))
    .collect::<Vec<_>>()
    .into_iter()
}

/// A file of `EnvironmentFile=`: one variable per line, `#` and `;` start comments, quotes and backslashes as in a shell.
fn parse_environment_file(text: &str) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        match chars.peek() {
            None => return variables,
            Some('#' | ';') => while chars.next_if(|c| *c != '\n').is_some() {},
            Some(_) => {
                let mut name = String::new();
                while let Some(c) = chars.next_if(|c| !matches!(c, '=' | '\n')) {
                    name.push(c);
                }
                if chars.next_if_eq(&'=').is_some() {
                    while chars.next_if(|c| matches!(c, ' ' | '\t')).is_some() {}
                    variables.push((name.trim().to_owned(), parse_value(&mut chars, |c| c == '\n')));
                }
            }
        }
    }
}

/// Up to an end outside of quotes, without unquoted white space at its end.
fn parse_value(
    chars: &mut std::iter::Peekable<impl Iterator<Item = char>>,
    ends: fn(char) -> bool,
) -> String {
    let (mut value, mut quoted, mut trimmed_len) = (String::new(), None, 0);
    while let Some(c) = chars.next_if(|c| quoted.is_some() || !ends(*c)) {
        match (c, quoted) {
            ('\\', None | Some('"')) => match chars.next() {
                Some('\n') | None => continue,
                Some(c) => value.push(c),
            },
            (quote, Some(open)) if quote == open => quoted = None,
            (quote @ ('"' | '\''), None) => quoted = Some(quote),
            (c, None) if c.is_whitespace() => {
                value.push(c);
                continue;
            }
            (c, _) => value.push(c),
        }
        trimmed_len = value.len();
    }
    value.truncate(trimmed_len);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_file_is_read_as_systemd_reads_it() {
        let text = "# comment\n; another\nADA2_TOKEN=abc \nADA2_ENGINE = \"comfy\\\"ui\"\nA='b # c' \nB=one\\\n two\n\nbroken\nC=\nD=\"x\ny\"\n";
        let read: Vec<_> = parse_environment_file(text);
        let expected = [
            ("ADA2_TOKEN", "abc"),
            ("ADA2_ENGINE", "comfy\"ui"),
            ("A", "b # c"),
            ("B", "one two"),
            ("C", ""),
            ("D", "x\ny"),
        ];
        assert_eq!(read, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn a_property_is_split_into_variables() {
        let read: Vec<_> = parse_environment("A=b \"C=d e\"  E='f'").collect();
        let expected = [("A", "b"), ("C", "d e"), ("E", "f")];
        assert_eq!(read, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn the_units_command_line_is_read() {
        let line = "{ path=/usr/bin/ada2-sidecar ; argv[]=/usr/bin/ada2-sidecar serve --engine comfyui ; ignore_errors=no ; pid=0 }";
        assert_eq!(exec_arguments(line).unwrap(), ["/usr/bin/ada2-sidecar", "serve", "--engine", "comfyui"]);
        assert_eq!(exec_path(line).unwrap(), PathBuf::from("/usr/bin/ada2-sidecar"));
        assert_eq!((exec_arguments(""), exec_path("")), (None, None));
    }

    #[test]
    fn later_files_win_and_a_missing_required_file_is_reported() {
        let dir = std::env::temp_dir().join(format!("ada2-environment-{}", uuid::Uuid::new_v4()));
        fs::create_dir_all(&dir).unwrap();
        let file = dir.join("env");
        fs::write(&file, "ADA2_ENGINE=comfyui\n").unwrap();
        let unit = SystemdUnit::parse(
            "a.service",
            &format!(
                "Environment=ADA2_ENGINE=invokeai X=1\nEnvironmentFiles={} (ignore_errors=yes)\n\
                 EnvironmentFiles=/no/such (ignore_errors=yes)\nStateDirectory=ada2-sidecar\n",
                file.display()
            ),
        );
        let found = ServiceEnvironment::from_unit(&unit);
        assert_eq!(found.variables["ADA2_ENGINE"], "comfyui");
        assert_eq!((found.variables["X"].as_str(), found.unreadable, found.missing), ("1", None, None));
        assert_eq!(found.variables["STATE_DIRECTORY"], "/var/lib/ada2-sidecar");
        let unit = SystemdUnit::parse("a.service", "EnvironmentFiles=/no/such (ignore_errors=no)\n");
        assert_eq!(ServiceEnvironment::from_unit(&unit).missing, Some("/no/such".into()));
        fs::remove_dir_all(dir).unwrap();
    }
}
