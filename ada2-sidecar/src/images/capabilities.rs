//! What a model can do: the table that lists of models show and the reference documents. It is read from the same graphs
//! that run the model, and that requests are checked against.

use serde_json::{Map, Value, json};

use super::{
    Limits, Task,
    choice::ModelChoice,
    loras::MAX_WEIGHT,
    models::EngineLora,
    template::{Binding, DEFAULT_MULTIPLE, MAX_IMAGES, SizeRule, Template},
};

/// What a model or preset can do in one task.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskCapabilities {
    /// The task.
    pub task: Task,
    /// Whether a requested size is made. If not, the images decide it.
    pub takes_size: bool,
    /// Width and height are multiples of this.
    pub multiple: u32,
    /// The fewest and the most source images.
    pub images: (u8, u8),
    /// The extensions that have an effect, by their names in requests.
    pub parameters: Vec<&'static str>,
    /// The most LoRAs.
    pub max_loras: u8,
    /// Its usual values.
    pub usual: Map<String, Value>,
    /// The schedulers that it takes; none: all of the engine's.
    pub schedulers: Option<Vec<String>>,
}

const EXTENSIONS: [(&str, Binding); 5] = [
    ("negative_prompt", Binding::NegativePrompt),
    ("steps", Binding::Steps),
    ("cfg_scale", Binding::CfgScale),
    ("scheduler", Binding::Scheduler),
    ("strength", Binding::Strength),
];

impl TaskCapabilities {
    /// Those of a graph.
    pub fn of_template(task: Task, template: &Template) -> Self {
        let bound = EXTENSIONS.iter().filter(|(_, binding)| template.binds(*binding)).map(|(name, _)| *name);
        let seed = template.binds(Binding::Seed).then_some("seed");
        let mut parameters: Vec<_> = seed.into_iter().chain(bound).collect();
        if template.rules.scales_steps && template.binds(Binding::Steps) && template.default_steps().is_some() {
            parameters.push("quality");
        }
        if template.max_loras() > 0 {
            parameters.push("loras");
        }
        Self {
            task,
            takes_size: template.takes_size(),
            multiple: template.rules.multiple,
            images: if task == Task::Generate { (0, 0) } else { template.image_counts() },
            parameters,
            max_loras: template.max_loras(),
            usual: usual_values(template),
            schedulers: template.rules.schedulers.clone(),
        }
    }

    fn to_json(&self) -> Value {
        json!({
            "size": self.takes_size,
            "min_images": self.images.0,
            "max_images": self.images.1,
            "parameters": self.parameters,
            "defaults": self.usual,
        })
    }

    /// Those of an engine that runs no graphs.
    fn in_process(task: Task) -> Self {
        let names = EXTENSIONS.iter().map(|(name, _)| *name);
        let takes = |name: &&str| *name != "strength" || task != Task::Generate;
        Self {
            task,
            takes_size: true,
            multiple: DEFAULT_MULTIPLE,
            images: if task == Task::Generate { (0, 0) } else { (1, MAX_IMAGES) },
            parameters: ["seed", "quality"].into_iter().chain(names.filter(takes)).collect(),
            max_loras: 0,
            usual: Map::new(),
            schedulers: None,
        }
    }
}

