use std::io::Cursor;

use image::{
    DynamicImage, ImageEncoder, ImageFormat, Rgb, RgbImage, Rgba, RgbaImage,
    codecs::{jpeg::JpegEncoder, png::PngEncoder, webp::WebPEncoder},
};
use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::image_codec::{strip_for_decoder, tests::prepare_at, upright_size};

const WIDTH: u32 = 72;
const HEIGHT: u32 = 64;
const FORMATS: [ImageFormat; 3] = [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP];

/// EXIF with this orientation alone, in either byte order.
fn exif(orientation: u16, little: bool) -> Vec<u8> {
    let numbers: [(u32, usize); 9] = [
        (42, 2),
        (8, 4),
        (1, 2), // one entry: the orientation, one short number
        (0x112, 2),
        (3, 2),
        (1, 4),
        (orientation.into(), 2),
        (0, 2),
        (0, 4),
    ];
    let number = |(number, length): (u32, usize)| {
        if little {
            number.to_le_bytes()[..length].to_vec()
        } else {
            number.to_be_bytes()[4 - length..].to_vec()
        }
    };
    let order = if little { b"II" } else { b"MM" };
    [order.to_vec(), numbers.into_iter().flat_map(number).collect()].concat()
}

fn encoded(image: &DynamicImage, format: ImageFormat, exif: Vec<u8>) -> Vec<u8> {
    fn write<E: ImageEncoder>(mut encoder: E, image: &DynamicImage, exif: Vec<u8>) {
        encoder.set_exif_metadata(exif).unwrap();
        image.write_with_encoder(encoder).unwrap();
    }
    let mut bytes = Vec::new();
    match format {
        ImageFormat::Jpeg => write(JpegEncoder::new_with_quality(&mut bytes, 100), image, exif),
        ImageFormat::Png => write(PngEncoder::new(&mut bytes), image, exif),
        _ => write(WebPEncoder::new_lossless(&mut bytes), image, exif),
    }
    bytes
}

/// Smooth, so that JPEG hardly changes it, and different in each corner.
fn stored() -> RgbImage {
    let byte = |number: u32| u8::try_from(number).unwrap();
    RgbImage::from_fn(WIDTH, HEIGHT, |x, y| Rgb([byte(x * 3), byte(y * 3), 90]))
}

/// Where a pixel of the upright image is stored: the table of EXIF 2.32, 4.6.4.
fn stored_at(orientation: u16, x: u32, y: u32) -> (u32, u32) {
    let (right, bottom) = (WIDTH - 1, HEIGHT - 1);
    match orientation {
        2 => (right - x, y),
        3 => (right - x, bottom - y),
        4 => (x, bottom - y),
        5 => (y, x),
        6 => (y, bottom - x),
        7 => (right - y, bottom - x),
        8 => (right - y, x),
        _ => (x, y),
    }
}

fn upright_dimensions(orientation: u16) -> ImageSize {
    if (5..=8).contains(&orientation) { ImageSize::new(HEIGHT, WIDTH) } else { ImageSize::new(WIDTH, HEIGHT) }
}

fn prepared(file: &[u8], mask: Option<&[u8]>) -> (ImageSize, RgbImage, Option<RgbImage>) {
    let size = upright_size("image", file).unwrap();
    let source = prepare_at(file, mask, size, &CancellationToken::new()).unwrap();
    let pixels = |png: &[u8]| image::load_from_memory(png).unwrap().into_rgb8();
    (size, pixels(&source.images[0]), source.mask.map(|mask| pixels(&mask)))
}

