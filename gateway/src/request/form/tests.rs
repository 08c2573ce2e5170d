use proptest::prelude::*;

use super::*;

const CONTENT_TYPE: &str = "multipart/form-data; boundary=XX";

fn read(body: &[u8]) -> Result<(MultipartForm, Fields), FieldError> {
    MultipartForm::read(&HeaderValue::from_static(CONTENT_TYPE), &Bytes::copy_from_slice(body))
}

fn sent(form: MultipartForm, model: Option<&str>) -> Vec<u8> {
    form.into_upstream(&[("model", model), ("response_format", Some("b64_json"))]).chunks.concat()
}

/// `name=text`; `name@content` is a file.
fn body(parts: &[&str]) -> Vec<u8> {
    let part = |part: &&str| {
        let at = part.find(['=', '@']).unwrap();
        let (name, content) = (&part[..at], &part[at + 1..]);
        let file = if part.as_bytes()[at] == b'@' { "; filename=\"f\"" } else { "" };
        format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n{content}\r\n")
    };
    (parts.iter().map(part).collect::<String>() + "--XX--\r\n").into_bytes()
}

#[test]
fn fields_are_the_same_as_from_json() {
    let (_, fields) =
        read(&body(&["image@x", "n=2", "stream=true", "prompt=7", "size=", "seed=9", "odd=1"])).unwrap();
    assert_eq!(fields.integer("n", 1..=4), Ok(Some(2)));
    assert_eq!(fields.boolean("stream"), Ok(Some(true)));
    assert_eq!(fields.text("prompt"), Ok(Some("7")));
    assert_eq!(fields.value("size"), None, "an empty text is an absent field");
    assert_eq!(fields.value("odd"), None, "only the request fields are read");
    let (_, fields) = read(&body(&["image@x", "n=many", "stream=yes"])).unwrap();
    assert!(fields.integer("n", 1..=4).is_err() && fields.boolean("stream").is_err());
    let (_, fields) = read(&body(&["image@x", "mask@", "n=2.0", "stream=True", "prompt= "])).unwrap();
    assert_eq!((fields.integer("n", 1..=4), fields.boolean("stream")), (Ok(Some(2)), Ok(Some(true))));
    assert_eq!(fields.text("prompt"), Ok(None));
}

#[test]
fn only_model_and_response_format_are_replaced_in_place() {
    let parts = ["prompt=p", "response_format=url", "image@a", "model=a", "user=u"];
    for (model, expected) in [
        (Some("a"), vec!["prompt=p", "response_format=b64_json", "image@a", "model=a", "user=u"]),
        (Some("b"), vec!["prompt=p", "response_format=b64_json", "image@a", "model=b", "user=u"]),
        (None, vec!["prompt=p", "response_format=b64_json", "image@a", "user=u"]),
    ] {
        let (form, _) = read(&body(&parts)).unwrap();
        assert_eq!(sent(form, model), body(&expected), "{model:?}");
    }
    let (form, _) = read(&body(&["prompt=p", "image@a"])).unwrap();
    assert_eq!(sent(form, Some("m")), body(&["prompt=p", "image@a", "model=m", "response_format=b64_json"]));
}

#[test]
fn a_part_with_the_same_value_stays_as_it_is() {
    let part = b"--XX \r\ncontent-TYPE: text/plain; charset=\"utf-8\"\r\nContent-Disposition: form-data; name=model\r\n\r\nm\r\n";
    let rest = body(&["image@x", "response_format=b64_json"]);
    let form_body = [&part[..], &rest].concat();
    let (form, fields) = read(&form_body).unwrap();
    assert_eq!(fields.text("model"), Ok(Some("m")));
    assert_eq!(sent(form, Some("m")), form_body);
}

#[test]
fn preamble_and_epilogue_are_not_parts() {
    let inner = body(&["image@x", "response_format=b64_json"]);
    let (form, _) = read(&[b"preamble\r\n", &inner[..], b"epilogue"].concat()).unwrap();
    assert_eq!(sent(form, None), inner);
}

