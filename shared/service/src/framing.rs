//! How an answer that is passed on was framed (RFC 9112, 6). What our HTTP library and the next reader could understand in
//! two ways never travels: that is how a second answer is smuggled into the first. Pure.

use std::fmt;

use axum::http::{
    HeaderMap, HeaderValue, StatusCode, Version,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};

/// Why nobody can tell where an answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FramingError {
    /// `Transfer-Encoding` names anything but one `chunked`; what we would pass on is not the content.
    UnsupportedCoding,
    /// `Transfer-Encoding` in HTTP/1.0, which has none.
    Http10Coding,
    /// Lengths that differ, or that are none.
    InvalidLength,
}

impl fmt::Display for FramingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnsupportedCoding => "its Transfer-Encoding is not just \"chunked\"",
            Self::Http10Coding => "it is HTTP/1.0 and has a Transfer-Encoding",
            Self::InvalidLength => "its Content-Length is no number, or is given twice and differs",
        })
    }
}

impl std::error::Error for FramingError {}

/// Whether the connection that an answer came over may be used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionReuse {
    /// Both ends agree where the next answer begins.
    Allowed,
    /// They may not.
    Forbidden,
}

/// Leaves one framing in the head of an answer: `Transfer-Encoding` wins over `Content-Length`, equal lengths become one,
/// and an answer that has no content has no length. Before the hop-by-hop headers are dropped.
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
        let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
        let is_chunked =
            |coding: &HeaderValue| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
        if !codings.next().is_some_and(is_chunked) || codings.next().is_some() {
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

/// The length that every value and every item of a value says.
fn consistent_length(headers: &HeaderMap) -> Option<u64> {
    let mut length_so_far = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        for item in value.to_str().ok()?.split(',').map(str::trim) {
            // A sign is no digit, though `parse` takes it.
            let digits = !item.is_empty() && item.bytes().all(|byte| byte.is_ascii_digit());
            let length: u64 = item.parse().ok().filter(|_| digits)?;
            if length_so_far.is_some_and(|said| said != length) {
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
    fn one_framing_is_left_or_none() {
        use ConnectionReuse::{Allowed, Forbidden};
        use FramingError::{InvalidLength, UnsupportedCoding};
        for (lines, settled, left) in [
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
            assert_eq!(normalize(Version::HTTP_11, StatusCode::OK, &mut headers), settled, "{lines:?}");
            if settled.is_ok() {
                let lengths: Vec<_> = headers.get_all(LENGTH).iter().collect();
                assert_eq!(lengths, left.into_iter().collect::<Vec<_>>(), "{lines:?}");
            }
        }
    }

    #[test]
    fn what_has_no_content_has_no_length_and_an_old_version_no_coding() {
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
        assert_eq!(not_modified[LENGTH], "5", "that of the content which is not sent");
        let mut old = head(&[(CODING, "chunked")]);
        assert_eq!(normalize(Version::HTTP_10, StatusCode::OK, &mut old), Err(FramingError::Http10Coding));
    }
}
