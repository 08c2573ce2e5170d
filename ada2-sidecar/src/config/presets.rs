//! `presets`: names for models and how they are run, and the templates that some of them bring.

mod effects;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Deserialize;
use serde_json::{Value, json};
use service::settings::{Settings, number, scalar_text, unknown_key, whole_number, yaml_value};
use wire::openai::{fields::exact_integer, images::ImageSize};

use crate::{
    config::EngineKind,
    images::{
        Task, loras,
        models::{LoraChoice, Preset},
        template::{FamilyDeclaration, GraphFormat, Template, TemplateError, TemplateFile, TemplateTasks},
    },
    sandbox,
};

const PRESET_KEYS: [&str; 8] =
    ["model", "family", "steps", "cfg_scale", "scheduler", "size", "loras", "template"];

/// Reads the section; every problem is recorded under `presets`. Paths are relative to `base`. Without a valid engine,
/// what depends on it is not checked.
pub(super) fn read(s: &mut Settings, kind: Option<EngineKind>, base: &Path) -> Option<Vec<Arc<Preset>>> {
    let Some(text) = s.raw("presets").map(str::to_owned) else { return Some(Vec::new()) };
    let expected =
        "expected a map of names to {model or family, steps, cfg_scale, scheduler, size, loras, template}";
    let Ok(Value::Object(section)) = yaml_value(&text) else {
        s.add_problem("presets", expected);
        return None;
    };
    let mut presets = Vec::new();
    let mut problems = Vec::new();
    for (name, value) in section {
        match preset(&name, &value, kind, base) {
            Ok(preset) => presets.push(Arc::new(preset)),
            Err(faults) => problems.extend(faults.into_iter().map(|fault| format!("{name}: {fault}"))),
        }
    }
    let is_valid = problems.is_empty();
    for problem in problems {
        s.add_problem("presets", problem);
    }
    is_valid.then_some(presets)
}

/// The scheduler's name, or what is expected.
fn scheduler(name: Option<String>, kind: Option<EngineKind>) -> Result<String, String> {
    let Some(kind) = kind else { return name.ok_or_else(|| "the name of a scheduler".to_owned()) };
    name.filter(|name| kind.schedulers().contains(&name.as_str()))
        .ok_or_else(|| format!("one of {}", kind.schedulers().join(", ")))
}

/// The name of a family that this engine has built-in graphs for, or what is expected.
fn family(name: Option<String>, kind: Option<EngineKind>) -> Result<String, String> {
    let Some(graphs) = kind.and_then(EngineKind::graphs) else {
        return name.ok_or_else(|| "the name of a family".to_owned());
    };
    name.filter(|name| graphs.sets().any(|set| is_called(&set.family, name))).ok_or_else(|| {
        let mut names: Vec<_> = graphs.sets().map(|set| set.family.name.as_str()).collect();
        names.sort_unstable();
        format!("one of {}", names.join(", "))
    })
}

/// Whether a preset means this family by the name: its own, or that of all variants.
fn is_called(family: &FamilyDeclaration, name: &str) -> bool {
    family.name.eq_ignore_ascii_case(name) || family.base.eq_ignore_ascii_case(name)
}

/// A list of names, or of `{name, weight}`.
fn loras(value: &Value) -> Option<Vec<LoraChoice>> {
    let list = value.as_array()?;
    let lora = |value: &Value| match scalar_text(value) {
        Some(name) => loras::parse(&json!({"name": name})),
        None => loras::parse(value),
    };
    (list.len() <= loras::MAX_LORAS).then(|| list.iter().map(lora).collect::<Option<Vec<_>>>()).flatten()
}

fn preset(name: &str, value: &Value, kind: Option<EngineKind>, base: &Path) -> Result<Preset, Vec<String>> {
    let Some(map) = value.as_object() else { return Err(vec!["expected a map of settings".to_owned()]) };
    let mut faults: Vec<String> = map
        .keys()
        .filter(|key| !PRESET_KEYS.contains(&key.as_str()))
        .map(|key| format!("{key}: {}", unknown_key(key, PRESET_KEYS.into_iter())))
        .collect();
    let mut preset = Preset { name: name.to_owned(), ..Preset::default() };
    for (key, value) in map {
        if let Err(expected) = read_setting(&mut preset, key, value, kind) {
            faults.push(format!("{key}: expected {expected}"));
        }
    }
    if preset.family.is_some() && preset.model.is_some() {
        faults.push("family: expected no model beside it: a model has its own family".to_owned());
    }
    if let Some((value, kind)) = map.get("template").zip(kind) {
        match kind.graph_format().map(|format| templates(value, format, base)) {
            Some(Ok(templates)) => preset.templates = templates,
            Some(Err(more)) => faults.extend(more),
            None => faults.push(format!("template: the {} engine runs no graphs", kind.name())),
        }
    }
    if faults.is_empty() {
        faults = effects::faults(&preset, kind.and_then(EngineKind::graphs));
    }
    if faults.is_empty() { Ok(preset) } else { Err(faults) }
}

