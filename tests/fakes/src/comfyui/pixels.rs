//! Pictures as pixels: reading what was uploaded, mixing, and writing what was painted.

use std::io::Cursor;

use bytes::Bytes;
use picture::{Format, painter::ProceduralImage};
use wire::openai::images::ImageSize;

/// A picture, 8 bits per channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pixels {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) rgb: Vec<[u8; 3]>,
    /// None for a picture without transparency.
    pub(super) alpha: Option<Vec<u8>>,
}

/// 255 where the picture is to be painted anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mask {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) values: Vec<u8>,
}

impl Mask {
    pub(super) fn inverted(self) -> Self {
        Self { values: self.values.iter().map(|value| 255 - value).collect(), ..self }
    }

    /// In grey.
    pub(super) fn shown(self) -> Pixels {
        let rgb = self.values.iter().map(|value| [*value; 3]).collect();
        Pixels { width: self.width, height: self.height, rgb, alpha: None }
    }

    /// The nearest value as if the mask were stretched to that size.
    fn stretched(&self, size: (u32, u32), x: u32, y: u32) -> u8 {
        self.values[(y * self.height / size.1 * self.width + x * self.width / size.0) as usize]
    }
}

impl Pixels {
    pub(super) fn plain(width: u32, height: u32, colour: [u8; 3]) -> Self {
        Self { width, height, rgb: vec![colour; (width * height) as usize], alpha: None }
    }

    pub(super) fn paint(prompt: &str, seed: u64, width: u32, height: u32) -> Self {
        let painting =
            ProceduralImage { label: "fake ComfyUI", prompt, seed, size: ImageSize::new(width, height) };
        Self::read(&Bytes::from(painting.to_png())).expect("the painter's own picture")
    }

    /// PNG whole; JPEG and WebP only in size, grey all over. None if it is no picture.
    pub(super) fn read(bytes: &Bytes) -> Option<Self> {
        match Format::detect(bytes).ok()? {
            Format::Png => Self::read_png(bytes),
            Format::Jpeg => jpeg_size(bytes).map(|(width, height)| Self::plain(width, height, [128; 3])),
            Format::Webp => webp_size(bytes).map(|(width, height)| Self::plain(width, height, [128; 3])),
        }
    }

    fn read_png(bytes: &Bytes) -> Option<Self> {
        let mut decoder = png::Decoder::new(Cursor::new(bytes));
        decoder.set_transformations(png::Transformations::normalize_to_color8());
        let mut reader = decoder.read_info().ok()?;
        let mut raw = vec![0; reader.output_buffer_size()?];
        let frame = reader.next_frame(&mut raw).ok()?;
        let samples = frame.color_type.samples();
        let (mut rgb, mut alpha) = (Vec::new(), Vec::new());
        for pixel in raw[..frame.buffer_size()].chunks_exact(samples) {
            rgb.push(if samples < 3 { [pixel[0]; 3] } else { [pixel[0], pixel[1], pixel[2]] });
            alpha.extend(pixel.get(samples - 1).filter(|_| samples % 2 == 0));
        }
        let alpha = (!alpha.is_empty()).then_some(alpha);
        Some(Self { width: frame.width, height: frame.height, rgb, alpha })
    }

