//! The answer: pictures in the format that is wanted, with what they were made with. Made as part of the job.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use tokio_util::sync::CancellationToken;
use wire::openai::images::{ImageObject, ImagesResponse, Size, Usage};

use crate::{
    access::BaseUrl,
    app::App,
    engine::{EngineError, Picture},
    images::{Delivery, ImageRequest, Job, Output},
    pictures,
    recent::Recent,
};

/// How this request is answered, whatever the pictures will be.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    recent: Arc<Recent>,
    delivery: Delivery,
    output: Output,
    strip_metadata: bool,
    base: BaseUrl,
    pub(super) quality: &'static str,
    /// That the pictures will have, as far as it is known before they are made.
    pub(super) size: Option<Size>,
}

impl Answer {
    pub(super) fn of(app: &App, base: BaseUrl, request: &ImageRequest, job: &Job) -> Self {
        Self {
            recent: app.recent.clone(),
            delivery: request.delivery,
            output: request.output,
            strip_metadata: app.config.privacy.strip_metadata,
            base,
            quality: request.quality.name(),
            size: job.expected_size(),
        }
    }

    /// Of a request that asks for nothing in particular.
    #[cfg(test)]
    pub(super) fn plain() -> Self {
        Self {
            recent: Arc::default(),
            delivery: Delivery::Base64,
            output: Output { format: picture::Format::Png, quality: 100 },
            strip_metadata: false,
            base: BaseUrl(String::new()),
            quality: "medium",
            size: Some(Size::new(64, 64)),
        }
    }

    /// The whole answer at once, in JSON.
    pub(super) fn whole(
        &self,
        pictures: Vec<Picture>,
        job: &Job,
        cancel: &CancellationToken,
    ) -> Result<Vec<u8>, EngineError> {
        // Those of one job have one size.
        let size = pictures.first().map(picture_size).transpose()?;
        let data =
            pictures.into_iter().map(|picture| self.object(picture, cancel)).collect::<Result<_, _>>()?;
        let answer = ImagesResponse {
            created: unix_now(),
            data,
            background: Some("opaque".to_owned()),
            output_format: Some(self.output.format.name().to_owned()),
            quality: Some(self.quality.to_owned()),
            size: size.map(|size| size.to_string()),
            ignored: job.ignored.iter().map(|name| (*name).to_owned()).collect(),
            usage: Some(Usage::default()),
        };
        serde_json::to_vec(&answer).map_err(|error| EngineError::Failed(error.to_string()))
    }

    fn object(&self, picture: Picture, cancel: &CancellationToken) -> Result<ImageObject, EngineError> {
        let picture = self.finished(picture, cancel)?;
        let seed = Some(picture.seed);
        Ok(match self.delivery {
            Delivery::Base64 => {
                ImageObject { b64_json: Some(base64(&picture.bytes)), seed, ..ImageObject::default() }
            }
            Delivery::Address => {
                let url = format!("{}/v1/images/files/{}", self.base.0, self.recent.keep(&picture));
                ImageObject { url: Some(url), seed, ..ImageObject::default() }
            }
        })
    }

    /// The picture as its caller gets it.
    pub(super) fn finished(
        &self,
        picture: Picture,
        cancel: &CancellationToken,
    ) -> Result<Picture, EngineError> {
        if cancel.is_cancelled() {
            return Err(EngineError::Cancelled);
        }
        let bytes = if self.strip_metadata { pictures::strip(&picture.bytes) } else { picture.bytes };
        let bytes = pictures::encode(bytes, picture.format, self.output, cancel)
            .map_err(|words| EngineError::Failed(format!("its picture cannot be used: {words}")))?;
        Ok(Picture { bytes, format: self.output.format, seed: picture.seed })
    }

    /// The name of the format that is answered in.
    pub(super) fn format(&self) -> &'static str {
        self.output.format.name()
    }
}

/// The size of a picture that was made, which is what its bytes say.
pub(super) fn picture_size(picture: &Picture) -> Result<Size, EngineError> {
    pictures::dimensions(&picture.bytes)
        .map_err(|words| EngineError::Failed(format!("its picture cannot be used: {words}")))
}

pub(super) fn base64(bytes: &[u8]) -> String {
    base64_simd::STANDARD.encode_to_string(bytes)
}

pub(super) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
