use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

fn read(body: &str) -> Result<TextBody, FieldError> {
    TextBody::read(&Bytes::copy_from_slice(body.as_bytes()))
}

fn sent(body: &str, model: Option<&str>) -> String {
    let sent = read(body).unwrap().into_upstream(model);
    assert_eq!(sent.content_type, "application/json");
    String::from_utf8(sent.chunks.concat()).unwrap()
}

#[test]
fn an_unchanged_model_leaves_every_byte() {
    for body in [
        "{}",
        r#"{"messages":[]}"#,
        r#"{ "b" : 1.0 , "model" : "m" , "a" : 2e0 }"#,
        "\n{\"model\":\"m\",\"x\":1,\"x\":2}\r\n",
        r#"{"model":"\u006d"}"#,
    ] {
        let model = read(body).unwrap().model().map(str::to_owned);
        assert_eq!(sent(body, model.as_deref()), body);
    }
}

#[test]
fn a_byte_order_mark_is_not_forwarded() {
    let body = r#"{ "messages":[], "model" : "m" , "x":1.0 }"#;
    assert_eq!(sent(&format!("\u{feff}{body}"), Some("m")), body);
    assert_eq!(sent(&format!("\u{feff}{body}"), None).replace(' ', ""), r#"{"messages":[],"x":1.0}"#);
}

#[test]
fn another_model_changes_only_that_value() {
    for (body, expected) in [
        (
            r#"{ "b":1.0, "model" : "m" ,"a":{"model":"m"} }"#,
            r#"{ "b":1.0, "model" : "n\"" ,"a":{"model":"m"} }"#,
        ),
        (r#"{"m\u006fdel":"m"}"#, r#"{"m\u006fdel":"n\""}"#),
        (r#"{"model":null,"a":1}"#, r#"{"model":"n\"","a":1}"#),
        (r#"{"model":""}"#, r#"{"model":"n\""}"#),
        (r#"{"a":1}"#, r#"{"model":"n\"","a":1}"#),
        (r" { } ", r#" {"model":"n\"" } "#),
    ] {
        assert_eq!(sent(body, Some("n\"")), expected);
    }
}

#[test]
fn no_model_removes_the_field_with_its_comma() {
    for (body, expected) in [
        (r#"{"model":"m"}"#, "{}"),
        (r#"{ "model" : "m" }"#, "{ }"),
        (r#"{"model":"m", "a":1}"#, r#"{ "a":1}"#),
        (r#"{"model":"m" , "a":1}"#, r#"{ "a":1}"#),
        (r#"{"a":"model", "model":"m","b":2}"#, r#"{"a":"model","b":2}"#),
        (r#"{"a":1 ,"model":null }"#, r#"{"a":1  }"#),
        (r#"{"a":1}"#, r#"{"a":1}"#),
    ] {
        let body = sent(body, None);
        assert_eq!(body.replace(' ', ""), expected.replace(' ', ""));
        assert!(serde_json::from_str::<Value>(&body).is_ok(), "{body}");
    }
}

#[test]
fn an_ambiguous_body_is_rejected() {
    for (body, param) in [
        (r#"{"model":"a","model":"a"}"#, Some("model")),
        (r#"{"model":"a","mod\u0065l":"b"}"#, Some("model")),
        (r#"{"model":7}"#, Some("model")),
        (r#"{"model":["a"]}"#, Some("model")),
        (&format!(r#"{{"model":"{}"}}"#, "x".repeat(9999)), Some("model")),
        ("[]", None),
        ("", None),
        ("{} x", None),
        ("{\"a\":1", None),
        ("\u{feff}\u{feff}{}", None),
        ("null", None),
    ] {
        assert_eq!(read(body).unwrap_err().param.as_deref(), param, "{body}");
    }
    assert!(TextBody::read(&Bytes::from_static(b"{\"a\":\"\xff\"}")).is_err(), "no text at all");
    assert_eq!(read(r#"{"model":""}"#).unwrap().model(), None);
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf =
        prop_oneof![Just(json!(null)), any::<bool>().prop_map(Value::from), ".*".prop_map(Value::from)];
    leaf.prop_recursive(3, 12, 3, |inner| prop::collection::vec(inner, 0..3).prop_map(Value::from))
}

proptest! {
    /// Whatever else is in the body is the same for every reader afterwards.
    #[test]
    fn only_the_model_differs(
        members in prop::collection::btree_map(".{0,4}", any_value(), 0..5),
        original in prop::option::of(".*"),
        upstream_model in prop::option::of("."),
        pretty in any::<bool>(),
    ) {
        let mut object: Map<String, Value> = members.into_iter().collect();
        object.remove(MODEL);
        let rest = Value::Object(object.clone());
        if let Some(original) = original {
            object.insert(MODEL.to_owned(), original.into());
        }
        let body = if pretty { serde_json::to_string_pretty(&object) } else { serde_json::to_string(&object) };
        let mut after: Value = serde_json::from_str(&sent(&body.unwrap(), upstream_model.as_deref())).unwrap();
        let model = after.as_object_mut().unwrap().remove(MODEL);
        prop_assert_eq!(model, upstream_model.map(Value::from));
        prop_assert_eq!(after, rest);
    }

    #[test]
    fn no_input_panics(body in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = TextBody::read(&body.into());
    }
}
