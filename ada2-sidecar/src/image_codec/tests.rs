//! Source images and masks, formats, and metadata.

use image::{Rgb, RgbImage, Rgba, RgbaImage};
use proptest::prelude::*;

use super::*;
use crate::images::Task;

fn never() -> CancellationToken {
    CancellationToken::new()
}

fn rgb(width: u32, height: u32) -> DynamicImage {
    let byte = |number: u32| u8::try_from(number % 256).unwrap();
    let pixel = |x: u32, y: u32| Rgb([byte(x * 7), byte(y * 5), 99]);
    DynamicImage::ImageRgb8(RgbImage::from_fn(width, height, pixel))
}

/// The left half is transparent.
fn half_transparent(width: u32, height: u32) -> DynamicImage {
    let pixel = |x: u32, _| Rgba([10, 20, 30, if x < width / 2 { 0 } else { 255 }]);
    DynamicImage::ImageRgba8(RgbaImage::from_fn(width, height, pixel))
}

fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Vec::new();
    image.write_to(&mut Cursor::new(&mut bytes), format).unwrap();
    bytes
}

fn decoded(bytes: &[u8]) -> DynamicImage {
    image::load_from_memory(bytes).unwrap()
}

/// An image, scaled to exactly this size, with its mask.
pub(in crate::image_codec) fn prepare_at(
    image: &[u8],
    mask: Option<&[u8]>,
    size: ImageSize,
    cancel: &CancellationToken,
) -> Result<SourceImages, FieldError> {
    let plan = EditPlan {
        task: Task::Edit,
        images: 1,
        size: Some(size),
        scaling: Scaling::Exactly(size),
        max_pixels: size.pixels(),
        takes_transparency: true,
    };
    prepare([&Bytes::copy_from_slice(image)], mask, &plan, cancel)
}

#[test]
fn further_images_keep_their_size_and_shape_up_to_a_limit() {
    let image = |width, height| Bytes::from(encoded(&rgb(width, height), ImageFormat::Png));
    let images = [image(100, 50), image(90, 70), image(400, 200)];
    let plan = EditPlan {
        task: Task::Edit,
        images: 3,
        size: None,
        scaling: Scaling::AtMost(10_000),
        max_pixels: 10_000,
        takes_transparency: true,
    };
    let source = prepare(&images, None, &plan, &never()).unwrap();
    let sizes: Vec<_> = source.images.iter().map(|png| encoded_size(png).unwrap().to_string()).collect();
    assert_eq!(sizes, ["100x50", "90x70", "136x64"]);
}

#[test]
fn a_decoders_message_ends_with_one_full_stop() {
    let hint = image::error::ImageFormatHint::Exact(ImageFormat::Png);
    let cause = "Corrupt deflate stream. DistanceTooFarBack.";
    let error = image::ImageError::Decoding(image::error::DecodingError::new(hint, cause));
    let message = decode_error("image", &error).message;
    assert!(message.ends_with("DistanceTooFarBack."), "{message}");
}

#[test]
fn an_image_of_the_right_size_keeps_its_pixels() {
    let image = rgb(64, 72);
    for format in [ImageFormat::Png, ImageFormat::WebP] {
        let source = prepare_at(&encoded(&image, format), None, ImageSize::new(64, 72), &never()).unwrap();
        assert_eq!(decoded(&source.images[0]).to_rgb8(), image.to_rgb8(), "{format:?}");
        assert_eq!(source.mask, None);
    }
}

#[test]
fn transparency_of_mask_or_image_selects_what_is_repainted() {
    let image = encoded(&rgb(64, 64), ImageFormat::Png);
    let mask = encoded(&half_transparent(32, 32), ImageFormat::Png);
    let transparent = encoded(&half_transparent(64, 64), ImageFormat::Png);
    for (image, mask) in [(&image, Some(mask.as_slice())), (&transparent, None)] {
        let source = prepare_at(image, mask, ImageSize::new(64, 64), &never()).unwrap();
        let keep = decoded(&source.mask.unwrap()).to_luma8();
        assert_eq!(
            (keep.dimensions(), keep.get_pixel(0, 0)[0], keep.get_pixel(63, 63)[0]),
            ((64, 64), 0, 255)
        );
    }
}

#[test]
fn unusable_input_is_named() {
    let image = encoded(&rgb(64, 64), ImageFormat::Png);
    let opaque = encoded(
        &DynamicImage::ImageRgba8(RgbaImage::from_pixel(8, 8, Rgba([0, 0, 0, 255]))),
        ImageFormat::Png,
    );
    let rejection = |image: &[u8], mask: Option<&[u8]>| {
        let error = prepare_at(image, mask, ImageSize::new(64, 64), &never()).unwrap_err();
        (error.param.unwrap(), error.message)
    };
    assert_eq!(
        rejection(b"GIF89a......", None),
        ("image".into(), "image must be a PNG, JPEG or WebP file.".into())
    );
    assert!(rejection(&image[..image.len() / 2], None).1.starts_with("image cannot be decoded"));
    assert!(rejection(&image, Some(&image)).1.contains("no alpha channel"));
    assert!(rejection(&image, Some(&opaque)).1.contains("no transparent pixel"));
}

