//! The inputs that a node takes as it stands in a graph. Those of the newer types depend on the graph: a dynamic choice
//! (`format`) brings the inputs of the chosen option (`format.bit_depth`), a growing input (`images`) one for each name
//! (`images.image_1`).

use serde_json::Value;

/// What the graph gives for an input.
pub(super) enum Given<'a> {
    Nothing,
    /// A value that no request changes.
    Value(&'a Value),
    /// A link, or a binding, whose values are not known here.
    Open,
}

/// One input of a node.
#[derive(Debug, PartialEq)]
pub(super) struct DeclaredInput<'a> {
    /// As the graph writes it: `format.bit_depth`.
    pub(super) name: String,
    /// Its type and options.
    pub(super) spec: &'a Value,
    pub(super) is_required: bool,
}

/// A growing input, and the names that it takes.
#[derive(Debug, PartialEq)]
pub(super) struct GrowingInput {
    pub(super) name: String,
    /// Without the name in front.
    pub(super) members: Vec<String>,
}

/// Everything that a node takes.
#[derive(Debug, Default)]
pub(super) struct NodeInputs<'a> {
    pub(super) declared: Vec<DeclaredInput<'a>>,
    pub(super) growing: Vec<GrowingInput>,
    /// Inputs of types that are unknown here: whatever begins with one of these names may be taken.
    open: Vec<String>,
}

impl<'a> NodeInputs<'a> {
    /// From the description of a class, for the node that `given` looks at.
    pub(super) fn read(description: &'a Value, given: &dyn Fn(&str) -> Given<'a>) -> Self {
        let mut all = Self::default();
        all.add_groups(&description["input"], "", true, given);
        all
    }

    pub(super) fn find(&self, name: &str) -> Option<&DeclaredInput<'a>> {
        self.declared.iter().find(|input| input.name == name)
    }

    /// Whether an input of this name may be taken.
    pub(super) fn takes(&self, name: &str) -> bool {
        self.find(name).is_some() || self.open.iter().any(|open| is_member(name, open))
    }

    /// The growing input that this name belongs to, whether or not it takes it.
    pub(super) fn growing_of(&self, name: &str) -> Option<&GrowingInput> {
        self.growing.iter().find(|input| is_member(name, &input.name))
    }

    fn add_groups(
        &mut self,
        groups: &'a Value,
        prefix: &str,
        is_required: bool,
        given: &dyn Fn(&str) -> Given<'a>,
    ) {
        for group in ["required", "optional"] {
            for (name, spec) in groups[group].as_object().into_iter().flatten() {
                self.add(format!("{prefix}{name}"), spec, is_required && group == "required", given);
            }
        }
    }

    fn add(&mut self, name: String, spec: &'a Value, is_required: bool, given: &dyn Fn(&str) -> Given<'a>) {
        let inner = format!("{name}.");
        match spec[0].as_str() {
            Some("COMFY_DYNAMICCOMBO_V3") => {
                let options = spec[1]["options"].as_array().map(Vec::as_slice).unwrap_or_default();
                let chosen = match given(&name) {
                    Given::Value(value) => options.iter().find(|option| option["key"] == *value),
                    Given::Nothing | Given::Open => None,
                };
                match chosen {
                    Some(option) => self.add_groups(&option["inputs"], &inner, is_required, given),
                    // Any option may be chosen, so none of their inputs is known to be needed.
                    None => self.open.push(name.clone()),
                }
            }
            Some("COMFY_AUTOGROW_V3") => {
                return self.add_growing(name, &spec[1]["template"], is_required);
            }
            Some("COMFY_DYNAMICSLOT_V3") => {
                let is_given = !matches!(given(&name), Given::Nothing);
                self.add_groups(&spec[1]["inputs"], &inner, is_given, given);
                return self.declared.push(DeclaredInput { name, spec, is_required: false });
            }
            Some(kind) if kind.starts_with("COMFY_") => {
                self.open.push(name.clone());
                return self.declared.push(DeclaredInput { name, spec, is_required: false });
            }
            _ => {}
        }
        self.declared.push(DeclaredInput { name, spec, is_required });
    }

    fn add_growing(&mut self, name: String, template: &'a Value, is_required: bool) {
        let member = ["required", "optional"]
            .into_iter()
            .find_map(|group| template["input"][group].as_object()?.values().next());
        let (Some(spec), Some(members)) = (member, growing_names(template)) else {
            return self.open.push(name);
        };
        let least = template["min"].as_u64().unwrap_or(0);
        for (index, member) in (0..).zip(&members) {
            let name = format!("{name}.{member}");
            self.declared.push(DeclaredInput { name, spec, is_required: is_required && index < least });
        }
        self.growing.push(GrowingInput { name, members });
    }
}

