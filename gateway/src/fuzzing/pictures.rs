//! Pictures: what counts as a complete image.

use std::io::Cursor;

use image::ImageReader;
use picture::{Format, InvalidImage, Scanner};

fn scanned(data: &[u8], size: usize) -> Result<Format, InvalidImage> {
    let mut scanner = Scanner::default();
    data.chunks(size).for_each(|chunk| scanner.feed(chunk));
    scanner.finish()
}

/// The structure of PNG, JPEG and WebP: chunks do not matter, nothing may be missing or follow, and a decoder recognises it.
pub fn picture(data: &[u8]) {
    let whole = Format::detect(data);
    let size = usize::from(data.last().copied().unwrap_or_default()) + 1;
    assert_eq!(scanned(data, size), whole, "in chunks of {size}");
    if data.len() <= 4096 {
        assert_eq!(scanned(data, 1), whole, "byte by byte");
    }
    let Ok(format) = whole else { return };
    assert!(Format::detect(&[data, b"\0"].concat()).is_err(), "with a byte more");
    for cut in [1, 2, size, data.len() / 2] {
        assert!(Format::detect(&data[..data.len().saturating_sub(cut)]).is_err(), "without its last {cut}");
    }
    let reader = ImageReader::new(Cursor::new(data)).with_guessed_format().expect("bytes can be read");
    let guessed = reader.format().map(|guessed| guessed.to_mime_type());
    assert_eq!(guessed, Some(format.mime()));
    if let Ok((width, height)) = reader.into_dimensions() {
        assert!(width > 0 && height > 0, "{format:?}: {width} x {height}");
    }
}
