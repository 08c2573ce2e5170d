//! Seeds, steps, guidance, schedulers, the model, the batch.

use serde_json::Value;

use super::{
    draft::Draft,
    graph::{Workflow, input},
};
use crate::images::template::NodeInput;

/// Names of the input of a node that holds one value.
const VALUE_INPUTS: [&str; 9] =
    ["value", "int", "integer", "float", "number", "Number", "seed", "noise_seed", "string"];

/// The longest chain of such nodes that is followed.
const MAX_CHAIN: usize = 16;

/// An input for a setting, on the node that uses it.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub(super) node: String,
    pub(super) at: NodeInput,
    pub(super) value: Option<Value>,
}

/// The inputs of these names on the nodes that the output depends on, nearest first. Values from a node that only holds one
/// are set there.
pub(super) fn settings(workflow: &Workflow<'_>, draft: &Draft, names: &[&str]) -> Vec<Setting> {
    let mut found = Vec::new();
    for node in draft.reached(workflow).iter().filter(|node| !workflow.is_record(node)) {
        for field in names.iter().filter(|field| workflow.has_input(node, field)) {
            let at = source(workflow, node, field);
            let value = workflow.value(&at.node, &at.field).cloned();
            found.push(Setting { node: node.clone(), at, value });
        }
    }
    found
}

/// Where the value of an input is set: at a node that only holds a value, else at the input itself.
pub(super) fn source(workflow: &Workflow<'_>, node: &str, field: &str) -> NodeInput {
    let direct = input(node, field);
    let mut at = direct.clone();
    for _ in 0..MAX_CHAIN {
        let Some(edge) = workflow.edge(&at.node, &at.field) else { return at };
        let holder = edge.source.as_str();
        let held: Vec<_> = VALUE_INPUTS.iter().filter(|name| workflow.has_input(holder, name)).collect();
        let [name] = held.as_slice() else { break };
        let is_alone = workflow.edges_into(holder).all(|edge| edge.target.field == **name);
        let value = workflow.value(holder, name);
        if !is_alone || value.is_some_and(|value| !value.is_number() && !value.is_string()) {
            break;
        }
        at = input(holder, name);
    }
    direct
}

/// Whether a sampler makes the picture.
pub(super) fn samples(workflow: &Workflow<'_>, draft: &Draft) -> bool {
    !settings(workflow, draft, workflow.rules.steps).is_empty()
}

pub(super) fn bind_seeds(workflow: &Workflow<'_>, draft: &mut Draft) {
    let seeds = settings(workflow, draft, workflow.rules.seeds);
    if seeds.is_empty() {
        let reason = "the output depends on no seed, so the same picture always gives the same result";
        draft.lack("seed", reason.to_owned(), samples(workflow, draft));
        return;
    }
    let nodes: Vec<_> = seeds.iter().map(|seed| workflow.describe(&seed.node)).collect();
    let why = format!("seed: every seed that the output depends on, of {}", nodes.join(", "));
    draft.bind("seed", seeds.into_iter().map(|seed| seed.at).collect(), why);
}

/// Steps, guidance and schedulers.
pub(super) fn bind_settings(workflow: &Workflow<'_>, draft: &mut Draft) {
    bind_steps(workflow, draft);
    bind_guidance(workflow, draft);
    bind_schedulers(workflow, draft);
}

fn bind_steps(workflow: &Workflow<'_>, draft: &mut Draft) {
    let steps = settings(workflow, draft, workflow.rules.steps);
    let staged = draft.reached(workflow).into_iter().find(|node| {
        let steps = workflow.number(node, "steps").unwrap_or(f64::MAX);
        workflow.number(node, "start_at_step").is_some_and(|start| start > 0.0)
            || workflow.number(node, "end_at_step").is_some_and(|end| end < steps)
    });
    if let Some(node) = staged {
        let node = workflow.describe(&node);
        draft.note(format!(
            "steps is not bound: {node} runs a part of the steps, from and to fixed ones, which other steps would shift"
        ));
        return;
    }
    bind_agreeing(workflow, draft, "steps", "steps", steps);
}

