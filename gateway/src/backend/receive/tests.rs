use picture::painter::ProceduralImage;
use proptest::prelude::*;
use serde_json::{Value, json};
use service::slots::Slots;
use wire::openai::images::ImageSize;

use super::*;
use crate::{
    backend::images_response::{ImageSource, decode_base64, parse_images_response},
    store::disk::tests::temporary,
};

/// What an answer holds: pictures, or the addresses of some; or that it is unusable.
type Content = Result<Vec<Result<Vec<u8>, String>>, ()>;

/// Reads it as it comes, in these chunks.
fn streamed<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> Content {
    let (mut scan, mut current, mut pictures) = (JsonScanner::default(), None, Vec::new());
    for mut chunk in chunks {
        while let Some(found) = scan.next(&mut chunk).map_err(drop)? {
            match found {
                ScanEvent::ImageStart { is_data_url: address } => {
                    current = Some(Ok((Base64Decoder::new(address), Vec::new())));
                }
                ScanEvent::ImageEnd => pictures.push(match current.take().unwrap() {
                    Ok((decoder, bytes)) => decoder.finish().map(|last| [bytes, last].concat()),
                    Err(damaged) => Err(damaged),
                }),
                ScanEvent::Bytes(_) | ScanEvent::EscapedByte(_) => {
                    let Some(Ok((decoder, bytes))) = &mut current else { continue };
                    let fed = match found {
                        ScanEvent::EscapedByte(letter) => decoder.push_byte(letter),
                        ScanEvent::Bytes(text) => decoder.push(text),
                        ScanEvent::ImageStart { .. } | ScanEvent::ImageEnd => unreachable!(),
                    };
                    bytes.extend(decoder.take(7).unwrap_or_default());
                    if let Err(damaged) = fed {
                        current = Some(Err(damaged));
                    }
                }
            }
        }
    }
    let base = "http://ada2/".parse().unwrap();
    let unpacked = parse_images_response(scan.into_rest(), &base).map_err(drop)?;
    let one = |source| match source {
        ImageSource::Inline(mark) => pictures[mark].clone().map(Ok).map_err(drop),
        ImageSource::Url(url) => Ok(Err(url.to_string())),
    };
    unpacked.entries.into_iter().map(|entry| one(entry.source)).collect()
}

/// Reads it at once, as JSON.
fn at_once(body: &[u8]) -> Content {
    let json: Value = serde_json::from_slice(body).map_err(drop)?;
    let data = json.as_object().and_then(|json| json.get("data")?.as_array()).ok_or(())?;
    if data.is_empty() || data.len() > MAX_IMAGES {
        return Err(());
    }
    let one = |entry: &Value| {
        let text = |name: &str| entry[name].as_str().filter(|text| !text.is_empty());
        match (text("b64_json"), text("url")) {
            (Some(text), _) => decode_base64(text).map(Ok).map_err(drop),
            (None, Some(url)) if url.starts_with("data:") => decode_base64(url).map(Ok).map_err(drop),
            (None, Some(url)) => {
                let base: reqwest::Url = "http://ada2/".parse().unwrap();
                let url = base.join(url).map_err(drop)?;
                if url.origin() == base.origin() { Ok(Err(url.to_string())) } else { Err(()) }
            }
            (None, None) => Err(()),
        }
    };
    data.iter().map(one).collect()
}

/// A JSON string of letters that may be written in several ways.
fn quoted(letters: &str, escapes: &[u8]) -> String {
    let mut escapes = escapes.iter().copied().cycle();
    let one = |letter: char| match (letter, escapes.next().unwrap_or(9)) {
        ('/', 0..4) => "\\/".to_owned(),
        ('\n', _) => "\\n".to_owned(),
        (letter, 0) => format!("\\u{:04x}", u32::from(letter)),
        (letter, 1) => format!("\\u{:04X}", u32::from(letter)),
        ('"' | '\\', _) => format!("\\{letter}"),
        (letter, _) => letter.to_string(),
    };
    format!("\"{}\"", letters.chars().map(one).collect::<String>())
}

/// A picture's text: right, or wrong in some way.
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

/// An entry's member, as text.
fn member() -> impl Strategy<Value = String> {
    let escapes = || proptest::collection::vec(0..10u8, 1..9);
    let name = |name: &'static str| escapes().prop_map(move |escapes| quoted(name, &escapes));
    let text =
        |texts: BoxedStrategy<String>| (texts, escapes()).prop_map(|(text, escapes)| quoted(&text, &escapes));
    let address = prop_oneof![
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
        2 => (name("url"), text(address.boxed())).prop_map(|(name, text)| format!("{name}:{text}")),
        2 => (prop_oneof![name("b64_json"), name("url"), name("seed"), name("data")], value)
            .prop_map(|(name, value)| format!("{name}:\n{value}")),
    ]
}

