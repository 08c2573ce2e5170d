//! A JPEG, marker by marker.

use super::{Gather, skip};

/// Bytes of a frame's head before its components: precision, height, width, number of components.
const FRAME: usize = 6;
/// Bytes for each component.
const COMPONENT: u64 = 3;

/// A frame's head, then scans with entropy-coded data, up to the end marker. Bytes behind the end are refused.
#[derive(Debug, Default)]
pub(super) struct Jpeg {
    at: Place,
    head: Gather<FRAME>,
    frame: Option<Frame>,
    /// Bytes of entropy-coded data in all scans.
    data: u64,
}

/// What the frame's head says.
#[derive(Debug)]
struct Frame {
    width: u16,
    height: u16,
    /// Pixel blocks that a byte of data can stand for, at the very most.
    blocks_a_byte: u64,
}

/// What a segment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Segment {
    /// A frame's head; by its marker.
    Frame(u8),
    /// A scan's head.
    Scan,
    Other,
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
    Length { of: Segment, high: Option<u8> },
    /// In a segment, before so many bytes of it.
    Segment { of: Segment, left: u64 },
    /// In entropy-coded data, maybe behind 0xFF.
    Entropy { marked: bool },
    /// Behind the end marker.
    End,
    /// Where no JPEG goes.
    Broken,
}

impl Jpeg {
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while let Some((&byte, rest)) = bytes.split_first() {
            match self.at {
                Place::Segment { of: Segment::Frame(code), left } if self.frame.is_none() => {
                    let Some(head) = self.head.take(&mut bytes) else { return };
                    self.at = self.enter_frame(code, head, left);
                    continue;
                }
                Place::Segment { of, mut left } => {
                    skip(&mut left, &mut bytes);
                    self.at = match left {
                        0 => Self::behind(of),
                        left => Place::Segment { of, left },
                    };
                    continue;
                }
                Place::Entropy { marked: false } => {
                    let Some(at) = bytes.iter().position(|byte| *byte == 0xFF) else {
                        self.data += bytes.len() as u64;
                        return;
                    };
                    self.data += at as u64;
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

    pub(super) fn is_whole(&self) -> bool {
        self.at == Place::End
    }

    /// Whether the data can be those of so many pixels.
    pub(super) fn has_pixels(&self) -> bool {
        self.frame.as_ref().is_some_and(|frame| {
            let blocks = u64::from(frame.width.div_ceil(8)) * u64::from(frame.height.div_ceil(8));
            blocks > 0 && self.data.saturating_mul(frame.blocks_a_byte) >= blocks
        })
    }

    /// Where one byte leads.
    fn step(&mut self, at: Place, byte: u8) -> Place {
        match (at, byte) {
            (Place::Marker, 0xFF) => Place::Code,
            (Place::Length { of, high: None }, _) => Place::Length { of, high: Some(byte) },
            (Place::Length { of, high: Some(high) }, _) => {
                match u64::from(u16::from_be_bytes([high, byte])).checked_sub(2) {
                    Some(left) if matches!(of, Segment::Frame(_)) && left < FRAME as u64 + COMPONENT => {
                        Place::Broken
                    }
                    Some(0) => Self::behind(of),
                    Some(left) => Place::Segment { of, left },
                    None => Place::Broken,
                }
            }
            (Place::Entropy { .. }, 0xFF) => at,
            // A stuffed byte, or a restart.
            (Place::Entropy { .. }, 0x00) => {
                self.data += 1;
                Place::Entropy { marked: false }
            }
            (Place::Entropy { .. }, 0xD0..=0xD7) => Place::Entropy { marked: false },
            (Place::Code | Place::Entropy { .. }, _) => self.marker(byte),
            (Place::Marker | Place::Segment { .. } | Place::End | Place::Broken, _) => Place::Broken,
        }
    }

    fn marker(&self, code: u8) -> Place {
        let is_frame = matches!(code, 0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF);
        let of = match (code, self.frame.is_some()) {
            (0xFF, _) => return Place::Code,
            (0x01 | 0xD0..=0xD7, _) => return Place::Marker,
            (0xD9, true) => return Place::End,
            // A scan and the end are those of a frame. A second frame is of a hierarchy, which nobody writes.
            (0x00 | 0xD8 | 0xD9, _) | (0xDA, false) => return Place::Broken,
            _ if is_frame && self.frame.is_some() => return Place::Broken,
            _ if is_frame => Segment::Frame(code),
            (0xDA, true) => Segment::Scan,
            _ => Segment::Other,
        };
        Place::Length { of, high: None }
    }

    fn enter_frame(&mut self, code: u8, head: [u8; FRAME], length: u64) -> Place {
        let [_, h0, h1, w0, w1, components] = head;
        if components == 0 || length != FRAME as u64 + COMPONENT * u64::from(components) {
            return Place::Broken;
        }
        self.frame = Some(Frame {
            width: u16::from_be_bytes([w0, w1]),
            height: u16::from_be_bytes([h0, h1]),
            // With Huffman's codes a block has at least a bit, were it one for four blocks of a component that is
            // sampled less; an arithmetic coder comes below that, and has no bound that is known as well.
            blocks_a_byte: if code < 0xC8 { 8 * 4 } else { 4096 },
        });
        Place::Segment { of: Segment::Other, left: length - FRAME as u64 }
    }

    const fn behind(of: Segment) -> Place {
        match of {
            Segment::Scan => Place::Entropy { marked: false },
            Segment::Frame(_) | Segment::Other => Place::Marker,
        }
    }
}
