//! A WebP, chunk by chunk.

use super::{Gather, skip};

/// The RIFF size and every chunk's size must end exactly at the file's end.
#[derive(Debug, Default)]
pub(super) struct Webp {
    chunk: Gather<8>,
    skip: u64,
    /// What the head says is behind its eight bytes, and what came of it.
    size: u64,
    read: u64,
    has_image: bool,
}

impl Webp {
    /// Behind the head, whose last four bytes count.
    pub(super) fn new(size: u32) -> Self {
        Self { size: size.into(), read: 4, ..Self::default() }
    }

    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        self.read += bytes.len() as u64;
        while skip(&mut self.skip, &mut bytes) {
            let Some(head) = self.chunk.take(&mut bytes) else { return };
            let length = u64::from(u32::from_le_bytes([head[4], head[5], head[6], head[7]]));
            self.has_image |= matches!(&head[..4], b"VP8 " | b"VP8L" | b"ANMF");
            // Chunks are padded to an even length.
            self.skip = length + (length & 1);
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.has_image && self.skip == 0 && self.chunk.so_far().is_empty() && self.read == self.size
    }
}
