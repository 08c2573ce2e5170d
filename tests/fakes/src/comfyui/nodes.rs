//! What nodes make of their inputs, as far as a picture shows it. Nothing is diffused: a sampled picture is painted
//! from prompt, seed and size, and mixed with the picture that it starts from as denoise and mask say.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;

use super::{
    files,
    latent::{Latent, Sampled},
    pixels::{Mask, Pixels},
};
use crate::engine::EngineFailure;

/// What comes out of a slot.
#[derive(Debug, Clone)]
pub(super) enum Output {
    /// Models, encoders, noise: what no picture shows.
    Nothing,
    /// A prompt.
    Text(String),
    Seed(u64),
    Schedule {
        steps: u64,
        denoise: f64,
    },
    Latent(Latent),
    Images(Vec<Pixels>),
    Mask(Mask),
}

/// A node with its inputs: links are resolved, other values are the workflow's.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) class: String,
    pub(super) values: Value,
    pub(super) linked: BTreeMap<String, Output>,
    pub(super) files: BTreeMap<String, Bytes>,
}

/// How an output node shows its pictures.
#[derive(Debug)]
pub(super) enum OutputTarget {
    Saved {
        folder: &'static str,
        prefix: String,
    },
    /// Over the socket, and nowhere else.
    Sent,
}

impl Node {
    /// One output per slot.
    pub(super) fn compute(&self) -> Result<Vec<Output>, EngineFailure> {
        let outputs = match self.class.as_str() {
            "CLIPTextEncode" => vec![self.text("text")],
            "CLIPTextEncodeSDXL" => vec![self.text("text_g")],
            "CLIPTextEncodeFlux" => vec![self.text("t5xxl")],
            "BasicGuider" => vec![self.linked("conditioning")],
            "RandomNoise" => vec![Output::Seed(self.int("noise_seed"))],
            "BasicScheduler" => {
                vec![Output::Schedule { steps: self.int("steps"), denoise: self.float("denoise") }]
            }
            "EmptyLatentImage" | "EmptySD3LatentImage" => vec![Output::Latent(self.empty())],
            "VAEEncode" | "VAEEncodeForInpaint" => vec![Output::Latent(self.encoded())],
            "InpaintModelConditioning" => {
                vec![self.linked("positive"), self.linked("negative"), Output::Latent(self.encoded())]
            }
            "SetLatentNoiseMask" => vec![self.changed(|latent| latent.mask = self.mask())],
            "RepeatLatentBatch" => vec![self.changed(|latent| latent.batch *= self.size("amount") as usize)],
            "LatentFromBatch" => vec![self.changed(|latent| latent.batch = self.size("length") as usize)],
            "LatentUpscale" => vec![self.changed(|latent| self.upscale(latent))],
            "KSampler" | "KSamplerAdvanced" | "SamplerCustomAdvanced" => vec![self.sampled(); 2],
            "VAEDecode" | "VAEDecodeTiled" => vec![Output::Images(self.latent("samples").decode())],
            "EmptyImage" => vec![Output::Images(self.plain())],
            "LoadImage" | "LoadImageOutput" => {
                let picture = self.load()?;
                let mask = picture.channel("alpha");
                vec![Output::Images(vec![Pixels { alpha: None, ..picture }]), Output::Mask(mask)]
            }
            "LoadImageMask" => vec![Output::Mask(self.load()?.channel(self.str_input("channel")))],
            "ImageScale" => vec![self.each(|one| one.stretched(self.size("width"), self.size("height")))],
            "ImageBatch" => vec![Output::Images([self.images("image1"), self.images("image2")].concat())],
            "ImageCompositeMasked" => vec![Output::Images(self.composite())],
            "ImageToMask" => {
                let images = self.images("image");
                images
                    .iter()
                    .take(1)
                    .map(|one| Output::Mask(one.channel(self.str_input("channel"))))
                    .collect()
            }
            "InvertMask" => self.mask().map(|mask| Output::Mask(mask.inverted())).into_iter().collect(),
            "MaskToImage" => self.mask().map(|mask| Output::Images(vec![mask.shown()])).into_iter().collect(),
            // Everything else changes nothing that a picture would show.
            _ => vec![self.linked.values().next().cloned().unwrap_or(Output::Nothing); 3],
        };
        Ok(outputs)
    }

    /// How many steps a sampler takes; none for other nodes.
    pub(super) fn steps(&self) -> Option<u64> {
        match self.class.as_str() {
            "KSampler" if self.float("denoise") <= 0.0 => Some(0),
            "KSampler" | "KSamplerAdvanced" => Some(self.int("steps")),
            "SamplerCustomAdvanced" => match self.linked("sigmas") {
                Output::Schedule { steps, .. } => Some(steps),
                _ => Some(1),
            },
            _ => None,
        }
    }