fn bind_guidance(workflow: &Workflow<'_>, draft: &mut Draft) {
    let is_one = |setting: &Setting| {
        setting.value.as_ref().and_then(Value::as_f64).is_some_and(|value| is_equal(value, 1.0))
    };
    let cfg = settings(workflow, draft, workflow.rules.cfg);
    if !cfg.is_empty() && !has_no_guidance(workflow, draft) {
        let used = cfg.into_iter().filter(|setting| !is_one(setting)).collect();
        bind_agreeing(workflow, draft, "cfg_scale", "guidance", used);
        return;
    }
    let samples = |node: &str| workflow.rules.steps.iter().any(|field| workflow.has_input(node, field));
    let guidance = settings(workflow, draft, workflow.rules.guidance).into_iter();
    let of_positive: Vec<_> = guidance
        .filter(|setting| draft.positive_nodes.contains(&setting.node) || samples(&setting.node))
        .filter(|setting| setting.value.as_ref().is_none_or(Value::is_number))
        .collect();
    if of_positive.is_empty() {
        draft.is_without_guidance = !cfg.is_empty();
        let reason = if cfg.is_empty() { "there is none" } else { "it is 1, as distilled models need it" };
        draft.note(format!("cfg_scale is not bound: the guidance: {reason}"));
        return;
    }
    bind_agreeing(workflow, draft, "cfg_scale", "distilled guidance, since cfg is 1 or absent,", of_positive);
}

/// Whether every guidance is 1.
pub(super) fn has_no_guidance(workflow: &Workflow<'_>, draft: &Draft) -> bool {
    let nodes = draft.reached(workflow);
    let all: Vec<_> = nodes
        .iter()
        .filter(|node| !workflow.is_record(node))
        .flat_map(|node| workflow.rules.cfg.iter().map(move |field| (node, field)))
        .filter(|(node, field)| workflow.has_input(node, field))
        .map(|(node, field)| workflow.number(node, field))
        .collect();
    !all.is_empty() && all.iter().all(|number| number.is_some_and(|number| is_equal(number, 1.0)))
}

fn bind_schedulers(workflow: &Workflow<'_>, draft: &mut Draft) {
    let classes = workflow.rules.scheduler_classes;
    let names_of = |node: &str| {
        let row = classes.iter().find(|(word, _)| workflow.class_has(node, &[word]));
        if classes.is_empty() { Some(&[][..]) } else { row.map(|(_, names)| *names) }
    };
    let mut names: Option<&'static [&'static str]> = None;
    let mut chosen = Vec::new();
    for field in workflow.rules.schedulers {
        let found = settings(workflow, draft, &[field]).into_iter();
        let found = found.filter(|setting| setting.value.as_ref().is_none_or(Value::is_string));
        let found: Vec<_> = found.collect();
        names = names.or_else(|| found.iter().find_map(|setting| names_of(&setting.node)));
        let is_usable = |setting: &Setting| names.is_some() && names_of(&setting.node) == names;
        let (usable, others): (Vec<_>, Vec<_>) = found.into_iter().partition(is_usable);
        for other in others {
            let node = workflow.describe(&other.node);
            draft.note(format!(
                "scheduler is not bound to {}: {node} takes other names, and the engine would reject those of requests",
                other.at
            ));
        }
        chosen.extend(agreeing(workflow, draft, "scheduler", usable));
    }
    if !chosen.is_empty() {
        draft.schedulers = names.unwrap_or_default();
    }
    let why = reason("scheduler", "sampler and schedule", workflow, &chosen);
    draft.bind("scheduler", chosen.into_iter().map(|setting| setting.at).collect(), why);
}

fn bind_agreeing(workflow: &Workflow<'_>, draft: &mut Draft, name: &str, what: &str, found: Vec<Setting>) {
    let chosen = agreeing(workflow, draft, name, found);
    let why = reason(name, what, workflow, &chosen);
    draft.bind(name, chosen.into_iter().map(|setting| setting.at).collect(), why);
}

