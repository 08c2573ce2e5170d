//! Walking a picture's structure while its bytes come. What is behind is never needed again, so a picture need not be
//! in memory to be judged. Pixels are not decoded.

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
        let (format, whole) = match &self.kind {
            Kind::Png(png) => (Format::Png, png.is_whole()),
            Kind::Jpeg(jpeg) => (Format::Jpeg, jpeg.at == Place::End),
            Kind::Webp(webp) => (Format::Webp, webp.is_whole()),
            Kind::Untold | Kind::Unknown => return Err(NotAPicture::Unknown),
        };
        whole.then_some(format).ok_or(NotAPicture::CutOff(format))
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
            Self::Webp(Webp { size: size.into(), read: 4, ..Webp::default() })
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

/// IHDR first, at least one IDAT, IEND last, every length inside the file, nothing behind.
#[derive(Debug, Default)]
struct Png {
    chunk: Gather<8>,
    skip: u64,
    stage: Stage,
}

/// Which of a PNG's chunks came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Stage {
    /// None.
    #[default]
    Begin,
    /// The head.
    Head,
    /// Pixels, too.
    Pixels,
    /// The end.
    End,
    /// One that no PNG has there.
    Broken,
}

impl Png {
    fn feed(&mut self, mut bytes: &[u8]) {
        while self.stage != Stage::Broken && skip(&mut self.skip, &mut bytes) {
            if self.stage == Stage::End {
                self.stage = Stage::Broken; // something is behind it
                return;
            }
            let Some(head) = self.chunk.take(&mut bytes) else { return };
            self.enter(head);
        }
    }

    fn enter(&mut self, head: [u8; 8]) {
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        self.stage = match (self.stage, &head[4..]) {
            (Stage::Begin, b"IHDR") if length == 13 => Stage::Head,
            (Stage::Head | Stage::Pixels, b"IDAT") => Stage::Pixels,
            (Stage::Pixels, b"IEND") if length == 0 => Stage::End,
            (Stage::Begin, _) | (_, b"IEND") => Stage::Broken,
            (stage, _) => stage,
        };
        // Four bytes of checksum follow the chunk's data.
        self.skip = u64::from(length) + 4;
    }

    fn is_whole(&self) -> bool {
        self.stage == Stage::End && self.skip == 0
    }
}

/// Segments up to the scan, then entropy-coded data up to the end marker. Bytes behind the end are refused.
#[derive(Debug, Default)]
struct Jpeg {
    at: Place,
    has_scan: bool,
}

/// Where in a JPEG the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Place {
    /// Where a marker must begin.
    #[default]
    Marker,
    /// Behind 0xFF.
    Code,
    /// In a segment's length, of which so many bytes came.
    Length { of_scan: bool, high: Option<u8> },
    /// In a segment, before so many bytes of it.
    Segment { of_scan: bool, left: u64 },
    /// In entropy-coded data, maybe behind 0xFF.
    Entropy { marked: bool },
    /// Behind the end marker.
    End,
    /// Where no JPEG goes.
    Broken,
}

impl Jpeg {
    fn feed(&mut self, mut bytes: &[u8]) {
        while let Some((&byte, rest)) = bytes.split_first() {
            match self.at {
                Place::Segment { of_scan, mut left } => {
                    skip(&mut left, &mut bytes);
                    self.at = match left {
                        0 => Self::behind_segment(of_scan),
                        left => Place::Segment { of_scan, left },
                    };
                    continue;
                }
                Place::Entropy { marked: false } => {
                    let Some(at) = bytes.iter().position(|byte| *byte == 0xFF) else { return };
                    self.at = Place::Entropy { marked: true };
                    bytes = &bytes[at + 1..];
                    continue;
                }
                Place::Broken => return,
                at => self.at = self.step(at, byte),
            }
            bytes = rest;
        }
    }

    /// Where one byte leads.
    fn step(&mut self, at: Place, byte: u8) -> Place {
        match (at, byte) {
            (Place::Marker, 0xFF) => Place::Code,
            (Place::Length { of_scan, high: None }, _) => Place::Length { of_scan, high: Some(byte) },
            (Place::Length { of_scan, high: Some(high) }, _) => {
                match u16::from_be_bytes([high, byte]).checked_sub(2) {
                    Some(0) => Self::behind_segment(of_scan),
                    Some(left) => Place::Segment { of_scan, left: left.into() },
                    None => Place::Broken,
                }
            }
            (Place::Entropy { .. }, 0xFF) => at,
            // A stuffed byte, or a restart.
            (Place::Entropy { .. }, 0x00 | 0xD0..=0xD7) => Place::Entropy { marked: false },
            (Place::Code | Place::Entropy { .. }, _) => self.marker(byte),
            (Place::Marker | Place::Segment { .. } | Place::End | Place::Broken, _) => Place::Broken,
        }
    }

    fn marker(&mut self, code: u8) -> Place {
        match code {
            0xFF => Place::Code,
            0xD9 if self.has_scan => Place::End,
            0x00 | 0xD8 | 0xD9 => Place::Broken,
            0x01 | 0xD0..=0xD7 => Place::Marker,
            _ => {
                self.has_scan |= code == 0xDA;
                Place::Length { of_scan: code == 0xDA, high: None }
            }
        }
    }

    const fn behind_segment(of_scan: bool) -> Place {
        if of_scan { Place::Entropy { marked: false } } else { Place::Marker }
    }
}

/// The RIFF size and every chunk's size must end exactly at the file's end.
#[derive(Debug, Default)]
struct Webp {
    chunk: Gather<8>,
    skip: u64,
    /// What the head says is behind its eight bytes, and what came of it.
    size: u64,
    read: u64,
    has_image: bool,
}

impl Webp {
    fn feed(&mut self, mut bytes: &[u8]) {
        self.read += bytes.len() as u64;
        while skip(&mut self.skip, &mut bytes) {
            let Some(head) = self.chunk.take(&mut bytes) else { return };
            let length = u64::from(u32::from_le_bytes([head[4], head[5], head[6], head[7]]));
            self.has_image |= matches!(&head[..4], b"VP8 " | b"VP8L" | b"ANMF");
            // Chunks are padded to an even length.
            self.skip = length + (length & 1);
        }
    }

    fn is_whole(&self) -> bool {
        self.has_image && self.skip == 0 && self.chunk.so_far().is_empty() && self.read == self.size
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
        let (more, rest) = from.split_at(from.len().min(N - self.have));
        self.bytes[self.have..self.have + more.len()].copy_from_slice(more);
        self.have += more.len();
        *from = rest;
        (self.have == N).then(|| {
            self.have = 0;
            self.bytes
        })
    }

    fn so_far(&self) -> &[u8] {
        &self.bytes[..self.have]
    }
}
