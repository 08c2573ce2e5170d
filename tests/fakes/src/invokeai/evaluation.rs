//! Runs a graph on pixels: scaling, masking and pasting are done; models and texts only leave a digest.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use image::{DynamicImage, GrayImage, RgbImage};
use serde_json::Value;

use super::graph;
use crate::painting::{Sampling, Signal, decode, digest, encoded, inverted, pasted, scaled};

/// A graph that runs.
pub(super) struct Evaluation<'a> {
    graph: &'a Value,
    images: &'a BTreeMap<String, Bytes>,
    done: HashMap<&'a str, Signal>,
}

/// What a node is given.
struct Given<'a> {
    kind: &'a str,
    node: &'a Value,
    signals: BTreeMap<&'static str, Vec<Signal>>,
}

impl Given<'_> {
    fn signal(&self, field: &str) -> Signal {
        self.signals.get(field).and_then(|signals| signals.first()).cloned().unwrap_or_default()
    }

    fn image(&self, field: &str) -> Arc<RgbImage> {
        self.signal(field).image.unwrap_or_default()
    }

    fn side(&self, field: &str) -> Option<u32> {
        self.node[field].as_u64().and_then(|pixels| u32::try_from(pixels).ok())
    }

    fn size(&self) -> Option<(u32, u32)> {
        self.side("width").zip(self.side("height"))
    }

    /// At a guidance of 1 the negative conditioning is not used.
    fn digest(&self) -> u64 {
        let guidance = ["cfg_scale", "guidance_scale"].into_iter().find_map(|name| self.node[name].as_f64());
        let is_used = |field: &str| !field.starts_with("negative_") || guidance != Some(1.0);
        let signals = self.signals.iter().filter(|(field, _)| is_used(field));
        let signals: Vec<_> = signals
            .map(|(field, signals)| (field, signals.iter().map(|signal| signal.digest).collect::<Vec<_>>()))
            .collect();
        digest((self.kind, signals))
    }
}

impl<'a> Evaluation<'a> {
    pub(super) fn of(graph: &'a Value, images: &'a BTreeMap<String, Bytes>) -> Self {
        Self { graph, images, done: HashMap::new() }
    }

    /// The picture; a graph without one gives a black square.
    pub(super) fn picture(&mut self) -> Arc<RgbImage> {
        let made = graph::last(self.graph).and_then(|last| self.node(last).image);
        made.unwrap_or_else(|| Arc::new(RgbImage::new(8, 8)))
    }

    /// What the node gives: none of those that matter here gives two different things.
    fn node(&mut self, id: &'a str) -> Signal {
        if let Some(done) = self.done.get(id) {
            return done.clone();
        }
        let kind = graph::kind(self.graph, id);
        let node = &self.graph["nodes"][id];
        let mut signals = BTreeMap::new();
        for field in graph::fields(kind) {
            signals.insert(field, self.field(id, node, field));
        }
        let signal = self.made(&Given { kind, node, signals });
        self.done.insert(id, signal.clone());
        signal
    }

    /// What edges bring, or else the node's own value.
    fn field(&mut self, id: &'a str, node: &Value, field: &'static str) -> Vec<Signal> {
        let graph = self.graph;
        let brought: Vec<Signal> = graph::sources(graph, id, field)
            .map(|(source, output)| {
                let signal = self.node(source);
                Signal { digest: digest((signal.digest, output)), ..signal }
            })
            .collect();
        if !brought.is_empty() {
            return brought;
        }
        let value = &node[field];
        let stored = value["image_name"].as_str().and_then(|name| self.images.get(name));
        if let Some(bytes) = stored {
            return vec![Signal::of_image(decode(bytes).into_rgb8())];
        }
        let text = value.as_str().filter(|_| field == "prompt").unwrap_or_default().to_owned();
        if value.is_null() {
            Vec::new()
        } else {
            vec![Signal { digest: digest(value.to_string()), text, ..Signal::default() }]
        }
    }

    fn made(&self, given: &Given<'_>) -> Signal {
        let image = Signal::of_image;
        let size = given.size();
        match given.kind {
            kind if kind.ends_with("denoise") || kind == "denoise_latents" => {
                image(sampled(self.graph, given))
            }
            kind if kind.ends_with("l2i") || kind.ends_with("_vae_decode") => given.signal("latents"),
            kind if kind.ends_with("i2l") || kind.ends_with("_vae_encode") => {
                let picture = given.image("image");
                image(encoded(&scaled(&picture, size.unwrap_or(picture.dimensions())), 8))
            }
            "img_resize" => image(scaled(&given.image("image"), size.unwrap_or((512, 512)))),
            "tomask" => self.alpha(given),
            "create_denoise_mask" | "create_gradient_mask" => Signal::of_mask(inverted(&mask(given))),
            "canvas_paste_back" => {
                let changed = inverted(&mask(given));
                image(pasted(&given.image("source_image"), &given.image("target_image"), Some(&changed)))
            }
            _ => passed_on(given),
        }
    }

    /// The alpha channel as a picture: what is transparent is black.
    fn alpha(&self, given: &Given<'_>) -> Signal {
        let name = given.node["image"]["image_name"].as_str().unwrap_or_default();
        let Some(bytes) = self.images.get(name) else { return passed_on(given) };
        let rgba = decode(bytes).into_rgba8();
        let mut alpha =
            GrayImage::from_fn(rgba.width(), rgba.height(), |x, y| image::Luma([rgba.get_pixel(x, y)[3]]));
        if given.node["invert"] == true {
            alpha = inverted(&alpha);
        }
        Signal::of_image(DynamicImage::ImageLuma8(alpha).into_rgb8())
    }
}

/// The picture at an input `mask` as brightness.
fn mask(given: &Given<'_>) -> GrayImage {
    DynamicImage::ImageRgb8((*given.image("mask")).clone()).into_luma8()
}

fn sampled(graph: &Value, given: &Given<'_>) -> RgbImage {
    let latents = given.signal("latents");
    let size = given.size().or(given.signal("noise").size);
    let positive =
        ["positive_conditioning", "positive_text_conditioning"].map(|field| given.signal(field).text);
    let sampling = Sampling {
        label: "fake InvokeAI",
        prompt: &positive.concat(),
        seed: graph::value(graph, "seed").and_then(Value::as_u64).unwrap_or(0),
        digest: given.digest(),
        strength: 1.0 - given.node["denoising_start"].as_f64().unwrap_or(0.0),
    };
    let image = latents.image.map(|image| Arc::new(scaled(&image, size.unwrap_or(image.dimensions()))));
    sampling.of(&Signal { image, mask: given.signal("denoise_mask").mask, size, ..Signal::default() })
}

/// Every other node gives the first picture and the first prompt that it is given, with its own part in the digest.
fn passed_on(given: &Given<'_>) -> Signal {
    let all = || given.signals.values().flatten();
    Signal {
        digest: given.digest(),
        image: all().find_map(|signal| signal.image.clone()),
        size: given.size(),
        text: all()
            .find(|signal| !signal.text.is_empty())
            .map(|signal| signal.text.clone())
            .unwrap_or_default(),
        ..Signal::default()
    }
}
