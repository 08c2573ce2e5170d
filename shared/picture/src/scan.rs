//! Scans an image's structure while its bytes arrive, in one pass and without buffering the image. Pixels are not decoded; the
//! least data that an image of its size can have is checked.

mod jpeg;
mod png;
mod webp;

use self::{jpeg::Jpeg, png::Png, webp::Webp};
use super::{Format, InvalidImage};

const PNG_SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
/// Bytes that identify the format.
const SIGNATURE_LEN: usize = 12;

/// Validates an image incrementally.
#[derive(Debug, Default)]
pub struct Scanner {
    head: Partial<SIGNATURE_LEN>,
    kind: FormatState,
}

#[derive(Debug, Default)]
enum FormatState {
    /// Too few bytes so far.
    #[default]
    Undetermined,
    Png(Png),
    Jpeg(Jpeg),
    Webp(Webp),
    Unknown,
}

impl Scanner {
    /// Scans the next chunk of bytes.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        if matches!(self.kind, FormatState::Undetermined) {
            let Some(head) = self.head.fill(&mut bytes) else { return };
            self.kind = FormatState::of(&head);
        }
        self.kind.feed(bytes);
    }

    /// The format, if all bytes are exactly one complete image.
    pub fn finish(mut self) -> Result<Format, InvalidImage> {
        if matches!(self.kind, FormatState::Undetermined) {
            self.kind = FormatState::of(self.head.filled());
        }
        let (format, is_complete, has_pixels) = match &self.kind {
            FormatState::Png(png) => (Format::Png, png.is_complete(), png.has_pixels()),
            FormatState::Jpeg(jpeg) => (Format::Jpeg, jpeg.is_complete(), jpeg.has_pixels()),
            FormatState::Webp(webp) => (Format::Webp, webp.is_complete(), webp.has_pixels()),
            FormatState::Undetermined | FormatState::Unknown => return Err(InvalidImage::UnknownFormat),
        };
        match (is_complete, has_pixels) {
            (true, true) => Ok(format),
            (true, false) => Err(InvalidImage::NoPixels(format)),
            (false, _) => Err(InvalidImage::Truncated(format)),
        }
    }
}

impl FormatState {
    fn of(head: &[u8]) -> Self {
        let mut kind = if head.starts_with(PNG_SIGNATURE) {
            Self::Png(Png::default())
        } else if head.starts_with(&[0xFF, 0xD8, 0xFF]) {
            Self::Jpeg(Jpeg::default())
        } else if head.starts_with(b"RIFF") && head.get(8..SIGNATURE_LEN) == Some(b"WEBP") {
            let size = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
            Self::Webp(Webp::new(size))
        } else {
            Self::Unknown
        };
        let consumed = match kind {
            Self::Png(_) => PNG_SIGNATURE.len(),
            Self::Jpeg(_) => 2,
            Self::Webp(_) | Self::Undetermined | Self::Unknown => head.len(),
        };
        kind.feed(&head[consumed..]);
        kind
    }

    fn feed(&mut self, bytes: &[u8]) {
        match self {
            Self::Png(png) => png.feed(bytes),
            Self::Jpeg(jpeg) => jpeg.feed(bytes),
            Self::Webp(webp) => webp.feed(bytes),
            Self::Undetermined | Self::Unknown => {}
        }
    }
}

/// Skips `left` bytes; returns whether more follow.
fn skip(left: &mut u64, bytes: &mut &[u8]) -> bool {
    let skipped = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
    *left -= skipped as u64;
    *bytes = &bytes[skipped..];
    !bytes.is_empty()
}

/// Collects `N` bytes from chunks of any size.
#[derive(Debug)]
struct Partial<const N: usize> {
    bytes: [u8; N],
    filled: usize,
}

impl<const N: usize> Default for Partial<N> {
    fn default() -> Self {
        Self { bytes: [0; N], filled: 0 }
    }
}

impl<const N: usize> Partial<N> {
    /// Takes what is missing; returns the bytes once they are complete.
    fn fill(&mut self, from: &mut &[u8]) -> Option<[u8; N]> {
        self.fill_first(N, from)
    }

    /// The same for the first `count` bytes; the others are unspecified.
    fn fill_first(&mut self, count: usize, from: &mut &[u8]) -> Option<[u8; N]> {
        let (more, rest) = from.split_at(from.len().min(count - self.filled));
        self.bytes[self.filled..self.filled + more.len()].copy_from_slice(more);
        self.filled += more.len();
        *from = rest;
        (self.filled == count).then(|| {
            self.filled = 0;
            self.bytes
        })
    }

    fn filled(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }
}
