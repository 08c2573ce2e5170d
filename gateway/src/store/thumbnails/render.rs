//! From an image file to its thumbnail: upright, small, WebP.

use std::{
    fs::File,
    io::{BufRead, BufReader, Seek},
};

use image::{
    DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, imageops::FilterType, metadata::Orientation,
};

/// The longest side.
pub(super) const MAX_SIDE: u32 = 384;
const QUALITY: f32 = 78.0;
/// Of an image, as its header says.
const MAX_PIXELS: u64 = 40_000_000;
/// Bytes that a decoder may allocate: the largest image with four channels of 16 bits.
const MAX_DECODER_BYTES: u64 = MAX_PIXELS * 8;
/// Some decoders read a file as a whole.
const MAX_FILE_BYTES: u64 = 128 << 20;

/// The thumbnail, or why there is none.
pub(super) fn thumbnail(file: File) -> Result<Vec<u8>, String> {
    if file.metadata().map_err(|error| error.to_string())?.len() > MAX_FILE_BYTES {
        return Err("the file is too large".to_owned());
    }
    let (image, orientation) = decode(BufReader::new(file))?;
    let mut small = shrink(image);
    small.apply_orientation(orientation);
    encode(&small)
}

fn decode(file: impl BufRead + Seek) -> Result<(DynamicImage, Orientation), String> {
    let text = |error: image::ImageError| error.to_string();
    let mut reader = ImageReader::new(file).with_guessed_format().map_err(|error| error.to_string())?;
    if !matches!(reader.format(), Some(ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::WebP)) {
        return Err("it is no PNG, JPEG or WebP file".to_owned());
    }
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_DECODER_BYTES);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(text)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(format!("it has {width}x{height} pixels"));
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    Ok((DynamicImage::from_decoder(decoder).map_err(text)?, orientation))
}

/// Never enlarges.
fn shrink(image: DynamicImage) -> DynamicImage {
    let side = image.width().max(image.height());
    if side <= MAX_SIDE {
        return image;
    }
    // A fast average first, then the careful one.
    let image = if side > 2 * MAX_SIDE { image.thumbnail(2 * MAX_SIDE, 2 * MAX_SIDE) } else { image };
    image.resize(MAX_SIDE, MAX_SIDE, FilterType::CatmullRom)
}

fn encode(image: &DynamicImage) -> Result<Vec<u8>, String> {
    let (width, height) = (image.width(), image.height());
    let encoded = if image.color().has_alpha() {
        webp::Encoder::from_rgba(&image.to_rgba8(), width, height).encode_simple(false, QUALITY)
    } else {
        webp::Encoder::from_rgb(&image.to_rgb8(), width, height).encode_simple(false, QUALITY)
    };
    encoded.map(|encoded| encoded.to_vec()).map_err(|error| format!("it cannot be encoded: {error:?}"))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{GenericImageView, Rgba, RgbaImage};

    use super::*;

    /// Red on the left, blue on the right.
    fn halves(width: u32, height: u32) -> DynamicImage {
        let pixel = |x: u32, _| if x < width / 2 { Rgba([255, 0, 0, 255]) } else { Rgba([0, 0, 255, 255]) };
        RgbaImage::from_fn(width, height, pixel).into()
    }

    fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn render(bytes: &[u8]) -> DynamicImage {
        let (image, orientation) = decode(Cursor::new(bytes)).unwrap();
        let mut small = shrink(image);
        small.apply_orientation(orientation);
        image::load_from_memory_with_format(&encode(&small).unwrap(), ImageFormat::WebP).unwrap()
    }

    /// A JPEG's application segment with this orientation.
    fn with_orientation(jpeg: &[u8], orientation: u8) -> Vec<u8> {
        let mut exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\0\0\0\0\0\0\0".to_vec();
        exif[25] = orientation;
        let length = u16::try_from(exif.len() + 2).unwrap().to_be_bytes();
        [&jpeg[..2], &[0xff, 0xe1], &length, &exif, &jpeg[2..]].concat()
    }

    #[test]
    fn the_longest_side_is_bounded_and_nothing_is_enlarged() {
        for (size, expected) in [
            ((1024, 768), (384, 288)),
            ((768, 1024), (288, 384)),
            ((500, 400), (384, 307)),
            ((384, 384), (384, 384)),
            ((64, 40), (64, 40)),
            ((4000, 3), (384, 1)),
        ] {
            for format in [ImageFormat::Png, ImageFormat::WebP] {
                let small = render(&encoded(&halves(size.0, size.1), format));
                assert_eq!(small.dimensions(), expected, "{size:?}");
            }
        }
    }

    #[test]
    fn every_color_type_has_a_thumbnail_and_transparency_stays() {
        let image = halves(600, 600);
        let opaque = [
            image.to_luma8().into(),
            image.to_rgb8().into(),
            image.to_luma16().into(),
            image.to_rgb16().into(),
        ];
        for image in opaque as [DynamicImage; 4] {
            let small = render(&encoded(&image, ImageFormat::Png));
            assert!(!small.color().has_alpha() && small.width() == 384, "{:?}", image.color());
        }
        let clear: DynamicImage = RgbaImage::from_pixel(600, 600, Rgba([9, 9, 9, 0])).into();
        for image in [clear.to_rgba8().into(), clear.to_rgba16().into(), clear.to_luma_alpha8().into()]
            as [DynamicImage; 3]
        {
            let small = render(&encoded(&image, ImageFormat::Png));
            assert_eq!(small.get_pixel(5, 5)[3], 0, "{:?}", image.color());
        }
    }

    #[test]
    fn it_is_upright() {
        let jpeg = encoded(&halves(800, 400).to_rgb8().into(), ImageFormat::Jpeg);
        let is_red = |image: &DynamicImage, x, y| image.get_pixel(x, y)[0] > image.get_pixel(x, y)[2];
        let as_is = render(&jpeg);
        assert_eq!(
            (as_is.dimensions(), is_red(&as_is, 20, 90), is_red(&as_is, 360, 90)),
            ((384, 192), true, false)
        );
        let turned = render(&with_orientation(&jpeg, 6));
        assert_eq!(turned.dimensions(), (192, 384));
        assert!(is_red(&turned, 90, 20) && !is_red(&turned, 90, 360), "what was left is above");
        let upside_down = render(&with_orientation(&jpeg, 3));
        assert!(!is_red(&upside_down, 20, 90) && is_red(&upside_down, 360, 90));
    }

    #[test]
    fn damaged_and_huge_images_have_none() {
        let png = encoded(&halves(100, 100), ImageFormat::Png);
        let mut huge = png.clone();
        huge[16..24].copy_from_slice(&[0, 0, 0x20, 0, 0, 0, 0x20, 0]);
        let damaged = [b"<svg/>".as_slice(), b"", &png[..png.len() / 2], &huge];
        assert!(damaged.iter().all(|bytes| decode(Cursor::new(bytes)).is_err()));
    }
}
