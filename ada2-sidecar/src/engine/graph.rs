//! Templates: an engine's graph as JSON, and beside it which inputs take which of the job's values. The built-in
//! graphs are templates like any other. Values are set as JSON, never spliced into text, so a prompt is only ever a
//! prompt.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::images::Job;

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
}

impl Binding {
    /// The job's value; the seed is the first picture's.
    fn value(self, job: &Job) -> Value {
        match self {
            Self::Prompt => json!(job.prompt),
            Self::NegativePrompt => json!(job.negative_prompt),
            Self::Width => json!(job.size.width),
            Self::Height => json!(job.size.height),
            Self::Seed => json!(job.seeds.first()),
            Self::Steps => json!(job.steps),
            Self::CfgScale => json!(job.cfg_scale),
            Self::Scheduler => json!(job.scheduler),
            Self::Model => job.model.handle.clone(),
        }
    }
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
#[derive(Debug, Clone)]
pub struct Template {
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
    /// Reads a graph (JSON with `nodes`) and its declaration (YAML: `output` and `bindings`). Every place must exist.
    pub fn read(graph: &str, declaration: &str) -> Result<Self, Fault> {
        let graph: Value =
            serde_json::from_str(graph).map_err(|error| Fault(format!("the graph is not JSON: {error}")))?;
        let declared: Declaration =
            serde_saphyr::from_str(declaration).map_err(|error| Fault(format!("the bindings: {error}")))?;
        let node = |id: &str| graph.get("nodes").and_then(|nodes| nodes.get(id)).and_then(Value::as_object);
        let mut bindings: BTreeMap<Binding, Vec<Place>> = BTreeMap::new();
        for (binding, places) in declared.bindings {
            for text in places {
                let (id, field) =
                    text.split_once('.').ok_or_else(|| Fault(format!("{text:?} is not node.input")))?;
                let inputs =
                    node(id).ok_or_else(|| Fault(format!("{binding:?}: the graph has no node {id:?}")))?;
                if !inputs.contains_key(field) {
                    return Err(Fault(format!("{binding:?}: the node {id:?} has no input {field:?}")));
                }
                let place = Place { node: id.to_owned(), field: field.to_owned() };
                bindings.entry(binding).or_default().push(place);
            }
        }
        if node(&declared.output).is_none() {
            return Err(Fault(format!("output: the graph has no node {:?}", declared.output)));
        }
        for needed in [Binding::Prompt, Binding::Seed] {
            if !bindings.contains_key(&needed) {
                return Err(Fault(format!(
                    "{needed:?} is bound to no input: every request would give the same picture"
                )));
            }
        }
        Ok(Self { graph, bindings, output: declared.output })
    }

    /// The graph with the job's values in their places.
    pub fn render(&self, job: &Job) -> Value {
        let mut graph = self.graph.clone();
        for (binding, places) in &self.bindings {
            for place in places {
                graph["nodes"][&place.node][&place.field] = binding.value(job);
            }
        }
        graph
    }

    /// Where a value goes.
    pub fn places(&self, binding: Binding) -> &[Place] {
        self.bindings.get(&binding).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        images::{GenerationRequest, Limits},
        models::{Base, EngineModel},
    };
    use shared::openai::fields::Fields;

    const GRAPH: &str =
        r#"{"nodes":{"pos":{"id":"pos","prompt":""},"noise":{"id":"noise","seed":0,"width":0}}}"#;

    fn job(prompt: &str) -> Job {
        let fields = Fields::parse(json!({"prompt": prompt, "seed": 9}).to_string().as_bytes()).unwrap();
        let limits = Limits { max_n: 4, max_pixels: 2_000_000 };
        let request = GenerationRequest::read(&fields, limits).unwrap();
        Job::plan(&request, EngineModel::plain("k", "n", Base::Sd1), 1, limits).unwrap()
    }

    #[test]
    fn a_prompt_is_only_ever_a_prompt() {
        let yaml = "output: pos\nbindings: {prompt: [pos.prompt], seed: [noise.seed], width: [noise.width]}";
        let template = Template::read(GRAPH, yaml).unwrap();
        for prompt in ["\"},\"evil\":{\"id\":\"evil\"", "{{seed}} ${HOME} \\u0000 \u{0}", "ünïcode"] {
            let graph = template.render(&job(prompt));
            assert_eq!(graph["nodes"]["pos"]["prompt"], prompt);
            assert_eq!(graph["nodes"].as_object().unwrap().len(), 2, "no node came in");
            assert_eq!(
                (&graph["nodes"]["noise"]["seed"], &graph["nodes"]["noise"]["width"]),
                (&json!(9), &json!(512))
            );
        }
    }

    #[test]
    fn a_place_that_does_not_exist_is_named() {
        let read = |yaml: &str| Template::read(GRAPH, yaml).unwrap_err().0;
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
        assert!(read("output: pos\nbindings: {prompt: [pos.prompt]}").contains("Seed is bound to no input"));
        assert!(Template::read("[", &bound("")).is_err());
    }
}
