use picture::painter::ProceduralImage;
use proptest::prelude::*;
use serde_json::json;
use service::slots::Slots;
use wire::openai::images::ImageSize;

use super::*;
use crate::{
    backend::images::fuzzing::{at_once, streamed},
    store::disk::tests::temporary,
};

/// A JSON string whose characters may be escaped.
fn quoted(text: &str, escapes: &[u8]) -> String {
    let mut escapes = escapes.iter().copied().cycle();
    let one = |char: char| match (char, escapes.next().unwrap_or(9)) {
        ('/', 0..4) => "\\/".to_owned(),
        ('\n', _) => "\\n".to_owned(),
        (char, 0) => format!("\\u{:04x}", u32::from(char)),
        (char, 1) => format!("\\u{:04X}", u32::from(char)),
        ('"' | '\\', _) => format!("\\{char}"),
        (char, _) => char.to_string(),
    };
    format!("\"{}\"", text.chars().map(one).collect::<String>())
}

/// An image's base64, valid or damaged in some way.
fn base64() -> impl Strategy<Value = String> {
    let bytes = proptest::collection::vec(any::<u8>(), 0..40);
    (bytes, 0..12u8, any::<prop::sample::Index>()).prop_map(|(bytes, kind, at)| {
        let mut text = base64_simd::STANDARD.encode_to_string(bytes);
        let at = at.index(text.len() + 1);
        match kind {
            0 => text.insert(at, '\n'),
            1 => text.insert(at, ' '),
            2 => text.insert(at, '='),
            3 => text.insert(at, '%'),
            4 => text.insert(at, 'é'),
            5 => text.truncate(at),
            6 => text.insert_str(0, "data:image/png;base64,"),
            7 => text.insert_str(0, "data:image/png,"),
            8 => text = text.trim_end_matches('=').to_owned(),
            _ => {}
        }
        text
    })
}

