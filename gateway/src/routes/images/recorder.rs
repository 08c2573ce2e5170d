//! What is recorded with the images of a request: who made them, what was asked for, what the backend says it did, and how
//! long it took.

use serde_json::{Map, Value};
use service::text::{prefix, printable};
use tokio::time::Instant;

use crate::{
    app::App,
    request::{
        asked::AskedSettings,
        image_request::{ImageRequest, ImageTask},
    },
    routes::AuthorizedRequest,
    store::metadata::Provenance,
};

/// Of a prompt.
const MAX_PROMPT_CHARS: usize = 32_000;
/// Of a file's name.
const MAX_FILE_NAME_CHARS: usize = 120;
/// What a backend may call its task.
const TASKS: [&str; 3] = ["generate", "edit", "inpaint"];
/// What only the request says: a backend's setting of such a name is left out.
const OURS: [&str; 5] = ["prompt", "references", "mask", "requested", "duration_seconds"];

/// Writes the records of one request.
#[derive(Debug)]
pub(super) struct Recorder {
    /// Without settings.
    provenance: Provenance,
    arrival: Instant,
    /// `None` if no settings are kept.
    asked: Option<Asked>,
}

/// A request, as far as it is recorded.
#[derive(Debug)]
struct Asked {
    task: ImageTask,
    prompt: String,
    /// The name that the backend was sent, if any.
    model: Option<String>,
    size: Option<String>,
    settings: AskedSettings,
}

impl Recorder {
    pub(super) fn new(
        app: &App,
        authorized: &AuthorizedRequest,
        arrival: Instant,
        request: &ImageRequest,
        settings: AskedSettings,
        model: Option<&str>,
    ) -> Self {
        let asked = app.config.record_settings.then(|| Asked {
            task: request.task,
            prompt: request.prompt.clone(),
            model: model.map(str::to_owned),
            size: request.size.map(|size| size.to_string()),
            settings,
        });
        Self { provenance: authorized.provenance(), arrival, asked }
    }

    /// Of an image that was just received, of which the backend says this, the more specific last.
    pub(super) fn provenance(&self, said: &[&Map<String, Value>]) -> Provenance {
        let seconds = round(self.arrival.elapsed().as_secs_f64());
        let settings = self.asked.as_ref().map(|asked| settings(asked, said, seconds)).unwrap_or_default();
        Provenance { settings, ..self.provenance.clone() }
    }
}

/// What was asked for, then what the backend says: that is what it did. Pure.
fn settings(asked: &Asked, said: &[&Map<String, Value>], seconds: f64) -> Map<String, Value> {
    let text = |text: &str| Value::from(prefix(text, MAX_PROMPT_CHARS));
    let presumed = [
        ("task", Some(asked.task.name(asked.settings.has_mask).into())),
        ("negative_prompt", asked.settings.negative_prompt.as_deref().map(text)),
        ("model", asked.model.as_deref().map(Value::from)),
        ("size", asked.size.as_deref().map(Value::from)),
    ];
    let references: Vec<_> = asked.settings.references.iter().map(|name| file_name(name)).collect();
    let parameters = &asked.settings.parameters;
    let ours = [
        ("prompt", Some(text(&asked.prompt))),
        ("references", (!references.is_empty()).then(|| references.into())),
        ("mask", asked.settings.has_mask.then(|| true.into())),
        ("requested", (!parameters.is_empty()).then(|| parameters.clone().into())),
        ("duration_seconds", Some(seconds.into())),
    ];
    let present = |(name, value): (&str, Option<Value>)| Some((name.to_owned(), value?));
    let mut all: Map<_, _> = presumed.into_iter().filter_map(present).collect();
    for said in said {
        let (settings, others): (Vec<_>, Vec<_>) = said.iter().partition(|(name, _)| *name == "settings");
        let settings = settings.into_iter().filter_map(|(_, settings)| settings.as_object()).flatten();
        let members = others.into_iter().chain(settings).filter(|(name, value)| is_usable(name, value));
        all.extend(members.map(|(name, value)| (name.clone(), value.clone())));
    }
    all.extend(ours.into_iter().filter_map(present));
    all
}

