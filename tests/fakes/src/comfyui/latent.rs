//! Pictures on their way through a sampler.

use super::pixels::{Mask, Pixels};

/// Pictures before they are decoded.
#[derive(Debug, Clone)]
pub(super) struct Latent {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) batch: usize,
    /// What they start from; none for an empty latent.
    pub(super) start: Vec<Pixels>,
    pub(super) mask: Option<Mask>,
    pub(super) sampled: Option<Sampled>,
}

#[derive(Debug, Clone)]
pub(super) struct Sampled {
    pub(super) prompt: String,
    pub(super) seed: u64,
    pub(super) denoise: f64,
}

impl Latent {
    pub(super) fn decode(&self) -> Vec<Pixels> {
        (0..self.batch).map(|nth| self.decode_one(nth)).collect()
    }

    fn decode_one(&self, nth: usize) -> Pixels {
        let start = self.start.iter().cycle().nth(nth);
        let Some(Sampled { prompt, seed, denoise }) = &self.sampled else {
            return start.cloned().unwrap_or_else(|| Pixels::plain(self.width, self.height, [0; 3]));
        };
        // The first picture of a batch is the one that its seed gives alone.
        let seed = seed.wrapping_add((nth as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let painted = Pixels::paint(prompt, seed, self.width, self.height);
        match start {
            Some(start) => start.under(&painted, (0, 0), *denoise, self.mask.as_ref()),
            None => painted,
        }
    }
}
