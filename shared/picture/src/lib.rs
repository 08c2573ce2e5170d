//! Validates images: the structure is complete, there are pixels, and enough data for the size. Nothing else is stored or
//! sent: no truncated download, no HTML error page, no header without an image.

pub mod painter;
mod scan;

use std::fmt;

pub use self::scan::Scanner;

/// The supported formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// PNG.
    Png,
    /// JPEG.
    Jpeg,
    /// WebP.
    Webp,
}

impl Format {
    /// The MIME type.
    pub const fn mime(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::Webp => "image/webp",
        }
    }

    /// The file name extension.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpg",
            Self::Webp => "webp",
        }
    }

    /// The name in `output_format`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpeg",
            Self::Webp => "webp",
        }
    }

    /// The format of a complete image.
    pub fn detect(bytes: &[u8]) -> Result<Self, InvalidImage> {
        let mut scanner = Scanner::default();
        scanner.feed(bytes);
        scanner.finish()
    }
}

/// Why bytes are not an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidImage {
    /// No signature of PNG, JPEG or WebP.
    UnknownFormat,
    /// Damaged or truncated.
    Truncated(Format),
    /// The structure is complete, but there are no pixels, or less data than the size needs.
    NoPixels(Format),
}

impl fmt::Display for InvalidImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownFormat => f.write_str("the bytes are neither PNG, JPEG nor WebP"),
            Self::Truncated(format) => write!(f, "the {} is damaged or cut off", format.name()),
            Self::NoPixels(format) => {
                write!(f, "the {} has no pixels, or less data than its size needs", format.name())
            }
        }
    }
}

impl std::error::Error for InvalidImage {}

#[cfg(test)]
mod tests;
