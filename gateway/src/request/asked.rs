//! What an image request asks for beyond the fields that the gateway decides on, to be recorded with its images. Nothing is
//! refused here: what is malformed is left out, and the backend refuses it. Pure.

use serde_json::{Map, Number, Value};
use wire::openai::fields::Fields;

/// The fields that are only recorded. They are passed on untouched.
pub(super) const SETTING_FIELDS: &[&str] = &[
    "negative_prompt",
    "negative",
    "quality",
    "steps",
    "num_inference_steps",
    "cfg_scale",
    "guidance_scale",
    "scheduler",
    "sampler",
    "strength",
    "loras",
];

/// Reads a field that is there and well-formed.
type Reader = fn(&Fields, &str) -> Option<Value>;

/// The names of each parameter, of which the first is the one it is recorded under, and of several in a request the first
/// counts.
const PARAMETERS: [(&[&str], Reader); 10] = [
    (&["model"], text),
    (&["size"], text),
    (&["n"], whole),
    (&["quality"], text),
    (&["steps", "num_inference_steps"], whole),
    (&["cfg_scale", "guidance_scale"], number),
    (&["scheduler", "sampler"], text),
    (&["seed"], seed),
    (&["strength"], number),
    (&["loras"], list),
];
const NEGATIVE_PROMPT: &[&str] = &["negative_prompt", "negative"];

/// What is recorded of a request besides its prompt.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct AskedSettings {
    pub(crate) negative_prompt: Option<String>,
    /// The names of the uploaded files, as the client gave them, in the images' order.
    pub(crate) references: Vec<String>,
    pub(crate) has_mask: bool,
    /// The parameters that were sent.
    pub(crate) parameters: Map<String, Value>,
}

