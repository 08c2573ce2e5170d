//! What a job sends to ComfyUI for one image.

use std::io::Cursor;

use bytes::Bytes;
use image::{DynamicImage, ImageError, ImageFormat};
use serde_json::{Value, json};

use super::{family_files, samplers};
use crate::{
    engine::EngineError,
    images::{
        Job, SourceImages,
        template::{Binding, NodeInput, Template},
    },
};

/// The names of the images that were uploaded for an edit.
#[derive(Debug, Default)]
pub(super) struct ComfyUiUploads {
    pub(super) images: Vec<String>,
    pub(super) mask: Option<String>,
    /// The first image with the mask as its transparency.
    pub(super) masked: Option<String>,
}

/// The request body for the image with this seed. Events go to the client.
pub(super) fn prompt_payload(
    template: &Template,
    job: &Job,
    uploads: &ComfyUiUploads,
    seed: u64,
    prompt_id: &str,
    client_id: &str,
) -> Value {
    let mut graph = template.render(|binding, input| value(template, job, uploads, seed, binding, input));
    family_files::use_gguf_loaders(&mut graph);
    address_output(&mut graph[&template.output], prompt_id, job.discard);
    // Without this, the web page's setting counts. Versions before 0.4 ignore it, and use their command line's setting.
    let previews = if job.previews { "latent2rgb" } else { "none" };
    json!({"prompt": graph, "prompt_id": prompt_id, "client_id": client_id, "extra_data": {"preview_method": previews}})
}

/// Gives each image its own name. Otherwise the engine would answer the same graph from its cache, with the name of an old
/// file that may be gone.
fn address_output(node: &mut Value, prompt_id: &str, discard: bool) {
    if discard && node["class_type"] == "SaveImage" {
        // This node writes to the directory that the engine empties when it starts. It takes no prefix, but one that changes
        // keeps it out of the cache.
        node["class_type"] = json!("PreviewImage");
    }
    if let Some(prefix) = node["inputs"].get_mut("filename_prefix") {
        let prefix_text = prefix.as_str().unwrap_or_default();
        let separator = if prefix_text.is_empty() || prefix_text.ends_with('/') { "" } else { "-" };
        let short_id: String = prompt_id.chars().filter(char::is_ascii_hexdigit).take(12).collect();
        *prefix = json!(format!("{prefix_text}{separator}{short_id}"));
    }
}

/// The value of a bound input; None: the graph keeps its own.
fn value(
    template: &Template,
    job: &Job,
    uploads: &ComfyUiUploads,
    seed: u64,
    binding: Binding,
    input: &NodeInput,
) -> Option<Value> {
    match binding {
        Binding::Seed => Some(json!(seed)),
        Binding::Scheduler => job.scheduler.as_deref().map(|name| {
            let (sampler, scheduler) = samplers::pair(name);
            json!(if input.field == "scheduler" { scheduler } else { sampler })
        }),
        Binding::Image(1) | Binding::Mask if template.takes_masked_image(input) => {
            uploads.masked.as_ref().map(|name| json!(name))
        }
        Binding::Image(number) => {
            uploads.images.get(usize::from(number).checked_sub(1)?).map(|name| json!(name))
        }
        Binding::Mask => uploads.mask.as_ref().map(|name| json!(name)),
        _ => job.value(binding),
    }
}

/// The mask of an edit in the forms that its graph reads.
#[derive(Debug, Default)]
pub(super) struct MaskFiles {
    /// The mask.
    pub(super) alone: Option<Bytes>,
    /// The first image with the mask as its transparency.
    pub(super) with_image: Option<Bytes>,
}

impl MaskFiles {
    pub(super) fn encode(template: &Template, source: &SourceImages) -> Result<Self, EngineError> {
        let (Some(image), Some(mask)) = (source.images.first(), &source.mask) else {
            return Ok(Self::default());
        };
        let is_in_image = |input: &NodeInput| template.takes_masked_image(input);
        let inputs = template.inputs_bound_to(Binding::Mask);
        let alone = (!inputs.iter().all(is_in_image)).then(|| mask_as_rgb(mask));
        let with_image = inputs.iter().any(is_in_image).then(|| mask_as_transparency(image, mask));
        Ok(Self { alone: alone.transpose()?, with_image: with_image.transpose()? })
    }
}

