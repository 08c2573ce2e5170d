//! The environment and command line that the unit gives the service, so that the doctor reads the configuration as the
//! service does.

use std::{collections::BTreeMap, fs, io::ErrorKind, path::PathBuf};

use super::unit::Unit;

/// What the service's environment is.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Environment {
    pub(super) variables: BTreeMap<String, String>,
    /// A file of it that this user may not read: what it says is not known.
    pub(super) hidden: Option<PathBuf>,
    /// Those that were read.
    pub(super) files: Vec<PathBuf>,
    /// A file that must be there and is not: the service does not start.
    pub(super) missing: Option<PathBuf>,
}

impl Environment {
    /// As systemd makes it of the unit's settings; later ones win.
    pub(super) fn of(service: &Unit) -> Self {
        let mut found = Self { variables: words(service.get("Environment")).collect(), ..Self::default() };
        for line in service.get("EnvironmentFiles").lines() {
            let (path, optional) = match line.split_once(" (ignore_errors=") {
                Some((path, rest)) => (path, rest.starts_with("yes")),
                None => (line, false),
            };
            match fs::read_to_string(path) {
                Ok(text) => {
                    found.variables.extend(assignments(&text));
                    found.files.push(path.into());
                }
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    found.hidden = Some(path.into());
                }
                Err(_) if !optional => found.missing = Some(path.into()),
                Err(_) => {}
            }
        }
        // systemd tells the service where its state is.
        let folder = service.get("StateDirectory").split_whitespace().next().unwrap_or_default();
        if !folder.is_empty() {
            found.variables.insert("STATE_DIRECTORY".to_owned(), format!("/var/lib/{folder}"));
        }
        found
    }
}

/// The words behind the program's name in `ExecStart={ path=… ; argv[]=/usr/bin/x serve --flag ; … }`.
pub(super) fn arguments(exec_start: &str) -> Option<Vec<String>> {
    let (_, rest) = exec_start.split_once("argv[]=")?;
    let words = rest.split(" ; ").next()?.split_whitespace().map(str::to_owned);
    Some(words.collect::<Vec<_>>()).filter(|words| !words.is_empty())
}

/// The program in it.
pub(super) fn program(exec_start: &str) -> Option<PathBuf> {
    let (_, rest) = exec_start.split_once("path=")?;
    rest.split(" ; ").next().map(|path| PathBuf::from(path.trim())).filter(|path| path.is_absolute())
}

/// `A=b "C=d e"`, as `systemctl show` prints `Environment=`.
fn words(text: &str) -> impl Iterator<Item = (String, String)> {
    let mut letters = text.chars().peekable();
    std::iter::from_fn(move || {
        while letters.next_if(|letter| letter.is_whitespace()).is_some() {}
        letters.peek()?;
        Some(value(&mut letters, char::is_whitespace))
    })
    .filter_map(|word| word.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())))
    .collect::<Vec<_>>()
    .into_iter()
}

/// A file of `EnvironmentFile=`: a line each, `#` and `;` begin comments, quotes and backslashes as in a shell.
fn assignments(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut letters = text.chars().peekable();
    loop {
        while letters.next_if(|letter| letter.is_whitespace()).is_some() {}
        match letters.peek() {
            None => return found,
            Some('#' | ';') => while letters.next_if(|letter| *letter != '\n').is_some() {},
            Some(_) => {
                let mut name = String::new();
                while let Some(letter) = letters.next_if(|letter| !matches!(letter, '=' | '\n')) {
                    name.push(letter);
                }
                if letters.next_if_eq(&'=').is_some() {
                    while letters.next_if(|letter| matches!(letter, ' ' | '\t')).is_some() {}
                    found.push((name.trim().to_owned(), value(&mut letters, |letter| letter == '\n')));
                }
            }
        }
    }
}

/// Up to an end outside of quotes; white space at its end counts only within them.
fn value(letters: &mut std::iter::Peekable<impl Iterator<Item = char>>, ends: fn(char) -> bool) -> String {
    let (mut value, mut quoted, mut kept) = (String::new(), None, 0);
    while let Some(letter) = letters.next_if(|letter| quoted.is_some() || !ends(*letter)) {
        match (letter, quoted) {
            ('\\', None | Some('"')) => match letters.next() {
                Some('\n') | None => continue,
                Some(letter) => value.push(letter),
            },
            (quote, Some(open)) if quote == open => quoted = None,
            (quote @ ('"' | '\''), None) => quoted = Some(quote),
            (letter, None) if letter.is_whitespace() => {
                value.push(letter);
                continue;
            }
            (letter, _) => value.push(letter),
        }
        kept = value.len();
    }
    value.truncate(kept);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_file_is_read_as_systemd_reads_it() {
        let text = "# comment\n; another\nADA2_TOKEN=abc \nADA2_ENGINE = \"comfy\\\"ui\"\nA='b # c' \nB=one\\\n two\n\nbroken\nC=\nD=\"x\ny\"\n";
        let read: Vec<_> = assignments(text);
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
    fn words_of_a_property_are_told_apart() {
        let read: Vec<_> = words("A=b \"C=d e\"  E='f'").collect();
        let expected = [("A", "b"), ("C", "d e"), ("E", "f")];
        assert_eq!(read, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn the_units_command_line_is_read() {
        let line = "{ path=/usr/bin/ada2-sidecar ; argv[]=/usr/bin/ada2-sidecar serve --engine comfyui ; ignore_errors=no ; pid=0 }";
        assert_eq!(arguments(line).unwrap(), ["/usr/bin/ada2-sidecar", "serve", "--engine", "comfyui"]);
        assert_eq!(program(line).unwrap(), PathBuf::from("/usr/bin/ada2-sidecar"));
        assert_eq!((arguments(""), program("")), (None, None));
    }

    #[test]
    fn later_files_win_and_what_cannot_be_read_is_told() {
        let folder = std::env::temp_dir().join(format!("ada2-environment-{}", uuid::Uuid::new_v4()));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("env");
        fs::write(&file, "ADA2_ENGINE=comfyui\n").unwrap();
        let unit = Unit::read(
            "a.service",
            &format!(
                "Environment=ADA2_ENGINE=invokeai X=1\nEnvironmentFiles={} (ignore_errors=yes)\n\
                 EnvironmentFiles=/no/such (ignore_errors=yes)\nStateDirectory=ada2-sidecar\n",
                file.display()
            ),
        );
        let found = Environment::of(&unit);
        assert_eq!(found.variables["ADA2_ENGINE"], "comfyui");
        assert_eq!((found.variables["X"].as_str(), found.hidden, found.missing), ("1", None, None));
        assert_eq!(found.variables["STATE_DIRECTORY"], "/var/lib/ada2-sidecar");
        let unit = Unit::read("a.service", "EnvironmentFiles=/no/such (ignore_errors=no)\n");
        assert_eq!(Environment::of(&unit).missing, Some("/no/such".into()));
        fs::remove_dir_all(folder).unwrap();
    }
}