#[test]
fn an_error_names_the_part() {
    for (parts, param) in [
        (vec!["prompt=p"], "image"),
        (vec!["image@"], "image"),
        (vec!["imagery@x", "image[x]@y", "image[0@z", "Image@x"], "image"),
        (vec!["image@x", "model=a", "model=a"], "model"),
        (vec!["image@x", "prompt=a", "image@y", "prompt=b"], "prompt"),
        (vec!["image@x", "mask@a", "mask@b"], "mask"),
        (vec!["image@x", "n=1", "n=1"], "n"),
        (vec!["image@x", "model@a"], "model"),
    ] {
        assert_eq!(read(&body(&parts)).unwrap_err().param.as_deref(), Some(param), "{parts:?}");
    }
    for image in ["image@x", "image[]@x", "image[0]@x", "image[12]@x", "images@x", "images[]@x", "image=x"] {
        assert!(read(&body(&[image, image, "odd=1", "odd=2", "user=1", "user=2"])).is_ok(), "{image}");
    }
}

#[test]
fn a_malformed_or_ambiguous_form_is_rejected() {
    let good = body(&["image@x"]);
    let text = |text: &str| text.replace('\n', "\r\n").into_bytes();
    let many = vec!["a=1"; MAX_PARTS + 1];
    for bad in [
        vec![],
        b"{}".to_vec(),
        b"--XX".to_vec(),
        good[..good.len() - 8].to_vec(),
        text("--XX\nContent-Disposition: form-data\n\nx\n--XX--\n"),
        text("--XX\nContent-Disposition: form-data; name=\"\"\n\nx\n--XX--\n"),
        text("--XX\n\nx\n--XX--\n"),
        text("--XXY\nContent-Disposition: form-data; name=\"image\"\n\nx\n--XXY--\n"),
        text(
            "--XX\nContent-Disposition: form-data; name=\"a\"\nContent-Disposition: form-data; name=\"model\"\n\nx\n--XX--\n",
        ),
        b"--XX\r\nContent-Type: a/b\nContent-Disposition: form-data; name=\"a\"\r\n\r\nx\r\n--XX--\r\n"
            .to_vec(),
        body(&many),
    ] {
        let error = read(&bad).unwrap_err();
        assert_eq!(error.param, None, "{:?}", String::from_utf8_lossy(&bad));
        assert!(error.message.contains("multipart/form-data"), "{error}");
    }
    for content_type in
        ["multipart/form-data", "multipart/form-data; boundary=", "multipart/mixed; boundary=XX"]
    {
        assert!(
            MultipartForm::read(&HeaderValue::from_str(content_type).unwrap(), &good.clone().into()).is_err(),
            "{content_type}"
        );
    }
    let not_utf8 =
        [&b"--XX\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\n\xff\r\n"[..], &good].concat();
    assert_eq!(read(&not_utf8).unwrap_err().param.as_deref(), Some("prompt"));
}

proptest! {
    #[test]
    fn files_pass_byte_for_byte(
        contents in prop::collection::vec(
            prop::collection::vec(prop::sample::select(vec![
                &b"\r\n"[..], b"\r", b"\n", b"--", b"X", b"XX", b"--X", b"\r\n--X", b"\r\n\r\n", b"\0", b"\xff",
            ]), 0..12),
            1..6),
        padding in "[ \t]{0,3}",
    ) {
        let mut form_body = Vec::new();
        for content in &contents {
            let content = content.concat();
            prop_assume!(!content.windows(6).any(|bytes| bytes == b"\r\n--XX"));
            let head = format!("--XX{padding}\r\nContent-Disposition: form-data; name=\"image[]\"; filename=\"\u{e9}\\\"; .png\"\r\nContent-Type: image/png\r\n\r\n");
            form_body.extend([head.as_bytes(), &content, b"\r\n"].concat());
        }
        form_body.extend(body(&["image@x", "response_format=b64_json"]));
        let (form, _) = read(&form_body).unwrap();
        prop_assert_eq!(sent(form, None), form_body);
    }

    #[test]
    fn no_input_panics(at: usize, byte: u8, cut: usize) {
        let mut form_body = body(&["image@x", "model=a", "prompt=p"]);
        let at = at % form_body.len();
        form_body[at] = byte;
        form_body.truncate(cut % (2 * form_body.len()));
        if let Ok((form, _)) = read(&form_body) {
            sent(form, Some("m"));
        }
    }
}
