//! Templates: an engine's graph as JSON, and beside it which inputs take which of the job's values. The built-in
//! graphs are templates like any other. Values are set as JSON, never spliced into text, so a prompt is only ever a
//! prompt.

mod workflow;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::images::Task;

/// A value of the job that a graph can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each is the job's value of that name")]
pub enum Binding {
    Prompt,
    NegativePrompt,
    Width,
    Height,
    Seed,
    Steps,
    CfgScale,
    Scheduler,
    Model,
    Image,
    Mask,
    Strength,
    /// Always 1: several pictures are several runs, each with its own seed.
    N,
}

/// Whose graph it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// InvokeAI's: `nodes` with their inputs, and `edges`; or a workflow that its web page exported.
    InvokeAi,
    /// ComfyUI's API format: nodes with `class_type` and `inputs`.
    ComfyUi,
}

/// An input of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The node's id.
    pub node: String,
    /// Its input.
    pub field: String,
}

/// A graph with its bindings.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    form: Form,
    graph: Value,
    bindings: BTreeMap<Binding, Vec<Place>>,
    /// The node whose picture is the result.
    pub output: String,
}

/// What is wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault(pub String);

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Declaration {
    output: String,
    bindings: BTreeMap<Binding, Vec<String>>,
}

impl Template {
    /// Reads a graph (JSON) and its declaration (YAML: `output` and `bindings`). Every place must exist.
    pub fn read(form: Form, graph: &str, declaration: &str) -> Result<Self, Fault> {
        let graph: Value =
            serde_json::from_str(graph).map_err(|error| Fault(format!("the graph is not JSON: {error}")))?;
        let declared: Declaration = serde_saphyr::from_str(declaration)
            .map_err(|error| Fault(format!("the bindings: {}", error.without_snippet())))?;
        let graph = match form {
            Form::InvokeAi => workflow::to_graph(graph)?,
            Form::ComfyUi => api_format(graph)?,
        };
        let mut template = Self { form, graph, bindings: BTreeMap::new(), output: declared.output };
        for (binding, places) in declared.bindings {
            for text in places {
                let place = template.place(binding, &text)?;
                template.bindings.entry(binding).or_default().push(place);
            }
        }
        if template.node(&template.output).is_none() {
            return Err(Fault(format!("output: the graph has no node {:?}", template.output)));
        }
        Ok(template)
    }

    /// Whether everything is bound that this task needs.
    pub fn serves(&self, task: Task) -> Result<(), Fault> {
        let needed: &[Binding] = match task {
            Task::Generate => &[Binding::Prompt, Binding::Seed],
            Task::Edit => &[Binding::Prompt, Binding::Seed, Binding::Image],
            Task::Inpaint => &[Binding::Prompt, Binding::Seed, Binding::Image, Binding::Mask],
        };
        match needed.iter().find(|binding| !self.bindings.contains_key(binding)) {
            Some(missing) => Err(Fault(format!(
                "{missing:?} is bound to no input: for {} it must be, or every request would give the same picture",
                task.name()
            ))),
            None => Ok(()),
        }
    }

    /// The graph with values in their places.
    pub fn render(&self, value: impl Fn(Binding, &Place) -> Value) -> Value {
        let mut graph = self.graph.clone();
        for (binding, places) in &self.bindings {
            for place in places {
                let inputs = match self.form {
                    Form::InvokeAi => &mut graph["nodes"][&place.node],
                    Form::ComfyUi => &mut graph[&place.node]["inputs"],
                };
                inputs[&place.field] = value(*binding, place);
            }
        }
        graph
    }

    /// Where a value goes.
    pub fn places(&self, binding: Binding) -> &[Place] {
        self.bindings.get(&binding).map_or(&[], Vec::as_slice)
    }

    /// Every bound place.
    pub fn bound(&self) -> impl Iterator<Item = &Place> {
        self.bindings.values().flatten()
    }

    /// Every node: its id, its type, its inputs.
    pub fn nodes(&self) -> impl Iterator<Item = (&str, &str, &Map<String, Value>)> {
        let nodes = match self.form {
            Form::InvokeAi => &self.graph["nodes"],
            Form::ComfyUi => &self.graph,
        };
        nodes.as_object().into_iter().flatten().filter_map(|(id, node)| {
            let (kind, inputs) = match self.form {
                Form::InvokeAi => ("type", node),
                Form::ComfyUi => ("class_type", &node["inputs"]),
            };
            Some((id.as_str(), node.get(kind)?.as_str()?, inputs.as_object()?))
        })
    }

    fn node(&self, id: &str) -> Option<&Map<String, Value>> {
        self.nodes().find(|(known, _, _)| *known == id).map(|(_, _, inputs)| inputs)
    }