fn is_member(name: &str, outer: &str) -> bool {
    name.strip_prefix(outer).is_some_and(|rest| rest.starts_with('.'))
}

/// Listed names, or a prefix that is counted from 0.
fn growing_names(template: &Value) -> Option<Vec<String>> {
    if let Some(names) = template["names"].as_array() {
        return Some(names.iter().filter_map(Value::as_str).map(str::to_owned).collect());
    }
    let prefix = template["prefix"].as_str()?;
    // The server itself allows a hundred.
    let most = template["max"].as_u64()?.min(1000);
    Some((0..most).map(|index| format!("{prefix}{index}")).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn names(description: &Value, graph: &Value) -> Vec<String> {
        let given = |name: &str| match graph.get(name) {
            None => Given::Nothing,
            Some(Value::Array(_)) => Given::Open,
            Some(value) => Given::Value(value),
        };
        let inputs = NodeInputs::read(description, &given);
        let mark =
            |input: &DeclaredInput<'_>| format!("{}{}", input.name, if input.is_required { "" } else { "?" });
        inputs.declared.iter().map(mark).collect()
    }

    #[test]
    fn a_dynamic_choice_brings_the_inputs_of_the_chosen_option() {
        let options = json!([
            {"key": "keep", "inputs": {}},
            {"key": "resize", "inputs": {"required": {"width": ["INT"]}, "optional": {"crop": ["COMBO"],
                "fit": ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "pad", "inputs": {"required": {"color": ["INT"]}}}]}]}}}]);
        let description =
            json!({"input": {"required": {"size": ["COMFY_DYNAMICCOMBO_V3", {"options": options}]}}});
        for (graph, expected) in [
            (json!({"size": "keep"}), &["size"][..]),
            (json!({"size": "resize"}), &["size.width", "size.crop?", "size.fit?", "size"]),
            (
                json!({"size": "resize", "size.fit": "pad"}),
                &["size.width", "size.crop?", "size.fit.color?", "size.fit?", "size"],
            ),
            (json!({"size": ["1", 0]}), &["size"]),
            (json!({"size": "none of them"}), &["size"]),
            (json!({}), &["size"]),
        ] {
            assert_eq!(names(&description, &graph), expected, "{graph}");
        }
    }

    #[test]
    fn a_growing_input_has_names_and_a_least_number() {
        let grow = |template: Value| {
            let mut template = template;
            template["input"] = json!({"required": {"image": ["IMAGE", {}]}});
            json!({"input": {"required": {"images": ["COMFY_AUTOGROW_V3", {"template": template}]}}})
        };
        for (template, expected) in [
            (json!({"names": ["one", "two"], "min": 1}), &["images.one", "images.two?"][..]),
            (json!({"prefix": "image", "min": 0, "max": 2}), &["images.image0?", "images.image1?"]),
            (json!({"unknown": 1}), &[]),
        ] {
            assert_eq!(names(&grow(template.clone()), &json!({})), expected, "{template}");
        }
        let unknown = grow(json!({"unknown": 1}));
        assert!(NodeInputs::read(&unknown, &|_| Given::Nothing).takes("images.any"));
        let named = grow(json!({"names": ["one"], "min": 0}));
        let inputs = NodeInputs::read(&named, &|_| Given::Nothing);
        assert!(inputs.takes("images.one") && !inputs.takes("images.two") && !inputs.takes("images"));
        assert_eq!(inputs.growing_of("images.two").unwrap().members, ["one"]);
    }

    #[test]
    fn inputs_of_a_slot_are_needed_once_it_is_filled_and_unknown_types_may_take_anything() {
        let slot = json!({"input": {"optional": {"audio": ["COMFY_DYNAMICSLOT_V3", {"inputs": {"required": {"gain": ["FLOAT"]}}}]}}});
        assert_eq!(names(&slot, &json!({})), ["audio.gain?", "audio?"]);
        assert_eq!(names(&slot, &json!({"audio": ["1", 0]})), ["audio.gain", "audio?"]);
        let unknown = json!({"input": {"required": {"any": ["COMFY_NEXT_V9", {}]}}});
        assert_eq!(names(&unknown, &json!({})), ["any?"]);
        assert!(NodeInputs::read(&unknown, &|_| Given::Nothing).takes("any.thing"));
    }
}
