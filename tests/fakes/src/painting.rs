//! The images of both fake engines: painted from prompt, seed and size. An edit shows its source, all of it mixed with
//! the painting, or with a mask the painting only where the mask is black.

use bytes::Bytes;
use image::{DynamicImage, GrayImage, RgbImage};
use picture::painter::ProceduralImage;

/// What an edit starts from.
#[derive(Debug)]
pub(crate) struct EditSource {
    pub(crate) image: RgbImage,
    pub(crate) mask: Option<GrayImage>,
}

impl EditSource {
    pub(crate) fn decode(image: &[u8], mask: Option<&[u8]>) -> Self {
        let decode = |bytes: &[u8]| -> DynamicImage { image::load_from_memory(bytes).expect("an image") };
        Self { image: decode(image).into_rgb8(), mask: mask.map(|mask| decode(mask).into_luma8()) }
    }
}

/// The image of a job as PNG, with a text that the engine writes into it.
pub(crate) fn paint(
    painting: ProceduralImage<'_>,
    source: Option<EditSource>,
    text: Option<(&str, &str)>,
) -> Bytes {
    let painted = painting.to_png();
    if source.is_none() && text.is_none() {
        return painted.into();
    }
    let painted = image::load_from_memory(&painted).expect("the painter's own image").into_rgb8();
    encode(&source.map_or(painted.clone(), |source| edited(source, &painted)), text)
}

fn edited(EditSource { mut image, mask }: EditSource, painted: &RgbImage) -> RgbImage {
    for (x, y, pixel) in image.enumerate_pixels_mut() {
        let new = painted.get_pixel(x, y);
        match &mask {
            Some(mask) if mask.get_pixel(x, y)[0] == 0 => *pixel = *new,
            Some(_) => {}
            None => pixel.0 = std::array::from_fn(|channel| pixel[channel] / 2 + new[channel] / 2),
        }
    }
    image
}

fn encode(image: &RgbImage, text: Option<(&str, &str)>) -> Bytes {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, image.width(), image.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_compression(png::Compression::Fast);
    if let Some((keyword, text)) = text {
        let ascii = text.replace(|char: char| !char.is_ascii(), "?");
        encoder.add_text_chunk(keyword.to_owned(), ascii).expect("ASCII under a short keyword");
    }
    let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(image));
    written.expect("memory takes every byte");
    bytes.into()
}
