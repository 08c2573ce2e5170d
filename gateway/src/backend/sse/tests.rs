use proptest::prelude::*;

use super::*;

fn decode(chunks: &[&[u8]]) -> Vec<SseItem> {
    let (mut decoder, mut items) = (SseDecoder::default(), Vec::new());
    for chunk in chunks {
        decoder.push(chunk);
        while let Some(item) = decoder.next_item().unwrap() {
            items.push(item);
        }
    }
    items
}

fn comment(text: &str) -> SseItem {
    SseItem::Comment(Bytes::copy_from_slice(text.as_bytes()))
}

fn event(text: &str) -> SseItem {
    SseItem::Event(SseEvent(Bytes::copy_from_slice(text.as_bytes())))
}

#[test]
fn events_come_complete_and_comments_at_once() {
    for (stream, items) in [
        ("event: a\ndata: 1\n\ndata: 2\n\n", vec![event("event: a\ndata: 1\n\n"), event("data: 2\n\n")]),
        ("event: a\r\ndata: 1\r\n\r\n", vec![event("event: a\r\ndata: 1\r\n\r\n")]),
        ("event: a\rdata: 1\r\rdata: 2\r\r", vec![event("event: a\rdata: 1\r\r"), event("data: 2\r\r")]),
        (": ping\n\n", vec![comment(": ping\n"), comment("\n")]),
        (": ping\r\n\r\ndata: 1\n\n", vec![comment(": ping\r\n"), comment("\r\n"), event("data: 1\n\n")]),
        ("data: 1\n: inside\n\n", vec![event("data: 1\n: inside\n\n")]),
        ("retry: 9\n\n", vec![event("retry: 9\n\n")]),
        ("data: unfinished\n", vec![]),
        ("data: unfinished", vec![]),
        (": unfinished", vec![]),
        ("", vec![]),
    ] {
        assert_eq!(decode(&[stream.as_bytes()]), items, "{stream:?}");
    }
}

#[test]
fn an_event_has_a_name_and_data() {
    for (text, name, data) in [
        ("event: a\ndata: {\"x\":1}\n\n", "a", "{\"x\":1}"),
        ("event:a\r\ndata:1\r\ndata: 2\r\n\r\n", "a", "1\n2"),
        ("data:  two spaces\n\n", "", " two spaces"),
        ("event: a\nevent: b\ndata:\n\n", "b", ""),
        ("\u{feff}event: a\n\n", "a", ""),
        ("eventual: a\ndatabase: 1\n event: c\n\n", "", ""),
    ] {
        let event = SseEvent(Bytes::copy_from_slice(text.as_bytes()));
        assert_eq!((event.name().as_str(), event.data().as_slice()), (name, data.as_bytes()), "{text:?}");
    }
}

#[test]
fn a_crlf_split_between_chunks_neither_delays_nor_doubles_an_event() {
    let items = decode(&[b"data: 1\r", b"\n\r", b"\ndata: 2\r", b"\r"]);
    assert_eq!(items, [event("data: 1\r\n\r"), comment("\n"), event("data: 2\r\r")]);
}

#[test]
fn an_event_is_bounded_and_a_long_one_is_searched_once() {
    let mut decoder = SseDecoder::default();
    let chunk = vec![b'x'; 1 << 20];
    decoder.push(b"data: ");
    for _ in 0..64 {
        assert_eq!(decoder.next_item(), Ok(None));
        assert_eq!(decoder.scanned, decoder.buffer.len());
        decoder.push(&chunk);
    }
    assert_eq!(decoder.next_item(), Err(EventTooLong));
}

proptest! {
    /// For any stream in any chunks no byte is lost or changed.
    #[test]
    fn any_chunks_give_the_same_events(
        lines in prop::collection::vec(
            prop::sample::select(vec!["data: 1", "event: a", ": c", "", "", "x"]), 0..20),
        ends in prop::collection::vec(prop::sample::select(vec!["\n", "\r\n", "\r"]), 20),
        cuts in prop::collection::vec(0..200usize, 0..8),
    ) {
        let stream: String = lines.iter().zip(&ends).flat_map(|(line, end)| [*line, *end]).collect();
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut % (stream.len() + 1)).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let chunks: Vec<_> = cuts.windows(2).map(|cut| &stream.as_bytes()[cut[0]..cut[1]]).collect();
        let events = |items: &[SseItem]| -> Vec<_> {
            let events = items.iter().filter_map(|item| match item {
                SseItem::Event(event) => Some((event.name(), event.data())),
                SseItem::Comment(_) => None,
            });
            events.collect()
        };
        let (whole, chunked) = (decode(&[stream.as_bytes()]), decode(&chunks));
        prop_assert_eq!(events(&whole), events(&chunked));
        let bytes: Vec<u8> = chunked.iter().flat_map(|item| match item {
            SseItem::Comment(bytes) | SseItem::Event(SseEvent(bytes)) => bytes.to_vec(),
        }).collect();
        prop_assert!(stream.as_bytes().starts_with(&bytes));
    }

    #[test]
    fn no_input_panics(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..10)) {
        decode(&chunks.iter().map(Vec::as_slice).collect::<Vec<_>>());
    }
}