/// A member of an entry, as JSON text.
fn member() -> impl Strategy<Value = String> {
    let escapes = || proptest::collection::vec(0..10u8, 1..9);
    let name = |name: &'static str| escapes().prop_map(move |escapes| quoted(name, &escapes));
    let text =
        |texts: BoxedStrategy<String>| (texts, escapes()).prop_map(|(text, escapes)| quoted(&text, &escapes));
    let url = prop_oneof![
        Just("/1.png".to_owned()),
        Just("http://ada2/2.png".to_owned()),
        Just("http://evil/".to_owned()),
        Just("dat".to_owned()),
        Just("data:".to_owned()),
        Just("@0".to_owned()),
        base64().prop_map(|text| format!("data:image/png;base64,{text}")),
    ];
    let nested =
        Just(r#"{"b64_json":"@0","data":[{"b64_json":"aGk="},"}"],"url":{"url":"data:"}}"#.to_owned());
    let value = prop_oneof![
        Just("null".to_owned()),
        Just(" 7 ".to_owned()),
        Just(r#"["b64_json","aGk="]"#.to_owned()),
        nested,
        text(any::<String>().boxed()),
    ];
    prop_oneof![
        4 => (name("b64_json"), text(base64().boxed())).prop_map(|(name, text)| format!("{name} : {text}")),
        2 => (name("url"), text(url.boxed())).prop_map(|(name, text)| format!("{name}:{text}")),
        2 => (prop_oneof![name("b64_json"), name("url"), name("seed"), name("data")], value)
            .prop_map(|(name, value)| format!("{name}:\n{value}")),
    ]
}

fn response() -> impl Strategy<Value = String> {
    let entry = proptest::collection::vec(member(), 0..4).prop_map(|all| format!("{{{}}}", all.join(",")));
    let data =
        proptest::collection::vec(entry, 0..4).prop_map(|all| format!("\"data\" : [{}]", all.join(" , ")));
    let other = member();
    proptest::collection::vec(prop_oneof![2 => data, 1 => other], 0..4)
        .prop_map(|all| format!(" {{{}}}\n", all.join(",")))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn chunk_boundaries_do_not_matter(body in response(), size in 1..60usize) {
        let whole = at_once(body.as_bytes());
        prop_assert_eq!(streamed(body.as_bytes().chunks(size)), whole.clone(), "{}", body);
        prop_assert_eq!(streamed(std::iter::once(body.as_bytes())), whole, "{}", body);
    }

    #[test]
    fn a_damaged_response_is_never_read_as_another_one(
        body in response(), at: prop::sample::Index, byte: u8, cut: bool, size in 1..60usize,
    ) {
        let mut body = body.into_bytes();
        let at = at.index(body.len());
        body[at] = byte;
        body.truncate(if cut { at } else { usize::MAX });
        let (whole, read) = (at_once(&body), streamed(body.chunks(size)));
        if whole.is_ok() {
            prop_assert_eq!(read, whole);
        }
    }
}

#[test]
fn only_the_images_in_data_are_taken() {
    let images = r#"[{"b64_json":"aGk="}]"#;
    for (body, expected) in [
        (format!("{{\"data\":{images}}}"), 1),
        (format!("{{\"other\":{images},\"data\":{images}}}"), 1),
        (format!("{{\"data\":{images},\"other\":{images}}}"), 1),
        (format!("{{\"data\":{{\"data\":{images}}}}}"), 0),
        (format!("[{images}]"), 0),
    ] {
        let (mut scanner, mut bytes, mut taken) = (JsonScanner::default(), body.as_bytes(), 0);
        while let Some(event) = scanner.next(&mut bytes).unwrap() {
            taken += usize::from(event == ScanEvent::ImageEnd);
        }
        assert_eq!(taken, expected, "{body}");
    }
}

#[test]
fn anything_large_besides_images_is_refused() {
    let long = json!({"data": [{"b64_json": "aGk=", "seed": "x".repeat(2 << 20)}]}).to_string();
    assert_eq!(streamed(long.as_bytes().chunks(5000)), Err(()));
    let deep = "[".repeat(4 << 20);
    assert_eq!(JsonScanner::default().next(&mut deep.as_bytes()), Err(ScanError::TooLong));
    let wide = "7,".repeat(2 << 20);
    assert_eq!(JsonScanner::default().next(&mut wide.as_bytes()), Err(ScanError::TooLong));
}

fn png(seed: u64) -> Vec<u8> {
    ProceduralImage { label: "test", prompt: "x", seed, size: ImageSize::new(200, 200) }.to_png()
}

/// Waits until the store holds so many files: an aborted one is removed by the thread that writes it.
async fn wait_for_files(dir: &std::path::Path, count: usize) {
    let files = async {
        while std::fs::read_dir(dir).unwrap().count() != count {
            tokio::task::yield_now().await;
        }
    };
    let outcome = tokio::time::timeout(std::time::Duration::from_secs(20), files).await;
    outcome.unwrap_or_else(|_| panic!("never {count} files"));
}

#[tokio::test]
async fn images_are_on_the_disk_before_the_response_ends_and_gone_if_it_is_dropped() {
    let dir = temporary("receive");
    let store = ImageStore::open(&dir).unwrap();
    let slot: SharedPermit = Slots::new(1).try_acquire().unwrap().into();
    let base64 = |bytes: &[u8]| base64_simd::STANDARD.encode_to_string(bytes);
    let body = json!({"data": [
        {"b64_json": base64(&png(1))}, {"b64_json": "%"}, {"b64_json": base64(b"no image")},
        {"b64_json": base64(&png(2))},
    ]});
    let body = body.to_string();
    for size in [7, 1000, usize::MAX] {
        let mut files = ReservedFiles::default();
        let mut destination = Destination { store: &store, files: &mut files, slot: slot.clone() };
        let mut reader = ResponseReader::new(&mut destination);
        for chunk in body.as_bytes().chunks(size.min(body.len())) {
            reader.read(chunk).await.unwrap();
        }
        let received = reader.finish().await.unwrap();
        let [Ok(one), Err(damaged), Err(other), Ok(two)] = &received.images[..] else {
            panic!("{received:?}");
        };
        assert_eq!(damaged, "an image's base64 is damaged");
        assert_eq!(other, "it sent no image: the bytes are neither PNG, JPEG nor WebP");
        assert_ne!(format!("{one:?}"), format!("{two:?}"));
        wait_for_files(&dir, 3).await; // two images without a name, and the lock
        drop(received);
        wait_for_files(&dir, 1).await;
    }
}
