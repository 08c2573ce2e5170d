use super::*;

const NAMES: &[&str] = &["n", "prompt", "cfg_scale", "steps", "stream", "size", "a"];

fn parse(body: &str) -> Result<Fields, FieldError> {
    Fields::parse(body.as_bytes(), NAMES)
}

#[test]
fn null_is_absent_and_unknown_is_ignored() {
    let fields = parse(r#"{"n":null,"odd":{"x":1}}"#).unwrap();
    assert_eq!(fields.integer("n", 1..=4), Ok(None));
    assert_eq!(fields.text("prompt"), Ok(None));
}

#[test]
fn an_error_names_the_field_and_the_range() {
    let fields = parse(r#"{"n":5,"cfg_scale":"7","prompt":3,"steps":2.5}"#).unwrap();
    let error = fields.integer("n", 1..=4).unwrap_err();
    assert_eq!(error, FieldError::new("n", "n must be a whole number from 1 to 4."));
    assert_eq!(fields.number("cfg_scale", 1.0..=30.0).unwrap_err().param.as_deref(), Some("cfg_scale"));
    assert_eq!(fields.text("prompt").unwrap_err().message, "prompt must be a string.");
    assert!(fields.integer("steps", 1..=150).is_err());
}

#[test]
fn form_numbers_are_text_and_empty_form_fields_are_absent() {
    let form = |texts: &[(&str, &str)]| Fields::from_form(texts.iter().copied(), NAMES);
    let fields =
        form(&[("n", "2"), ("cfg_scale", " 7.5"), ("stream", "true"), ("prompt", "7"), ("size", "")])
            .unwrap();
    assert_eq!(fields.integer("n", 1..=4), Ok(Some(2)));
    assert_eq!(fields.number("cfg_scale", 1.0..=30.0), Ok(Some(7.5)));
    assert_eq!(fields.boolean("stream"), Ok(Some(true)));
    assert_eq!((fields.text("prompt"), fields.text("size")), (Ok(Some("7")), Ok(None)));
    for (name, text) in [("n", "2.5"), ("n", "x"), ("n", "9")] {
        assert!(form(&[(name, text)]).unwrap().integer("n", 1..=4).is_err(), "{text}");
    }
    assert_eq!(form(&[("n", "1"), ("n", "2")]).unwrap_err().param.as_deref(), Some("n"));
    assert!(form(&[("odd", "1"), ("odd", "2")]).is_ok());
}

#[test]
fn an_integer_may_be_written_as_a_float() {
    let form = |text: &str| Fields::from_form([("n", text)], NAMES).unwrap();
    for (text, expected) in [
        ("20", Some(20)),
        ("20.0", Some(20)),
        ("2e1", Some(20)),
        ("0.2E2", Some(20)),
        ("0", Some(0)),
        ("-0.0", Some(0)),
        ("9007199254740992.0", Some(1 << 53)),
        ("18446744073709551615", Some(u64::MAX)),
        ("9007199254740994.0", Some(9_007_199_254_740_994)),
        ("18446744073709551615.0", Some(u64::MAX)),
        ("1152921504606846976.0", Some(1 << 60)),
        ("1.8446744073709551615e19", Some(u64::MAX)),
        ("200e-1", Some(20)),
        ("0e99", Some(0)),
        ("18446744073709551616.0", None),
        ("18446744073709551615.5", None),
        ("1.8446744073709551615e18", None),
        ("20.00000000000000000001", None),
        ("18446744073709551616", None),
        ("20.5", None),
        ("-1", None),
        ("-20.0", None),
        ("1e300", None),
        ("NaN", None),
        ("0x10", None),
    ] {
        let in_form = form(text).integer("n", 0..=u64::MAX);
        assert_eq!(in_form.ok().flatten(), expected, "{text} in a form");
        let Ok(in_json) = parse(&format!("{{\"n\":{text}}}")) else { continue };
        assert_eq!(in_json.integer("n", 0..=u64::MAX).ok().flatten(), expected, "{text} in JSON");
    }
    assert!(parse(r#"{"n":"20"}"#).unwrap().integer("n", 1..=30).is_err(), "a text is no number in JSON");
}

#[test]
fn a_seed_of_minus_one_is_random_and_others_are_within_the_engines_range() {
    for (text, max, expected) in [
        ("-1", 9, Ok(None)),
        ("-1.0", 9, Ok(None)),
        ("0", 9, Ok(Some(0))),
        ("9.0", 9, Ok(Some(9))),
        ("18446744073709551615", u64::MAX, Ok(Some(u64::MAX))),
        ("9007199254740993", u64::MAX, Ok(Some(9_007_199_254_740_993))),
        ("10", 9, Err(())),
        ("-2", 9, Err(())),
        ("0.5", 9, Err(())),
        ("18446744073709551615.0", u64::MAX, Ok(Some(u64::MAX))),
        ("18446744073709551616", u64::MAX, Err(())),
    ] {
        let read = |fields: Fields| {
            fields.seed("n", max).map_err(|error| {
                assert!(
                    error.message.contains(&format!("from 0 to {max}, or -1 for a random one")),
                    "{error}"
                );
            })
        };
        assert_eq!(read(parse(&format!("{{\"n\":{text}}}")).unwrap()), expected, "{text} in JSON");
        assert_eq!(read(Fields::from_form([("n", text)], NAMES).unwrap()), expected, "{text} in a form");
    }
}

#[test]
fn blank_text_is_absent_in_every_field_and_encoding() {
    for blank in ["", " ", "\\t\\n", "\u{a0}"] {
        let fields = parse(&format!(r#"{{"n":"{blank}","prompt":"{blank}","stream":"{blank}"}}"#)).unwrap();
        assert_eq!((fields.integer("n", 1..=4), fields.seed("n", 9)), (Ok(None), Ok(None)), "{blank:?}");
        assert_eq!((fields.text("prompt"), fields.boolean("stream")), (Ok(None), Ok(None)), "{blank:?}");
    }
    let form = Fields::from_form([("n", " "), ("stream", "\r\n")], NAMES).unwrap();
    assert_eq!((form.integer("n", 1..=4), form.boolean("stream")), (Ok(None), Ok(None)));
    let both = parse(r#"{"n":"","a":3}"#).unwrap();
    assert_eq!(both.first_present(&["n", "a"]), "a", "a blank one does not hide the other name");
}

#[test]
fn form_booleans_are_parsed_as_clients_write_them() {
    let flag = |text| Fields::from_form([("stream", text)], NAMES).unwrap().boolean("stream").ok().flatten();
    assert!(["true", "True", "TRUE", " true ", "1"].into_iter().all(|text| flag(text) == Some(true)));
    assert!(["false", "False", "0"].into_iter().all(|text| flag(text) == Some(false)));
    assert!(["yes", "2", "truely"].into_iter().all(|text| flag(text).is_none()));
    assert!(parse(r#"{"stream":1}"#).unwrap().boolean("stream").is_err(), "JSON has true");
}

#[test]
fn a_body_that_is_not_one_object_is_refused() {
    for body in ["", "[]", "1", "{", "{}x", "\u{feff}{}"] {
        let error = parse(body).unwrap_err();
        assert_eq!(error.param, None, "{body}");
        assert!(error.message.starts_with("The request body must be one JSON object"), "{error}");
    }
}

#[test]
fn fields_without_effect_are_discarded() {
    let body = r#"{"odd":{"a":[1]},"n":[{"":0},{"":0}],"odd":2,"prompt":{"x":[0]},"a":"x"}"#;
    let fields = parse(body).unwrap();
    assert_eq!(fields.list("n").unwrap().map(|list| list.len()), Some(2), "a short list is kept");
    assert_eq!(fields.value("odd"), None);
    assert!(fields.integer("n", 1..=4).is_err() && fields.text("prompt").is_err());
    assert_eq!(fields.text("a"), Ok(Some("x")));
    for body in [r#"{"n":1e999}"#, r#"{"n":"\ud800"}"#] {
        assert_eq!(parse(body).unwrap_err().param.as_deref(), Some("n"), "{body}");
    }
}

#[test]
fn a_long_list_does_not_pass_for_an_empty_one() {
    let of = |length: usize| parse(&format!("{{\"a\":[{}0]}}", "0,".repeat(length / 2))).unwrap();
    assert_eq!(of(16_000).list("a").unwrap().map(|list| list.len()), Some(8001));
    assert_eq!(of(20_000).list("a").unwrap_err().param.as_deref(), Some("a"));
    let in_form = |text: &str| {
        Fields::from_form([("a", text)], &["a"]).unwrap().list("a").map(|list| list.map(|list| list.len()))
    };
    assert_eq!(in_form("[1, {}]"), Ok(Some(2)));
    assert!(in_form("1").is_err() && in_form("[").is_err());
    assert_eq!(in_form(" "), Ok(None));
    for (length, is_read) in [(MAX_LIST_LEN, true), (MAX_LIST_LEN + 1, false)] {
        let text = format!("[0{}]", " ".repeat(length - 3));
        assert_eq!(in_form(&text).is_ok(), is_read, "{length} in a form");
        assert_eq!(
            parse(&format!("{{\"a\":{text}}}")).unwrap().list("a").is_ok(),
            is_read,
            "{length} in JSON"
        );
    }
}

#[test]
fn long_names_are_refused() {
    let of = |length: usize| parse(&format!("{{\"a\":\"{}\"}}", "x".repeat(length))).unwrap();
    assert!(of(MAX_NAME_LEN).name("a").unwrap().is_some());
    assert_eq!(of(MAX_NAME_LEN + 1).name("a").unwrap_err().param.as_deref(), Some("a"));
}

#[test]
fn a_duplicate_key_names_the_field_and_a_body_that_is_no_object_names_none() {
    let error = |text| parse(text).unwrap_err();
    assert_eq!(error(r#"{"a":1,"a":2}"#), FieldError::new("a", "a is given twice."));
    assert_eq!(error("[]").param, None);
}