fn answer() -> impl Strategy<Value = String> {
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
    fn where_an_answer_is_cut_does_not_matter(body in answer(), size in 1..60usize) {
        let whole = at_once(body.as_bytes());
        prop_assert_eq!(streamed(body.as_bytes().chunks(size)), whole.clone(), "{}", body);
        prop_assert_eq!(streamed(std::iter::once(body.as_bytes())), whole, "{}", body);
    }

    #[test]
    fn a_damaged_answer_is_never_read_as_another_one(
        body in answer(), at: prop::sample::Index, byte: u8, cut: bool, size in 1..60usize,
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
fn only_the_pictures_of_data_are_taken() {
    let picture = r#"[{"b64_json":"aGk="}]"#;
    for (body, expected) in [
        (format!("{{\"data\":{picture}}}"), 1),
        (format!("{{\"other\":{picture},\"data\":{picture}}}"), 1),
        (format!("{{\"data\":{picture},\"other\":{picture}}}"), 1),
        (format!("{{\"data\":{{\"data\":{picture}}}}}"), 0),
        (format!("[{picture}]"), 0),
    ] {
        let (mut scan, mut bytes, mut taken) = (JsonScanner::default(), body.as_bytes(), 0);
        while let Some(found) = scan.next(&mut bytes).unwrap() {
            taken += usize::from(found == ScanEvent::ImageEnd);
        }
        assert_eq!(taken, expected, "{body}");
    }
}

#[test]
fn what_is_big_besides_pictures_is_refused() {
    let long = json!({"data": [{"b64_json": "aGk=", "seed": "x".repeat(2 << 20)}]}).to_string();
    assert_eq!(streamed(long.as_bytes().chunks(5000)), Err(()));
    let deep = "[".repeat(4 << 20);
    assert_eq!(JsonScanner::default().next(&mut deep.as_bytes()), Err(ScanError::TooLong));
    let wide = "7,".repeat(2 << 20);
    assert_eq!(JsonScanner::default().next(&mut wide.as_bytes()), Err(ScanError::TooLong));
}

fn picture(seed: u64) -> Vec<u8> {
    ProceduralImage { label: "test", prompt: "x", seed, size: ImageSize::new(200, 200) }.to_png()
}

/// Waits until so many files are in the store (bounded): what is given up is removed by the thread that writes it.
async fn until_files(store: &std::path::Path, wanted: usize) {
    let files = async {
        while std::fs::read_dir(store).unwrap().count() != wanted {
            tokio::task::yield_now().await;
        }
    };
    let outcome = tokio::time::timeout(std::time::Duration::from_secs(20), files).await;
    outcome.unwrap_or_else(|_| panic!("never {wanted} files"));
}

#[tokio::test]
async fn pictures_are_on_the_disk_before_the_answer_ends_and_gone_if_it_is_given_up() {
    let dir = temporary("answer");
    let store = ImageStore::open(&dir).unwrap();
    let place = Slots::new(1).try_acquire().unwrap().into();
    let base64 = |bytes: &[u8]| base64_simd::STANDARD.encode_to_string(bytes);
    let body = json!({"data": [
        {"b64_json": base64(&picture(1))}, {"b64_json": "%"}, {"b64_json": base64(b"no picture")},
        {"b64_json": base64(&picture(2))},
    ]});
    let body = body.to_string();
    for size in [7, 1000, usize::MAX] {
        let mut files = ReservedFiles::default();
        let mut reader = ResponseReader::new(&store, &mut files, &place);
        for chunk in body.as_bytes().chunks(size.min(body.len())) {
            reader.read(chunk).await.unwrap();
        }
        let received = reader.finish().await.unwrap();
        let [Ok(one), Err(damaged), Err(other), Ok(two)] = &received.images[..] else {
            panic!("{received:?}");
        };
        assert_eq!(damaged, "a picture's base64 is damaged");
        assert_eq!(other, "it sent no picture: the bytes are neither PNG, JPEG nor WebP");
        assert_ne!(format!("{one:?}"), format!("{two:?}"));
        until_files(&dir, 3).await; // two pictures without name, and the lock
        drop(received);
        until_files(&dir, 1).await;
    }
}
