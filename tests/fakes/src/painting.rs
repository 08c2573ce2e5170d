//! How both fake engines compute images. Nothing is sampled: a picture is painted from prompt, seed and size and from a
//! digest of everything else that its sampler was given, so that whatever the graph brings to it can be seen in it.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use bytes::Bytes;
use image::{
    DynamicImage, GrayImage, Luma, RgbImage,
    imageops::{self, FilterType},
};
use picture::painter::ProceduralImage;
use wire::openai::images::ImageSize;

/// What a node gives to others.
#[derive(Debug, Clone, Default)]
pub(crate) struct Signal {
    /// Of all that had a part in it.
    pub(crate) digest: u64,
    /// A picture, or what a latent was encoded from.
    pub(crate) image: Option<Arc<RgbImage>>,
    /// A mask, or where a latent may change: white.
    pub(crate) mask: Option<Arc<GrayImage>>,
    /// Of a latent without a picture.
    pub(crate) size: Option<(u32, u32)>,
    /// The prompt that it was encoded from.
    pub(crate) text: String,
}

impl Signal {
    pub(crate) fn of_image(image: RgbImage) -> Self {
        Self { digest: digest(image.as_raw()), image: Some(Arc::new(image)), ..Self::default() }
    }

    pub(crate) fn of_mask(mask: GrayImage) -> Self {
        Self { digest: digest(mask.as_raw()), mask: Some(Arc::new(mask)), ..Self::default() }
    }

    /// The pixels, or those of the size.
    pub(crate) fn dimensions(&self) -> Option<(u32, u32)> {
        self.image.as_ref().map(|image| image.dimensions()).or(self.size)
    }
}

pub(crate) fn digest(parts: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    hasher.finish()
}

pub(crate) fn decode(bytes: &[u8]) -> DynamicImage {
    image::load_from_memory(bytes).expect("the engine was sent images")
}

pub(crate) fn scaled(image: &RgbImage, (width, height): (u32, u32)) -> RgbImage {
    if image.dimensions() == (width, height) {
        return image.clone();
    }
    imageops::resize(image, width.max(1), height.max(1), FilterType::Nearest)
}

pub(crate) fn inverted(mask: &GrayImage) -> GrayImage {
    GrayImage::from_fn(mask.width(), mask.height(), |x, y| Luma([255 - mask.get_pixel(x, y)[0]]))
}

/// What is left of a picture that went through a VAE: sides that are multiples, and no pixel as it was.
pub(crate) fn encoded(image: &RgbImage, multiple: u32) -> RgbImage {
    let cut = |pixels: u32| (pixels / multiple * multiple).max(multiple).min(pixels);
    let mut image = imageops::crop_imm(image, 0, 0, cut(image.width()), cut(image.height())).to_image();
    image.iter_mut().for_each(|value| *value ^= 1);
    image
}

/// What a sampler was told.
#[derive(Debug)]
pub(crate) struct Sampling<'a> {
    pub(crate) label: &'a str,
    pub(crate) prompt: &'a str,
    pub(crate) seed: u64,
    /// Of everything that it was given.
    pub(crate) digest: u64,
    /// How much of the latent's picture is replaced, from 0 to 1.
    pub(crate) strength: f64,
}

impl Sampling<'_> {
    /// The picture in the latent afterwards. Where the latent's mask is black it stays.
    pub(crate) fn of(&self, latent: &Signal) -> RgbImage {
        let (width, height) = latent.dimensions().unwrap_or((512, 512));
        let prompt = format!("{} {:08x}", self.prompt, self.digest >> 32);
        let size = ImageSize::new(width, height);
        let painting = ProceduralImage { label: self.label, prompt: &prompt, seed: self.seed, size };
        let mut painted = decode(&painting.to_png()).into_rgb8();
        let Some(before) = &latent.image else { return painted };
        let mask = latent.mask.as_ref().map(|mask| fitted(mask, (width, height)));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 256")]
        let share = (self.strength.clamp(0.0, 1.0) * 256.0) as u16;
        for (x, y, pixel) in painted.enumerate_pixels_mut() {
            let old = before.get_pixel(x, y);
            let stays = mask.as_ref().is_some_and(|mask| mask.get_pixel(x, y)[0] < 128);
            let share = if stays { 0 } else { share };
            for (new, old) in pixel.0.iter_mut().zip(old.0) {
                let mixed = (u16::from(*new) * share + u16::from(old) * (256 - share)) / 256;
                *new = u8::try_from(mixed.min(255)).expect("just limited");
            }
        }
        painted
    }
}

/// The destination, with the source put where the mask is white.
pub(crate) fn pasted(destination: &RgbImage, source: &RgbImage, mask: Option<&GrayImage>) -> RgbImage {
    let mut result = destination.clone();
    let mask = mask.map(|mask| fitted(mask, source.dimensions()));
    for (x, y, pixel) in result.enumerate_pixels_mut() {
        let is_inside = x < source.width() && y < source.height();
        if is_inside && mask.as_ref().is_none_or(|mask| mask.get_pixel(x, y)[0] >= 128) {
            *pixel = *source.get_pixel(x, y);
        }
    }
    result
}

/// Two pictures in one, the second at the first one's height.
pub(crate) fn beside(left: &RgbImage, right: &RgbImage) -> RgbImage {
    let right = scaled(right, (right.width() * left.height() / right.height().max(1), left.height()));
    let mut both = RgbImage::new(left.width() + right.width(), left.height());
    imageops::replace(&mut both, left, 0, 0);
    imageops::replace(&mut both, &right, i64::from(left.width()), 0);
    both
}

fn fitted(mask: &GrayImage, (width, height): (u32, u32)) -> GrayImage {
    if mask.dimensions() == (width, height) {
        return mask.clone();
    }
    imageops::resize(mask, width, height, FilterType::Nearest)
}

/// A PNG, with a text that the engine writes into it.
pub(crate) fn encode(image: &RgbImage, text: Option<(&str, &str)>) -> Bytes {
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
