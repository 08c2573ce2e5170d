//! The last pictures, for answers that carry an address instead of the bytes. In memory, bounded, oldest out first.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use picture::Format;
use sha2::{Digest, Sha256};

use crate::engine::Picture;

/// Bytes of pictures kept.
const CAPACITY: usize = 128 << 20;

/// The pictures, newest last.
#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    pictures: VecDeque<(String, Bytes, Format)>,
    bytes: usize,
}

impl Recent {
    /// Keeps a picture and gives its file name, which nobody can guess who has not got the picture.
    pub(crate) fn keep(&self, picture: &Picture) -> String {
        let hash = Sha256::digest(&picture.bytes);
        let (short, _) = hash.split_first_chunk::<16>().expect("SHA-256 has 32 bytes");
        let name = format!("{:032x}.{}", u128::from_be_bytes(*short), picture.format.extension());
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !kept.pictures.iter().any(|(known, ..)| *known == name) {
            kept.bytes += picture.bytes.len();
            kept.pictures.push_back((name.clone(), picture.bytes.clone(), picture.format));
        }
        while kept.bytes > CAPACITY && kept.pictures.len() > 1 {
            if let Some((_, bytes, _)) = kept.pictures.pop_front() {
                kept.bytes -= bytes.len();
            }
        }
        name
    }

    /// The picture of this name, if it is still here.
    pub(crate) fn find(&self, name: &str) -> Option<(Bytes, Format)> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.pictures.iter().find(|(known, ..)| known == name);
        found.map(|(_, bytes, format)| (bytes.clone(), *format))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(byte: u8, size: usize) -> Picture {
        Picture { bytes: vec![byte; size].into(), format: Format::Png, seed: 1 }
    }

    #[test]
    fn the_oldest_goes_when_room_is_needed() {
        let recent = Recent::default();
        let first = recent.keep(&picture(1, CAPACITY / 2));
        let second = recent.keep(&picture(2, CAPACITY / 2));
        assert_eq!(recent.keep(&picture(2, CAPACITY / 2)), second, "the same picture is kept once");
        assert!(recent.find(&first).is_some());
        let third = recent.keep(&picture(3, 10));
        assert!(
            recent.find(&first).is_none() && recent.find(&second).is_some() && recent.find(&third).is_some()
        );
    }
}