#[test]
fn a_decompression_bomb_is_rejected_by_its_header() {
    let mut bomb = encoded(&rgb(8, 8), ImageFormat::Png);
    bomb[16..24].copy_from_slice(&[0, 0, 0x30, 0, 0, 0, 0x30, 0]);
    let crc = crc32(&bomb[12..29]);
    bomb[29..33].copy_from_slice(&crc.to_be_bytes());
    let error = upright_size("image", &bomb).unwrap_err();
    assert!(error.message.contains("12288x12288") && error.message.contains("40 megapixels"), "{error}");
}

/// PNG's checksum.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 },
        )
    })
}

#[test]
fn every_format_can_be_requested_and_compression_counts() {
    let image: Bytes = encoded(&rgb(256, 256), ImageFormat::Png).into();
    let as_format =
        |format, quality| encode(image.clone(), Format::Png, Output { format, quality }, &never()).unwrap();
    assert_eq!(as_format(Format::Png, 90), image, "the same format is not encoded again");
    for format in [Format::Jpeg, Format::Webp] {
        let (small, large) = (as_format(format, 0), as_format(format, 100));
        assert_eq!(Format::detect(&small), Ok(format));
        assert!(small.len() < large.len(), "{format:?}");
        assert_eq!(decoded(&large).to_rgb8().dimensions(), (256, 256));
    }
}

/// Flat images have the least data for their size, and must not be taken for images without pixels.
#[test]
fn what_real_encoders_write_counts_as_images() {
    let sides = [(1, 1), (1, 300), (300, 1), (17, 9), (640, 480), (2048, 1536)];
    for (width, height) in sides {
        let flat = RgbImage::from_pixel(width, height, Rgb([255, 255, 255]));
        let is = |bytes: &[u8], format| assert_eq!(Format::detect(bytes), Ok(format), "{width}x{height}");
        for image in [
            DynamicImage::ImageRgb8(flat.clone()),
            DynamicImage::ImageRgb8(flat.clone()).into_luma8().into(),
            DynamicImage::ImageRgb8(flat.clone()).into_rgba16().into(),
        ] {
            let mut png = Vec::new();
            let best = image::codecs::png::PngEncoder::new_with_quality(
                &mut png,
                image::codecs::png::CompressionType::Best,
                image::codecs::png::FilterType::Adaptive,
            );
            image.write_with_encoder(best).unwrap();
            is(&png, Format::Png);
            is(&encoded(&image, ImageFormat::Png), Format::Png);
        }
        for quality in [1, 100] {
            let mut jpeg = Vec::new();
            let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, quality);
            encoder.write_image(flat.as_raw(), width, height, image::ExtendedColorType::Rgb8).unwrap();
            is(&jpeg, Format::Jpeg);
            let encoder = webp::Encoder::from_rgb(flat.as_raw(), width, height);
            is(&encoder.encode(f32::from(quality)), Format::Webp);
        }
        is(&webp::Encoder::from_rgb(flat.as_raw(), width, height).encode_lossless(), Format::Webp);
        is(&encoded(&DynamicImage::ImageRgb8(flat.clone()), ImageFormat::WebP), Format::Webp);
        let clear = vec![128_u8; flat.as_raw().len() / 3 * 4];
        is(&webp::Encoder::from_rgba(&clear, width, height).encode(50.0), Format::Webp);
    }
}

#[test]
fn stripping_removes_text_and_leaves_the_pixels() {
    let mut bytes = encoded(&rgb(16, 16), ImageFormat::Png);
    let text = [&b"tEXtprompt\0a secret"[..]].concat();
    let mut chunk = u32::try_from(text.len() - 4).unwrap().to_be_bytes().to_vec();
    chunk.extend_from_slice(&text);
    chunk.extend_from_slice(&crc32(&text).to_be_bytes());
    bytes.splice(33..33, chunk);
    let tagged: Bytes = bytes.into();
    assert!(Format::detect(&tagged).is_ok());
    let stripped = strip_metadata(&tagged);
    assert_eq!(Format::detect(&stripped), Ok(Format::Png));
    assert_eq!(decoded(&stripped), decoded(&tagged));
    assert!(!stripped.windows(6).any(|window| window == b"secret"));
    assert_eq!(strip_metadata(&stripped), stripped);
    let other = Bytes::from_static(b"RIFF");
    assert_eq!(strip_metadata(&other), other);
}

#[test]
fn the_output_size_is_the_images_own_if_allowed() {
    let output = |width, height| output_size(ImageSize::new(width, height), 2_000_000, 8).to_string();
    assert_eq!(output(512, 768), "512x768");
    assert_eq!(output(101, 75), "96x72");
    assert_eq!(output(10, 10), "64x64");
    assert_eq!(output(4000, 3000), "1632x1224");
    assert_eq!(output_size(ImageSize::new(4000, 3000), 4_194_304, 8).to_string(), "2360x1768");
    assert_eq!(output_size(ImageSize::new(3024, 4032), 4_194_304, 8).to_string(), "1768x2360");
}

proptest! {
    #[test]
    fn the_output_size_is_always_allowed(width in 1..20_000_u32, height in 1..20_000_u32) {
        let size = output_size(ImageSize::new(width, height), 2_000_000, 8);
        prop_assert!([size.width, size.height].iter().all(|side| side.is_multiple_of(8) && *side >= 64));
        prop_assert!(size.pixels() <= 2_000_000, "{}", size);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), png: bool) {
        let bytes = if png { [SIGNATURE, &bytes].concat() } else { bytes };
        let _ = prepare_at(&bytes, None, ImageSize::new(64, 64), &never());
        let _ = strip_metadata(&bytes.into());
    }
}

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