    /// RGB, with these text chunks.
    pub(super) fn to_png(&self, texts: &[(String, String)]) -> Bytes {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.width, self.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::Fast);
        for (keyword, text) in texts {
            encoder.add_text_chunk(keyword.clone(), ascii(text)).expect("a short keyword");
        }
        encoder
            .write_header()
            .and_then(|mut writer| writer.write_image_data(self.rgb.as_flattened()))
            .expect("a Vec takes every byte, and the buffer has the size that the header says");
        Bytes::from(bytes)
    }

    /// What a VAE makes of it: sides cut down to a multiple of 8, and no pixel exactly as it was.
    pub(super) fn through_vae(&self) -> Self {
        let (width, height) = (self.width / 8 * 8, self.height / 8 * 8);
        let mut through = Self::plain(width, height, [0; 3]);
        for y in 0..height {
            for x in 0..width {
                through.rgb[(y * width + x) as usize] = self.at(x, y).map(|level| level ^ 1);
            }
        }
        through
    }

    fn at(&self, x: u32, y: u32) -> [u8; 3] {
        self.rgb[(y * self.width + x) as usize]
    }

    /// Lays another picture over this one: fully at strength 1, and only where the mask says. What hangs over the
    /// edge is cut off.
    pub(super) fn under(
        &self,
        over: &Self,
        (left, top): (u32, u32),
        strength: f64,
        mask: Option<&Mask>,
    ) -> Self {
        let mut mixed = Self { alpha: None, ..self.clone() };
        for y in 0..over.height.min(self.height.saturating_sub(top)) {
            for x in 0..over.width.min(self.width.saturating_sub(left)) {
                let masked = mask.map_or(255, |mask| mask.stretched((over.width, over.height), x, y));
                let share = strength * f64::from(masked) / 255.0;
                let (low, high) = (self.at(left + x, top + y), over.at(x, y));
                let pixel = std::array::from_fn(|channel| mix(low[channel], high[channel], share));
                mixed.rgb[((top + y) * self.width + left + x) as usize] = pixel;
            }
        }
        mixed
    }

    /// The nearest pixels, stretched.
    pub(super) fn stretched(&self, width: u32, height: u32) -> Self {
        let mut stretched = Self::plain(width, height, [0; 3]);
        for y in 0..height {
            for x in 0..width {
                let pixel = self.at(x * self.width / width, y * self.height / height);
                stretched.rgb[(y * width + x) as usize] = pixel;
            }
        }
        stretched
    }

    /// One channel as a mask. Transparent is 255, other channels are taken as they are; without transparency the
    /// real server gives 64x64 zeros, whatever the size.
    pub(super) fn channel(&self, name: &str) -> Mask {
        let (width, height) = (self.width, self.height);
        let index = match (name, &self.alpha) {
            ("red", _) => 0,
            ("green", _) => 1,
            ("blue", _) => 2,
            (_, Some(alpha)) => {
                return Mask { width, height, values: alpha.iter().map(|alpha| 255 - alpha).collect() };
            }
            (_, None) => return Mask { width: 64, height: 64, values: vec![0; 64 * 64] },
        };
        Mask { width, height, values: self.rgb.iter().map(|pixel| pixel[index]).collect() }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between two bytes")]
fn mix(low: u8, high: u8, share: f64) -> u8 {
    (f64::from(low) * (1.0 - share) + f64::from(high) * share).round() as u8
}

/// As Python's `json.dumps` writes it, which is why the real chunk is always a plain `tEXt`.
fn ascii(text: &str) -> String {
    let mut plain = String::new();
    for ch in text.chars() {
        if ch.is_ascii() {
            plain.push(ch);
        } else {
            let units = ch.encode_utf16(&mut [0; 2]).to_vec();
            plain.extend(units.iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    plain
}

/// From the first frame header; the bytes are known to be whole.
fn jpeg_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let mut at = 2;
    loop {
        let [_, marker, high, low, _, h1, h0, w1, w0] = *bytes.get(at..at + 9)?.first_chunk()?;
        let side = |high, low| u32::from(u16::from_be_bytes([high, low]));
        if matches!(marker, 0xC0..=0xC2) {
            return Some((side(w1, w0), side(h1, h0)));
        }
        at += 2 + usize::from(u16::from_be_bytes([high, low]));
    }
}

/// From the first chunk, whichever of the three kinds it is.
fn webp_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let number = |at: usize| {
        let raw = *bytes.get(at..at + 4)?.first_chunk()?;
        Some(u32::from_le_bytes(raw))
    };
    match bytes.get(12..16)? {
        b"VP8X" => Some(((number(24)? & 0xFF_FFFF) + 1, (number(26)? >> 8) + 1)),
        b"VP8L" => Some(((number(21)? & 0x3FFF) + 1, (number(21)? >> 14 & 0x3FFF) + 1)),
        _ => Some((number(26)? & 0x3FFF, number(26)? >> 16 & 0x3FFF)),
    }
}
