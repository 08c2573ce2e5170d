//! Draws placeholder images that depend only on prompt, seed and size, and say that no model made them. For the sidecar's
//! builtin engine and the gateway's mock.

use font8x8::{BASIC_FONTS, UnicodeFonts};

use wire::openai::images::ImageSize;

/// A placeholder image.
#[derive(Debug, Clone, Copy)]
pub struct ProceduralImage<'a> {
    /// Its maker, for the first line of the caption, for example `ada2-sidecar builtin engine`.
    pub label: &'a str,
    /// Determines colours and waves, together with the seed.
    pub prompt: &'a str,
    /// Same prompt, seed and size: same bytes.
    pub seed: u64,
    /// Pixels.
    pub size: ImageSize,
}

impl ProceduralImage<'_> {
    /// Draws it, as a PNG.
    pub fn to_png(self) -> Vec<u8> {
        let mut canvas = Canvas::waves(self.size, mix(self.seed, self.prompt.as_bytes()));
        let prompt: String = self.prompt.split_whitespace().collect::<Vec<_>>().join(" ");
        let lines = [
            format!("{}: no model made this", self.label),
            prompt,
            format!("seed {} size {}", self.seed, self.size),
        ];
        canvas.caption(&lines);
        canvas.to_png()
    }
}

struct Canvas {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
}

impl Canvas {
    /// Interfering waves per colour channel: horizontal, vertical and diagonal. Each depends on one coordinate only, so three
    /// tables of sines per channel are enough and a megapixel takes milliseconds.
    fn waves(size: ImageSize, mut state: u64) -> Self {
        let (width, height) = (size.width as usize, size.height as usize);
        let mut rgb = vec![0; width * height * 3];
        for channel in 0..3 {
            let across = wave(width, &mut state);
            let down = wave(height, &mut state);
            let along = wave(width + height, &mut state);
            for (y, row) in rgb.chunks_exact_mut(width * 3).enumerate() {
                for (x, pixel) in row.chunks_exact_mut(3).enumerate() {
                    pixel[channel] = shade(across[x] * down[y] + along[x + y] * 0.5);
                }
            }
        }
        Self { width, height, rgb }
    }

    /// White text on a dark band at the bottom, scaled to the image and clipped at its edge.
    fn caption(&mut self, lines: &[String]) {
        let scale = (self.width / 320).clamp(1, 4);
        let line = 10 * scale;
        let band = (lines.len() * line + 4 * scale).min(self.height);
        let top = self.height - band;
        for value in &mut self.rgb[top * self.width * 3..] {
            *value /= 4;
        }
        for (row, text) in lines.iter().enumerate() {
            for (column, ch) in text.chars().enumerate() {
                self.draw_glyph(ch, 4 * scale + column * 8 * scale, top + 3 * scale + row * line, scale);
            }
        }
    }

    fn draw_glyph(&mut self, ch: char, left: usize, top: usize, scale: usize) {
        let glyph = BASIC_FONTS.get(ch).or_else(|| BASIC_FONTS.get('?')).unwrap_or_default();
        for y in 0..8 * scale {
            for x in 0..8 * scale {
                let (x_at, y_at) = (left + x, top + y);
                let ink = glyph[y / scale] >> (x / scale) & 1 == 1;
                if ink && x_at < self.width && y_at < self.height {
                    let at = (y_at * self.width + x_at) * 3;
                    self.rgb[at..at + 3].fill(255);
                }
            }
        }
    }

    fn to_png(&self) -> Vec<u8> {
        let side = |pixels: usize| u32::try_from(pixels).expect("made from two u32");
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, side(self.width), side(self.height));
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::Fast);
        encoder
            .write_header()
            .and_then(|mut writer| writer.write_image_data(&self.rgb))
            .expect("writing to a Vec cannot fail, and the buffer has the header's size");
        bytes
    }
}

/// A table of waves along one axis, from -1 to 1.
#[expect(clippy::cast_precision_loss, reason = "colours, not arithmetic")]
fn wave(length: usize, state: &mut u64) -> Vec<f32> {
    let mut pick =
        |low: f32, high: f32| low + (next(state) >> 40) as f32 / (1u64 << 24) as f32 * (high - low);
    let (slow, fast, phase, share) = (pick(2.0, 9.0), pick(9.0, 30.0), pick(0.0, 6.0), pick(0.2, 0.6));
    (0..length)
        .map(|at| {
            let at = at as f32 / length as f32;
            (at * slow + phase).sin() * (1.0 - share) + (at * fast + phase).sin() * share
        })
        .collect()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to a byte's range")]
fn shade(level: f32) -> u8 {
    (127.5 + level * 100.0).clamp(0.0, 255.0) as u8
}

/// FNV-1a of the prompt, then one round of SplitMix64 with the seed.
fn mix(seed: u64, prompt: &[u8]) -> u64 {
    let hash = prompt.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    let mut state = hash ^ seed;
    next(&mut state)
}

/// SplitMix64: the image must be the same in every version, which no random-number library promises.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut value = *state;
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Format;

    fn paint(prompt: &str, seed: u64, size: ImageSize) -> Vec<u8> {
        ProceduralImage { label: "test", prompt, seed, size }.to_png()
    }

    #[test]
    fn the_same_request_gives_the_same_bytes_and_another_does_not() {
        let first = paint("a red cat", 7, ImageSize::new(64, 64));
        assert_eq!(first, paint("a red cat", 7, ImageSize::new(64, 64)));
        for other in [
            paint("a red cat", 8, ImageSize::new(64, 64)),
            paint("a blue cat", 7, ImageSize::new(64, 64)),
            paint("a red cat", 7, ImageSize::new(64, 72)),
        ] {
            assert_ne!(first, other);
        }
    }

    #[test]
    fn every_size_is_a_complete_png_even_if_the_caption_does_not_fit() {
        for size in
            [ImageSize::new(8, 8), ImageSize::new(1024, 16), ImageSize::new(16, 1024), ImageSize::new(1, 1)]
        {
            assert_eq!(Format::detect(&paint("größer \u{1f600}", 1, size)), Ok(Format::Png), "{size}");
        }
    }
}
