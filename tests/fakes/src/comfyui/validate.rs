//! What `POST /prompt` refuses: the checks of the real server in its order, answers in the recorded shapes.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    files,
    graph::{self, CLASSES, Link},
    literal,
    queue::ComfyState,
    refusal::{error, refusal, unknown_class},
};

/// A workflow that passed, at least in part.
#[derive(Debug)]
pub(super) struct Valid {
    /// Numbers coerced.
    pub(super) graph: Value,
    /// The outputs that will run.
    pub(super) outputs: Vec<String>,
    /// What is wrong with the others.
    pub(super) node_errors: Value,
}

/// Checks a workflow, or gives the whole answer that refuses it. `targets` limits the outputs.
pub(super) fn validate(state: &ComfyState, graph: Value, targets: Option<&Value>) -> Result<Valid, Value> {
    for (id, node) in graph.as_object().into_iter().flatten() {
        if CLASSES.get(node["class_type"].as_str().unwrap_or_default()).is_none() {
            return Err(refusal(&unknown_class(state, id, node), &json!({})));
        }
    }
    let is_target =
        |id: &String| targets.and_then(Value::as_array).is_none_or(|ids| ids.contains(&json!(id)));
    let ids = graph.as_object().into_iter().flat_map(Map::keys);
    let outputs: Vec<String> =
        ids.filter(|id| graph::is_output(graph::class(&graph, id)) && is_target(id)).cloned().collect();
    if outputs.is_empty() {
        return Err(refusal(
            &error("prompt_no_outputs", "Prompt has no outputs", "", &json!({})),
            &json!({}),
        ));
    }
    let mut check = Check { state, graph, path: Vec::new(), checked: BTreeMap::new() };
    let mut node_errors = json!({});
    let mut valid = Vec::new();
    for output in outputs {
        if check.passes(&output) {
            valid.push(output);
            continue;
        }
        for (id, Checked { errors, .. }) in check.checked.iter().filter(|(_, node)| !node.errors.is_empty()) {
            let class = check.graph[id]["class_type"].clone();
            let report = &mut node_errors[id];
            if report.is_null() {
                *report = json!({"errors": errors, "dependent_outputs": [], "class_type": class});
            }
            let dependent = report["dependent_outputs"].as_array_mut().expect("made so just above");
            dependent.push(json!(output));
        }
    }
    if valid.is_empty() {
        let what =
            error("prompt_outputs_failed_validation", "Prompt outputs failed validation", "", &json!({}));
        return Err(refusal(&what, &node_errors));
    }
    Ok(Valid { graph: check.graph, outputs: valid, node_errors })
}

/// A Python exception on its way to the node that asked.
struct Raised {
    class: &'static str,
    message: String,
}

struct Check<'a> {
    state: &'a ComfyState,
    graph: Value,
    /// From the output to the node in hand.
    path: Vec<String>,
    checked: BTreeMap<String, Checked>,
}

/// What was found out about a node.
#[derive(Default)]
struct Checked {
    /// Neither it nor any node before it has errors.
    passes: bool,
    /// Its own.
    errors: Vec<Value>,
}

impl Checked {
    fn failed(error: Value) -> Self {
        Self { passes: false, errors: vec![error] }
    }
}

