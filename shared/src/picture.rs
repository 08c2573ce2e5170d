//! What counts as a picture: bytes that are structurally whole. Nothing else is stored or sent, so a cut-off
//! download or an HTML error page never becomes a picture.

#[cfg(feature = "painter")]
pub mod paint;

use std::fmt;

/// The formats that are stored and sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// PNG.
    Png,
    /// JPEG.
    Jpeg,
    /// WebP.
    Webp,
}

impl Format {
    /// The MIME type.
    pub const fn mime(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::Webp => "image/webp",
        }
    }

    /// The file name's ending.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpg",
            Self::Webp => "webp",
        }
    }

    /// The name in `output_format`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpeg",
            Self::Webp => "webp",
        }
    }

    /// Tells the format of a whole picture. Walks its structure to the end; pixels are not decoded.
    pub fn of_whole(bytes: &[u8]) -> Result<Self, NotAPicture> {
        if bytes.starts_with(PNG_SIGNATURE) {
            walk_png(bytes).then_some(Self::Png).ok_or(NotAPicture::CutOff(Self::Png))
        } else if bytes.starts_with(&[0xFF, 0xD8, 0xFF]) {
            walk_jpeg(bytes).then_some(Self::Jpeg).ok_or(NotAPicture::CutOff(Self::Jpeg))
        } else if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
            walk_webp(bytes).then_some(Self::Webp).ok_or(NotAPicture::CutOff(Self::Webp))
        } else {
            Err(NotAPicture::Unknown)
        }
    }
}

/// Why bytes are not a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAPicture {
    /// They do not begin like PNG, JPEG or WebP.
    Unknown,
    /// They begin like one and are damaged or end too early.
    CutOff(Format),
}

impl fmt::Display for NotAPicture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("the bytes are neither PNG, JPEG nor WebP"),
            Self::CutOff(format) => write!(f, "the {} is damaged or cut off", format.name()),
        }
    }
}

impl std::error::Error for NotAPicture {}

const PNG_SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// IHDR first, at least one IDAT, IEND last, every length inside the file, nothing behind.
fn walk_png(bytes: &[u8]) -> bool {
    let mut rest = &bytes[PNG_SIGNATURE.len()..];
    let (mut first, mut data) = (true, false);
    while let Some((head, tail)) = rest.split_first_chunk::<8>() {
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let kind = &head[4..];
        if first && (kind != b"IHDR" || length != 13) {
            return false;
        }
        first = false;
        data |= kind == b"IDAT";
        // Four bytes of checksum follow the chunk's data.
        let Some(after) = length.checked_add(4).and_then(|skip| tail.get(skip..)) else { return false };
        if kind == b"IEND" {
            return length == 0 && data && after.is_empty();
        }
        rest = after;
    }
    false
}

/// Segments up to the scan, then entropy-coded data up to the end marker. Bytes behind the end are refused.
fn walk_jpeg(bytes: &[u8]) -> bool {
    let mut at = 2;
    let mut scan = false;
    loop {
        if bytes.get(at) != Some(&0xFF) {
            return false;
        }
        let Some(&marker) = bytes.get(at + 1) else { return false };
        match marker {
            0xFF => at += 1,
            0xD9 => return scan && at + 2 == bytes.len(),
            0x01 | 0xD0..=0xD7 => at += 2,
            0x00 | 0xD8 => return false,
            _ => {
                let Some(&[high, low]) = bytes.get(at + 2..at + 4) else { return false };
                let length = usize::from(u16::from_be_bytes([high, low]));
                if length < 2 || at + 2 + length > bytes.len() {
                    return false;
                }
                at += 2 + length;
                if marker == 0xDA {
                    scan = true;
                    at = end_of_scan(bytes, at);
                }
            }
        }
    }
}

/// The next marker that is neither a stuffed byte nor a restart.
fn end_of_scan(bytes: &[u8], from: usize) -> usize {
    let marker = |pair: &[u8]| pair[0] == 0xFF && !matches!(pair[1], 0x00 | 0xFF | 0xD0..=0xD7);
    bytes[from..].windows(2).position(marker).map_or(bytes.len(), |at| from + at)
}

/// The RIFF size and every chunk's size must end exactly at the file's end.
fn walk_webp(bytes: &[u8]) -> bool {
    let size = |at: usize| {
        let raw: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_le_bytes(raw) as usize)
    };
    if size(4).and_then(|size| size.checked_add(8)) != Some(bytes.len()) {
        return false;
    }
    let (mut at, mut image) = (12, false);
    while at < bytes.len() {
        let Some(length) = size(at + 4) else { return false };
        image |= matches!(&bytes[at..at + 4], b"VP8 " | b"VP8L" | b"ANMF");
        // Chunks are padded to an even length.
        at = at + 8 + length + (length & 1);
    }
    image && at == bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png() -> Vec<u8> {
        let chunk = |kind: &[u8], data: &[u8]| {
            let mut chunk = u32::try_from(data.len()).unwrap().to_be_bytes().to_vec();
            chunk.extend_from_slice(kind);
            chunk.extend_from_slice(data);
            chunk.extend_from_slice(&[0; 4]);
            chunk
        };
        [PNG_SIGNATURE, &chunk(b"IHDR", &[0; 13]), &chunk(b"IDAT", b"pixels"), &chunk(b"IEND", b"")].concat()
    }

    fn jpeg() -> Vec<u8> {
        let scan = [0xFF, 0xDA, 0, 3, 9, 1, 2, 0xFF, 0x00, 3, 0xFF, 0xD0, 4, 0xFF, 0xD9];
        [&[0xFF, 0xD8, 0xFF, 0xE0, 0, 4, 1, 2][..], &scan[..]].concat()
    }

    fn webp() -> Vec<u8> {
        let body = [&b"WEBPVP8L"[..], &3u32.to_le_bytes(), b"abc\0"].concat();
        [&b"RIFF"[..], &u32::try_from(body.len()).unwrap().to_le_bytes(), &body].concat()
    }

    #[test]
    fn whole_pictures_are_told_by_their_bytes() {
        assert_eq!(Format::of_whole(&png()), Ok(Format::Png));
        assert_eq!(Format::of_whole(&jpeg()), Ok(Format::Jpeg));
        assert_eq!(Format::of_whole(&webp()), Ok(Format::Webp));
        assert_eq!(Format::of_whole(b"<html>"), Err(NotAPicture::Unknown));
        assert_eq!(Format::of_whole(b""), Err(NotAPicture::Unknown));
    }

    #[test]
    fn cut_off_anywhere_or_with_a_tail_is_no_picture() {
        for whole in [png(), jpeg(), webp()] {
            for end in 0..whole.len() {
                assert!(Format::of_whole(&whole[..end]).is_err(), "cut at {end} of {}", whole.len());
            }
            assert!(Format::of_whole(&[&whole[..], b"tail"].concat()).is_err());
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(kind in 0..3usize, noise: Vec<u8>, at: usize, byte: u8) {
            let mut bytes = [png(), jpeg(), webp()][kind].clone();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = Format::of_whole(&bytes);
            bytes.extend(noise);
            let _ = Format::of_whole(&bytes);
        }
    }
}