    fn place(&self, binding: Binding, text: &str) -> Result<Place, Fault> {
        let (id, field) = text.split_once('.').ok_or_else(|| Fault(format!("{text:?} is not node.input")))?;
        let inputs =
            self.node(id).ok_or_else(|| Fault(format!("{binding:?}: the graph has no node {id:?}")))?;
        if !inputs.contains_key(field) {
            return Err(Fault(format!("{binding:?}: the node {id:?} has no input {field:?}")));
        }
        Ok(Place { node: id.to_owned(), field: field.to_owned() })
    }
}

/// The web page's own format has lists of nodes and links, and cannot be run.
fn api_format(graph: Value) -> Result<Value, Fault> {
    if graph.get("nodes").is_some_and(Value::is_array) {
        return Err(Fault("this is ComfyUI's own workflow format: export it with Export (API)".to_owned()));
    }
    let is_node = |node: &Value| node["class_type"].is_string() && node["inputs"].is_object();
    match graph.as_object().map(|nodes| nodes.iter().find(|(_, node)| !is_node(node))) {
        None => Err(Fault("the graph is not an object of nodes".to_owned())),
        Some(Some((id, _))) => Err(Fault(format!("the node {id:?} has no class_type and inputs"))),
        Some(None) => Ok(graph),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const GRAPH: &str = r#"{"nodes":{"pos":{"id":"pos","type":"compel","prompt":""},"noise":{"id":"noise","type":"noise","seed":0,"width":0}}}"#;

    fn invoke(yaml: &str) -> Result<Template, Fault> {
        Template::read(Form::InvokeAi, GRAPH, yaml)
    }

    #[test]
    fn a_prompt_is_only_ever_a_prompt() {
        let yaml = "output: pos\nbindings: {prompt: [pos.prompt], seed: [noise.seed]}";
        let api = r#"{"pos":{"class_type":"CLIPTextEncode","inputs":{"prompt":""}},"noise":{"class_type":"KSampler","inputs":{"seed":1}}}"#;
        for (form, graph, at) in
            [(Form::InvokeAi, GRAPH, "/nodes/pos/prompt"), (Form::ComfyUi, api, "/pos/inputs/prompt")]
        {
            let template = Template::read(form, graph, yaml).unwrap();
            let bare = template.render(|_, _| json!(0));
            for prompt in ["\"},\"evil\":{\"id\":\"evil\"", "{{seed}} ${HOME} \\u0000 \u{0}", "ünïcode"] {
                let graph = template.render(|binding, _| match binding {
                    Binding::Prompt => json!(prompt),
                    _ => json!(9),
                });
                assert_eq!(graph.pointer(at), Some(&json!(prompt)));
                let keys = |graph: &Value| graph.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
                assert_eq!(keys(&graph), keys(&bare), "no node came in");
            }
        }
    }

    #[test]
    fn a_place_that_does_not_exist_is_named() {
        let read = |yaml: &str| invoke(yaml).unwrap_err().0;
        let bound =
            |more: &str| format!("output: pos\nbindings: {{prompt: [pos.prompt], seed: [noise.seed]{more}}}");
        assert_eq!(read(&bound(", width: [nose.width]")), "Width: the graph has no node \"nose\"");
        assert_eq!(
            read(&bound(", width: [noise.girth]")),
            "Width: the node \"noise\" has no input \"girth\""
        );
        assert_eq!(read(&bound(", width: [noise]")), "\"noise\" is not node.input");
        assert!(read(&bound(", mood: [noise.seed]")).contains("mood"));
        assert!(
            read("output: x\nbindings: {prompt: [pos.prompt], seed: [noise.seed]}").contains("no node \"x\"")
        );
        assert!(Template::read(Form::InvokeAi, "[", &bound("")).is_err());
    }

    #[test]
    fn a_task_needs_its_bindings() {
        let bare = invoke("output: pos\nbindings: {prompt: [pos.prompt]}").unwrap();
        assert!(bare.serves(Task::Generate).unwrap_err().0.starts_with("Seed is bound to no input"));
        let whole = invoke("output: pos\nbindings: {prompt: [pos.prompt], seed: [noise.seed]}").unwrap();
        assert_eq!(whole.serves(Task::Generate), Ok(()));
        assert!(whole.serves(Task::Edit).unwrap_err().0.starts_with("Image is bound"));
    }

    #[test]
    fn a_workflow_of_comfyuis_web_page_is_told_from_its_api_format() {
        let read = |graph: &str| {
            Template::read(
                Form::ComfyUi,
                graph,
                "output: '9'\nbindings: {prompt: ['6.text'], seed: ['3.seed']}",
            )
            .unwrap_err()
            .0
        };
        assert!(read(r#"{"nodes":[],"links":[]}"#).contains("Export (API)"));
        assert!(read(r#"{"3":{"inputs":{}}}"#).contains("\"3\" has no class_type"));
        assert!(read("[]").contains("not an object"));
    }
}
