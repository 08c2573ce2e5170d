//! An answer with pictures in base64 inside, made while it is sent: they are read from the store piece by piece, so that
//! memory holds none whole.

use std::{fs::File, io, os::unix::fs::FileExt, sync::Arc};

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use tracing::warn;

use crate::{blocking::blocking, store::disk::StoredImage};

/// Bytes that are read at a time; of whole groups of three, so that no padding comes in between.
const CHUNK_BYTES: u64 = 3 << 15;

/// A part of the answer.
pub(super) enum BodyPart {
    /// As it is.
    Text(Bytes),
    /// In base64: a file and its size.
    Image(Arc<File>, u64),
}

impl From<StoredImage> for BodyPart {
    fn from(kept: StoredImage) -> Self {
        Self::Image(kept.file, kept.size)
    }
}

/// Bytes of the whole answer.
pub(super) fn content_length(parts: &[BodyPart]) -> u64 {
    let one = |part: &BodyPart| match part {
        BodyPart::Text(text) => text.len() as u64,
        BodyPart::Image(_, bytes) => bytes.div_ceil(3) * 4,
    };
    parts.iter().map(one).sum()
}

/// The answer.
pub(super) fn body(parts: Vec<BodyPart>) -> Body {
    let start = (parts.into_iter(), None);
    Body::from_stream(stream::try_unfold(start, async |(mut parts, open)| {
        let (file, from, bytes) = match open {
            Some(open) => open,
            None => match parts.next() {
                Some(BodyPart::Text(text)) => return Ok(Some((text, (parts, None)))),
                Some(BodyPart::Image(file, bytes)) => (file, 0, bytes),
                None => return Ok::<_, io::Error>(None),
            },
        };
        let (piece, file) = blocking(move || (encode_chunk(&file, from, bytes), file)).await;
        let piece = piece
            .inspect_err(|error| warn!(%error, "a stored picture cannot be read; its answer is cut off"))?;
        let next = from + CHUNK_BYTES;
        let open = (next < bytes).then_some((file, next, bytes));
        Ok(Some((piece, (parts, open))))
    }))
}

fn encode_chunk(file: &File, from: u64, end: u64) -> io::Result<Bytes> {
    let length = usize::try_from(CHUNK_BYTES.min(end - from)).map_err(io::Error::other)?;
    let mut piece = vec![0; length];
    file.read_exact_at(&mut piece, from)?;
    Ok(base64_simd::STANDARD.encode_to_string(piece).into())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::store::disk::tests::temporary;

    #[tokio::test]
    async fn pieces_make_the_same_base64_as_the_whole_and_the_length_is_right() {
        let path = temporary("inline").join("picture");
        for size in [1, 2, 3, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES + 7] {
            let bytes: Vec<u8> = (0..size).map(|at| at.to_le_bytes()[0] ^ 0x5A).collect();
            let mut file =
                File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
            file.write_all(&bytes).unwrap();
            let text = |text: &'static str| BodyPart::Text(Bytes::from_static(text.as_bytes()));
            let parts = vec![text("<"), BodyPart::Image(Arc::new(file), size), text(">")];
            let length = content_length(&parts);
            let whole = axum::body::to_bytes(body(parts), usize::MAX).await.unwrap();
            assert_eq!(whole, format!("<{}>", base64_simd::STANDARD.encode_to_string(&bytes)));
            assert_eq!(whole.len() as u64, length);
        }
    }
}
