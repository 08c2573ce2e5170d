//! Runs a workflow on pixels: loading, masking, scaling and pasting are done; models and texts only leave a digest.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use image::{DynamicImage, GrayImage, Luma, RgbImage};
use serde_json::Value;

use super::{
    declarations, files,
    graph::{self, link},
};
use crate::painting::{Sampling, Signal, beside, decode, digest, encoded, inverted, pasted, scaled};

/// A workflow that runs.
pub(super) struct Evaluation<'a> {
    graph: &'a Value,
    files: &'a BTreeMap<String, Bytes>,
    done: HashMap<&'a str, Vec<Signal>>,
}

/// What a node is given.
struct Given<'a> {
    class: &'a str,
    values: Vec<(String, &'a Value)>,
    signals: Vec<Signal>,
}

impl<'a> Given<'a> {
    fn signal(&self, name: &str) -> Signal {
        let at = self.values.iter().position(|(given, _)| given == name);
        at.map_or_else(Signal::default, |at| self.signals[at].clone())
    }

    fn image(&self, name: &str) -> Arc<RgbImage> {
        self.signal(name).image.unwrap_or_default()
    }

    fn value(&self, name: &str) -> &'a Value {
        self.values.iter().find(|(given, _)| given == name).map_or(&Value::Null, |(_, value)| *value)
    }

    fn text(&self, name: &str) -> &'a str {
        self.value(name).as_str().unwrap_or_default()
    }

    fn side(&self, name: &str) -> u32 {
        self.value(name).as_u64().and_then(|pixels| u32::try_from(pixels).ok()).unwrap_or(512)
    }

    /// Of all inputs but those that are not used: at a cfg of 1 the negative one.
    fn digest(&self) -> u64 {
        let is_used = |name: &str| name != "negative" || self.value("cfg") != 1.0;
        let inputs = self.values.iter().zip(&self.signals).filter(|((name, _), _)| is_used(name));
        let inputs: Vec<_> = inputs.map(|((name, _), signal)| (name, signal.digest)).collect();
        digest((self.class, inputs))
    }
}

impl<'a> Evaluation<'a> {
    pub(super) fn of(graph: &'a Value, files: &'a BTreeMap<String, Bytes>) -> Self {
        Self { graph, files, done: HashMap::new() }
    }

    /// The picture that an output node gets.
    pub(super) fn picture(&mut self, output: &'a str) -> Arc<RgbImage> {
        self.given(output).image("images")
    }

