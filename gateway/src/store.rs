//! The image store. Names are derived from the bytes, so that one name never means two images.
//!
//! This file, [`metadata`], [`cached_metadata`], [`index`], [`fullness`] and [`retention`] are pure; the other modules do I/O.

pub(crate) mod cached_metadata;
mod changes;
pub(crate) mod disk;
pub(crate) mod fullness;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub(crate) mod index;
pub(crate) mod listing;
mod lock;
pub(crate) mod metadata;
pub(crate) mod retention;
pub(crate) mod retention_worker;
pub(crate) mod staging;
pub(crate) mod thumbnails;
pub(crate) mod writable;
pub(crate) mod writer;

use picture::{Format, InvalidImage};
use service::descriptors;
use sha2::{Digest, Sha256};

/// An image in memory, validated as complete.
#[derive(Debug, Clone)]
pub(crate) struct EncodedImage {
    bytes: Vec<u8>,
    format: Format,
}

impl EncodedImage {
    /// An error if the bytes are not a complete image.
    pub(crate) fn from_bytes(bytes: Vec<u8>) -> Result<Self, InvalidImage> {
        Format::detect(&bytes).map(|format| Self { bytes, format })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its name in the store if it was made at `unix` seconds.
    pub(crate) fn name(&self, unix: u64) -> ImageName {
        ImageName::new(unix, &Sha256::digest(&self.bytes), self.format)
    }
}

/// `{unix seconds}_{first 16 hex digits of SHA-256}.{ext}`: the only names that the store creates and serves. Ordered by age,
/// oldest first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ImageName {
    unix: u64,
    text: Box<str>,
}

impl ImageName {
    /// For an image made at `unix` seconds with this SHA-256.
    fn new(unix: u64, hash: &[u8], format: Format) -> Self {
        let hash = hash[..8].iter().fold(0_u64, |hash, byte| hash << 8 | u64::from(*byte));
        Self { unix, text: format!("{unix}_{hash:016x}.{}", format.extension()).into() }
    }

    /// None if it is not a name of the store.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (unix, rest) = text.split_once('_')?;
        let (hash, extension) = rest.split_once('.')?;
        let digits = (1..=12).contains(&unix.len()) && unix.bytes().all(|byte| byte.is_ascii_digit());
        let hex = hash.len() == 16 && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let is_image = matches!(extension, "png" | "jpg" | "webp" | "svg");
        let unix = unix.parse().ok()?;
        (digits && hex && is_image).then(|| Self { unix, text: text.into() })
    }

    /// When the image was made, in Unix seconds.
    pub(crate) const fn unix(&self) -> u64 {
        self.unix
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// The part derived from the bytes.
    pub(crate) fn hash(&self) -> &str {
        self.text.split(['_', '.']).nth(1).unwrap_or_default()
    }

    /// Whether it is a drawing of an earlier system.
    pub(crate) fn is_svg(&self) -> bool {
        self.text.strip_suffix(".svg").is_some()
    }
}

/// Why an image was not stored.
#[derive(Debug)]
pub(crate) enum StoreError {
    /// The disk or the quota is full.
    Full,
    /// In bytes.
    InsufficientSpace {
        free: u64,
        needed: u64,
    },
    /// The process has no file descriptor left.
    TooManyOpenFiles,
    /// A different image has its name.
    Collision(ImageName),
    Io(std::io::Error),
}

impl From<std::io::Error> for StoreError {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::Full,
            _ if descriptors::is_out_of_descriptors(&error) => Self::TooManyOpenFiles,
            _ => Self::Io(error),
        }
    }
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Full => f.write_str("the image store's disk is full"),
            Self::InsufficientSpace { free, needed } => write!(
                f,
                "only {} KiB are free on its disk, at least {} KiB are required: free some space, or limit the store \
                 (UI_IMAGE_STORE_MAX_BYTES)",
                free >> 10,
                needed >> 10
            ),
            Self::TooManyOpenFiles => f.write_str("too many open files: no file descriptor is left"),
            Self::Collision(name) => write!(f, "a different image is already stored as {}", name.as_str()),
            Self::Io(error) => write!(f, "the image store failed: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_valid_names_are_parsed() {
        for name in ["1736697234_0123456789abcdef.png", "1_ffffffffffffffff.jpg", "1_0000000000000000.svg"] {
            let parsed = ImageName::parse(name).unwrap();
            assert_eq!(parsed.as_str(), name);
            assert_eq!(parsed.hash().len(), 16);
            assert_eq!(parsed.unix().to_string(), name.split('_').next().unwrap());
        }
        for other in [
            "",
            "x",
            "1_0123456789abcdef.gif",
            "1_0123456789ABCDEF.png",
            "1_0123456789abcde.png",
            "../1_0123456789abcdef.png",
            "1_0123456789abcdef.png/..",
            "1_0123456789abcdef.png\0",
            "_0123456789abcdef.png",
            "-1_0123456789abcdef.png",
            "1234567890123_0123456789abcdef.png",
            ".incoming-x.tmp",
            "1_0123456789abcdef.png.png",
            ".lock",
        ] {
            assert_eq!(ImageName::parse(other), None, "{other:?}");
        }
    }

    #[test]
    fn a_full_disk_and_a_full_quota_are_the_same_error() {
        use std::io::{Error, ErrorKind};
        for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded] {
            assert!(matches!(StoreError::from(Error::from(kind)), StoreError::Full));
        }
        // ENOSPC has the same number on Linux and macOS.
        assert!(matches!(StoreError::from(Error::from_raw_os_error(28)), StoreError::Full));
        assert!(matches!(StoreError::from(Error::from_raw_os_error(24)), StoreError::TooManyOpenFiles));
        assert!(matches!(StoreError::from(Error::from(ErrorKind::PermissionDenied)), StoreError::Io(_)));
    }
}
