//! Scans a PNG, chunk by chunk.

use super::{Partial, skip};

const IHDR_LEN: u32 = 13;
/// zlib's compression method, in the low half of its first byte.
const DEFLATE: u16 = 8;
/// Deflate's highest compression ratio: two bits repeat 258 bytes.
const MAX_DEFLATE_RATIO: u128 = 1032;
/// zlib's header of two bytes and checksum of four.
const ZLIB_OVERHEAD: u64 = 6;
/// The shortest deflate stream that is not empty.
const MIN_DEFLATED_LEN: u64 = 3;
/// Start and step of each pass of an interlaced image: x, then y.
const PASSES: [[u32; 4]; 7] =
    [[0, 8, 0, 8], [4, 8, 0, 8], [0, 4, 4, 8], [2, 4, 0, 4], [0, 2, 2, 4], [1, 2, 0, 2], [0, 1, 1, 2]];

/// IHDR first, a palette for indexed colours, at least one IDAT, IEND last, every length inside the file, nothing after the
/// end.
#[derive(Debug, Default)]
pub(super) struct Png {
    chunk: Partial<8>,
    head: Partial<{ IHDR_LEN as usize }>,
    skip: u64,
    stage: PngStage,
    /// Bytes of the uncompressed pixels.
    pixels: u128,
    /// Bytes of all IDAT chunks.
    data: u64,
    /// The first two of them, as a number, and how many of the two have arrived.
    zlib: (u16, u64),
    /// How many of the next bytes belong to those two.
    zlib_next: u64,
    needs_palette: bool,
}

/// Which chunks have arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum PngStage {
    /// None.
    #[default]
    Begin,
    /// The header of IHDR.
    InHead,
    /// IHDR.
    Head,
    /// IDAT.
    Pixels,
    /// IEND.
    End,
    Malformed,
}

impl Png {
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while self.stage != PngStage::Malformed && self.skip_data(&mut bytes) {
            match self.stage {
                PngStage::End => self.stage = PngStage::Malformed, // bytes after the end
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

    /// Skips a chunk's data except for the two bytes of zlib's header; returns whether more bytes follow.
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
        // The data, and a checksum of four bytes.
        self.skip = u64::from(length) - self.zlib_next + 4;
    }

    /// `None` for an invalid IHDR.
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

    /// Whether the data is a zlib stream (RFC 1950), and enough for the size.
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

/// Bytes of the rows, each with a filter byte.
fn rows(width: u32, height: u32, bits: u64) -> u128 {
    let row = (u128::from(width) * u128::from(bits)).div_ceil(8);
    if width == 0 { 0 } else { (row + 1) * u128::from(height) }
}
