//! A response body with images in base64, encoded while it is sent: they are read from the store chunk by chunk, so that none is
//! in memory as a whole.

use std::{fs::File, io, os::unix::fs::FileExt, sync::Arc};

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use tracing::warn;

use crate::{blocking::blocking, store::disk::StoredImage};

/// Read at a time: a multiple of three, so that there is no padding in between.
const CHUNK_BYTES: u64 = 3 << 15;

pub(super) enum BodyPart {
    Text(Bytes),
    /// A file and its size, to be encoded in base64.
    Image(Arc<File>, u64),
}

impl From<StoredImage> for BodyPart {
    fn from(stored: StoredImage) -> Self {
        Self::Image(stored.file, stored.size)
    }
}

pub(super) fn content_length(parts: &[BodyPart]) -> u64 {
    let length = |part: &BodyPart| match part {
        BodyPart::Text(text) => text.len() as u64,
        BodyPart::Image(_, size) => size.div_ceil(3) * 4,
    };
    parts.iter().map(length).sum()
}

pub(super) fn body(parts: Vec<BodyPart>) -> Body {
    let start = (parts.into_iter(), None);
    Body::from_stream(stream::try_unfold(start, async |(mut parts, open)| {
        let (file, offset, size) = match open {
            Some(open) => open,
            None => match parts.next() {
                Some(BodyPart::Text(text)) => return Ok(Some((text, (parts, None)))),
                Some(BodyPart::Image(file, size)) => (file, 0, size),
                None => return Ok::<_, io::Error>(None),
            },
        };
        let (chunk, file) = blocking(move || (encode_chunk(&file, offset, size), file)).await;
        let chunk = chunk
            .inspect_err(|error| warn!(%error, "cannot read a stored image; the response is cut off"))?;
        let next = offset + CHUNK_BYTES;
        let open = (next < size).then_some((file, next, size));
        Ok(Some((chunk, (parts, open))))
    }))
}

fn encode_chunk(file: &File, offset: u64, size: u64) -> io::Result<Bytes> {
    let length = usize::try_from(CHUNK_BYTES.min(size - offset)).map_err(io::Error::other)?;
    let mut chunk = vec![0; length];
    file.read_exact_at(&mut chunk, offset)?;
    Ok(base64_simd::STANDARD.encode_to_string(chunk).into())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::store::disk::tests::temporary;

    #[tokio::test]
    async fn chunks_make_the_same_base64_as_the_whole_and_the_length_is_right() {
        let path = temporary("inline").join("image");
        for size in [1, 2, 3, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES + 7] {
            let bytes: Vec<u8> = (0..size).map(|index| index.to_le_bytes()[0] ^ 0x5A).collect();
            let mut file =
                File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
            file.write_all(&bytes).unwrap();
            let text = |text: &'static str| BodyPart::Text(Bytes::from_static(text.as_bytes()));
            let parts = vec![text("<"), BodyPart::Image(Arc::new(file), size), text(">")];
            let length = content_length(&parts);
            let body = axum::body::to_bytes(body(parts), usize::MAX).await.unwrap();
            assert_eq!(body, format!("<{}>", base64_simd::STANDARD.encode_to_string(&bytes)));
            assert_eq!(body.len() as u64, length);
        }
    }
}
