//! The JSON response: images in the requested format, with the settings they were made with. Built as part of the job.

use std::sync::Arc;

use service::clock::unix_now;
use tokio_util::sync::CancellationToken;
use wire::openai::images::{ImageObject, ImageSize, ImagesResponse, Usage};

use crate::{
    app::App,
    engine::{EngineError, GeneratedImage},
    image_cache::ImageCache,
    image_codec,
    images::{ImageRequest, Job, Output, ResponseFormat},
    middleware::auth::BaseUrl,
};

/// How a request wants its images.
#[derive(Debug, Clone)]
pub(super) struct ImageResponder {
    image_cache: Arc<ImageCache>,
    response_format: ResponseFormat,
    output: Output,
    strip_metadata: bool,
    base_url: BaseUrl,
    safety_identifier: Option<String>,
    pub(super) quality: &'static str,
    /// The size the images will have, if it is known before they are made.
    pub(super) size: Option<ImageSize>,
}

impl ImageResponder {
    pub(super) fn new(app: &App, base_url: BaseUrl, request: &ImageRequest, job: &Job) -> Self {
        Self {
            image_cache: app.image_cache.clone(),
            response_format: request.response_format,
            output: request.output,
            strip_metadata: app.config.strip_metadata,
            base_url,
            safety_identifier: request.safety_identifier.clone(),
            quality: request.quality.name(),
            size: job.expected_size(),
        }
    }

    #[cfg(test)]
    pub(super) fn for_tests() -> Self {
        Self {
            image_cache: Arc::default(),
            response_format: ResponseFormat::B64Json,
            output: Output { format: picture::Format::Png, quality: 100 },
            strip_metadata: false,
            base_url: BaseUrl(String::new()),
            safety_identifier: None,
            quality: "medium",
            size: Some(ImageSize::new(64, 64)),
        }
    }

    pub(super) fn build_json(
        &self,
        images: Vec<GeneratedImage>,
        job: &Job,
        cancel: &CancellationToken,
    ) -> Result<Vec<u8>, EngineError> {
        // All images of a job have the same size.
        let size = images.first().map(image_size).transpose()?;
        let data = images
            .into_iter()
            .map(|image| self.image_object(image, job, cancel))
            .collect::<Result<_, _>>()?;
        let response = ImagesResponse {
            created: unix_now(),
            data,
            background: Some("opaque".to_owned()),
            output_format: Some(self.output.format.name().to_owned()),
            quality: Some(self.quality.to_owned()),
            size: size.map(|size| size.to_string()),
            ignored: job.ignored.iter().map(|name| (*name).to_owned()).collect(),
            safety_identifier: self.safety_identifier.clone(),
            usage: Some(Usage::default()),
        };
        serde_json::to_vec(&response).map_err(|error| EngineError::Failed(error.to_string()))
    }

    fn image_object(
        &self,
        image: GeneratedImage,
        job: &Job,
        cancel: &CancellationToken,
    ) -> Result<ImageObject, EngineError> {
        let size = image_size(&image)?;
        let image = self.encode_image(image, cancel)?;
        let object = ImageObject {
            seed: Some(image.seed),
            settings: Some(job.settings(image.seed, Some(size))),
            ..ImageObject::default()
        };
        Ok(match self.response_format {
            ResponseFormat::B64Json => ImageObject { b64_json: Some(encode_base64(&image.bytes)), ..object },
            ResponseFormat::Url => {
                let url = format!("{}/v1/images/files/{}", self.base_url.0, self.image_cache.insert(&image));
                ImageObject { url: Some(url), ..object }
            }
        })
    }

    /// The image in the requested format, without metadata if so configured.
    pub(super) fn encode_image(
        &self,
        image: GeneratedImage,
        cancel: &CancellationToken,
    ) -> Result<GeneratedImage, EngineError> {
        if cancel.is_cancelled() {
            return Err(EngineError::Cancelled);
        }
        let bytes = if self.strip_metadata { image_codec::strip_metadata(&image.bytes) } else { image.bytes };
        let bytes = image_codec::encode(bytes, image.format, self.output, cancel)
            .map_err(|cause| EngineError::Failed(format!("its image is unusable: {cause}")))?;
        Ok(GeneratedImage { bytes, format: self.output.format, seed: image.seed })
    }

    pub(super) fn format_name(&self) -> &'static str {
        self.output.format.name()
    }
}

/// The size as the image's bytes say.
pub(super) fn image_size(image: &GeneratedImage) -> Result<ImageSize, EngineError> {
    image_codec::encoded_size(&image.bytes)
        .map_err(|cause| EngineError::Failed(format!("its image is unusable: {cause}")))
}

pub(super) fn encode_base64(bytes: &[u8]) -> String {
    base64_simd::STANDARD.encode_to_string(bytes)
}
