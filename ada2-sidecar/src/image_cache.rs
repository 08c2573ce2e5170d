//! The last pictures, for answers that carry an address instead of the bytes. In memory, bounded, oldest out first.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use picture::Format;
use sha2::{Digest, Sha256};

use crate::engine::GeneratedImage;

/// Bytes of pictures kept.
const MAX_BYTES: usize = 128 << 20;

/// The pictures, newest last.
#[derive(Debug, Default)]
pub(crate) struct ImageCache(Mutex<CachedImages>);

#[derive(Debug, Default)]
struct CachedImages {
    images: VecDeque<(String, Bytes, Format)>,
    bytes: usize,
}

impl ImageCache {
    /// Keeps a picture and gives its file name, which nobody can guess who has not got the picture.
    pub(crate) fn insert(&self, image: &GeneratedImage) -> String {
        let hash = Sha256::digest(&image.bytes);
        let (short, _) = hash.split_first_chunk::<16>().expect("SHA-256 has 32 bytes");
        let name = format!("{:032x}.{}", u128::from_be_bytes(*short), image.format.extension());
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !cache.images.iter().any(|(known, ..)| *known == name) {
            cache.bytes += image.bytes.len();
            cache.images.push_back((name.clone(), image.bytes.clone(), image.format));
        }
        while cache.bytes > MAX_BYTES && cache.images.len() > 1 {
            if let Some((_, bytes, _)) = cache.images.pop_front() {
                cache.bytes -= bytes.len();
            }
        }
        name
    }

    /// The picture of this name, if it is still here.
    pub(crate) fn get(&self, name: &str) -> Option<(Bytes, Format)> {
        let cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = cache.images.iter().find(|(known, ..)| known == name);
        found.map(|(_, bytes, format)| (bytes.clone(), *format))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(byte: u8, size: usize) -> GeneratedImage {
        GeneratedImage { bytes: vec![byte; size].into(), format: Format::Png, seed: 1 }
    }

    #[test]
    fn the_oldest_goes_when_room_is_needed() {
        let recent = ImageCache::default();
        let first = recent.insert(&picture(1, MAX_BYTES / 2));
        let second = recent.insert(&picture(2, MAX_BYTES / 2));
        assert_eq!(recent.insert(&picture(2, MAX_BYTES / 2)), second, "the same picture is kept once");
        assert!(recent.get(&first).is_some());
        let third = recent.insert(&picture(3, 10));
        assert!(
            recent.get(&first).is_none() && recent.get(&second).is_some() && recent.get(&third).is_some()
        );
    }
}
