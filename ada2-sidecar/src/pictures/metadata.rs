//! What engines write into a PNG beside its pixels: the prompt, and the whole graph.

use bytes::Bytes;

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
/// Chunks of text, and the camera's.
const TELLING: [&[u8; 4]; 5] = [b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"tIME"];

/// The same picture without them; its pixels are not touched. What is no PNG stays as it is.
pub(crate) fn strip(picture: &Bytes) -> Bytes {
    if !picture.starts_with(SIGNATURE) {
        return picture.clone();
    }
    let mut kept = SIGNATURE.to_vec();
    let mut rest = &picture[SIGNATURE.len()..];
    while let Some((head, _)) = rest.split_first_chunk::<8>() {
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        // Length and kind before the data, the checksum behind it.
        let Some((chunk, after)) = length.checked_add(12).and_then(|whole| rest.split_at_checked(whole))
        else {
            break;
        };
        if !TELLING.iter().any(|kind| head[4..] == kind[..]) {
            kept.extend_from_slice(chunk);
        }
        rest = after;
    }
    kept.extend_from_slice(rest);
    kept.into()
}
