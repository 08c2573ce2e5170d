use proptest::prelude::*;

use super::*;

fn head(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, value.parse().unwrap());
    }
    headers
}

/// Whether a stream of these bytes was cut off, as it comes in pieces of this length.
fn cut_in_pieces(stream: &[u8], piece: usize) -> bool {
    let mut mark = EndMark::default();
    for bytes in stream.chunks(piece) {
        mark.observe(bytes);
    }
    !mark.finish()
}

fn is_cut(stream: &str) -> bool {
    let whole = cut_in_pieces(stream.as_bytes(), usize::MAX);
    for piece in 1..8 {
        assert_eq!(cut_in_pieces(stream.as_bytes(), piece), whole, "{stream:?} in pieces of {piece}");
    }
    whole
}

const HI: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"},\"finish_reason\":null}]}\n\n";

#[test]
fn only_what_ends_with_its_connection_is_looked_at() {
    const EVENTS: (&str, &str) = ("content-type", "text/event-stream");
    for (lines, looked_at) in [
        (&[EVENTS][..], true),
        (&[("content-type", "Text/Event-Stream ; charset=utf-8")], true),
        (&[("content-type", "application/json; charset=utf-8")], true),
        (&[EVENTS, ("content-encoding", "identity")], true),
        (&[EVENTS, ("content-encoding", "gzip")], false),
        (&[EVENTS, ("content-length", "7")], false),
        (&[EVENTS, ("transfer-encoding", "chunked")], false),
        (&[("content-type", "text/event-streams")], false),
        (&[("content-type", "text/plain")], false),
        (&[("content-type", "application/x-ndjson")], false),
        (&[], false),
    ] {
        let framing = matches!(Truncation::for_response(StatusCode::OK, &head(lines)), Truncation::Framing);
        assert_eq!(framing, !looked_at, "{lines:?}");
    }
    let none = Truncation::for_response(StatusCode::NO_CONTENT, &head(&[EVENTS]));
    assert!(matches!(none, Truncation::Framing));
}

#[test]
fn a_stream_with_an_end_mark_is_whole() {
    for end in [
        "data: [DONE]\n\n",
        "data:[DONE]\n\n",
        "data:  [DONE] \r\n\r\n",
        "data: [DONE]\r\r",
        "data: [DONE]",
        "id: 7\ndata: [DONE]\n",
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"length\"}]}",
        "data: {\"choices\":[{\"text\":\"\",\"finish_reason\":\"stop\"}]}\n\ndata: {\"choices\":[],\"usage\":{}}\n\n",
        "data: {\"choices\":[{\"index\":0,\"finish_reason\":null},{\"index\":1,\"finish_reason\":\"stop\"}]}\n\n",
        "data: {\"choices\":[\ndata: {\"finish_reason\":\ndata: \"tool_calls\"}\ndata: ]}\n\n",
        "data: {\"error\":{\"message\":\"out of memory\"}}\n\n",
        "data: {\"error\":\"out of memory\"}\n\n",
        "event: error\ndata: {\"message\":\"out of memory\"}\n\n",
        ": keepalive\n\ndata: [DONE]\n\n: bye\n\n",
        // Without the empty lines.
        "data: {\"choices\":[]}\ndata: [DONE]\n",
    ] {
        assert!(!is_cut(&format!("{HI}{end}")), "{end:?}");
    }
    assert!(!is_cut("\u{feff}data: [DONE]\n\n"));
}

#[test]
fn a_stream_without_one_was_cut_off_whatever_its_words_look_like() {
    for end in [
        "",
        ": keepalive 1/1\n\n",
        "data: [DONE",
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"sto",
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}",
        "data: {\"choices\":[{\"delta\":{\"content\":\"data: [DONE]\"}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"\\\"finish_reason\\\":\\\"stop\\\"\"}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"\\n\\ndata: [DONE]\\n\\n\"}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"finish_reason\":\"stop\",\"error\":\"x\"},\"finish_reason\":null}]}\n\n",
        "data: {\"choices\":[{\"message\":{\"error\":1}}],\"error\":null}\n\n",
        "data: {\"choices\":{\"finish_reason\":\"stop\"}}\n\n",
        "data: [DONE]?\n\n",
        "data: \"[DONE]\"\n\n",
        ": data: [DONE]\n\n",
        "event: done\ndata: {}\n\n",
        "id: [DONE]\n\n",
        "[DONE]\n\n",
        "data : [DONE]\n\n",
        "event: errors\ndata: {}\n\n",
    ] {
        assert!(is_cut(&format!("{HI}{end}")), "{end:?}");
    }
    assert!(is_cut(""));
}

#[test]
fn an_event_beyond_the_limit_may_have_been_the_mark_and_costs_no_memory() {
    let long = "x".repeat(3 << 20);
    let finished = format!("data: {{\"choices\":[{{\"text\":\"{long}\",\"finish_reason\":\"stop\"}}]}}\n\n");
    let cut = |stream: &str| cut_in_pieces(stream.as_bytes(), 64 << 10);
    assert!(!cut(&finished), "nobody knows");
    assert!(!cut(&format!("{finished}{HI}")) && !cut(&format!("{HI}{finished}data: [DONE]\n\n")));
    assert!(cut(&format!("{HI}:{long}\n{HI}")), "a comment is no part of an event");
    let many = format!("data: {}\n", "y".repeat(1000)).repeat(3000);
    assert!(!cut(&many) && cut(&many.replace('\n', "\n\n")), "what counts is the event");
    let mut mark = EndMark::default();
    for bytes in [finished.as_bytes(), long.as_bytes(), many.as_bytes()] {
        mark.observe(bytes);
        assert!(mark.line.capacity() + mark.data.capacity() <= 4 * MAX_EVENT_BYTES);
    }
}

#[test]
fn json_with_open_brackets_was_cut_off() {
    for (text, open) in [
        ("", false),
        ("{\"a\":[1,{\"b\":\"}]\\\"\\\\\"}]}\n", false),
        ("{\"a\":\"\\u007d\"}", false),
        ("{\"a\":1}\n{\"b\":2}\n", false),
        ("[1,2", true),
        ("{\"a\":\"}", true),
        ("{\"a\":\"\\", true),
        ("\"word", true),
        ("not json", false),
        ("]]]{", true),
    ] {
        for piece in [1, 2, 3, 100] {
            let mut nesting = JsonNesting::default();
            text.as_bytes().chunks(piece).for_each(|bytes| nesting.observe(bytes));
            assert_eq!(nesting.is_open(), open, "{text:?}");
        }
    }
}

proptest! {
    /// However it is cut into pieces, and wherever it ends before its mark.
    #[test]
    fn where_the_pieces_end_changes_nothing(cut in 0_usize..HI.len() * 3, pieces in prop::collection::vec(1_usize..50, 1..40)) {
        let stream = format!("{}data: [DONE]\r\n\r\n", HI.repeat(2).replace("\n\n", "\r\n\r\n"));
        let end = cut.min(stream.len());
        let (mut mark, mut rest) = (EndMark::default(), &stream.as_bytes()[..end]);
        for piece in pieces.into_iter().cycle() {
            if rest.is_empty() { break }
            let (now, behind) = rest.split_at(piece.min(rest.len()));
            mark.observe(now);
            rest = behind;
        }
        prop_assert_eq!(mark.finish(), end >= stream.len() - 4);
    }
}
