//! Where an engine writes its images, according to its command line, environment and settings, by its own rules.

use std::{
    collections::BTreeMap,
    fs, io,
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use service::settings::{scalar_text, yaml_value};

use crate::config::EngineKind;

/// A settings file is some kilobytes.
const MAX_SETTINGS: u64 = 1 << 20;

/// How a process was process.
#[derive(Debug, Default)]
struct ProcessInfo {
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
    dir: PathBuf,
}

/// The output directory of the engine that runs as this process, if it exists. May hang with the process.
pub(crate) fn find(pid: u32, kind: EngineKind) -> Option<PathBuf> {
    let process = read_process(pid).ok()?;
    let dir = match kind {
        EngineKind::InvokeAi => invokeai(&process, &read_settings),
        EngineKind::ComfyUi => comfyui(&process),
        EngineKind::Builtin => None,
    }?;
    visible_path(pid, &normalized(&dir))
}

fn read_process(pid: u32) -> io::Result<ProcessInfo> {
    let proc = Path::new("/proc").join(pid.to_string());
    let nul_separated = |file: &str| -> io::Result<Vec<String>> {
        let text = fs::read(proc.join(file))?;
        Ok(text.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect())
    };
    let pairs = nul_separated("environ")?;
    let pair = |line: &String| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    Ok(ProcessInfo {
        arguments: nul_separated("cmdline")?,
        environment: pairs.iter().filter_map(pair).collect(),
        dir: fs::read_link(proc.join("cwd"))?,
    })
}

fn read_settings(path: &Path) -> Option<String> {
    let mut text = String::new();
    fs::File::open(path).ok()?.take(MAX_SETTINGS).read_to_string(&mut text).ok()?;
    Some(text)
}

impl ProcessInfo {
    /// The value of `--name value` or `--name=value`.
    fn flag(&self, name: &str) -> Option<&str> {
        let mut arguments = self.arguments.iter();
        while let Some(word) = arguments.next() {
            if word == name {
                return arguments.next().map(String::as_str);
            }
            if let Some(value) = word.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')) {
                return Some(value);
            }
        }
        None
    }

    fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn home(&self) -> Option<PathBuf> {
        self.variable("HOME").map(PathBuf::from)
    }

    fn path(&self, text: &str) -> PathBuf {
        match (text.strip_prefix("~/"), self.home()) {
            (Some(rest), Some(home)) => home.join(rest),
            _ => self.dir.join(text),
        }
    }
}

/// InvokeAI: `outputs_dir` below its root, which is `--root`, `INVOKEAI_ROOT`, the parent of its virtual environment if that
/// contains an invokeai.yaml, or `~/invokeai`. The environment wins over the file.
fn invokeai(process: &ProcessInfo, settings: &dyn Fn(&Path) -> Option<String>) -> Option<PathBuf> {
    let named = process.flag("--root").or(process.variable("INVOKEAI_ROOT")).map(|root| process.path(root));
    let venv_root = || {
        let environment = process.path(process.variable("VIRTUAL_ENV").unwrap_or("."));
        let root =
            if process.variable("VIRTUAL_ENV").is_some() { environment.parent()? } else { &environment };
        settings(&root.join("invokeai.yaml")).map(|_| root.to_owned())
    };
    let root = named.or_else(venv_root).or_else(|| Some(process.home()?.join("invokeai")))?;
    let file = process.flag("--config").map_or_else(|| root.join("invokeai.yaml"), |file| process.path(file));
    let in_file = || scalar_text(yaml_value(&settings(&file)?).ok()?.get("outputs_dir")?);
    let dir = process.variable("INVOKEAI_OUTPUTS_DIR").map(str::to_owned).or_else(in_file);
    Some(root.join(dir.unwrap_or_else(|| "outputs".to_owned())))
}

/// ComfyUI: `--output-directory`, or `output` below `--base-directory` or beside its main.py.
fn comfyui(process: &ProcessInfo) -> Option<PathBuf> {
    if let Some(dir) = process.flag("--output-directory") {
        return Some(process.path(dir));
    }
    if let Some(base) = process.flag("--base-directory") {
        return Some(process.path(base).join("output"));
    }
    let main = process
        .arguments
        .iter()
        .find(|word| Path::new(word).file_name().is_some_and(|name| name == "main.py"))?;
    Some(process.path(main).parent()?.join("output"))
}

/// The directory, if it is the same for us as for the process, which may run in a container.
fn visible_path(pid: u32, dir: &Path) -> Option<PathBuf> {
    let inside = Path::new("/proc").join(pid.to_string()).join("root").join(dir.strip_prefix("/").ok()?);
    let (here, there) = (fs::metadata(dir).ok()?, fs::metadata(inside).ok()?);
    (here.is_dir() && (here.dev(), here.ino()) == (there.dev(), there.ino())).then(|| dir.to_owned())
}

/// Without links, `.` and `..`, if it exists.
fn normalized(dir: &Path) -> PathBuf {
    fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(line: &str, environment: &[(&str, &str)]) -> ProcessInfo {
        ProcessInfo {
            arguments: line.split(' ').map(str::to_owned).collect(),
            environment: environment
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            dir: "/srv/engine".into(),
        }
    }

    #[test]
    fn the_output_directory_of_invokeai_depends_on_its_root() {
        let home = ("HOME", "/home/x");
        for (line, environment, file, expected) in [
            ("python invokeai-web --root /srv/i", &[home][..], None, "/srv/i/outputs"),
            ("invokeai-web --root=i", &[home], None, "/srv/engine/i/outputs"),
            ("invokeai-web", &[home], None, "/home/x/invokeai/outputs"),
            ("invokeai-web", &[home, ("INVOKEAI_ROOT", "~/i")], None, "/home/x/i/outputs"),
            (
                "invokeai-web",
                &[home, ("VIRTUAL_ENV", "/opt/i/.venv")],
                Some(("/opt/i/invokeai.yaml", "a: 1")),
                "/opt/i/outputs",
            ),
            ("invokeai-web", &[home], Some(("/srv/engine/invokeai.yaml", "outputs_dir: /data/o")), "/data/o"),
            ("invokeai-web --root /r --config /c.yaml", &[], Some(("/c.yaml", "outputs_dir: o")), "/r/o"),
            (
                "invokeai-web --root /r",
                &[("INVOKEAI_OUTPUTS_DIR", "e")],
                Some(("/r/invokeai.yaml", "outputs_dir: o")),
                "/r/e",
            ),
            ("invokeai-web --root /r", &[], Some(("/r/invokeai.yaml", "not: [yaml")), "/r/outputs"),
        ] {
            let settings = |path: &Path| {
                file.filter(|(at, _)| path == Path::new(at)).map(|(_, text): (&str, &str)| text.to_owned())
            };
            let found = invokeai(&started(line, environment), &settings);
            assert_eq!(found.as_deref(), Some(Path::new(expected)), "{line} {environment:?}");
        }
        assert_eq!(invokeai(&started("invokeai-web", &[]), &|_| None), None);
    }

    #[test]
    fn the_output_directory_of_comfyui_depends_on_its_command_line() {
        for (line, expected) in [
            ("python main.py --listen 127.0.0.1", Some("/srv/engine/output")),
            ("python /opt/c/main.py", Some("/opt/c/output")),
            ("python main.py --base-directory /data", Some("/data/output")),
            ("python main.py --base-directory /data --output-directory out", Some("/srv/engine/out")),
            ("comfy launch", None),
        ] {
            assert_eq!(comfyui(&started(line, &[])).as_deref(), expected.map(Path::new), "{line}");
        }
    }
}