/// The image, transparent where it is repainted. ComfyUI keeps the colours under transparent pixels.
fn mask_as_transparency(image: &[u8], mask: &[u8]) -> Result<Bytes, EngineError> {
    let mut image = decode(image)?.into_rgba8();
    let mask = decode(mask)?.into_luma8();
    for (pixel, kept) in image.pixels_mut().zip(mask.pixels()) {
        pixel.0[3] = kept.0[0];
    }
    encode(&image.into())
}

/// The mask as RGB. ComfyUI (0.33) converts a greyscale file so that white becomes a little less than 1, which darkens every
/// kept pixel; RGB it reads as it is.
fn mask_as_rgb(png: &[u8]) -> Result<Bytes, EngineError> {
    encode(&decode(png)?.into_rgb8().into())
}

fn decode(png: &[u8]) -> Result<DynamicImage, EngineError> {
    image::load_from_memory_with_format(png, ImageFormat::Png).map_err(|error| conversion_failed(&error))
}

fn encode(image: &DynamicImage) -> Result<Bytes, EngineError> {
    let mut bytes = Vec::new();
    image
        .write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png)
        .map_err(|error| conversion_failed(&error))?;
    Ok(bytes.into())
}

fn conversion_failed(error: &ImageError) -> EngineError {
    EngineError::Failed(format!("the mask cannot be converted: {error}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use image::{ColorType, GrayImage, RgbImage};

    use super::*;
    use crate::images::{
        SourceImages, Task,
        choice::ModelChoice,
        models::{Evidence, ModelKind, SD_1},
        tests::model_of_kind,
    };

    const ID: &str = "8a78ad0b-6603-483f-83fb-0d1e5425ac53";

    fn job(task: Task) -> Job {
        let mut model = model_of_kind("m.safetensors", "m", ModelKind::main(&SD_1, Evidence::Name));
        model.handle = json!("m.safetensors");
        let choice =
            ModelChoice { name: "m".into(), model: Some(model), preset: None, loras: Arc::default() };
        let template = choice.template(task).cloned();
        let job = Job { template, ..Job::warm_up(choice) };
        Job { task, scheduler: Some("dpmpp_2m_k".into()), strength: Some(0.5), discard: false, ..job }
    }

    #[test]
    fn values_are_set_where_comfyui_reads_them() {
        let job = job(Task::Generate);
        let payload = prompt_payload(&job.graph().unwrap(), &job, &ComfyUiUploads::default(), 7, ID, "tag.1");
        assert_eq!((&payload["prompt_id"], &payload["client_id"]), (&json!(ID), &json!("tag.1")));
        assert_eq!(payload["extra_data"], json!({"preview_method": "none"}));
        let graph = &payload["prompt"];
        assert_eq!(graph["model"]["inputs"]["ckpt_name"], "m.safetensors");
        let sampler = &graph["sampler"]["inputs"];
        assert_eq!((&sampler["sampler_name"], &sampler["scheduler"]), (&json!("dpmpp_2m"), &json!("karras")));
        assert_eq!(sampler["seed"], 7);
        assert_eq!(graph["save"]["class_type"], "SaveImage");
        assert_eq!(graph["save"]["inputs"]["filename_prefix"], "ada2/8a78ad0b6603");
    }

    #[test]
    fn a_discarded_image_is_temporary_and_bypasses_the_cache() {
        let uploads = ComfyUiUploads {
            images: vec!["a.png [temp]".into()],
            mask: Some("b.png [temp]".into()),
            masked: None,
        };
        let source = SourceImages { images: vec![Bytes::new()], mask: Some(Bytes::new()) };
        let job = Job { discard: true, previews: true, source: Some(Arc::new(source)), ..job(Task::Inpaint) };
        let payload = prompt_payload(&job.graph().unwrap(), &job, &uploads, 7, ID, "tag.1");
        assert_eq!(payload["extra_data"], json!({"preview_method": "latent2rgb"}));
        let graph = &payload["prompt"];
        assert_eq!(graph["save"]["class_type"], "PreviewImage");
        assert_eq!(graph["save"]["inputs"]["filename_prefix"], "ada2/8a78ad0b6603");
        assert_eq!(graph["source"]["inputs"]["image"], "a.png [temp]");
        assert_eq!(graph["kept"]["inputs"], json!({"image": "b.png [temp]", "channel": "red"}));
        assert_eq!(graph["sampler"]["inputs"]["denoise"], 0.5);
    }

    #[test]
    fn an_input_for_image_and_mask_gets_the_file_that_has_both() {
        let graph = json!({
            "in": {"class_type": "LoadImage", "inputs": {"image": "a.png"}},
            "plain": {"class_type": "LoadImage", "inputs": {"image": "a.png"}},
            "out": {"class_type": "SaveImage", "inputs": {"images": ["in", 0], "mask": ["in", 1], "with": ["plain", 0]}}});
        let read = |image: &str| {
            let yaml = format!(
                "output: out\nwithout: [prompt, seed]\nbindings: {{image: [{image}], mask: [in.image]}}"
            );
            Template::read(crate::engine::comfyui::GRAPH_FORMAT, &graph.to_string(), &yaml).unwrap()
        };
        let template = read("in.image, plain.image");
        let image = RgbImage::from_fn(4, 2, |x, y| image::Rgb([10, u8::from(x > y), 30]));
        let mask = GrayImage::from_fn(4, 2, |x, _| image::Luma([if x > 1 { 255 } else { 0 }]));
        let png = |image: DynamicImage| encode(&image).unwrap();
        let source =
            SourceImages { images: vec![png(image.clone().into())], mask: Some(png(mask.clone().into())) };
        let files = MaskFiles::encode(&template, &source).unwrap();
        assert!(files.alone.is_none(), "nothing takes the mask alone");
        let both = image::load_from_memory(&files.with_image.unwrap()).unwrap();
        assert_eq!((both.color(), both.to_rgb8()), (ColorType::Rgba8, image));
        let transparency = both.into_rgba8();
        for (pixel, kept) in transparency.pixels().zip(mask.pixels()) {
            assert_eq!(pixel.0[3], kept.0[0], "what is black in the mask is transparent");
        }
        let uploads =
            ComfyUiUploads { images: vec!["a".into()], mask: Some("m".into()), masked: Some("both".into()) };
        let job = Job { source: Some(Arc::new(source)), ..job(Task::Inpaint) };
        let graph = prompt_payload(&template, &job, &uploads, 7, ID, "tag.1")["prompt"].clone();
        assert_eq!(
            (&graph["in"]["inputs"]["image"], &graph["plain"]["inputs"]["image"]),
            (&json!("both"), &json!("a"))
        );
    }

    #[test]
    fn a_users_prefix_is_kept() {
        let mut node = json!({"class_type": "SaveImage", "inputs": {"filename_prefix": "ComfyUI"}});
        address_output(&mut node, ID, false);
        assert_eq!(node["inputs"]["filename_prefix"], "ComfyUI-8a78ad0b6603");
        let mut bare = json!({"class_type": "MySave", "inputs": {}});
        address_output(&mut bare, ID, true);
        assert_eq!(bare, json!({"class_type": "MySave", "inputs": {}}));
    }

    #[test]
    fn an_rgb_mask_has_the_same_values() {
        let grey = GrayImage::from_fn(4, 2, |x, y| image::Luma([if x > y { 255 } else { 0 }]));
        let mut png = Vec::new();
        DynamicImage::ImageLuma8(grey.clone())
            .write_to(&mut Cursor::new(&mut png), ImageFormat::Png)
            .unwrap();
        let coloured = image::load_from_memory(&mask_as_rgb(&png).unwrap()).unwrap();
        assert_eq!(coloured.color(), ColorType::Rgb8);
        assert_eq!(coloured.into_luma8(), grey);
        assert!(mask_as_rgb(b"GIF89a").is_err());
    }
}
