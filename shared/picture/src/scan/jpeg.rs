//! Scans a JPEG, marker by marker.

use super::{Partial, skip};

/// Bytes of a frame header before its components: precision, height, width, number of components.
const FRAME_HEADER_LEN: usize = 6;
/// Bytes per component.
const COMPONENT_LEN: u64 = 3;

/// A frame header, then scans with entropy-coded data, up to the end marker. Bytes after the end are refused.
#[derive(Debug, Default)]
pub(super) struct Jpeg {
    state: JpegState,
    head: Partial<FRAME_HEADER_LEN>,
    frame: Option<Frame>,
    /// Bytes of entropy-coded data in all scans.
    data: u64,
}

/// A frame header.
#[derive(Debug)]
struct Frame {
    width: u16,
    height: u16,
    /// The most pixel blocks that a byte of data can encode.
    max_blocks_per_byte: u64,
}

/// The kind of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Segment {
    /// A frame header, with its marker.
    Frame(u8),
    /// A scan header.
    Scan,
    Other,
}

/// The position of the next byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum JpegState {
    /// At the start of a marker.
    #[default]
    Marker,
    /// After 0xFF.
    Code,
    /// In a segment's length, with its high byte if that has arrived.
    Length {
        of: Segment,
        high: Option<u8>,
    },
    /// In a segment, with so many bytes left.
    Segment {
        of: Segment,
        left: u64,
    },
    /// In entropy-coded data, perhaps after 0xFF.
    Entropy {
        marked: bool,
    },
    /// After the end marker.
    End,
    Malformed,
}

impl Jpeg {
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while let Some((&byte, rest)) = bytes.split_first() {
            match self.state {
                JpegState::Segment { of: Segment::Frame(code), left } => {
                    let Some(head) = self.head.fill(&mut bytes) else { return };
                    self.state = self.enter_frame(code, head, left);
                    continue;
                }
                JpegState::Segment { of, mut left } => {
                    skip(&mut left, &mut bytes);
                    self.state = match left {
                        0 => Self::state_after(of),
                        left => JpegState::Segment { of, left },
                    };
                    continue;
                }
                JpegState::Entropy { marked: false } => {
                    let Some(at) = bytes.iter().position(|byte| *byte == 0xFF) else {
                        self.data += bytes.len() as u64;
                        return;
                    };
                    self.data += at as u64;
                    self.state = JpegState::Entropy { marked: true };
                    bytes = &bytes[at + 1..];
                    continue;
                }
                JpegState::Malformed => return,
                state => self.state = self.step(state, byte),
            }
            bytes = rest;
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.state == JpegState::End
    }

    /// Whether there is enough data for the size.
    pub(super) fn has_pixels(&self) -> bool {
        self.frame.as_ref().is_some_and(|frame| {
            let blocks = u64::from(frame.width.div_ceil(8)) * u64::from(frame.height.div_ceil(8));
            blocks > 0 && self.data.saturating_mul(frame.max_blocks_per_byte) >= blocks
        })
    }

    fn step(&mut self, state: JpegState, byte: u8) -> JpegState {
        match (state, byte) {
            (JpegState::Marker, 0xFF) => JpegState::Code,
            (JpegState::Length { of, high: None }, _) => JpegState::Length { of, high: Some(byte) },
            (JpegState::Length { of, high: Some(high) }, _) => {
                match u64::from(u16::from_be_bytes([high, byte])).checked_sub(2) {
                    Some(0) => Self::state_after(of),
                    Some(left) => JpegState::Segment { of, left },
                    None => JpegState::Malformed,
                }
            }
            (JpegState::Entropy { .. }, 0xFF) => state,
            // A stuffed byte, or a restart.
            (JpegState::Entropy { .. }, 0x00) => {
                self.data += 1;
                JpegState::Entropy { marked: false }
            }
            (JpegState::Entropy { .. }, 0xD0..=0xD7) => JpegState::Entropy { marked: false },
            (JpegState::Code | JpegState::Entropy { .. }, _) => self.marker(byte),
            (JpegState::Marker | JpegState::Segment { .. } | JpegState::End | JpegState::Malformed, _) => {
                JpegState::Malformed
            }
        }
    }

    fn marker(&self, code: u8) -> JpegState {
        let is_frame = matches!(code, 0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF);
        let of = match (code, self.frame.is_some()) {
            (0xFF, _) => return JpegState::Code,
            (0x01 | 0xD0..=0xD7, _) => return JpegState::Marker,
            (0xD9, true) => return JpegState::End,
            // No scan or end without a frame. A second frame is a hierarchical JPEG, which nobody writes.
            (0x00 | 0xD8 | 0xD9, _) | (0xDA, false) => return JpegState::Malformed,
            _ if is_frame && self.frame.is_some() => return JpegState::Malformed,
            _ if is_frame => Segment::Frame(code),
            (0xDA, true) => Segment::Scan,
            _ => Segment::Other,
        };
        JpegState::Length { of, high: None }
    }

    fn enter_frame(&mut self, code: u8, head: [u8; FRAME_HEADER_LEN], length: u64) -> JpegState {
        let [_, h0, h1, w0, w1, components] = head;
        if components == 0 || length != FRAME_HEADER_LEN as u64 + COMPONENT_LEN * u64::from(components) {
            return JpegState::Malformed;
        }
        self.frame = Some(Frame {
            width: u16::from_be_bytes([w0, w1]),
            height: u16::from_be_bytes([h0, h1]),
            // With Huffman codes a block has at least one bit, perhaps one for four blocks of a subsampled component. An
            // arithmetic coder needs less, with no known bound.
            max_blocks_per_byte: if matches!(code, 0xC9..=0xCF) { 4096 } else { 8 * 4 },
        });
        JpegState::Segment { of: Segment::Other, left: length - FRAME_HEADER_LEN as u64 }
    }

    const fn state_after(of: Segment) -> JpegState {
        match of {
            Segment::Scan => JpegState::Entropy { marked: false },
            Segment::Other => JpegState::Marker,
            // It ends before its header.
            Segment::Frame(_) => JpegState::Malformed,
        }
    }
}
