//! Checks the framing of a request that is served, and of a response that is passed on (RFC 9112, 6). Ambiguous framing, with
//! which two HTTP parsers see different messages (smuggling), never passes. Pure.

use std::fmt;

use axum::http::{
    HeaderMap, HeaderValue, StatusCode, Version,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};

/// Why the end of a response is ambiguous.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FramingError {
    /// `Transfer-Encoding` is not exactly one `chunked`; hyper would pass on encoded content.
    UnsupportedCoding,
    /// `Transfer-Encoding` in HTTP/1.0, which does not define it.
    Http10Coding,
    /// Invalid or different lengths.
    InvalidLength,
}

impl fmt::Display for FramingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnsupportedCoding => "its Transfer-Encoding is not exactly \"chunked\"",
            Self::Http10Coding => "it is HTTP/1.0 and has a Transfer-Encoding",
            Self::InvalidLength => "its Content-Length is not a number, or is repeated with different values",
        })
    }
}

impl std::error::Error for FramingError {}

/// Whether the connection of a response may be reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionReuse {
    /// Both ends agree where the next response begins.
    Allowed,
    /// They may not.
    Forbidden,
}

/// Leaves one framing in a response head: `Transfer-Encoding` wins over `Content-Length`, equal lengths become one, and a
/// response without content has no length. Call it before hop-by-hop headers are removed.
pub fn normalize(
    version: Version,
    status: StatusCode,
    headers: &mut HeaderMap,
) -> Result<ConnectionReuse, FramingError> {
    let has_no_content = status.is_informational() || status == StatusCode::NO_CONTENT;
    if headers.contains_key(TRANSFER_ENCODING) {
        if version < Version::HTTP_11 {
            return Err(FramingError::Http10Coding);
        }
        if !is_chunked_alone(headers) {
            return Err(FramingError::UnsupportedCoding);
        }
        let ambiguous = headers.remove(CONTENT_LENGTH).is_some() || has_no_content;
        return Ok(if ambiguous { ConnectionReuse::Forbidden } else { ConnectionReuse::Allowed });
    }
    if headers.contains_key(CONTENT_LENGTH) {
        let length = consistent_length(headers).ok_or(FramingError::InvalidLength)?;
        if has_no_content {
            headers.remove(CONTENT_LENGTH);
        } else {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
    }
    Ok(ConnectionReuse::Allowed)
}

/// Whether a request has a transfer coding besides `chunked`: hyper accepts others before it, removes none of them, and
/// would pass on encoded content as the body.
pub fn has_unsupported_coding(request: &HeaderMap) -> bool {
    request.contains_key(TRANSFER_ENCODING) && !is_chunked_alone(request)
}

fn is_chunked_alone(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let is_chunked = |coding: &HeaderValue| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
    codings.next().is_some_and(is_chunked) && codings.next().is_none()
}

/// The length that all items of all values agree on.
fn consistent_length(headers: &HeaderMap) -> Option<u64> {
    let mut length_so_far = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        for item in value.to_str().ok()?.split(',').map(str::trim) {
            // `parse` accepts a sign.
            let digits = !item.is_empty() && item.bytes().all(|byte| byte.is_ascii_digit());
            let length: u64 = item.parse().ok().filter(|_| digits)?;
            if length_so_far.is_some_and(|previous| previous != length) {
                return None;
            }
            length_so_far = Some(length);
        }
    }
    length_so_far
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    const LENGTH: &str = "content-length";
    const CODING: &str = "transfer-encoding";

    #[test]
    fn a_message_has_one_framing_or_is_an_error() {
        use ConnectionReuse::{Allowed, Forbidden};
        use FramingError::{InvalidLength, UnsupportedCoding};
        for (lines, result, left) in [
            (&[][..], Ok(Allowed), None),
            (&[(LENGTH, "5")], Ok(Allowed), Some("5")),
            (&[(LENGTH, "5"), (LENGTH, "5")], Ok(Allowed), Some("5")),
            (&[(LENGTH, "5, 5")], Ok(Allowed), Some("5")),
            (&[(LENGTH, "05")], Ok(Allowed), Some("5")),
            (&[(LENGTH, "5"), (LENGTH, "6")], Err(InvalidLength), None),
            (&[(LENGTH, "5, 6")], Err(InvalidLength), None),
            (&[(LENGTH, "+5")], Err(InvalidLength), None),
            (&[(LENGTH, "-5")], Err(InvalidLength), None),
            (&[(LENGTH, "")], Err(InvalidLength), None),
            (&[(LENGTH, "0x5")], Err(InvalidLength), None),
            (&[(LENGTH, "99999999999999999999")], Err(InvalidLength), None),
            (&[(CODING, "chunked")], Ok(Allowed), None),
            (&[(CODING, "Chunked ")], Ok(Allowed), None),
            (&[(CODING, "chunked"), (LENGTH, "5")], Ok(Forbidden), None),
            (&[(LENGTH, "x"), (CODING, "chunked")], Ok(Forbidden), None),
            (&[(CODING, "gzip")], Err(UnsupportedCoding), None),
            (&[(CODING, "gzip, chunked")], Err(UnsupportedCoding), None),
            (&[(CODING, "chunked, gzip")], Err(UnsupportedCoding), None),
            (&[(CODING, "chunked"), (CODING, "chunked")], Err(UnsupportedCoding), None),
            (&[(CODING, "identity")], Err(UnsupportedCoding), None),
            (&[(CODING, "chunked;q=1")], Err(UnsupportedCoding), None),
            (&[(CODING, "")], Err(UnsupportedCoding), None),
        ] {
            let mut headers = head(lines);
            assert_eq!(normalize(Version::HTTP_11, StatusCode::OK, &mut headers), result, "{lines:?}");
            if result.is_ok() {
                let lengths: Vec<_> = headers.get_all(LENGTH).iter().collect();
                assert_eq!(lengths, left.into_iter().collect::<Vec<_>>(), "{lines:?}");
            }
        }
    }

    #[test]
    fn a_request_is_chunked_once_or_not_at_all() {
        for (lines, unsupported) in [
            (&[][..], false),
            (&[(LENGTH, "5")], false),
            (&[(CODING, "Chunked")], false),
            (&[(CODING, "gzip, chunked")], true),
            (&[(CODING, "chunked, chunked")], true),
            (&[(CODING, "identity"), (CODING, "chunked")], true),
        ] {
            assert_eq!(has_unsupported_coding(&head(lines)), unsupported, "{lines:?}");
        }
    }

    #[test]
    fn a_response_without_content_has_no_length_and_http_1_0_no_coding() {
        for status in [StatusCode::SWITCHING_PROTOCOLS, StatusCode::NO_CONTENT] {
            let mut headers = head(&[(LENGTH, "5")]);
            assert_eq!(normalize(Version::HTTP_11, status, &mut headers), Ok(ConnectionReuse::Allowed));
            assert!(headers.is_empty());
            let mut headers = head(&[(CODING, "chunked")]);
            assert_eq!(normalize(Version::HTTP_11, status, &mut headers), Ok(ConnectionReuse::Forbidden));
        }
        let mut not_modified = head(&[(LENGTH, "5")]);
        assert_eq!(
            normalize(Version::HTTP_11, StatusCode::NOT_MODIFIED, &mut not_modified),
            Ok(ConnectionReuse::Allowed)
        );
        assert_eq!(not_modified[LENGTH], "5", "the length of the content that is not sent");
        let mut old = head(&[(CODING, "chunked")]);
        assert_eq!(normalize(Version::HTTP_10, StatusCode::OK, &mut old), Err(FramingError::Http10Coding));
    }
}