impl AskedSettings {
    /// `field` returns the fields with this one among them, if it can be read.
    pub(super) fn read(field: &dyn Fn(&'static str) -> Option<Fields>) -> Self {
        let first = |names: &[&'static str], read: Reader| {
            let present = |name: &&'static str| field(name).filter(|fields| fields.value(name).is_some());
            let (name, fields) = names.iter().find_map(|name| Some((*name, present(name)?)))?;
            read(&fields, name)
        };
        let negative_prompt = first(NEGATIVE_PROMPT, |fields, name| Some(fields.text(name).ok()??.into()));
        let parameters = PARAMETERS
            .iter()
            .filter_map(|(names, read)| Some((names[0].to_owned(), first(names, *read)?)))
            .collect();
        Self {
            negative_prompt: negative_prompt.and_then(|text| text.as_str().map(str::to_owned)),
            parameters,
            ..Self::default()
        }
    }
}

fn text(fields: &Fields, name: &str) -> Option<Value> {
    fields.name(name).ok()?.map(Value::from)
}

fn whole(fields: &Fields, name: &str) -> Option<Value> {
    fields.integer(name, 0..=u64::MAX).ok()?.map(Value::from)
}

fn number(fields: &Fields, name: &str) -> Option<Value> {
    fields.number(name, f64::MIN..=f64::MAX).ok()?.and_then(Number::from_f64).map(Value::Number)
}

/// A random one is none.
fn seed(fields: &Fields, name: &str) -> Option<Value> {
    fields.seed(name, u64::MAX).ok()?.map(Value::from)
}

fn list(fields: &Fields, name: &str) -> Option<Value> {
    fields.list(name).ok()?.map(Value::Array)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use bytes::Bytes;
    use serde_json::json;

    use super::*;
    use crate::request::image_request::{ImageBody, ImageTask};

    const KIND: HeaderValue = HeaderValue::from_static("multipart/form-data; boundary=XX");

    fn of_json(body: &Value) -> AskedSettings {
        ImageBody::read(ImageTask::Generation, None, &body.to_string().into()).unwrap().asked()
    }

    fn of_form(parts: &[(&str, &str)]) -> AskedSettings {
        let part = |(head, content): &(&str, &str)| {
            format!("--XX\r\nContent-Disposition: form-data; {head}\r\n\r\n{content}\r\n")
        };
        let body: Bytes = (parts.iter().map(part).collect::<String>() + "--XX--\r\n").into();
        ImageBody::read(ImageTask::Edit, Some(&KIND), &body).unwrap().asked()
    }

    #[test]
    fn what_was_sent_is_read_under_one_name_from_json_and_forms() {
        let expected = json!({"model": "m", "size": "auto", "n": 2, "quality": "high", "steps": 20,
            "cfg_scale": 3.5, "scheduler": "euler", "seed": 7, "strength": 0.5,
            "loras": [{"name": "l", "weight": 1.0}]});
        let json = of_json(&json!({"prompt": "p", "negative": "bad", "model": "m", "size": "auto", "n": 2.0,
            "quality": "high", "num_inference_steps": 20.0, "guidance_scale": 3.5, "sampler": "euler",
            "seed": 7, "strength": 0.5, "loras": [{"name": "l", "weight": 1.0}], "odd": 1}));
        assert_eq!(Value::Object(json.parameters.clone()), expected);
        assert_eq!((json.negative_prompt.as_deref(), json.has_mask), (Some("bad"), false));
        let form = of_form(&[
            ("name=image; filename=a.png", "x"),
            ("name=prompt", "p"),
            ("name=negative_prompt", "bad"),
            ("name=model", "m"),
            ("name=size", "auto"),
            ("name=n", "2"),
            ("name=quality", "high"),
            ("name=steps", "20"),
            ("name=cfg_scale", "3.5"),
            ("name=scheduler", "euler"),
            ("name=seed", "7"),
            ("name=strength", " 0.5 "),
            ("name=loras", r#"[{"name": "l", "weight": 1.0}]"#),
        ]);
        assert_eq!(form, AskedSettings { references: vec!["a.png".to_owned()], ..json });
    }

    #[test]
    fn what_is_malformed_or_blank_is_left_out_and_never_refused() {
        for (parameters, expected) in [
            (
                json!({"steps": "many", "cfg_scale": {}, "scheduler": 7, "strength": [], "loras": "x"}),
                json!({}),
            ),
            (json!({"steps": null, "num_inference_steps": 9}), json!({"steps": 9})),
            (json!({"scheduler": " ", "sampler": "ddim"}), json!({"scheduler": "ddim"})),
            (json!({"steps": 8, "num_inference_steps": 9}), json!({"steps": 8})),
            (json!({"steps": -1, "seed": -1, "negative": 7}), json!({})),
        ] {
            let mut body = json!({"prompt": "p"});
            body.as_object_mut().unwrap().extend(parameters.as_object().unwrap().clone());
            let asked = of_json(&body);
            assert_eq!(Value::Object(asked.parameters), expected, "{body}");
            assert_eq!(asked.negative_prompt, None);
        }
        let unpaired = br#"{"prompt":"p","negative_prompt":"\ud800","sampler":"\ud800","steps":1,"steps":2}"#;
        let body = ImageBody::read(ImageTask::Generation, None, &Bytes::from_static(unpaired)).unwrap();
        let expected = Map::from_iter([("steps".to_owned(), json!(2))]);
        assert_eq!(body.asked(), AskedSettings { parameters: expected, ..AskedSettings::default() });
        let image = ("name=image; filename=a.png", "x");
        let form = of_form(&[
            image,
            ("name=prompt", "p"),
            ("name=steps; filename=x", "9"),
            ("name=sampler", "a"),
            ("name=sampler", "b"),
        ]);
        assert_eq!(Value::Object(form.parameters), json!({"scheduler": "b"}));
    }

    #[test]
    fn references_are_the_files_in_the_images_order() {
        let form = of_form(&[
            ("name=ref_images; filename=c.png", "x"),
            ("name=\"image[1]\"; filename=b.png", "x"),
            ("name=prompt", "p"),
            ("name=\"image[0]\"; filename=\"C:\\dir\\a \u{e9}.png\"", "x"),
            ("name=mask; filename=m.png", "x"),
        ]);
        assert_eq!(
            (form.references, form.has_mask),
            (["C:\\dir\\a \u{e9}.png", "b.png", "c.png"].map(str::to_owned).into(), true)
        );
        let nameless = of_form(&[("name=image", "x"), ("name=prompt", "p"), ("name=mask; filename=m", "")]);
        assert_eq!((nameless.references, nameless.has_mask), (Vec::<String>::new(), false));
        let data = "data:image/png;base64,aGk=";
        let body = json!({"prompt": "p", "image": data, "mask": data}).to_string();
        let json = ImageBody::read(ImageTask::Edit, None, &body.into()).unwrap().asked();
        assert_eq!((json.references, json.has_mask), (Vec::<String>::new(), true));
    }
}
