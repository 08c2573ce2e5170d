//! Metadata in image files: in an engine's PNG the prompt and the whole graph, in an upload anything.

use bytes::Bytes;

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
/// Text, EXIF and time.
const METADATA_CHUNKS: &[&[u8; 4]] = &[b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"tIME"];
/// Chunks that decoders keep or decompress, however many there are, and that do not affect the pixels here: text and
/// colour profiles.
const EXPENSIVE_CHUNKS: &[&[u8; 4]] = &[b"tEXt", b"zTXt", b"iTXt", b"iCCP"];

/// Removes how an image was made. Pixels are untouched; only PNGs are changed.
pub(crate) fn strip_metadata(image: &Bytes) -> Bytes {
    remove_chunks(image, |chunk| METADATA_CHUNKS.iter().any(|kind| chunk[4..8] == kind[..]))
}

/// Removes what costs a decoder more than its length. EXIF, and so the orientation, stays.
pub(crate) fn strip_for_decoder(image: &Bytes) -> Bytes {
    if image.starts_with(b"\xff\xd8") {
        return strip_jpeg_segments(image);
    }
    remove_chunks(image, |chunk| EXPENSIVE_CHUNKS.iter().any(|kind| chunk[4..8] == kind[..]))
}

/// Copies nothing unless a chunk is removed.
fn remove_chunks(image: &Bytes, is_removed: impl Fn(&[u8]) -> bool) -> Bytes {
    if !image.starts_with(SIGNATURE) {
        return image.clone();
    }
    let mut output = None;
    let mut at = SIGNATURE.len();
    while let Some((head, _)) = image[at..].split_first_chunk::<8>() {
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        // Length and type come before the data, the checksum after it.
        let end = length.checked_add(12).and_then(|chunk| at.checked_add(chunk));
        let Some(end) = end.filter(|end| *end <= image.len()) else { break };
        copy_unless_removed(image, &mut output, at, end, is_removed(&image[at..end]));
        at = end;
    }
    finish_copy(image, output, at)
}

/// Removes the application and comment segments before the pixels, except EXIF and Adobe's colour transform.
fn strip_jpeg_segments(image: &Bytes) -> Bytes {
    let mut output = None;
    let mut at = 2;
    while let [0xff, marker, high, low, ..] = image[at..] {
        let end = at + 2 + usize::from(u16::from_be_bytes([high, low]));
        // The pixels, a marker without a length, or no marker.
        if matches!(marker, 0x00..=0x01 | 0xd0..=0xda | 0xff) || end > image.len() {
            break;
        }
        let is_exif = image[at + 4..end.max(at + 4)].starts_with(b"Exif\0\0");
        let is_removed = matches!(marker, 0xe1..=0xed | 0xef | 0xfe) && !is_exif;
        copy_unless_removed(image, &mut output, at, end, is_removed);
        at = end;
    }
    finish_copy(image, output, at)
}

fn copy_unless_removed(image: &Bytes, output: &mut Option<Vec<u8>>, at: usize, end: usize, is_removed: bool) {
    if is_removed {
        output.get_or_insert_with(|| image[..at].to_vec());
    } else if let Some(output) = output {
        output.extend_from_slice(&image[at..end]);
    }
}

fn finish_copy(image: &Bytes, output: Option<Vec<u8>>, at: usize) -> Bytes {
    let Some(mut output) = output else { return image.clone() };
    output.extend_from_slice(&image[at..]);
    output.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(kind: &str, data: &[u8]) -> Vec<u8> {
        let length = u32::try_from(data.len()).unwrap().to_be_bytes();
        [&length[..], kind.as_bytes(), data, b"crc!"].concat()
    }

    #[test]
    fn expensive_chunks_go_and_pixels_stay() {
        let (head, pixels, end) = (chunk("IHDR", b"h"), chunk("IDAT", b"tEXt"), chunk("IEND", b""));
        let exif = chunk("eXIf", b"e");
        let with = |extra: &[u8]| [SIGNATURE, &head, &exif, extra, &pixels, &end].concat();
        let texts = [chunk("tEXt", b""), chunk("iTXt", b"long"), chunk("iCCP", b"p")].concat();
        assert_eq!(strip_for_decoder(&with(&texts).into()), with(b""));
        let stripped = [SIGNATURE, &head, &chunk("iCCP", b"p"), &pixels, &end].concat();
        assert_eq!(strip_metadata(&with(&texts).into()), stripped);
        let plain = Bytes::from(with(b""));
        assert_eq!(strip_for_decoder(&plain).as_ptr(), plain.as_ptr(), "nothing is copied");
        for odd in
            [&b"GIF89a"[..], b"", SIGNATURE, b"\xff\xd8", b"\xff\xd8\xff", b"\xff\xd8\xff\xe2\xff\xffx"]
        {
            assert_eq!(strip_for_decoder(&Bytes::copy_from_slice(odd)), odd);
        }
        let cut = &with(&texts)[..with(&texts).len() - 3];
        assert!(strip_for_decoder(&Bytes::copy_from_slice(cut)).ends_with(&end[..end.len() - 3]));
    }

    #[test]
    fn a_jpeg_keeps_its_orientation() {
        let segment = |marker: u8, data: &[u8]| {
            let length = u16::try_from(data.len() + 2).unwrap().to_be_bytes();
            [&[0xff, marker][..], &length, data].concat()
        };
        let (exif, tables) = (segment(0xe1, b"Exif\0\0..."), segment(0xdb, b"ICC_PROFILE\0"));
        let pixels = [segment(0xda, b"s"), b"\xff\xe2\0\x04zz\xff\xd9".to_vec()].concat();
        let adobe = segment(0xee, b"Adobe");
        let extra =
            [segment(0xe2, b"ICC_PROFILE\0\x01\x01p"), segment(0xe1, b"http://x"), segment(0xfe, b"")];
        let plain = [b"\xff\xd8", &exif[..], &adobe, &tables, &pixels].concat();
        let complete =
            [b"\xff\xd8", &extra[0][..], &exif, &extra[1], &adobe, &tables, &extra[2], &pixels].concat();
        assert_eq!(strip_for_decoder(&complete.into()), plain);
    }
}
