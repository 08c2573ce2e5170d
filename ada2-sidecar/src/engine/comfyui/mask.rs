//! A mask as ComfyUI reads it without loss. Pure.

use std::io::Cursor;

use bytes::Bytes;
use image::ImageFormat;

use crate::engine::EngineError;

/// The same mask in colour. ComfyUI (0.33) reads a grey file through a conversion that makes white a little less than 1,
/// and every pixel that is to be kept a little darker; one in colour it reads as it is.
pub(super) fn to_rgb_png(png: &[u8]) -> Result<Bytes, EngineError> {
    let fault = |error| EngineError::Failed(format!("the mask cannot be converted: {error}"));
    let mask = image::load_from_memory_with_format(png, ImageFormat::Png).map_err(fault)?;
    let mut bytes = Vec::new();
    mask.into_rgb8().write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).map_err(fault)?;
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use image::{ColorType, DynamicImage, GrayImage};

    use super::*;

    #[test]
    fn it_says_the_same_in_colour() {
        let grey = GrayImage::from_fn(4, 2, |x, y| image::Luma([if x > y { 255 } else { 0 }]));
        let mut png = Vec::new();
        DynamicImage::ImageLuma8(grey.clone())
            .write_to(&mut Cursor::new(&mut png), ImageFormat::Png)
            .unwrap();
        let coloured = image::load_from_memory(&to_rgb_png(&png).unwrap()).unwrap();
        assert_eq!(coloured.color(), ColorType::Rgb8);
        assert_eq!(coloured.into_luma8(), grey);
        assert!(to_rgb_png(b"GIF89a").is_err());
    }
}