    fn given(&mut self, id: &'a str) -> Given<'a> {
        let values = graph::inputs(self.graph, id);
        let signals = values.iter().map(|(name, value)| match link(value) {
            Some((source, slot)) => self.node(source).get(slot).cloned().unwrap_or_default(),
            None => plain(name, value),
        });
        let signals = signals.collect();
        Given { class: graph::class(self.graph, id), values, signals }
    }

    /// What the node gives, by slot.
    fn node(&mut self, id: &'a str) -> Vec<Signal> {
        if let Some(done) = self.done.get(id) {
            return done.clone();
        }
        let given = self.given(id);
        let signals = match given.class {
            "LoadImage" | "LoadImageMask" => self.load(&given),
            "KSampler" | "KSamplerAdvanced" | "SamplerCustomAdvanced" => {
                let sampled = self.sample(id, &given);
                // The second output of one of them is the same without its last noise.
                vec![sampled.clone(), sampled]
            }
            _ => computed(&given).map_or_else(|| passed_on(&given), |signal| vec![signal]),
        };
        self.done.insert(id, signals.clone());
        signals
    }

    fn load(&self, given: &Given<'_>) -> Vec<Signal> {
        let Some(bytes) = self.files.get(&files::annotated(given.text("image"))) else {
            return Vec::new();
        };
        let image = decode(bytes);
        if given.class == "LoadImageMask" {
            return vec![Signal::of_mask(channel(&image, given.text("channel")))];
        }
        let alpha = if image.color().has_alpha() { channel(&image, "alpha") } else { GrayImage::new(64, 64) };
        vec![Signal::of_image(image.into_rgb8()), Signal::of_mask(alpha)]
    }

    fn sample(&self, id: &str, given: &Given<'_>) -> Signal {
        let of = [id.to_owned()];
        let number = |name| graph::value(self.graph, &of, name);
        let guider = given.signal("guider").text;
        let prompt = if guider.is_empty() { given.signal("positive").text } else { guider };
        let sampling = Sampling {
            label: "fake ComfyUI",
            prompt: &prompt,
            seed: number("seed").or_else(|| number("noise_seed")).and_then(Value::as_u64).unwrap_or(0),
            digest: given.digest(),
            strength: number("denoise").and_then(Value::as_f64).unwrap_or(1.0),
        };
        Signal::of_image(sampling.of(&given.signal("latent_image")))
    }
}

/// A value of the node's own. Only prompts are read as text.
fn plain(name: &str, value: &Value) -> Signal {
    let is_prompt = matches!(name, "text" | "prompt" | "text_g" | "t5xxl");
    let text = value.as_str().filter(|_| is_prompt).unwrap_or_default().to_owned();
    Signal { digest: digest(value.to_string()), text, ..Signal::default() }
}

/// 255 where a mask is 1. The alpha channel counts from the other end.
fn channel(image: &DynamicImage, name: &str) -> GrayImage {
    let image = image.to_rgba8();
    GrayImage::from_fn(image.width(), image.height(), |x, y| {
        let [red, green, blue, alpha] = image.get_pixel(x, y).0;
        Luma([match name {
            "red" => red,
            "green" => green,
            "blue" => blue,
            _ => 255 - alpha,
        }])
    })
}

/// What the nodes give that change pixels.
fn computed(given: &Given<'_>) -> Option<Signal> {
    let image = |image| Some(Signal::of_image(image));
    match given.class {
        "EmptyLatentImage" | "EmptySD3LatentImage" | "EmptyFlux2LatentImage" => {
            let multiple = if given.class == "EmptyFlux2LatentImage" { 16 } else { 8 };
            let cut = |pixels: u32| (pixels / multiple * multiple).max(multiple);
            let size = Some((cut(given.side("width")), cut(given.side("height"))));
            Some(Signal { digest: given.digest(), size, ..Signal::default() })
        }
        "VAEEncode" => image(encoded(&given.image("pixels"), 8)),
        "VAEDecode" | "VAEDecodeTiled" => Some(given.signal("samples")),
        "SetLatentNoiseMask" => {
            let mask = given.signal("mask").mask;
            Some(Signal { digest: given.digest(), mask, ..given.signal("samples") })
        }
        "VAEEncodeForInpaint" => {
            let mask = given.signal("mask").mask;
            Some(Signal { mask, ..Signal::of_image(encoded(&given.image("pixels"), 8)) })
        }
        "InvertMask" => Some(Signal::of_mask(inverted(&given.signal("mask").mask.unwrap_or_default()))),
        "ImageScale" => image(scaled(&given.image("image"), (given.side("width"), given.side("height")))),
        "ImageScaleToTotalPixels" => {
            let megapixels = given.value("megapixels").as_f64().unwrap_or(1.0);
            image(of_pixels(&given.image("image"), megapixels * 1024.0 * 1024.0, 1))
        }
        "FluxKontextImageScale" => image(of_pixels(&given.image("image"), 1024.0 * 1024.0, 16)),
        "ImageStitch" => {
            let (first, second) = (given.image("image1"), given.signal("image2").image);
            let is_left = given.text("direction") == "left";
            image(second.map_or_else(
                || (*first).clone(),
                |second| if is_left { beside(&second, &first) } else { beside(&first, &second) },
            ))
        }
        "ImageCompositeMasked" => {
            let mask = given.signal("mask").mask;
            image(pasted(&given.image("destination"), &given.image("source"), mask.as_deref()))
        }
        _ => None,
    }
}

/// In about so many pixels, with the sides' ratio.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "sides of an image")]
fn of_pixels(image: &RgbImage, pixels: f64, multiple: u32) -> RgbImage {
    let (width, height) = image.dimensions();
    let scale = (pixels / (f64::from(width) * f64::from(height))).sqrt();
    let side = |side: u32| ((f64::from(side) * scale).round() as u32 / multiple * multiple).max(multiple);
    scaled(image, (side(width), side(height)))
}

/// Every other node: each output is the input of its type in the same place, with this node's part in its digest.
fn passed_on(given: &Given<'_>) -> Vec<Signal> {
    let Some(about) = declarations::class(given.class) else { return Vec::new() };
    let types: Vec<_> = declarations::inputs(about, &Value::Null)
        .into_iter()
        .filter_map(|input| Some((input.name, input.spec[0].as_str()?.to_owned())))
        .collect();
    let outputs = about["output"].as_array().map(Vec::as_slice).unwrap_or_default();
    let made = |(slot, output): (usize, &Value)| {
        let of_type = types.iter().filter(|(_, kind)| output == kind).map(|(name, _)| given.signal(name));
        let before = outputs[..slot].iter().filter(|other| *other == output).count();
        let of_type: Vec<_> = of_type.collect();
        let from = of_type.get(before).or(of_type.last()).cloned();
        let mut signal = from.unwrap_or_else(|| source_of(given, output));
        if signal.text.is_empty() && given.class != "ConditioningZeroOut" {
            let text = given.signals.iter().find(|signal| !signal.text.is_empty());
            signal.text = text.map(|signal| signal.text.clone()).unwrap_or_default();
        }
        signal.digest = digest((given.digest(), slot));
        signal
    };
    outputs.iter().enumerate().map(made).collect()
}

/// A latent that a node makes of pictures itself has the size of the first; without any it is square.
fn source_of(given: &Given<'_>, output: &Value) -> Signal {
    if output != "LATENT" {
        return Signal::default();
    }
    let picture = given.signals.iter().find_map(|signal| signal.image.clone());
    let side = given.value("resolution").as_u64().and_then(|side| u32::try_from(side).ok()).unwrap_or(1024);
    let Some(picture) = picture else {
        return Signal { size: Some((side, side)), ..Signal::default() };
    };
    if given.class == "InpaintModelConditioning" {
        let image = Some(Arc::new(encoded(&picture, 8)));
        let mask = given.signal("mask").mask;
        return Signal { image, mask, ..Signal::default() };
    }
    let pixels = if side == 0 {
        f64::from(picture.width()) * f64::from(picture.height())
    } else {
        f64::from(side).powi(2)
    };
    Signal { size: Some(of_pixels(&picture, pixels, 32).dimensions()), ..Signal::default() }
}
