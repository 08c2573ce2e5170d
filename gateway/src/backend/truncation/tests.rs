use proptest::prelude::*;

use super::*;

fn head(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, value.parse().unwrap());
    }
    headers
}

/// Whether a stream was cut off, when read in chunks of this size.
fn is_cut_in_chunks(stream: &[u8], size: usize) -> bool {
    let mut mark = EndMark::default();
    for bytes in stream.chunks(size) {
        mark.observe(bytes);
    }
    !mark.finish()
}

fn is_cut(stream: &str) -> bool {
    let cut = is_cut_in_chunks(stream.as_bytes(), usize::MAX);
    for size in 1..8 {
        assert_eq!(is_cut_in_chunks(stream.as_bytes(), size), cut, "{stream:?} in chunks of {size}");
    }
    cut
}

const HI: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"},\"finish_reason\":null}]}\n\n";

#[test]
fn only_a_response_that_ends_with_its_connection_is_examined() {
    const EVENTS: (&str, &str) = ("content-type", "text/event-stream");
    for (lines, examined) in [
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
        assert_eq!(framing, !examined, "{lines:?}");
    }
    let none = Truncation::for_response(StatusCode::NO_CONTENT, &head(&[EVENTS]));
    assert!(matches!(none, Truncation::Framing));
}

#[test]
fn a_stream_with_an_end_mark_is_complete() {
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
fn a_stream_without_one_was_cut_off_whatever_its_text_looks_like() {
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
fn an_event_beyond_the_limit_may_contain_the_mark_and_is_not_buffered() {
    let long = "x".repeat(3 << 20);
    let finished = format!("data: {{\"choices\":[{{\"text\":\"{long}\",\"finish_reason\":\"stop\"}}]}}\n\n");
    let cut = |stream: &str| is_cut_in_chunks(stream.as_bytes(), 64 << 10);
    assert!(!cut(&finished), "it is not examined");
    assert!(!cut(&format!("{finished}{HI}")) && !cut(&format!("{HI}{finished}data: [DONE]\n\n")));
    assert!(cut(&format!("{HI}:{long}\n{HI}")), "a comment is not part of an event");
    let many = format!("data: {}\n", "y".repeat(1000)).repeat(3000);
    assert!(!cut(&many) && cut(&many.replace('\n', "\n\n")), "the limit is for one event");
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
        for size in [1, 2, 3, 100] {
            let mut nesting = JsonNesting::default();
            text.as_bytes().chunks(size).for_each(|bytes| nesting.observe(bytes));
            assert_eq!(nesting.is_open(), open, "{text:?}");
        }
    }
}

proptest! {
    /// Wherever the stream ends.
    #[test]
    fn chunk_boundaries_do_not_matter(cut in 0_usize..HI.len() * 3, sizes in prop::collection::vec(1_usize..50, 1..40)) {
        let stream = format!("{}data: [DONE]\r\n\r\n", HI.repeat(2).replace("\n\n", "\r\n\r\n"));
        let end = cut.min(stream.len());
        let (mut mark, mut rest) = (EndMark::default(), &stream.as_bytes()[..end]);
        for size in sizes.into_iter().cycle() {
            if rest.is_empty() { break }
            let (chunk, after) = rest.split_at(size.min(rest.len()));
            mark.observe(chunk);
            rest = after;
        }
        prop_assert_eq!(mark.finish(), end >= stream.len() - 4);
    }
}
