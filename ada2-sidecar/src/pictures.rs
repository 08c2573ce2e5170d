//! Pictures decoded and encoded: what an edit starts from, and the format that an answer wants. Takes milliseconds to
//! seconds of a core: never on the threads that serve requests.

mod metadata;

use std::io::Cursor;

use bytes::Bytes;
use image::{
    DynamicImage, GrayImage, ImageDecoder, ImageEncoder, ImageFormat, ImageReader, Limits, Luma, imageops,
};
use shared::{
    openai::{fields::FieldError, images::Size},
    picture::Format,
};

use crate::images::{Output, Source};

pub(crate) use metadata::{lean, strip};

/// Pixels of a picture that is sent to us: 40 megapixels, told from its header.
const MAX_PIXELS: u64 = 40_000_000;
/// The shortest side that is made.
const MIN_SIDE: u32 = 64;
/// Bytes that a decoder may take: 40 megapixels of four channels of 16 bits.
const MAX_ALLOCATION: u64 = MAX_PIXELS * 8;
/// From this much transparency on a pixel is repainted.
const TRANSPARENT: u8 = 128;

/// The size of an uploaded picture, from its header alone.
pub(crate) fn size_of(param: &str, bytes: &[u8]) -> Result<Size, FieldError> {
    let reader = reader(param, bytes)?;
    let (width, height) = reader.into_dimensions().map_err(|error| unreadable(param, &error))?;
    let size = Size::new(width, height);
    if size.pixels() > MAX_PIXELS {
        let message = format!("{param} has {size} pixels; at most 40 megapixels are taken.");
        return Err(FieldError::new(param, message));
    }
    Ok(size)
}

/// The size that is made from a picture of this size if none is asked for: its own, rounded to multiples of 8, or the
/// largest of the same shape that is allowed.
pub(crate) fn size_to_make(own: Size, max_pixels: u64) -> Size {
    let rounded = |length: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a side is small and positive"
        )]
        let length = length.max(f64::from(MIN_SIDE)) as u32;
        length / 8 * 8
    };
    #[expect(clippy::cast_precision_loss, reason = "pixel counts are far below 2^52")]
    let scale = (max_pixels as f64 / own.pixels() as f64).sqrt().min(1.0);
    let mut size = Size::new(rounded(f64::from(own.width) * scale), rounded(f64::from(own.height) * scale));
    // A very long picture whose short side was raised.
    while size.pixels() > max_pixels && size.width.max(size.height) > MIN_SIDE {
        if size.width > size.height { size.width -= 8 } else { size.height -= 8 }
    }
    size
}

/// Decodes picture and mask and brings both to the size that is made. Without a mask the picture's own transparency is
/// one.
pub(crate) fn prepare(picture: &[u8], mask: Option<&[u8]>, size: Size) -> Result<Source, FieldError> {
    let decoded = decode("image", picture)?;
    let keep = match mask {
        Some(mask) => {
            let mask = decode("mask", mask)?;
            if !mask.color().has_alpha() {
                let message =
                    "mask has no alpha channel: it must be transparent where the picture is to be repainted.";
                return Err(FieldError::new("mask", message));
            }
            Some(kept(&mask, size)).filter(repaints_something)
        }
        None if decoded.color().has_alpha() => Some(kept(&decoded, size)).filter(repaints_something),
        None => None,
    };
    if mask.is_some() && keep.is_none() {
        let message = "mask is transparent nowhere: nothing would be repainted.";
        return Err(FieldError::new("mask", message));
    }
    let (width, height) = (size.width, size.height);
    let rgb = decoded.into_rgb8();
    let rgb = if rgb.dimensions() == (width, height) {
        rgb
    } else {
        imageops::resize(&rgb, width, height, imageops::FilterType::Lanczos3)
    };
    Ok(Source {
        picture: png(&DynamicImage::ImageRgb8(rgb)),
        mask: keep.map(|keep| png(&DynamicImage::ImageLuma8(keep))),
    })
}

/// White where the picture is kept, black where it is repainted.
fn kept(mask: &DynamicImage, size: Size) -> GrayImage {
    let rgba = mask.to_rgba8();
    let full = GrayImage::from_fn(rgba.width(), rgba.height(), |x, y| {
        Luma([if rgba.get_pixel(x, y)[3] < TRANSPARENT { 0 } else { 255 }])
    });
    imageops::resize(&full, size.width, size.height, imageops::FilterType::Nearest)
}

fn repaints_something(keep: &GrayImage) -> bool {
    keep.pixels().any(|pixel| pixel[0] == 0)
}

/// The picture in the format that is wanted; as it is, if it is that already.
pub(crate) fn encode(picture: Bytes, format: Format, output: Output) -> Result<Bytes, String> {
    if format == output.format {
        return Ok(picture);
    }
    let decoded = decode("image", &picture).map_err(|error| error.message)?;
    let rgb = decoded.into_rgb8();
    let mut bytes = Vec::new();
    match output.format {
        Format::Png => return Ok(png(&DynamicImage::ImageRgb8(rgb))),
        Format::Jpeg => {
            // The encoder knows no 0.
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

fn decode(param: &str, bytes: &[u8]) -> Result<DynamicImage, FieldError> {
    size_of(param, bytes)?;
    let mut reader = reader(param, bytes)?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_ALLOCATION);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|error| unreadable(param, &error))?;
    // A phone's picture lies on its side, and says so.
    let orientation = decoder.orientation().unwrap_or(image::metadata::Orientation::NoTransforms);
    let mut picture = DynamicImage::from_decoder(decoder).map_err(|error| unreadable(param, &error))?;
    picture.apply_orientation(orientation);
    Ok(picture)
}

/// File names and content types lie: the first bytes tell the format.
fn reader<'a>(param: &str, bytes: &'a [u8]) -> Result<ImageReader<Cursor<&'a [u8]>>, FieldError> {
    let format = image::guess_format(bytes).ok();
    let known =
        format.filter(|format| matches!(format, ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::WebP));
    known
        .map(|format| ImageReader::with_format(Cursor::new(bytes), format))
        .ok_or_else(|| FieldError::new(param, format!("{param} must be a PNG, JPEG or WebP file.")))
}

fn unreadable(param: &str, error: &image::ImageError) -> FieldError {
    let words: String = error.to_string().chars().take(200).collect();
    FieldError::new(param, format!("{param} cannot be decoded: {words}."))
}

fn png(picture: &DynamicImage) -> Bytes {
    let mut bytes = Vec::new();
    picture.write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).expect("memory can be written");
    bytes.into()
}

#[cfg(test)]
mod tests;
