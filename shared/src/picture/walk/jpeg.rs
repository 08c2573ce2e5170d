//! A JPEG, marker by marker.

use super::skip;

/// Segments up to the scan, then entropy-coded data up to the end marker. Bytes behind the end are refused.
#[derive(Debug, Default)]
pub(super) struct Jpeg {
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
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
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

    pub(super) fn is_whole(&self) -> bool {
        self.at == Place::End
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
