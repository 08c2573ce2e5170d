//! A PNG, chunk by chunk.

use super::{Gather, skip};

/// IHDR first, at least one IDAT, IEND last, every length inside the file, nothing behind.
#[derive(Debug, Default)]
pub(super) struct Png {
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
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
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

    pub(super) fn is_whole(&self) -> bool {
        self.stage == Stage::End && self.skip == 0
    }
}
