use proptest::prelude::*;

use super::*;

fn all(chunks: &[&[u8]]) -> Vec<SseItem> {
    let (mut frames, mut pieces) = (SseDecoder::default(), Vec::new());
    for chunk in chunks {
        frames.push(chunk);
        while let Some(piece) = frames.next_item().unwrap() {
            pieces.push(piece);
        }
    }
    pieces
}

fn between(text: &str) -> SseItem {
    SseItem::Comment(Bytes::copy_from_slice(text.as_bytes()))
}

fn event(text: &str) -> SseItem {
    SseItem::Event(SseEvent(Bytes::copy_from_slice(text.as_bytes())))
}

#[test]
fn events_come_whole_and_comments_at_once() {
    for (stream, pieces) in [
        ("event: a\ndata: 1\n\ndata: 2\n\n", vec![event("event: a\ndata: 1\n\n"), event("data: 2\n\n")]),
        ("event: a\r\ndata: 1\r\n\r\n", vec![event("event: a\r\ndata: 1\r\n\r\n")]),
        ("event: a\rdata: 1\r\rdata: 2\r\r", vec![event("event: a\rdata: 1\r\r"), event("data: 2\r\r")]),
        (": ping\n\n", vec![between(": ping\n"), between("\n")]),
        (": ping\r\n\r\ndata: 1\n\n", vec![between(": ping\r\n"), between("\r\n"), event("data: 1\n\n")]),
        ("data: 1\n: inside\n\n", vec![event("data: 1\n: inside\n\n")]),
        ("retry: 9\n\n", vec![event("retry: 9\n\n")]),
        ("data: unfinished\n", vec![]),
        ("data: unfinished", vec![]),
        (": unfinished", vec![]),
        ("", vec![]),
    ] {
        assert_eq!(all(&[stream.as_bytes()]), pieces, "{stream:?}");
    }
}

#[test]
fn an_event_says_its_name_and_its_data() {
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
fn the_lf_of_a_crlf_cut_in_two_neither_delays_nor_doubles_an_event() {
    let pieces = all(&[b"data: 1\r", b"\n\r", b"\ndata: 2\r", b"\r"]);
    assert_eq!(pieces, [event("data: 1\r\n\r"), between("\n"), event("data: 2\r\r")]);
}

#[test]
fn an_event_is_bounded_and_a_long_one_is_looked_at_once() {
    let mut frames = SseDecoder::default();
    let chunk = vec![b'x'; 1 << 20];
    frames.push(b"data: ");
    for _ in 0..64 {
        assert_eq!(frames.next_item(), Ok(None));
        assert_eq!(frames.scanned, frames.buffer.len());
        frames.push(&chunk);
    }
    assert_eq!(frames.next_item(), Err(EventTooLong));
}

proptest! {
    /// Whatever comes, and however it is cut: no byte is lost or changed, and the events are the same.
    #[test]
    fn any_cut_gives_the_same_events(
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
        let read = |pieces: &[SseItem]| -> Vec<_> {
            let events = pieces.iter().filter_map(|piece| match piece {
                SseItem::Event(event) => Some((event.name(), event.data())),
                SseItem::Comment(_) => None,
            });
            events.collect()
        };
        let (whole, cut) = (all(&[stream.as_bytes()]), all(&chunks));
        prop_assert_eq!(read(&whole), read(&cut));
        let taken: Vec<u8> = cut.iter().flat_map(|piece| match piece {
            SseItem::Comment(bytes) | SseItem::Event(SseEvent(bytes)) => bytes.to_vec(),
        }).collect();
        prop_assert!(stream.as_bytes().starts_with(&taken));
    }

    #[test]
    fn no_bytes_panic(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..10)) {
        all(&chunks.iter().map(Vec::as_slice).collect::<Vec<_>>());
    }
}