impl Check<'_> {
    fn passes(&mut self, output: &str) -> bool {
        match self.node(output) {
            Ok(passes) => passes,
            Err(Raised { class, message }) => {
                let extra = json!({"exception_type": class, "traceback": []});
                let what =
                    error("exception_during_validation", "Exception when validating node", &message, &extra);
                self.checked.insert(output.to_owned(), Checked::failed(what));
                false
            }
        }
    }

    /// False if it or any node before it has errors.
    fn node(&mut self, id: &str) -> Result<bool, Raised> {
        if let Some(start) = self.path.iter().position(|on_path| on_path == id) {
            self.report_cycle(start);
            return Ok(false);
        }
        if let Some(known) = self.checked.get(id) {
            return Ok(known.passes);
        }
        let key_error = |key: &str| Raised { class: "KeyError", message: format!("'{key}'") };
        let node = self.graph.get(id).ok_or_else(|| key_error(id))?;
        let class = node["class_type"].as_str().unwrap_or_default().to_owned();
        let inputs = node.get("inputs").ok_or_else(|| key_error("inputs"))?.clone();
        self.path.push(id.to_owned());
        let (mut errors, mut before_pass) = (Vec::new(), true);
        for (name, is_required) in graph::input_names(&class) {
            match inputs.get(name) {
                None if is_required => errors.push(error(
                    "required_input_missing",
                    "Required input is missing",
                    name,
                    &json!({"input_name": name}),
                )),
                None => {}
                Some(value @ Value::Array(_)) => {
                    before_pass &= self.linked(&class, name, value, &mut errors)?;
                }
                Some(value) => errors.extend(self.value(id, &class, name, value)),
            }
        }
        self.path.pop();
        // A cycle has left its error here already.
        let checked = self.checked.entry(id.to_owned()).or_default();
        checked.errors.extend(errors);
        checked.passes = checked.errors.is_empty() && before_pass;
        Ok(checked.passes)
    }

    /// A link: its shape, the type of what comes through it, and everything before it.
    fn linked(
        &mut self,
        class: &str,
        name: &str,
        value: &Value,
        errors: &mut Vec<Value>,
    ) -> Result<bool, Raised> {
        let spec = literal::spec(class, name);
        let Some(Link { from, slot }) = graph::link(value) else {
            let extra = json!({"input_name": name, "input_config": spec, "received_value": value});
            let message = "Bad linked input, must be a length-2 list of [node_id, slot_index]";
            errors.push(error("bad_linked_input", message, name, &extra));
            return Ok(true);
        };
        if self.graph.get(&from).is_none() {
            return Err(Raised { class: "KeyError", message: format!("'{from}'") });
        }
        let given = &CLASSES[graph::class(&self.graph, &from)]["output"][slot];
        let Some(given) = given.as_str() else {
            return Err(Raised { class: "IndexError", message: "tuple index out of range".to_owned() });
        };
        let wanted = spec[0].as_str().unwrap_or("COMBO");
        if given != wanted {
            let details = format!("{name}, received_type({given}) mismatch input_type({wanted})");
            let extra = json!({"input_name": name, "input_config": spec, "received_type": given,
                "linked_node": value});
            errors.push(error(
                "return_type_mismatch",
                "Return type mismatch between linked nodes",
                &details,
                &extra,
            ));
            return Ok(true);
        }
        Ok(self.before(&from, name, &spec, value))
    }

    /// What a node before this one raises is that node's error, told in terms of this input.
    fn before(&mut self, from: &str, name: &str, spec: &Value, link: &Value) -> bool {
        let depth = self.path.len();
        match self.node(from) {
            Ok(passes) => passes,
            Err(Raised { class, message }) => {
                self.path.truncate(depth);
                let extra = json!({"input_name": name, "input_config": spec, "exception_message": message,
                    "exception_type": class, "traceback": ["  File \"/srv/comfyui/execution.py\"\n"],
                    "linked_node": link});
                let title = "Exception when validating inner node";
                let what = error("exception_during_inner_validation", title, &message, &extra);
                self.checked.insert(from.to_owned(), Checked::failed(what));
                false
            }
        }
    }

    /// A value in place of a link. Coerced numbers are put back.
    fn value(&mut self, id: &str, class: &str, name: &str, value: &Value) -> Option<Value> {
        if name == "image" && class.starts_with("LoadImage") {
            let file = value.as_str().and_then(files::annotated);
            let exists = file.is_some_and(|path| self.state.files.contains_key(&path));
            let details = format!("image - Invalid image file: {}", value.as_str().unwrap_or_default());
            let title = "Custom validation failed for node";
            return (!exists)
                .then(|| error("custom_validation_failed", title, &details, &json!({"input_name": name})));
        }
        let mut spec = literal::spec(class, name);
        if name == "ckpt_name" {
            spec[0] = json!(self.state.script.checkpoints);
        }
        if name == "unet_name" {
            spec[0] = json!(self.state.script.diffusion_models.clone().unwrap_or_default());
        }
        match literal::check(name, &spec, value) {
            Ok(coerced) => {
                self.graph[id]["inputs"][name] = coerced;
                None
            }
            Err(error) => Some(error),
        }
    }

    fn report_cycle(&mut self, start: usize) {
        let nodes = self.path[start..].to_vec();
        let titles: Vec<String> = nodes
            .iter()
            .chain(nodes.first())
            .map(|id| format!("{id} ({})", graph::class(&self.graph, id)))
            .collect();
        for id in &nodes {
            let extra = json!({"node_id": id, "cycle_nodes": nodes});
            let what = error("dependency_cycle", "Dependency cycle detected", &titles.join(" -> "), &extra);
            self.checked.insert(id.clone(), Checked::failed(what));
        }
    }
}
