//! The orientation in an image's EXIF. The decoders report it only where EXIF precedes the pixels, but in PNG and WebP
//! many writers put it after them. Invalid EXIF counts as none, as in viewers.

use image::metadata::Orientation;
use wire::openai::images::ImageSize;

/// Precedes EXIF in JPEG, and with some writers in the other formats.
const EXIF_PREFIX: &[u8] = b"Exif\0\0";
const PNG_SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

pub(super) fn read(file: &[u8]) -> Orientation {
    let exif = match file {
        [0xff, 0xd8, segments @ ..] => in_jpeg(segments),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', chunks @ ..] => in_webp(chunks),
        _ => file.strip_prefix(PNG_SIGNATURE).and_then(in_png),
    };
    let exif = exif.map(|exif| exif.strip_prefix(EXIF_PREFIX).unwrap_or(exif));
    exif.and_then(Orientation::from_exif_chunk).unwrap_or(Orientation::NoTransforms)
}

/// The size after the orientation is applied.
pub(super) const fn upright(size: ImageSize, orientation: Orientation) -> ImageSize {
    match orientation {
        Orientation::Rotate90
        | Orientation::Rotate270
        | Orientation::Rotate90FlipH
        | Orientation::Rotate270FlipH => ImageSize::new(size.height, size.width),
        Orientation::NoTransforms
        | Orientation::Rotate180
        | Orientation::FlipHorizontal
        | Orientation::FlipVertical => size,
    }
}

/// In the first application segment with EXIF; all of them precede the pixels.
fn in_jpeg(mut segments: &[u8]) -> Option<&[u8]> {
    loop {
        // Any number of fill bytes may precede a marker.
        let [0xff, rest @ ..] = segments else { return None };
        let fill = rest.iter().take_while(|byte| **byte == 0xff).count();
        let rest = &rest[fill..];
        let (&[marker, high, low], _) = rest.split_first_chunk::<3>()?;
        // The pixels, or a marker without a length.
        if matches!(marker, 0x00..=0x01 | 0xd0..=0xda) {
            return None;
        }
        let data = rest.get(3..)?.get(..usize::from(u16::from_be_bytes([high, low])).checked_sub(2)?)?;
        if marker == 0xe1 && data.starts_with(EXIF_PREFIX) {
            return Some(data);
        }
        segments = &rest[3 + data.len()..];
    }
}

/// Before or after the pixels.
fn in_png(mut chunks: &[u8]) -> Option<&[u8]> {
    loop {
        let ([a, b, c, d, kind @ ..], rest) = chunks.split_first_chunk::<8>()?;
        let data = rest.get(..u32::from_be_bytes([*a, *b, *c, *d]) as usize)?;
        if kind == b"eXIf" {
            return Some(data);
        }
        // A checksum follows the data.
        chunks = rest.get(data.len() + 4..)?;
    }
}

/// Usually the last chunk but one.
fn in_webp(mut chunks: &[u8]) -> Option<&[u8]> {
    loop {
        let ([kind @ .., a, b, c, d], rest) = chunks.split_first_chunk::<8>()?;
        let data = rest.get(..u32::from_le_bytes([*a, *b, *c, *d]) as usize)?;
        if kind == b"EXIF" {
            return Some(data);
        }
        chunks = rest.get(data.len().next_multiple_of(2)..)?;
    }
}

#[cfg(test)]
mod tests;
