//! Walking a picture's structure while its bytes come. What is behind is never needed again, so a picture need not be
//! in memory to be judged. Pixels are not decoded; what is known is the least data that a picture of its size can have.

mod jpeg;
mod png;
mod webp;

use self::{jpeg::Jpeg, png::Png, webp::Webp};
use super::{Format, NotAPicture};

const PNG_SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
/// So many bytes tell the format.
const HEAD: usize = 12;

/// A picture's structure, as far as its bytes came.
#[derive(Debug, Default)]
pub struct Walk {
    head: Gather<HEAD>,
    kind: Kind,
}

#[derive(Debug, Default)]
enum Kind {
    /// Too few bytes came.
    #[default]
    Untold,
    Png(Png),
    Jpeg(Jpeg),
    Webp(Webp),
    Unknown,
}

impl Walk {
    /// Goes on with the next bytes; where they are cut does not matter.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        if matches!(self.kind, Kind::Untold) {
            let Some(head) = self.head.take(&mut bytes) else { return };
            self.kind = Kind::of(&head);
        }
        self.kind.feed(bytes);
    }

    /// Tells the format, if all that came is one whole picture.
    pub fn finish(mut self) -> Result<Format, NotAPicture> {
        if matches!(self.kind, Kind::Untold) {
            self.kind = Kind::of(self.head.so_far());
        }
        let (format, whole, filled) = match &self.kind {
            Kind::Png(png) => (Format::Png, png.is_whole(), png.has_pixels()),
            Kind::Jpeg(jpeg) => (Format::Jpeg, jpeg.is_whole(), jpeg.has_pixels()),
            Kind::Webp(webp) => (Format::Webp, webp.is_whole(), webp.has_pixels()),
            Kind::Untold | Kind::Unknown => return Err(NotAPicture::Unknown),
        };
        match (whole, filled) {
            (true, true) => Ok(format),
            (true, false) => Err(NotAPicture::NoPixels(format)),
            (false, _) => Err(NotAPicture::CutOff(format)),
        }
    }
}

impl Kind {
    fn of(head: &[u8]) -> Self {
        let mut kind = if head.starts_with(PNG_SIGNATURE) {
            Self::Png(Png::default())
        } else if head.starts_with(&[0xFF, 0xD8, 0xFF]) {
            Self::Jpeg(Jpeg::default())
        } else if head.starts_with(b"RIFF") && head.get(8..HEAD) == Some(b"WEBP") {
            let size = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
            Self::Webp(Webp::new(size))
        } else {
            Self::Unknown
        };
        let behind = match kind {
            Self::Png(_) => PNG_SIGNATURE.len(),
            Self::Jpeg(_) => 2,
            Self::Webp(_) | Self::Untold | Self::Unknown => head.len(),
        };
        kind.feed(&head[behind..]);
        kind
    }

    fn feed(&mut self, bytes: &[u8]) {
        match self {
            Self::Png(png) => png.feed(bytes),
            Self::Jpeg(jpeg) => jpeg.feed(bytes),
            Self::Webp(webp) => webp.feed(bytes),
            Self::Untold | Self::Unknown => {}
        }
    }
}

/// Goes over `left` bytes; whether there are more behind them.
fn skip(left: &mut u64, bytes: &mut &[u8]) -> bool {
    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
    *left -= here as u64;
    *bytes = &bytes[here..];
    !bytes.is_empty()
}

/// The next `N` bytes, however they come.
#[derive(Debug)]
struct Gather<const N: usize> {
    bytes: [u8; N],
    have: usize,
}

impl<const N: usize> Default for Gather<N> {
    fn default() -> Self {
        Self { bytes: [0; N], have: 0 }
    }
}

impl<const N: usize> Gather<N> {
    /// Takes what is missing; all of them, once they are there.
    fn take(&mut self, from: &mut &[u8]) -> Option<[u8; N]> {
        self.take_first(N, from)
    }

    /// The same of the first `wanted` of them; the others are what they were.
    fn take_first(&mut self, wanted: usize, from: &mut &[u8]) -> Option<[u8; N]> {
        let (more, rest) = from.split_at(from.len().min(wanted - self.have));
        self.bytes[self.have..self.have + more.len()].copy_from_slice(more);
        self.have += more.len();
        *from = rest;
        (self.have == wanted).then(|| {
            self.have = 0;
            self.bytes
        })
    }

    fn so_far(&self) -> &[u8] {
        &self.bytes[..self.have]
    }
}
