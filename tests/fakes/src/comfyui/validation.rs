//! What `POST /prompt` finds wrong with a graph, in the order and the words of the real server.

use serde_json::{Map, Value, json};

use super::{
    declarations::{self, Input},
    files,
    queue::ComfyState,
};

/// A link that is no link to anything makes the real server raise while it looks at the node.
struct Raised {
    kind: &'static str,
    text: String,
}

/// What is wrong, by node.
pub(super) struct Validation<'a> {
    state: &'a ComfyState,
    graph: &'a Value,
    /// Whether a node that was looked at is valid, with all that it needs.
    seen: Map<String, Value>,
    /// From the output to the node that is looked at.
    path: Vec<String>,
    errors: Map<String, Value>,
}

impl<'a> Validation<'a> {
    /// Looks at each output and at all that it needs: the valid outputs, and what is wrong.
    pub(super) fn of(state: &'a ComfyState, graph: &'a Value, outputs: &[String]) -> (Vec<String>, Value) {
        let mut errors = Map::new();
        let mut valid = Vec::new();
        for output in outputs {
            let mut validation =
                Self { state, graph, seen: Map::new(), path: Vec::new(), errors: Map::new() };
            match validation.node(output) {
                Ok(true) => valid.push(output.clone()),
                Ok(false) => {}
                Err(raised) => {
                    let error = raised.describe("exception_during_validation", "validating node", json!({}));
                    validation.add(output, error);
                }
            }
            for (node, mut about) in validation.errors {
                about["dependent_outputs"] = json!([output]);
                about["class_type"] = graph[&node]["class_type"].clone();
                let known: &mut Value = errors.entry(node).or_insert_with(|| about.clone());
                if known["dependent_outputs"] != json!([output]) {
                    known["dependent_outputs"].as_array_mut().expect("just made").push(json!(output));
                }
            }
        }
        (valid, Value::Object(errors))
    }

    fn add(&mut self, node: &str, error: Value) {
        let about = self.errors.entry(node).or_insert_with(|| json!({"errors": []}));
        about["errors"].as_array_mut().expect("just made").push(error);
    }

    /// Whether the node and all that it needs are valid.
    fn node(&mut self, id: &str) -> Result<bool, Raised> {
        if let Some(valid) = self.seen.get(id) {
            return Ok(valid == &json!(true));
        }
        if let Some(start) = self.path.iter().position(|one| one == id) {
            self.add_cycle(start);
            return Ok(false);
        }
        self.path.push(id.to_owned());
        let valid = self.inputs_of(id);
        self.path.pop();
        self.seen.insert(id.to_owned(), json!(matches!(valid, Ok(true))));
        valid
    }

    fn add_cycle(&mut self, start: usize) {
        let nodes = self.path[start..].to_vec();
        let named =
            |id: &String| format!("{id} ({})", self.graph[id]["class_type"].as_str().unwrap_or_default());
        let shown: Vec<String> = nodes.iter().chain(&nodes[..1]).map(named).collect();
        for id in &nodes {
            self.add(
                id,
                json!({"type": "dependency_cycle", "message": "Dependency cycle detected",
                "details": shown.join(" -> "), "extra_info": {"node_id": id, "cycle_nodes": nodes}}),
            );
        }
    }

    fn inputs_of(&mut self, id: &str) -> Result<bool, Raised> {
        let node = self.graph.get(id).ok_or_else(|| Raised::no_key(id))?;
        let values = node.get("inputs").ok_or_else(|| Raised::no_key("inputs"))?;
        let class = node["class_type"].as_str().unwrap_or_default();
        let about = declarations::object_info(self.state, class).unwrap_or_default();
        let mut valid = true;
        for input in declarations::inputs(&about, values) {
            match self.input(&input, values.get(&input.name))? {
                Found::Fine => {}
                Found::Wrong(error) => {
                    valid = false;
                    self.add(id, error);
                }
                Found::WrongSource => valid = false,
            }
        }
        if valid && let Some(error) = unknown_image(self.state, class, values) {
            valid = false;
            self.add(id, error);
        }
        Ok(valid)
    }

    fn input(&mut self, input: &Input, value: Option<&Value>) -> Result<Found, Raised> {
        match value {
            None if input.required => Ok(Found::Wrong(json!({"type": "required_input_missing",
                "message": "Required input is missing", "details": input.name,
                "extra_info": {"input_name": input.name}}))),
            None => Ok(Found::Fine),
            Some(Value::Array(link)) => self.link(input, link),
            Some(value) => Ok(plain(input, value).map_or(Found::Fine, Found::Wrong)),
        }
    }

    fn link(&mut self, input: &Input, link: &[Value]) -> Result<Found, Raised> {
        let [source, slot] = link else {
            let message = "Bad linked input, must be a length-2 list of [node_id, slot_index]";
            let extra = json!({"input_name": input.name, "input_config": input.spec, "received_value": link});
            return Ok(Found::Wrong(json!({"type": "bad_linked_input", "message": message,
                "details": input.name, "extra_info": extra})));
        };
        let source = source.as_str().unwrap_or_default();
        let class = self.graph.get(source).ok_or_else(|| Raised::no_key(source))?["class_type"].as_str();
        let about = declarations::object_info(self.state, class.unwrap_or_default()).unwrap_or_default();
        let slot = slot.as_u64().and_then(|slot| usize::try_from(slot).ok()).unwrap_or(usize::MAX);
        let given = about["output"].get(slot).and_then(Value::as_str).ok_or_else(Raised::no_slot)?;
        let taken = input.spec[0].as_str().unwrap_or("COMBO");
        if given != taken && given != "*" && taken != "*" {
            let extra = json!({"input_name": input.name, "input_config": input.spec, "received_type": given,
                "linked_node": link});
            return Ok(Found::Wrong(json!({"type": "return_type_mismatch",
                "message": "Return type mismatch between linked nodes",
                "details": format!("{}, received_type({given}) mismatch input_type({taken})", input.name),
                "extra_info": extra})));
        }
        match self.node(source) {
            Ok(true) => return Ok(Found::Fine),
            Ok(false) => {}
            Err(raised) => {
                let extra =
                    json!({"input_name": input.name, "input_config": input.spec, "linked_node": link});
                let kind = "exception_during_inner_validation";
                self.add(source, raised.describe(kind, "validating inner node", extra));
            }
        }
        Ok(Found::WrongSource)
    }
}