fn reason(name: &str, what: &str, workflow: &Workflow<'_>, chosen: &[Setting]) -> String {
    let mut nodes: Vec<String> = Vec::new();
    for node in chosen.iter().map(|setting| workflow.describe(&setting.node)) {
        if !nodes.contains(&node) {
            nodes.push(node);
        }
    }
    format!("{name}: the {what} of {}", nodes.join(", "))
}

/// Those that can take one value: all if they have the same, else those of the pass that starts from noise alone.
fn agreeing(workflow: &Workflow<'_>, draft: &mut Draft, name: &str, found: Vec<Setting>) -> Vec<Setting> {
    if are_alike(&found) {
        return found;
    }
    let starts_from_noise =
        |setting: &Setting| workflow.number(&setting.node, "denoise").is_none_or(|denoise| denoise >= 1.0);
    let (first, later): (Vec<_>, Vec<_>) = found.into_iter().partition(starts_from_noise);
    let list = |settings: &[Setting]| {
        settings.iter().map(|setting| setting.at.to_string()).collect::<Vec<_>>().join(", ")
    };
    if !first.is_empty() && are_alike(&first) {
        draft.note(format!(
            "{name} is not bound to {}: a later pass with a value of its own, which stays",
            list(&later)
        ));
        return first;
    }
    draft.note(format!(
        "{name} is not bound: {} have different values, and one request has one",
        list(&[first, later].concat())
    ));
    Vec::new()
}

fn is_equal(one: f64, other: f64) -> bool {
    (one - other).abs() < 1e-9
}

fn are_alike(settings: &[Setting]) -> bool {
    let number = |setting: &Setting| setting.value.as_ref().and_then(Value::as_f64);
    settings.windows(2).all(|two| {
        two[0].value == two[1].value
            || number(&two[0]).zip(number(&two[1])).is_some_and(|(one, other)| is_equal(one, other))
    })
}

/// A LoRA of the workflow stays: without it another picture would come out.
pub(super) fn note_loras(workflow: &Workflow<'_>, draft: &mut Draft) {
    let loras = settings(workflow, draft, workflow.rules.loras).into_iter();
    let named = loras.filter(|lora| lora.value.as_ref().is_none_or(|name| *name != "None"));
    let nodes: Vec<_> = named.map(|lora| workflow.describe(&lora.node)).collect();
    if !nodes.is_empty() {
        draft.note(format!(
            "lora is not bound: the LoRA of {} is part of the workflow, and stays; if requests shall choose LoRAs instead, add \
             repeat.loras, which drops it where a request has none",
            nodes.join(", ")
        ));
    }
}

/// The model, if there is one only; the batch, if it is not 1.
pub(super) fn bind_model_and_batch(workflow: &Workflow<'_>, draft: &mut Draft) {
    let rules = workflow.rules;
    let models: Vec<_> = settings(workflow, draft, rules.models)
        .into_iter()
        .filter(|model| {
            rules.model_loaders.is_empty() || workflow.class_has(&model.node, rules.model_loaders)
        })
        .collect();
    match models.as_slice() {
        [] => draft.note("model is not bound: no loader names one".to_owned()),
        [model] => {
            let why = format!("model: of {}, the only loader", workflow.describe(&model.node));
            draft.bind("model", vec![model.at.clone()], why);
        }
        several => {
            let names: Vec<_> = several.iter().map(|model| model.at.to_string()).collect();
            draft.note(format!("model is not bound: several are loaded ({})", names.join(", ")));
        }
    }
    let batches: Vec<_> = settings(workflow, draft, rules.batches)
        .into_iter()
        .filter(|batch| batch.value.as_ref().and_then(Value::as_f64).is_some_and(|size| !is_equal(size, 1.0)))
        .collect();
    let names: Vec<_> = batches.iter().map(|batch| workflow.describe(&batch.node)).collect();
    let why =
        format!("n: {} would make several pictures at once; several are several runs", names.join(", "));
    draft.bind("n", batches.into_iter().map(|batch| batch.at).collect(), why);
}
