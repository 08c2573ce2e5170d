//! Scans a WebP, chunk by chunk.

use super::{Partial, skip};

/// The longest chunk header that is parsed: that of an animation frame.
const MAX_HEAD_LEN: usize = 16;
/// Bytes of a lossy image's header: tag, start code, width, height.
const LOSSY_HEAD_LEN: usize = 10;
/// Bytes of a lossless image's header: signature, width, height, version.
const LOSSLESS_HEAD_LEN: usize = 5;
/// A lossless image of a single colour needs no bits for its pixels, but some bytes for its codes.
const MIN_LOSSLESS_LEN: u64 = LOSSLESS_HEAD_LEN as u64 + 3;
/// Bytes of the extended header: flags, canvas.
const EXTENDED_HEAD_LEN: usize = 10;
/// The longest side of an image; encoders do not write larger canvases.
const MAX_SIDE: u32 = 1 << 14;
/// The most blocks of 16x16 pixels that a byte of lossy data can encode. Each needs at least
/// three bits for its prediction mode, whose probabilities are fixed.
const MAX_BLOCKS_PER_BYTE: u64 = 16;

/// The RIFF size and the last chunk must end exactly at the file's end.
#[derive(Debug, Default)]
pub(super) struct Webp {
    chunk: Partial<8>,
    chunk_head: Partial<MAX_HEAD_LEN>,
    /// The chunk whose header is being parsed, and its length.
    pending_chunk: Option<(WebpChunk, u64)>,
    skip: u64,
    /// The RIFF size, and how many of its bytes have arrived.
    size: u64,
    read: u64,
    /// The canvas of the extended format.
    canvas: Option<(u32, u32)>,
    /// The current animation frame: its size and its remaining bytes.
    frame: Option<((u32, u32), u64)>,
    /// The size that the next image must have, if known.
    expected: Option<(u32, u32)>,
    has_image: bool,
    lacks_data: bool,
    malformed: bool,
}

/// A chunk whose header is parsed.
#[derive(Debug, Clone, Copy)]
enum WebpChunk {
    Lossy,
    Lossless,
    Extended,
    Frame,
}

impl WebpChunk {
    const fn head_len(self) -> usize {
        match self {
            Self::Lossy => LOSSY_HEAD_LEN,
            Self::Lossless => LOSSLESS_HEAD_LEN,
            Self::Extended => EXTENDED_HEAD_LEN,
            Self::Frame => MAX_HEAD_LEN,
        }
    }
}

impl Webp {
    /// Starts after the file header, whose last four bytes count in `size`.
    pub(super) fn new(size: u32) -> Self {
        Self { size: size.into(), read: 4, ..Self::default() }
    }

    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        self.read += bytes.len() as u64;
        while !self.malformed && skip(&mut self.skip, &mut bytes) {
            if let Some((kind, length)) = self.pending_chunk {
                let Some(begin) = self.chunk_head.fill_first(kind.head_len(), &mut bytes) else { return };
                self.pending_chunk = None;
                self.skip = match kind {
                    // Its content is chunks.
                    WebpChunk::Frame => 0,
                    _ => padded(length) - kind.head_len() as u64,
                };
                self.malformed |= self.parse_chunk_head(kind, length, begin).is_none();
            } else {
                let Some(head) = self.chunk.fill(&mut bytes) else { return };
                self.malformed |= self.enter(head).is_none();
            }
        }
    }

    /// `None` for an invalid chunk.
    fn enter(&mut self, head: [u8; 8]) -> Option<()> {
        let [a, b, c, d, length @ ..] = head;
        let length = u64::from(u32::from_le_bytes(length));
        self.expected = self.canvas;
        let in_frame = self.frame.is_some();
        if let Some((size, left)) = self.frame {
            let left = left.checked_sub(8 + padded(length))?;
            self.frame = (left > 0).then_some((size, left));
            self.expected = Some(size);
        }
        let kind = match &[a, b, c, d] {
            b"VP8 " => WebpChunk::Lossy,
            b"VP8L" => WebpChunk::Lossless,
            b"VP8X" if self.is_at_begin() => WebpChunk::Extended,
            b"ANMF" if !in_frame => WebpChunk::Frame,
            b"VP8X" | b"ANMF" => return None,
            _ => {
                self.skip = padded(length);
                return Some(());
            }
        };
        (length >= kind.head_len() as u64).then_some(())?;
        self.pending_chunk = Some((kind, length));
        Some(())
    }

    /// Whether no image and no canvas came before.
    const fn is_at_begin(&self) -> bool {
        self.canvas.is_none() && !self.has_image
    }

    /// `None` for an invalid header.
    fn parse_chunk_head(&mut self, kind: WebpChunk, length: u64, begin: [u8; MAX_HEAD_LEN]) -> Option<()> {
        let three = |at: usize| u32::from_le_bytes([begin[at], begin[at + 1], begin[at + 2], 0]);
        match kind {
            WebpChunk::Extended => self.canvas = Some((three(4) + 1, three(7) + 1)),
            WebpChunk::Frame => {
                let ((width, height), (x, y)) = ((three(6) + 1, three(9) + 1), (three(0) * 2, three(3) * 2));
                let (across, down) = self.canvas?;
                (x + width <= across && y + height <= down).then_some(())?;
                self.lacks_data |= across > MAX_SIDE || down > MAX_SIDE;
                let left = length - MAX_HEAD_LEN as u64;
                self.frame = (left > 0).then_some(((width, height), left));
            }
            WebpChunk::Lossy => {
                let two = |at: usize| u32::from(u16::from_le_bytes([begin[at], begin[at + 1]]) & 0x3FFF);
                let (tag, size) = (three(0), (two(6), two(8)));
                // A key frame, with start code and first partition inside the chunk.
                (tag & 1 == 0 && begin[3..6] == [0x9D, 0x01, 0x2A]).then_some(())?;
                (u64::from(tag >> 5) + LOSSY_HEAD_LEN as u64 <= length).then_some(())?;
                let blocks = u64::from(size.0.div_ceil(16)) * u64::from(size.1.div_ceil(16));
                self.lacks_data |= blocks == 0 || length * MAX_BLOCKS_PER_BYTE < blocks;
                self.image_data(size)?;
            }
            WebpChunk::Lossless => {
                let bits = u32::from_le_bytes([begin[1], begin[2], begin[3], begin[4]]);
                (begin[0] == 0x2F && bits >> 29 == 0).then_some(())?;
                self.lacks_data |= length < MIN_LOSSLESS_LEN;
                self.image_data(((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1))?;
            }
        }
        Some(())
    }

    fn image_data(&mut self, size: (u32, u32)) -> Option<()> {
        self.has_image = true;
        self.expected.is_none_or(|expected| expected == size).then_some(())
    }

    pub(super) fn is_complete(&self) -> bool {
        let at_chunk_boundary =
            self.skip == 0 && self.pending_chunk.is_none() && self.chunk.filled().is_empty();
        !self.malformed && at_chunk_boundary && self.frame.is_none() && self.read == self.size
    }

    /// Whether there is enough data for the size.
    pub(super) const fn has_pixels(&self) -> bool {
        self.has_image && !self.lacks_data
    }
}

/// Chunks are padded to an even length.
const fn padded(length: u64) -> u64 {
    length + (length & 1)
}
