//! Decoding into as little memory as the pixels need, stopped when the job is cancelled.

use std::io::{self, BufRead, Cursor, Read, Seek, SeekFrom};

use image::{ColorType, DynamicImage, GrayImage, ImageDecoder, Limits, RgbImage, metadata::Orientation};
use tokio_util::sync::CancellationToken;
use wire::openai::{fields::FieldError, images::ImageSize};

use super::{MAX_PIXELS, decode_error, orientation, reader, upright_size};

/// Bytes that a decoder may allocate: the largest image with four channels of 16 bits.
const MAX_DECODER_BYTES: u64 = MAX_PIXELS * 8;
/// A pixel with less alpha is repainted.
const ALPHA_THRESHOLD: u8 = 128;
/// Bytes that a decoder reads between two checks for cancellation. In a flat image they hold a thousand times as many pixels.
const READ_CHUNK_BYTES: usize = 8 << 10;

/// An image as its decoder left it: up to 320 MB.
#[derive(Debug)]
pub(super) struct DecodedImage {
    bytes: Vec<u8>,
    width: u32,
    height: u32,
    channels: usize,
    bytes_per_channel: usize,
    orientation: Orientation,
}

/// Decodes an image of at most [`MAX_PIXELS`].
pub(super) fn decode(
    param: &str,
    bytes: &[u8],
    cancel: &CancellationToken,
) -> Result<DecodedImage, FieldError> {
    upright_size(param, bytes)?;
    let failed = |error| decode_error(param, &error);
    let mut reader = reader(param, CancellableReader { bytes: Cursor::new(bytes), cancel })?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_DECODER_BYTES);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(failed)?;
    let orientation = orientation::read(bytes);
    let (width, height) = decoder.dimensions();
    let (channels, bytes_per_channel) = match decoder.color_type() {
        ColorType::L8 => (1, 1),
        ColorType::La8 => (2, 1),
        ColorType::Rgb8 => (3, 1),
        ColorType::Rgba8 => (4, 1),
        ColorType::L16 => (1, 2),
        ColorType::La16 => (2, 2),
        ColorType::Rgb16 => (3, 2),
        ColorType::Rgba16 => (4, 2),
        other => {
            return Err(FieldError::new(
                param,
                format!("{param} has an unsupported colour type ({other:?})."),
            ));
        }
    };
    let mut pixels = vec![0; width as usize * height as usize * channels * bytes_per_channel];
    decoder.read_image(&mut pixels).map_err(failed)?;
    Ok(DecodedImage { bytes: pixels, width, height, channels, bytes_per_channel, orientation })
}

impl DecodedImage {
    /// Its size once it is upright.
    pub(super) fn upright_size(&self) -> ImageSize {
        orientation::upright(ImageSize::new(self.width, self.height), self.orientation)
    }

    pub(super) const fn has_alpha(&self) -> bool {
        self.channels.is_multiple_of(2)
    }

    /// White where the image is kept, black where it is repainted. Needs an alpha channel.
    pub(super) fn keep_mask(&self, cancel: &CancellationToken) -> Result<GrayImage, FieldError> {
        let mut mask = Vec::with_capacity(self.width as usize * self.height as usize);
        for row in self.bytes.chunks_exact(self.row_bytes()) {
            check_cancelled(cancel)?;
            let opaque =
                |pixel: &[u8]| if self.sample(pixel, self.channels - 1) < ALPHA_THRESHOLD { 0 } else { 255 };
            mask.extend(row.chunks_exact(self.channels * self.bytes_per_channel).map(opaque));
        }
        let mask = GrayImage::from_raw(self.width, self.height, mask).expect("a byte for each pixel");
        let mut upright = DynamicImage::ImageLuma8(mask);
        upright.apply_orientation(self.orientation);
        Ok(upright.into_luma8())
    }

    /// Drops the alpha channel, in place where the memory suffices.
    pub(super) fn into_rgb(mut self, cancel: &CancellationToken) -> Result<RgbImage, FieldError> {
        let (from, to) = (self.row_bytes(), self.width as usize * 3);
        let mut bytes = std::mem::take(&mut self.bytes);
        if self.channels < 3 {
            let mut expanded = Vec::with_capacity(to * self.height as usize);
            for row in bytes.chunks_exact(from) {
                check_cancelled(cancel)?;
                self.push_rgb(row, &mut expanded);
            }
            bytes = expanded;
        } else if from > to {
            let mut row = Vec::with_capacity(to);
            for index in 0..self.height as usize {
                check_cancelled(cancel)?;
                row.clear();
                self.push_rgb(&bytes[index * from..][..from], &mut row);
                // Never overwrites unread rows, because a row only gets shorter.
                bytes[index * to..][..to].copy_from_slice(&row);
            }
            bytes.truncate(to * self.height as usize);
            bytes.shrink_to_fit();
        }
        let rgb = RgbImage::from_raw(self.width, self.height, bytes).expect("three bytes for each pixel");
        let mut upright = DynamicImage::ImageRgb8(rgb);
        upright.apply_orientation(self.orientation);
        Ok(upright.into_rgb8())
    }

