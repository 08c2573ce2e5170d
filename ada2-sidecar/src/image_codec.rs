//! Decoding of source images and masks, and encoding into the requested format. Takes up to seconds of a core and half a
//! gigabyte, so it runs only as part of a job ([`crate::jobs`]), never on the threads that serve requests, and stops when
//! the job is cancelled.

mod decode;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod metadata;
mod orientation;

use std::io::{BufRead, Cursor, Seek};

use bytes::Bytes;
use image::{DynamicImage, GrayImage, ImageEncoder, ImageFormat, ImageReader, RgbImage, imageops};
use picture::Format;
use service::text::prefix;
use tokio_util::sync::CancellationToken;
use wire::openai::{fields::FieldError, images::ImageSize};

use self::decode::decode;
use crate::images::{EditPlan, Output, Scaling, SourceImages};

pub(crate) use metadata::{strip_for_decoder, strip_metadata};

/// Pixels of an uploaded image, as its header says.
const MAX_PIXELS: u64 = 40_000_000;
/// Engines take sides that are multiples of this.
const MULTIPLE: u32 = 8;
/// The shortest side of a generated image.
const MIN_SIDE: u32 = 64;
/// Pixels above which decoding takes so much memory that only a few may run at once.
const LARGE_PIXELS: u64 = 8_000_000;

/// The size of an uploaded image once it is upright, from its header alone.
pub(crate) fn upright_size(param: &str, bytes: &[u8]) -> Result<ImageSize, FieldError> {
    let reader = reader(param, Cursor::new(bytes))?;
    let (width, height) = reader.into_dimensions().map_err(|error| decode_error(param, &error))?;
    let size = ImageSize::new(width, height);
    if size.pixels() > MAX_PIXELS {
        let message = format!("{param} has {size} pixels; at most 40 megapixels are accepted.");
        return Err(FieldError::new(param, message));
    }
    Ok(orientation::upright(size, orientation::read(bytes)))
}

/// The size of an image of the engine's, from its header alone, without a limit.
pub(crate) fn encoded_size(bytes: &[u8]) -> Result<ImageSize, String> {
    let reader = reader("image", Cursor::new(bytes)).map_err(|error| error.message)?;
    let (width, height) = reader.into_dimensions().map_err(|error| error.to_string())?;
    Ok(ImageSize::new(width, height))
}

/// Whether decoding an image of this size takes much memory.
pub(crate) fn is_large(size: ImageSize) -> bool {
    size.pixels() > LARGE_PIXELS
}

/// The size generated from an image of this size if the request names none: its own, rounded to multiples of `multiple`, or
/// the largest allowed with the same aspect ratio.
pub(crate) fn output_size(original: ImageSize, max_pixels: u64, multiple: u32) -> ImageSize {
    let rounded = |length: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a side is small and positive"
        )]
        let length = length.max(f64::from(MIN_SIDE)) as u32;
        length / multiple * multiple
    };
    #[expect(clippy::cast_precision_loss, reason = "pixel counts are far below 2^52")]
    let scale = (max_pixels as f64 / original.pixels() as f64).sqrt().min(1.0);
    let mut size = ImageSize::new(
        rounded(f64::from(original.width) * scale),
        rounded(f64::from(original.height) * scale),
    );
    // Raising the short side of a very long image may exceed the limit.
    while size.pixels() > max_pixels && size.width.max(size.height) > MIN_SIDE {
        if size.width > size.height { size.width -= multiple } else { size.height -= multiple }
    }
    size
}

/// Decodes the images, one after the other, then the mask, which is scaled like the first image. Without a mask the first
/// image's own transparency serves as one.
pub(crate) fn prepare<'a>(
    images: impl IntoIterator<Item = &'a Bytes>,
    mask: Option<&[u8]>,
    plan: &EditPlan,
    cancel: &CancellationToken,
) -> Result<SourceImages, FieldError> {
    let mut source = SourceImages { images: Vec::new(), mask: None };
    for (nth, image) in images.into_iter().enumerate() {
        let decoded = decode("image", image, cancel)?;
        if nth > 0 {
            let size = scaled_size(decoded.upright_size(), Scaling::AtMost(plan.max_pixels));
            source.images.push(encode_scaled(decoded.into_rgb(cancel)?, size));
            continue;
        }
        let size = scaled_size(decoded.upright_size(), plan.scaling);
        let has_own_mask = mask.is_none() && plan.takes_transparency && decoded.has_alpha();
        let own_mask = if has_own_mask { Some(decoded.keep_mask(cancel)?) } else { None };
        source.images.push(encode_scaled(decoded.into_rgb(cancel)?, size));
        let keep_mask = match mask {
            Some(mask) => Some(prepare_mask(mask, size, cancel)?),
            None => own_mask.map(|mask| resize_mask(&mask, size)).filter(has_repaint_area),
        };
        source.mask = keep_mask.map(|mask| encode_png(&DynamicImage::ImageLuma8(mask)));
    }
    Ok(source)
}