fn usual_values(template: &Template) -> Map<String, Value> {
    let size = template.default_size().filter(|_| template.rules.size != Some(SizeRule::Image));
    let values = [
        ("size", size.map(|size| json!(size.to_string()))),
        ("steps", template.default_steps().map(|steps| json!(steps))),
        ("cfg_scale", template.default_cfg_scale().map(|scale| json!(scale))),
        // ComfyUI's own pairs have no name that a request could use.
        ("scheduler", template.default_scheduler().filter(|name| !name.contains('/')).map(|name| json!(name))),
        ("strength", template.default_strength().map(|strength| json!(strength))),
    ];
    values.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// What a choice can do, task by task.
pub fn of_choice(choice: &ModelChoice) -> Vec<TaskCapabilities> {
    let of_task = |task| match choice.template(task) {
        Some(template) => Some(TaskCapabilities::of_template(task, template)),
        None => choice.is_in_process().then(|| TaskCapabilities::in_process(task)),
    };
    [Task::Generate, Task::Edit, Task::Inpaint].into_iter().filter_map(of_task).collect()
}

/// The object `capabilities` of an entry in a list of models.
pub fn to_json(choice: &ModelChoice, limits: Limits) -> Value {
    let tasks = of_choice(choice);
    let any = |takes: fn(&TaskCapabilities) -> bool| tasks.iter().any(takes);
    let mut parameters: Vec<&str> = Vec::new();
    for name in tasks.iter().flat_map(|task| &task.parameters) {
        if !parameters.contains(name) {
            parameters.push(name);
        }
    }
    let usual = usual_of_choice(choice, &tasks);
    let schedulers = tasks.iter().find_map(|task| task.schedulers.clone()).unwrap_or_else(|| {
        let takes = parameters.contains(&"scheduler");
        limits.schedulers.iter().filter(|_| takes).map(|name| (*name).to_owned()).collect()
    });
    json!({
        "tasks": tasks.iter().map(|task| task.task.name()).collect::<Vec<_>>(),
        "size": {
            "generate": any(|task| task.task == Task::Generate && task.takes_size),
            "edit": any(|task| task.task != Task::Generate && task.takes_size),
            "multiple": tasks.iter().map(|task| task.multiple).max().unwrap_or(DEFAULT_MULTIPLE),
            "max_pixels": limits.max_pixels,
        },
        "max_images": tasks.iter().map(|task| task.images.1).max().unwrap_or(0),
        "mask": any(|task| task.task == Task::Inpaint),
        "max_n": limits.max_n,
        "max_loras": tasks.iter().map(|task| task.max_loras).max().unwrap_or(0),
        "parameters": parameters,
        "schedulers": schedulers,
        "defaults": usual,
        "by_task": tasks.iter().map(|task| (task.task.name().to_owned(), task.to_json())).collect::<Map<_, _>>(),
    })
}

/// Preset and model come before the graph.
fn usual_of_choice(choice: &ModelChoice, tasks: &[TaskCapabilities]) -> Map<String, Value> {
    let mut usual = tasks.first().map(|task| task.usual.clone()).unwrap_or_default();
    let takes = |name: &str| tasks.iter().any(|task| task.parameters.contains(&name));
    let own = choice.preset.as_deref().is_some_and(|preset| !preset.templates.is_empty());
    let model =
        choice.model.as_ref().filter(|_| !own).map(|model| model.settings.clone()).unwrap_or_default();
    let preset = choice.preset.as_deref();
    let values = [
        ("size", preset.and_then(|preset| preset.size).or(model.size).map(|size| json!(size.to_string()))),
        (
            "steps",
            preset
                .and_then(|preset| preset.steps)
                .or(model.steps)
                .filter(|_| takes("steps"))
                .map(|steps| json!(steps)),
        ),
        (
            "cfg_scale",
            preset
                .and_then(|preset| preset.cfg_scale)
                .or(model.cfg_scale)
                .filter(|_| takes("cfg_scale"))
                .map(|scale| json!(scale)),
        ),
        (
            "scheduler",
            preset
                .and_then(|preset| preset.scheduler.clone())
                .or(model.scheduler)
                .filter(|_| takes("scheduler"))
                .map(|name| json!(name)),
        ),
    ];
    usual.extend(values.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    usual
}

/// The LoRAs for a choice, with the range of their weights.
pub fn loras_to_json(choice: &ModelChoice) -> Value {
    let most = of_choice(choice).iter().map(|task| task.max_loras).max().unwrap_or(0);
    let fits = |lora: &&EngineLora| choice.model.as_ref().is_none_or(|model| lora.fits(model));
    let fitting = choice.loras.iter().filter(fits).filter(|_| most > 0);
    let names: Vec<_> = fitting.map(|lora| lora.name.as_str()).collect();
    json!({"names": names, "most": most, "weight": [-MAX_WEIGHT, MAX_WEIGHT]})
}