fn is_usable(name: &str, value: &Value) -> bool {
    let is_task = |value: &Value| value.as_str().is_some_and(|task| TASKS.contains(&task));
    !value.is_null() && !OURS.contains(&name) && (name != "task" || is_task(value))
}

/// Without the folders, which are nobody's business.
fn file_name(name: &str) -> Value {
    let name = name.rsplit(['/', '\\']).next().unwrap_or_default();
    prefix(&printable(name), MAX_FILE_NAME_CHARS).into()
}

/// To milliseconds.
fn round(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn asked(task: ImageTask) -> Asked {
        let parameters = json!({"model": "sd", "steps": 20, "seed": 7}).as_object().unwrap().clone();
        Asked {
            task,
            prompt: "a <b>\u{1}".to_owned(),
            model: Some("sd".to_owned()),
            size: Some("64x64".to_owned()),
            settings: AskedSettings { parameters, ..AskedSettings::default() },
        }
    }

    fn object(value: Value) -> Map<String, Value> {
        let Value::Object(object) = value else { panic!("{value}") };
        object
    }

    #[test]
    fn what_the_backend_says_wins_over_what_was_asked_for() {
        let requested = json!({"model": "sd", "steps": 20, "seed": 7});
        let unsaid = json!({"task": "generate", "prompt": "a <b>\u{1}", "model": "sd", "size": "64x64",
            "requested": requested, "duration_seconds": 1.5});
        for (said, changes) in [
            (vec![], json!({})),
            (
                vec![json!({"size": "80x80", "ignored": ["strength"]}), json!({"seed": 9})],
                json!({"size": "80x80", "ignored": ["strength"], "seed": 9}),
            ),
            (
                vec![
                    json!({"size": "80x80"}),
                    json!({"seed": 9, "settings": {"model": "SD 1.5", "preset": "sd",
                "steps": 8, "seed": 10, "size": "96x96", "none": null, "graph": {"a": [1]}}}),
                ],
                json!({"model": "SD 1.5", "preset": "sd", "steps": 8, "seed": 10, "size": "96x96", "graph": {"a": [1]}}),
            ),
            (
                vec![
                    json!({"settings": {"prompt": "other", "requested": 1, "duration_seconds": 9, "mask": 1,
                "references": [], "task": "evil"}}),
                ],
                json!({}),
            ),
            (
                vec![json!({"settings": {"task": "inpaint"}, "revised_prompt": "r"})],
                json!({"task": "inpaint", "revised_prompt": "r"}),
            ),
            (vec![json!({"settings": "none"})], json!({})),
        ] {
            let mut expected = object(unsaid.clone());
            expected.extend(object(changes));
            let said: Vec<_> = said.into_iter().map(object).collect();
            let said: Vec<_> = said.iter().collect();
            assert_eq!(settings(&asked(ImageTask::Generation), &said, 1.5), expected, "{said:?}");
        }
    }

    #[test]
    fn an_edit_says_what_it_was_made_from() {
        let names =
            ["/home/me/a.png", r"C:\Users\me\b.png", "c\n\u{202e}d", &"x".repeat(200)].map(str::to_owned);
        let mut edit = asked(ImageTask::Edit);
        edit.settings.references = names.into();
        edit.settings.negative_prompt = Some("bad".to_owned());
        let record = settings(&edit, &[], 0.0);
        assert_eq!(record["references"].as_array().unwrap()[..3], ["a.png", "b.png", "c\\n\\u{202e}d"]);
        assert_eq!(record["references"][3].as_str().unwrap().chars().count(), MAX_FILE_NAME_CHARS);
        assert_eq!((&record["task"], &record["negative_prompt"]), (&json!("edit"), &json!("bad")));
        assert!(!record.contains_key("mask"));
        edit.settings.has_mask = true;
        let record = settings(&edit, &[], 0.0);
        assert_eq!((&record["task"], &record["mask"]), (&json!("inpaint"), &json!(true)));
    }

    #[test]
    fn a_prompt_is_cut_by_characters() {
        let long = Asked { prompt: "\u{1F408}".repeat(40_000), ..asked(ImageTask::Generation) };
        let record = settings(&long, &[], 0.0);
        assert_eq!(record["prompt"].as_str().unwrap().chars().count(), MAX_PROMPT_CHARS);
    }
}