/// Reads one setting, or returns what is expected.
fn read_setting(
    preset: &mut Preset,
    key: &str,
    value: &Value,
    kind: Option<EngineKind>,
) -> Result<(), String> {
    let text = || scalar_text(value);
    match key {
        "model" => preset.model = Some(text().ok_or("an engine model's key or name")?),
        "family" => preset.family = Some(family(text(), kind)?),
        "loras" => preset.loras = loras(value).ok_or_else(loras::expected)?,
        "steps" => preset.steps = Some(steps(text()).ok_or("a whole number from 1 to 150")?),
        "cfg_scale" => {
            preset.cfg_scale = Some(cfg_scale(text()).ok_or("0 (none) or a number from 1 to 30")?);
        }
        "scheduler" => preset.scheduler = Some(scheduler(text(), kind)?),
        "size" => preset.size = Some(size(text()).ok_or("WIDTHxHEIGHT, multiples of 8")?),
        _ => {}
    }
    Ok(())
}

fn steps(text: Option<String>) -> Option<u32> {
    let text = text?;
    let steps = whole_number(&text).or_else(|| exact_integer(text.trim())?.try_into().ok())?;
    if (1..=150).contains(&steps) { steps.try_into().ok() } else { None }
}

/// 0 is none at all, as in requests.
fn cfg_scale(text: Option<String>) -> Option<f64> {
    let scale = number(&text?)?;
    let scale = if scale == 0.0 { 1.0 } else { scale };
    (1.0..=30.0).contains(&scale).then_some(scale)
}

fn size(text: Option<String>) -> Option<ImageSize> {
    ImageSize::parse(&text?).filter(|size| size.width % 8 == 0 && size.height % 8 == 0)
}

/// A file, or one for each task.
#[derive(Deserialize)]
#[serde(untagged)]
enum TemplateFiles {
    One(PathBuf),
    ByTask(BTreeMap<Task, PathBuf>),
}

fn templates(
    value: &Value,
    form: GraphFormat,
    base: &Path,
) -> Result<BTreeMap<Task, Arc<Template>>, Vec<String>> {
    let files = match serde_json::from_value(value.clone()) {
        Ok(TemplateFiles::One(path)) => vec![(None, path)],
        Ok(TemplateFiles::ByTask(files)) if !files.is_empty() => {
            files.into_iter().map(|(task, path)| (Some(task), path)).collect()
        }
        Ok(TemplateFiles::ByTask(_)) | Err(_) => {
            return Err(vec![
                "template: expected a file, or {generate, edit, inpaint} with a file each".to_owned(),
            ]);
        }
    };
    let (mut templates, mut faults) = (BTreeMap::new(), Vec::new());
    for (task, path) in files {
        match template(&base.join(path), task, form) {
            Ok(of_file) => templates.extend(of_file),
            Err(more) => faults.extend(more.into_iter().map(|fault| format!("template: {fault}"))),
        }
    }
    if faults.is_empty() { Ok(templates) } else { Err(faults) }
}

/// The graph, and beside it its bindings in a file of the same name with the ending `.yaml`. Without a task: all that the
/// file declares, or new images.
fn template(
    graph: &Path,
    task: Option<Task>,
    form: GraphFormat,
) -> Result<BTreeMap<Task, Arc<Template>>, Vec<String>> {
    let read = |path: &Path| {
        fs::read_to_string(path).map_err(|error| {
            let hint = sandbox::access_hint(path, error.kind()).unwrap_or_default();
            vec![format!("{}: {error}{hint}", path.display())]
        })
    };
    let bindings = graph.with_extension("yaml");
    let templates =
        TemplateFile::read(form, &read(graph)?, &read(&bindings)?).and_then(|file| of_task(file, task));
    let files = format!("{} with {}", graph.display(), bindings.display());
    templates.map_err(|faults| faults.into_iter().map(|fault| format!("{files}: {fault}")).collect())
}

fn of_task(
    file: TemplateFile,
    task: Option<Task>,
) -> Result<BTreeMap<Task, Arc<Template>>, Vec<TemplateError>> {
    if file.family.is_some() {
        return Err(vec![TemplateError(
            "family: only built-in graphs have one; remove the section".to_owned(),
        )]);
    }
    match (file.tasks, task) {
        (TemplateTasks::Undeclared(template), task) => {
            let task = task.unwrap_or(Task::Generate);
            template.check_task(task)?;
            Ok(BTreeMap::from([(task, Arc::new(*template))]))
        }
        (TemplateTasks::Declared(templates), None) => {
            Ok(templates.into_iter().map(|(task, template)| (task, Arc::new(template))).collect())
        }
        (TemplateTasks::Declared(mut templates), Some(task)) => match templates.remove(&task) {
            Some(template) => Ok(BTreeMap::from([(task, Arc::new(template))])),
            None => Err(vec![TemplateError(format!("tasks: the file does not serve {}", task.name()))]),
        },
    }
}