    pub(super) fn output_target(&self) -> Option<OutputTarget> {
        match self.class.as_str() {
            "SaveImage" | "SaveImageAdvanced" => Some(OutputTarget::Saved {
                folder: "output",
                prefix: self.str_input("filename_prefix").to_owned(),
            }),
            "PreviewImage" => {
                Some(OutputTarget::Saved { folder: "temp", prefix: "ComfyUI_temp_fake".to_owned() })
            }
            "SaveImageWebsocket" => Some(OutputTarget::Sent),
            _ => None,
        }
    }

    pub(super) fn images(&self, name: &str) -> Vec<Pixels> {
        match self.linked(name) {
            Output::Images(images) => images,
            _ => Vec::new(),
        }
    }

    pub(super) fn str_input(&self, name: &str) -> &str {
        self.values[name].as_str().unwrap_or_default()
    }

    fn linked(&self, name: &str) -> Output {
        self.linked.get(name).cloned().unwrap_or(Output::Nothing)
    }

    fn int(&self, name: &str) -> u64 {
        self.values[name].as_u64().unwrap_or(0)
    }

    fn float(&self, name: &str) -> f64 {
        self.values[name].as_f64().unwrap_or(1.0)
    }

    fn size(&self, name: &str) -> u32 {
        u32::try_from(self.int(name)).expect("validated to be small")
    }

    fn text(&self, name: &str) -> Output {
        Output::Text(self.str_input(name).to_owned())
    }

    fn mask(&self) -> Option<Mask> {
        match self.linked("mask") {
            Output::Mask(mask) => Some(mask),
            _ => None,
        }
    }

    fn latent(&self, name: &str) -> Latent {
        match self.linked(name) {
            Output::Latent(latent) => latent,
            _ => self.empty(),
        }
    }

    fn empty(&self) -> Latent {
        let side = |name| (self.size(name) / 8 * 8).max(8);
        let batch = self.size("batch_size").max(1) as usize;
        let (width, height) = (side("width"), side("height"));
        Latent { width, height, batch, start: Vec::new(), mask: None, sampled: None }
    }

    fn encoded(&self) -> Latent {
        let start: Vec<Pixels> = self.images("pixels").iter().map(Pixels::through_vae).collect();
        let (width, height) = start.first().map_or((8, 8), |first| (first.width, first.height));
        Latent { width, height, batch: start.len(), start, mask: self.mask(), sampled: None }
    }

    fn changed(&self, change: impl FnOnce(&mut Latent)) -> Output {
        let mut latent = self.latent("samples");
        change(&mut latent);
        Output::Latent(latent)
    }

    fn upscale(&self, latent: &mut Latent) {
        (latent.width, latent.height) = (self.size("width") / 8 * 8, self.size("height") / 8 * 8);
        latent.start = latent.start.iter().map(|one| one.stretched(latent.width, latent.height)).collect();
    }

    /// Takes the prompt and the seed from wherever this kind of sampler has them.
    fn sampled(&self) -> Output {
        let text = |name| match self.linked(name) {
            Output::Text(text) => Some(text),
            _ => None,
        };
        let prompt = text("positive").or_else(|| text("guider")).unwrap_or_default();
        let seed = match self.linked("noise") {
            Output::Seed(seed) => seed,
            _ => self.int("seed").max(self.int("noise_seed")),
        };
        let denoise = match self.linked("sigmas") {
            Output::Schedule { denoise, .. } => denoise,
            _ => self.float("denoise"),
        };
        let latent = self.latent("latent_image");
        Output::Latent(Latent { sampled: Some(Sampled { prompt, seed, denoise }), ..latent })
    }

    fn plain(&self) -> Vec<Pixels> {
        let [_, colour @ ..] = self.size("color").to_be_bytes();
        let one = Pixels::plain(self.size("width"), self.size("height"), colour);
        vec![one; self.size("batch_size") as usize]
    }

    fn load(&self) -> Result<Pixels, EngineFailure> {
        let name = self.str_input("image");
        let read = files::annotated(name).and_then(|path| Pixels::read(self.files.get(&path)?));
        read.ok_or_else(|| {
            let message = format!("cannot identify image file '/srv/comfyui/input/{name}'\n");
            EngineFailure::new("PIL.UnidentifiedImageError", &message)
        })
    }

    fn each(&self, change: impl Fn(&Pixels) -> Pixels) -> Output {
        Output::Images(self.images("image").iter().map(change).collect())
    }

    /// The destination's count of pictures counts: of a larger batch of sources the rest is dropped.
    fn composite(&self) -> Vec<Pixels> {
        let (sources, mask) = (self.images("source"), self.mask());
        let mut sources = sources.iter().cycle();
        let mut lay = |destination: &Pixels| {
            let Some(source) = sources.next() else { return destination.clone() };
            let fitting = (self.values["resize_source"] == true)
                .then(|| source.stretched(destination.width, destination.height));
            let at = (self.size("x"), self.size("y"));
            destination.under(fitting.as_ref().unwrap_or(source), at, 1.0, mask.as_ref())
        };
        self.images("destination").iter().map(&mut lay).collect()
    }
}