#[test]
fn an_image_is_upright_whatever_its_orientation_and_format() {
    let image = DynamicImage::ImageRgb8(stored());
    for (orientation, format, little) in
        (0..10).flat_map(|number| FORMATS.map(|format| (number, format, number % 2 == 0)))
    {
        let file = encoded(&image, format, exif(orientation, little));
        let (size, pixels, _) = prepared(&strip_for_decoder(&file.into()), None);
        assert_eq!(size, upright_dimensions(orientation), "{orientation} {format:?}");
        let near = |a: u8, b: u8| a.abs_diff(b) <= if format == ImageFormat::Jpeg { 8 } else { 0 };
        for (x, y, pixel) in pixels.enumerate_pixels() {
            let (from_x, from_y) = stored_at(orientation, x, y);
            let expected = image.as_rgb8().unwrap().get_pixel(from_x, from_y);
            let is_same = pixel.0.iter().zip(expected.0).all(|(a, b)| near(*a, b));
            assert!(is_same, "{orientation} {format:?} {x} {y}: {pixel:?} {expected:?}");
        }
    }
}

#[test]
fn a_mask_is_turned_by_its_own_orientation() {
    // The left eighth of the stored image is transparent.
    let transparent = |x: u32| x < WIDTH / 8;
    let stored =
        RgbaImage::from_fn(WIDTH, HEIGHT, |x, _| Rgba([9, 9, 9, if transparent(x) { 0 } else { 255 }]));
    let stored = DynamicImage::ImageRgba8(stored);
    for (orientation, format) in
        (1..=8).flat_map(|number| FORMATS[1..].iter().map(move |format| (number, *format)))
    {
        let file = encoded(&stored, format, exif(orientation, true));
        let size = upright_dimensions(orientation);
        let upright = encoded(&DynamicImage::new_rgb8(size.width, size.height), ImageFormat::Png, Vec::new());
        // As a separate mask, and as the image's own transparency.
        for (image, mask) in [(&upright, Some(file.as_slice())), (&file, None)] {
            let (_, _, mask) = prepared(image, mask);
            for (x, y, pixel) in mask.unwrap().enumerate_pixels() {
                let repainted = transparent(stored_at(orientation, x, y).0);
                assert_eq!(pixel[0] == 0, repainted, "{orientation} {format:?} {x} {y}");
            }
        }
    }
}

#[test]
fn exif_is_found_after_the_pixels_after_other_segments_and_with_jpegs_prefix() {
    let image = DynamicImage::ImageRgb8(stored());
    let mut png = Vec::new();
    image.write_to(&mut Cursor::new(&mut png), ImageFormat::Png).unwrap();
    let data = [EXIF_PREFIX, &exif(6, false)].concat();
    let chunk = [&u32::try_from(data.len()).unwrap().to_be_bytes()[..], b"eXIf", &data, b"crc!"].concat();
    png.splice(png.len() - 12..png.len() - 12, chunk);
    assert_eq!(read(&png), Orientation::Rotate90);

    let jpeg = encoded(&image, ImageFormat::Jpeg, exif(6, true));
    let more = b"\xff\xff\xff\xe1\x00\x0ahttp://x\xff\xfe\x00\x03c";
    let jpeg = [&jpeg[..2], more, &jpeg[2..]].concat();
    assert_eq!(read(&jpeg), Orientation::Rotate90);

    let webp = [b"RIFF\0\0\0\0WEBPVP8X\x01\0\0\0x\0EXIF\x20\0\0\0", &data[..]].concat();
    assert_eq!(read(&webp), Orientation::Rotate90);
}

#[test]
fn invalid_exif_is_ignored() {
    let image = DynamicImage::ImageRgb8(stored());
    let good = exif(6, true);
    let invalid = [
        b"".to_vec(),
        b"II".to_vec(),
        good[..12].to_vec(),
        [&b"XX"[..], &good[2..]].concat(),
        vec![0xff; 70],
    ];
    for (exif, format) in invalid.iter().flat_map(|exif| FORMATS.map(|format| (exif, format))) {
        let file = encoded(&image, format, exif.clone());
        assert_eq!(prepared(&file, None).0, ImageSize::new(WIDTH, HEIGHT), "{exif:?} {format:?}");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), format in 0..3_usize) {
        let head: [&[u8]; 3] = [PNG_SIGNATURE, b"RIFF\0\0\0\0WEBP", b"\xff\xd8\xff"];
        let _ = read(&[head[format], &bytes].concat());
    }
}
