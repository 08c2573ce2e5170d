use std::time::{Duration, Instant};

use super::*;

const KIND: HeaderValue = HeaderValue::from_static("multipart/form-data; boundary=XX");

fn read(body: &str) -> Result<Vec<(String, bool, String)>, FormError> {
    let form = MultipartForm::parse(&KIND, body.as_bytes(), 3)?;
    let mut at = None;
    let parts = form.parts.into_iter().map(|part| {
        assert!(at.is_none_or(|at| at == part.span.start), "they follow each other");
        at = Some(part.span.end);
        (part.name, part.file_name.is_some(), body[part.content].to_owned())
    });
    Ok(parts.collect())
}

/// One part with this head and content.
fn one(head: &str, content: &str) -> String {
    format!("--XX\r\n{head}\r\n\r\n{content}\r\n--XX--\r\n")
}

fn head(disposition: &str) -> String {
    format!("Content-Disposition: {disposition}")
}

#[test]
fn parts_have_names_and_positions() {
    let body = "before\r\n--XX \t\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n--XX\r\nX\r\n--X\r\n\r\n--XX\r\n\
                content-type: a/b\r\nCONTENT-DISPOSITION:form-data;filename=x;name=b\r\n\r\n\r\n--XX--behind";
    let part = |name: &str, is_file, content: &str| (name.to_owned(), is_file, content.to_owned());
    assert_eq!(read(body), Ok(vec![part("a", false, "--XX\r\nX\r\n--X\r\n"), part("b", true, "")]));
    assert_eq!(read("--XX--"), Ok(vec![]));
}

#[test]
fn a_head_is_parsed_as_clients_write_it() {
    for (disposition, name, is_file) in [
        (r#"form-data; name="a b""#, "a b", false),
        ("form-data; name=a", "a", false),
        ("form-data; name = a ; filename = b", "a", true),
        (r#"form-data; name="a"; filename="""#, "a", true),
        (r#"form-data; name="a"; filename*=UTF-8''%e4"#, "a", true),
        (r#"form-data; filename="; name=b"; name="a""#, "a", true),
        (r#"form-data; filename="x\"; name=\"b"; name="a""#, "a", true),
        (r#"form-data; name="a\"b""#, "a\"b", false),
        (r#"Form-Data ; name="a"; filename="C:\x\y.png""#, "a", true),
        ("form-data; name=\"\u{e9}\"; x-name=b;", "\u{e9}", false),
    ] {
        let expected = Ok(vec![(name.to_owned(), is_file, "c".to_owned())]);
        assert_eq!(read(&one(&head(disposition), "c")), expected, "{disposition}");
    }
}

#[test]
fn a_file_has_the_name_that_the_client_gave() {
    for (disposition, file_name) in [
        ("form-data; name=a", None),
        (r#"form-data; name=a; filename="""#, Some("")),
        (r#"form-data; name=a; filename="x\"; y.png""#, Some("x\"; y.png")),
        (r#"form-data; filename="C:\x\y.png"; name=a"#, Some(r"C:\x\y.png")),
        ("form-data; name=a; filename*=UTF-8''%e4", Some("UTF-8''%e4")),
        ("form-data; name=a; filename=b; filename*=UTF-8''%e4", Some("b")),
    ] {
        let body = one(&head(disposition), "c");
        let form = MultipartForm::parse(&KIND, body.as_bytes(), 1).unwrap();
        assert_eq!(form.parts[0].file_name.as_deref(), file_name, "{disposition}");
    }
}

#[test]
fn ambiguous_forms_are_refused() {
    let a = head("form-data; name=a");
    for disposition in [
        "form-data",
        "form-data; name=",
        "form-data; name=\"\"",
        "form-data; name=\"a",
        "form-data; name=a; name=b",
        "form-data; name=\"a\"b",
        "form-data; a",
        "attachment; name=\"a\"",
        "inline; name=a; filename=b",
        "; name=a",
        "form-data x; name=a",
        "form-data; name*=UTF-8''b",
        "form-data; name=a; name*=UTF-8''b",
        "form-data; NAME*0=a; name=a",
        r#"form-data; name="a\b""#,
        r#"form-data; name="a\\b""#,
        r"form-data; name=a\b",
    ] {
        assert_eq!(read(&one(&head(disposition), "c")), Err(FormError::InvalidHeader), "{disposition}");
    }
    for lines in [
        format!("{a}\r\n{a}"),
        format!("{a}\r\n more"),
        format!("{a}\nX: y"),
        format!("X Y: z\r\n{a}"),
        format!("no colon\r\n{a}"),
        "X: y".to_owned(),
        (0..40).fold(a.clone(), |lines, nth| format!("{lines}\r\nX{nth}: y")),
    ] {
        assert_eq!(read(&one(&lines, "c")), Err(FormError::InvalidHeader), "{lines}");
    }
    for body in ["", "--XX", "--XX\r\n", "--XX-", "x--XX--", "--XXY\r\n\r\n", &one(&a, "c")[..40]] {
        assert_eq!(read(body), Err(FormError::Malformed), "{body:?}");
    }
    assert_eq!(
        read(&one(&a, "c").repeat(4).replace("--XX--", "--XX").replace("--XX\r\n--XX", "--XX")),
        Err(FormError::TooManyParts(3))
    );
    assert_eq!(
        read(&one(&format!("{a}\r\nX: {}", "y".repeat(MAX_HEAD)), "c")),
        Err(FormError::HeaderTooLong)
    );
}

#[test]
fn a_boundary_is_bounded() {
    let kind = |kind: &str| MultipartForm::parse(&HeaderValue::from_str(kind).unwrap(), b"", 1).unwrap_err();
    let with = |length: usize| kind(&format!("multipart/form-data; boundary={}", "b".repeat(length)));
    assert_eq!(
        [with(70), with(71), with(40_000)],
        [FormError::Malformed, FormError::BoundaryTooLong, FormError::BoundaryTooLong]
    );
    assert_eq!(kind("multipart/form-data"), FormError::NoBoundary);
    assert_eq!(kind("multipart/form-data; boundary="), FormError::NoBoundary);
    for other in ["multipart/mixed; boundary=XX", "application/json", ""] {
        assert_eq!(kind(other), FormError::NotMultipart, "{other}");
    }
}

/// Time by the length alone: what nearly is a delimiter, again and again, costs as much as anything else.
#[test]
fn the_search_is_linear() {
    let kind = HeaderValue::from_str(&format!("multipart/form-data; boundary={}", "-".repeat(70))).unwrap();
    let near = format!("{}\r\n", "-".repeat(71));
    let body = format!("{}{}", near.repeat(60_000), "\r\n".repeat(2 << 20));
    let begin = Instant::now();
    assert_eq!(MultipartForm::parse(&kind, body.as_bytes(), 1).unwrap_err(), FormError::Malformed);
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?} for {} bytes", begin.elapsed(), body.len());
}