    const fn row_bytes(&self) -> usize {
        self.width as usize * self.channels * self.bytes_per_channel
    }

    /// A channel of a pixel, rounded to 8 bits.
    fn sample(&self, pixel: &[u8], channel: usize) -> u8 {
        if self.bytes_per_channel == 1 {
            return pixel[channel];
        }
        let value = u16::from_ne_bytes([pixel[2 * channel], pixel[2 * channel + 1]]);
        u8::try_from((u32::from(value) + 128) / 257).expect("at most 65,663 / 257")
    }

    fn push_rgb(&self, row: &[u8], into: &mut Vec<u8>) {
        let grey = self.channels < 3;
        for pixel in row.chunks_exact(self.channels * self.bytes_per_channel) {
            into.extend([0, 1, 2].map(|channel| self.sample(pixel, if grey { 0 } else { channel })));
        }
    }
}

/// The client has disconnected, so the error reaches nobody.
fn check_cancelled(cancel: &CancellationToken) -> Result<(), FieldError> {
    if cancel.is_cancelled() {
        return Err(FieldError { param: None, message: "cancelled".to_owned() });
    }
    Ok(())
}

/// Fails once cancelled, which stops a decoder that reads on and on.
struct CancellableReader<'a> {
    bytes: Cursor<&'a [u8]>,
    cancel: &'a CancellationToken,
}

impl BufRead for CancellableReader<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.cancel.is_cancelled() {
            // Readers retry after `Interrupted`, so another kind.
            return Err(io::Error::other("cancelled"));
        }
        let rest = self.bytes.fill_buf()?;
        Ok(&rest[..rest.len().min(READ_CHUNK_BYTES)])
    }

    fn consume(&mut self, amount: usize) {
        self.bytes.consume(amount);
    }
}

impl Read for CancellableReader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(into)?;
        self.consume(read);
        Ok(read)
    }
}

impl Seek for CancellableReader<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.bytes.seek(to)
    }
}

#[cfg(test)]
mod tests {
    use image::{ImageFormat, Rgba};

    use super::*;

    fn encoded(image: &DynamicImage) -> Vec<u8> {
        let mut bytes = Vec::new();
        image.write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).unwrap();
        bytes
    }

    /// Every colour type, with a different colour and alpha at each pixel.
    fn color_types() -> Vec<DynamicImage> {
        let wide = |x: u32, y: u32| {
            [x * 9001, y * 7001, x * y * 501, (x + y) * 4001]
                .map(|sample| u16::try_from(sample % 65_536).unwrap())
        };
        let rgba = DynamicImage::ImageRgba16(image::ImageBuffer::from_fn(9, 5, |x, y| Rgba(wide(x, y))));
        vec![
            rgba.to_luma8().into(),
            rgba.to_luma_alpha8().into(),
            rgba.to_rgb8().into(),
            rgba.to_rgba8().into(),
            rgba.to_luma16().into(),
            rgba.to_luma_alpha16().into(),
            rgba.to_rgb16().into(),
            rgba,
        ]
    }

    #[test]
    fn every_color_type_is_converted_as_the_library_does() {
        let never = CancellationToken::new();
        for image in color_types() {
            let kind = image.color();
            let decode = || decode("image", &encoded(&image), &never).unwrap();
            assert_eq!(decode().into_rgb(&never).unwrap(), image.to_rgb8(), "{kind:?}");
            assert_eq!(decode().has_alpha(), kind.has_alpha(), "{kind:?}");
            if kind.has_alpha() {
                let rgba = image.to_rgba8();
                let mask = decode().keep_mask(&never).unwrap();
                for (x, y, pixel) in mask.enumerate_pixels() {
                    assert_eq!(pixel[0] == 0, rgba.get_pixel(x, y)[3] < ALPHA_THRESHOLD, "{kind:?} {x} {y}");
                }
            }
        }
    }

    #[test]
    fn a_decoder_stops_when_cancelled() {
        let cancel = CancellationToken::new();
        let noise = |x: u32, y: u32| {
            Rgba([(x * 31) ^ (y * 17), x * y, x ^ y, 9].map(|sample| sample.to_le_bytes()[0]))
        };
        let bytes = encoded(&DynamicImage::ImageRgba8(image::ImageBuffer::from_fn(256, 256, noise)));
        assert!(bytes.len() > 4 * READ_CHUNK_BYTES);
        let mut reader = CancellableReader { bytes: Cursor::new(&bytes), cancel: &cancel };
        assert_eq!(reader.fill_buf().unwrap().len(), READ_CHUNK_BYTES);
        cancel.cancel();
        assert!(reader.fill_buf().is_err() && reader.read(&mut [0]).is_err());
        assert!(decode("image", &bytes, &cancel).is_err());
    }
}
