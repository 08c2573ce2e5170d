//! A PNG, chunk by chunk.

use super::{Partial, skip};

/// Bytes of the head.
const IHDR_LEN: u32 = 13;
/// zlib's number for deflate, in the lower half of its first byte.
const DEFLATE: u16 = 8;
/// Deflate makes at most so many bytes of one: two bits repeat 258.
const MAX_DEFLATE_RATIO: u128 = 1032;
/// What zlib puts around the deflated data: two bytes before, a checksum of four behind.
const ZLIB_OVERHEAD: u64 = 6;
/// The shortest deflated data that are not empty.
const MIN_DEFLATED_LEN: u64 = 3;
/// Where each pass of an interlaced picture begins, and how far its pixels are apart: x, then y.
const PASSES: [[u32; 4]; 7] =
    [[0, 8, 0, 8], [4, 8, 0, 8], [0, 4, 4, 8], [2, 4, 0, 4], [0, 2, 2, 4], [1, 2, 0, 2], [0, 1, 1, 2]];

/// IHDR first, a palette where colours are numbers, at least one IDAT, IEND last, every length inside the file, nothing
/// behind.
#[derive(Debug, Default)]
pub(super) struct Png {
    chunk: Partial<8>,
    head: Partial<{ IHDR_LEN as usize }>,
    skip: u64,
    stage: PngStage,
    /// Bytes that the pixels are before they are deflated; 0 where there are none.
    pixels: u128,
    /// Bytes of all IDAT.
    data: u64,
    /// The first two of them, as one number, and how many of the two came.
    zlib: (u16, u64),
    /// How many of the next bytes are among those two.
    zlib_next: u64,
    needs_palette: bool,
}

/// Which of a PNG's chunks came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum PngStage {
    /// None.
    #[default]
    Begin,
    /// The beginning of the head.
    InHead,
    /// The head.
    Head,
    /// Pixels, too.
    Pixels,
    /// The end.
    End,
    /// One that no PNG has there.
    Malformed,
}

impl Png {
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while self.stage != PngStage::Malformed && self.skip_data(&mut bytes) {
            match self.stage {
                PngStage::End => self.stage = PngStage::Malformed, // something is behind it
                PngStage::InHead => {
                    let Some(head) = self.head.fill(&mut bytes) else { return };
                    self.stage =
                        if self.parse_header(head).is_some() { PngStage::Head } else { PngStage::Malformed };
                    self.skip = 4;
                }
                _ => {
                    let Some(chunk) = self.chunk.fill(&mut bytes) else { return };
                    self.enter(chunk);
                }
            }
        }
    }

    /// Goes over a chunk's data, of which only the two bytes of zlib's head are of interest; whether there are more bytes
    /// behind them.
    fn skip_data(&mut self, bytes: &mut &[u8]) -> bool {
        while self.zlib_next > 0
            && let Some((first, rest)) = bytes.split_first()
        {
            *bytes = rest;
            self.zlib_next -= 1;
            self.zlib = (self.zlib.0 << 8 | u16::from(*first), self.zlib.1 + 1);
        }
        skip(&mut self.skip, bytes)
    }

    fn enter(&mut self, chunk: [u8; 8]) {
        let [a, b, c, d, kind @ ..] = chunk;
        let length = u32::from_be_bytes([a, b, c, d]);
        if length > i32::MAX.unsigned_abs() {
            self.stage = PngStage::Malformed;
            return;
        }
        self.stage = match (self.stage, &kind) {
            (PngStage::Begin, b"IHDR") if length == IHDR_LEN => {
                self.stage = PngStage::InHead;
                return;
            }
            (PngStage::Head, b"IDAT") if self.needs_palette => PngStage::Malformed,
            (PngStage::Head | PngStage::Pixels, b"IDAT") => {
                self.data += u64::from(length);
                PngStage::Pixels
            }
            (PngStage::Pixels, b"IEND") if length == 0 => PngStage::End,
            (PngStage::Begin, _) | (_, b"IEND" | b"IHDR") => PngStage::Malformed,
            (stage, b"PLTE") => {
                self.needs_palette = false;
                stage
            }
            (stage, _) => stage,
        };
        if &kind == b"IDAT" {
            self.zlib_next = (2 - self.zlib.1).min(length.into());
        }
        // Four bytes of checksum follow the chunk's data.
        self.skip = u64::from(length) - self.zlib_next + 4;
    }

    /// None where no PNG has such a head.
    fn parse_header(&mut self, head: [u8; IHDR_LEN as usize]) -> Option<()> {
        let [w0, w1, w2, w3, h0, h1, h2, h3, depth, colour, 0, 0, interlaced @ 0..=1] = head else {
            return None;
        };
        let (width, height) = (u32::from_be_bytes([w0, w1, w2, w3]), u32::from_be_bytes([h0, h1, h2, h3]));
        let channels = match (colour, depth) {
            (0, 1 | 2 | 4 | 8 | 16) | (3, 1 | 2 | 4 | 8) => 1,
            (2, 8 | 16) => 3,
            (4, 8 | 16) => 2,
            (6, 8 | 16) => 4,
            _ => return None,
        };
        self.needs_palette = colour == 3;
        let bits = u64::from(depth) * channels;
        self.pixels = if interlaced == 0 {
            rows(width, height, bits)
        } else {
            let pass = |[x, dx, y, dy]: [u32; 4]| {
                rows(width.saturating_sub(x).div_ceil(dx), height.saturating_sub(y).div_ceil(dy), bits)
            };
            PASSES.into_iter().map(pass).sum()
        };
        Some(())
    }

    pub(super) fn is_complete(&self) -> bool {
        self.stage == PngStage::End && self.zlib_next == 0 && self.skip == 0
    }

    /// Whether the data can be those of so many pixels: deflated, as RFC 1950 has it, and enough.
    pub(super) fn has_pixels(&self) -> bool {
        let (head, received) = self.zlib;
        let is_deflated = received == 2 && (head >> 8) & 0xF == DEFLATE && head % 31 == 0;
        let deflated = self.data.saturating_sub(ZLIB_OVERHEAD);
        is_deflated
            && self.pixels > 0
            && deflated >= MIN_DEFLATED_LEN
            && u128::from(deflated) * MAX_DEFLATE_RATIO >= self.pixels
    }
}

/// Bytes of so many rows, each behind a byte that names its filter.
fn rows(width: u32, height: u32, bits: u64) -> u128 {
    let row = (u128::from(width) * u128::from(bits)).div_ceil(8);
    if width == 0 { 0 } else { (row + 1) * u128::from(height) }
}