/// The size that an image is scaled to.
fn scaled_size(original: ImageSize, scaling: Scaling) -> ImageSize {
    match scaling {
        Scaling::Exactly(size) => size,
        Scaling::AtMost(pixels) if original.pixels() > pixels => output_size(original, pixels, MULTIPLE),
        Scaling::AtMost(_) => original,
    }
}

fn encode_scaled(rgb: RgbImage, size: ImageSize) -> Bytes {
    let (width, height) = (size.width, size.height);
    let rgb = if rgb.dimensions() == (width, height) {
        rgb
    } else {
        imageops::resize(&rgb, width, height, imageops::FilterType::Lanczos3)
    };
    encode_png(&DynamicImage::ImageRgb8(rgb))
}

/// The mask as an image that is black where the source is repainted.
fn prepare_mask(mask: &[u8], size: ImageSize, cancel: &CancellationToken) -> Result<GrayImage, FieldError> {
    let mask = decode("mask", mask, cancel)?;
    if !mask.has_alpha() {
        let message = "mask has no alpha channel: it must be transparent where the image is to be repainted.";
        return Err(FieldError::new("mask", message));
    }
    let keep_mask = resize_mask(&mask.keep_mask(cancel)?, size);
    if !has_repaint_area(&keep_mask) {
        let message = "mask has no transparent pixel: nothing would be repainted.";
        return Err(FieldError::new("mask", message));
    }
    Ok(keep_mask)
}

fn resize_mask(mask: &GrayImage, size: ImageSize) -> GrayImage {
    imageops::resize(mask, size.width, size.height, imageops::FilterType::Nearest)
}

fn has_repaint_area(mask: &GrayImage) -> bool {
    mask.pixels().any(|pixel| pixel[0] == 0)
}

/// Converts to the output format; unchanged if it has that format already.
pub(crate) fn encode(
    image: Bytes,
    format: Format,
    output: Output,
    cancel: &CancellationToken,
) -> Result<Bytes, String> {
    if format == output.format {
        return Ok(image);
    }
    let decoded = decode("image", &image, cancel).and_then(|decoded| decoded.into_rgb(cancel));
    let rgb = decoded.map_err(|error| error.message)?;
    drop(image);
    let mut bytes = Vec::new();
    match output.format {
        Format::Png => return Ok(encode_png(&DynamicImage::ImageRgb8(rgb))),
        Format::Jpeg => {
            // The encoder's lowest quality is 1.
            let encoder =
                image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, output.quality.max(1));
            let (width, height) = rgb.dimensions();
            encoder
                .write_image(rgb.as_raw(), width, height, image::ExtendedColorType::Rgb8)
                .map_err(|error| error.to_string())?;
        }
        Format::Webp => {
            let encoder = webp::Encoder::from_rgb(rgb.as_raw(), rgb.width(), rgb.height());
            bytes.extend_from_slice(&encoder.encode(f32::from(output.quality)));
        }
    }
    Ok(bytes.into())
}

/// Detects the format from the first bytes, because file names and content types are unreliable.
fn reader<R: BufRead + Seek>(param: &str, mut from: R) -> Result<ImageReader<R>, FieldError> {
    let format = from.fill_buf().ok().and_then(|head| image::guess_format(head).ok());
    format
        .filter(|format| matches!(format, ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::WebP))
        .map(|format| ImageReader::with_format(from, format))
        .ok_or_else(|| FieldError::new(param, format!("{param} must be a PNG, JPEG or WebP file.")))
}

fn decode_error(param: &str, error: &image::ImageError) -> FieldError {
    let cause = error.to_string();
    FieldError::new(
        param,
        format!("{param} cannot be decoded: {}.", prefix(&cause, 200).trim_end_matches('.')),
    )
}

fn encode_png(image: &DynamicImage) -> Bytes {
    let mut bytes = Vec::new();
    image.write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).expect("memory can be written");
    bytes.into()
}

#[cfg(test)]
mod tests;