enum Found {
    Fine,
    Wrong(Value),
    /// The error is with a node before this one.
    WrongSource,
}

impl Raised {
    fn no_key(key: &str) -> Self {
        Self { kind: "KeyError", text: format!("'{key}'") }
    }

    fn no_slot() -> Self {
        Self { kind: "IndexError", text: "tuple index out of range".to_owned() }
    }

    fn describe(&self, kind: &str, doing: &str, mut extra: Value) -> Value {
        extra["exception_message"] = json!(self.text);
        extra["exception_type"] = json!(self.kind);
        extra["traceback"] = json!(["  File \"/srv/comfyui/execution.py\", line 955, in validate_inputs\n"]);
        json!({"type": kind, "message": format!("Exception when {doing}"), "details": self.text,
            "extra_info": extra})
    }
}

/// What is wrong with a value that is no link. Numbers may be given as text.
fn plain(input: &Input, value: &Value) -> Option<Value> {
    match &input.spec[0] {
        Value::Array(list) => not_in_list(input, list, value),
        Value::String(kind) => match kind.as_str() {
            "COMBO" => not_in_list(input, input.spec[1]["options"].as_array()?, value),
            "COMFY_DYNAMICCOMBO_V3" => {
                let options = input.spec[1]["options"].as_array()?;
                let keys: Vec<Value> = options.iter().map(|option| option["key"].clone()).collect();
                not_in_list(input, &keys, value)
            }
            "INT" | "FLOAT" => number(input, kind, value),
            "STRING" | "BOOLEAN" => None,
            // A node's output is wanted, and this is none.
            _ => Some(json!({"type": "bad_linked_input", "details": input.name,
                "message": "Bad linked input, must be a length-2 list of [node_id, slot_index]",
                "extra_info": {"input_name": input.name, "input_config": input.spec, "received_value": value}})),
        },
        _ => None,
    }
}

fn number(input: &Input, kind: &str, value: &Value) -> Option<Value> {
    let name = &input.name;
    let error = |kind: &str, message: String, details: String, more: Value| {
        let mut extra = json!({"input_name": name, "input_config": input.spec, "received_value": value});
        for (key, value) in more.as_object().into_iter().flatten() {
            extra[key] = value.clone();
        }
        Some(json!({"type": kind, "message": message, "details": details, "extra_info": extra}))
    };
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let Ok(number) = text.trim().parse::<f64>() else {
        let why = if kind == "INT" {
            format!("invalid literal for int() with base 10: '{text}'")
        } else {
            format!("could not convert string to float: '{text}'")
        };
        let message = format!("Failed to convert an input value to a {kind} value");
        let details = format!("{name}, {text}, {why}");
        return error("invalid_input_type", message, details, json!({ "exception_message": why }));
    };
    let limit = |key: &str| input.spec[1].get(key).filter(|limit| limit.is_number());
    let is = |key: &str, wrong: fn(&f64, &f64) -> bool| {
        let limit = limit(key)?;
        wrong(&number, &limit.as_f64()?).then_some(limit)
    };
    if let Some(min) = is("min", f64::lt) {
        let message = format!("Value {text} smaller than min of {min}");
        return error("value_smaller_than_min", message, name.clone(), json!({}));
    }
    let max = is("max", f64::gt)?;
    error("value_bigger_than_max", format!("Value {text} bigger than max of {max}"), name.clone(), json!({}))
}

/// A list of more than twenty is counted, not shown.
fn not_in_list(input: &Input, list: &[Value], value: &Value) -> Option<Value> {
    if list.contains(value) || input.spec[1]["image_upload"] == true {
        return None;
    }
    let quoted = |value: &Value| value.as_str().map_or_else(|| value.to_string(), |text| format!("'{text}'"));
    let (shown, config) = if list.len() > 20 {
        (format!("(list of length {})", list.len()), Value::Null)
    } else {
        let all: Vec<String> = list.iter().map(quoted).collect();
        (format!("[{}]", all.join(", ")), input.spec.clone())
    };
    let extra = json!({"input_name": input.name, "input_config": config, "received_value": value});
    Some(json!({"type": "value_not_in_list", "message": "Value not in list",
        "details": format!("{}: {} not in {shown}", input.name, quoted(value)), "extra_info": extra}))
}

/// These two look for the file themselves.
fn unknown_image(state: &ComfyState, class: &str, values: &Value) -> Option<Value> {
    let name = values["image"].as_str().filter(|_| matches!(class, "LoadImage" | "LoadImageMask"))?;
    let is_missing = files::input(state, name).is_none();
    is_missing.then(|| {
        json!({"type": "custom_validation_failed", "message": "Custom validation failed for node",
            "details": format!("image - Invalid image file: {name}"), "extra_info": {"input_name": "image"}})
    })
}
