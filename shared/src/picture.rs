//! What counts as a picture: bytes that are structurally whole. Nothing else is stored or sent, so a cut-off
//! download or an HTML error page never becomes a picture.

#[cfg(feature = "painter")]
pub mod paint;
mod walk;

use std::fmt;

pub use self::walk::Walk;

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
    pub fn of_whole(bytes: &[u8]) -> Result<Self, NotAPicture> {
        let mut walk = Walk::default();
        walk.feed(bytes);
        walk.finish()
    }
}

/// Why bytes are not a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAPicture {
    /// They do not begin like PNG, JPEG or WebP.
    Unknown,
    /// They begin like one and are damaged or end too early.
    CutOff(Format),
}

impl fmt::Display for NotAPicture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("the bytes are neither PNG, JPEG nor WebP"),
            Self::CutOff(format) => write!(f, "the {} is damaged or cut off", format.name()),
        }
    }
}

impl std::error::Error for NotAPicture {}

#[cfg(test)]
mod tests {
    use super::*;

    fn png() -> Vec<u8> {
        let chunk = |kind: &[u8], data: &[u8]| {
            let mut chunk = u32::try_from(data.len()).unwrap().to_be_bytes().to_vec();
            chunk.extend_from_slice(kind);
            chunk.extend_from_slice(data);
            chunk.extend_from_slice(&[0; 4]);
            chunk
        };
        [
            &b"\x89PNG\r\n\x1a\n"[..],
            &chunk(b"IHDR", &[0; 13]),
            &chunk(b"IDAT", b"pixels"),
            &chunk(b"IEND", b""),
        ]
        .concat()
    }

    fn jpeg() -> Vec<u8> {
        let scan = [0xFF, 0xDA, 0, 3, 9, 1, 2, 0xFF, 0x00, 3, 0xFF, 0xD0, 4, 0xFF, 0xD9];
        [&[0xFF, 0xD8, 0xFF, 0xE0, 0, 4, 1, 2][..], &scan[..]].concat()
    }

    fn webp() -> Vec<u8> {
        let body = [&b"WEBPVP8L"[..], &3u32.to_le_bytes(), b"abc\0"].concat();
        [&b"RIFF"[..], &u32::try_from(body.len()).unwrap().to_le_bytes(), &body].concat()
    }

    #[test]
    fn whole_pictures_are_told_by_their_bytes() {
        assert_eq!(Format::of_whole(&png()), Ok(Format::Png));
        assert_eq!(Format::of_whole(&jpeg()), Ok(Format::Jpeg));
        assert_eq!(Format::of_whole(&webp()), Ok(Format::Webp));
        assert_eq!(Format::of_whole(b"<html>"), Err(NotAPicture::Unknown));
        assert_eq!(Format::of_whole(b""), Err(NotAPicture::Unknown));
    }

    #[test]
    fn cut_off_anywhere_or_with_a_tail_is_no_picture() {
        for whole in [png(), jpeg(), webp()] {
            for end in 0..whole.len() {
                assert!(Format::of_whole(&whole[..end]).is_err(), "cut at {end} of {}", whole.len());
            }
            assert!(Format::of_whole(&[&whole[..], b"tail"].concat()).is_err());
        }
    }

    #[test]
    fn what_no_picture_has_is_refused() {
        let mut lying = png();
        lying[11] = 12; // the head's length
        assert!(Format::of_whole(&lying).is_err());
        for (at, byte) in [(2, 0xFE), (5, 1), (9, 0xD8), (9, 0xD9)] {
            let mut lying = jpeg();
            lying[at] = byte;
            assert!(Format::of_whole(&lying).is_err(), "{at} {byte:x}");
        }
        for at in [4, 12, 16] {
            let mut lying = webp();
            lying[at] ^= 2;
            assert!(Format::of_whole(&lying).is_err(), "{at}");
        }
        let filled = [&[0xFF, 0xD8, 0xFF, 0xFF, 0xE0, 0, 2, 0xFF, 1][..], &jpeg()[8..]].concat();
        assert_eq!(Format::of_whole(&filled), Ok(Format::Jpeg), "fill bytes and markers without length");
    }

    proptest::proptest! {
        #[test]
        fn where_bytes_are_cut_does_not_matter(kind in 0..3usize, cuts: [u8; 4], at: usize, byte: u8) {
            let whole = [png(), jpeg(), webp()][kind].clone();
            let mut damaged = whole.clone();
            damaged[at % whole.len()] = byte;
            for bytes in [whole, damaged] {
                let mut cuts = cuts.map(|cut| usize::from(cut) % (bytes.len() + 1));
                cuts.sort_unstable();
                let ends = cuts.iter().copied().chain([bytes.len()]);
                let mut walk = Walk::default();
                ends.fold(0, |from, to| {
                    walk.feed(&bytes[from..to]);
                    to
                });
                proptest::prop_assert_eq!(walk.finish(), Format::of_whole(&bytes));
            }
        }

        #[test]
        fn no_bytes_panic(kind in 0..3usize, noise: Vec<u8>, at: usize, byte: u8) {
            let mut bytes = [png(), jpeg(), webp()][kind].clone();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = Format::of_whole(&bytes);
            bytes.extend(noise);
            let _ = Format::of_whole(&bytes);
        }
    }
}
