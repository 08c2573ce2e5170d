//! What counts as a picture: bytes that are structurally whole, with pixels in them and a size that their data can have.
//! Nothing else is stored or sent, so a cut-off download, an HTML error page or a head over nothing never becomes a picture.

pub mod painter;
mod scan;

use std::fmt;

pub use self::scan::Scanner;

/// The formats that are stored and sent.
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

    /// The file name's ending.
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

    /// Tells the format of a whole picture.
    pub fn detect(bytes: &[u8]) -> Result<Self, InvalidImage> {
        let mut walk = Scanner::default();
        walk.feed(bytes);
        walk.finish()
    }
}

/// Why bytes are not a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidImage {
    /// They do not begin like PNG, JPEG or WebP.
    UnknownFormat,
    /// They begin like one and are damaged or end too early.
    Truncated(Format),
    /// They are whole as far as the structure goes, and have no pixels, or less data than a picture of that size needs.
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
