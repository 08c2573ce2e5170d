//! The images route: who makes the pictures, and what holds where nobody does.

use std::{sync::Arc, time::Duration};

use service::settings::{SettingSource, Settings, boolean, duration};

use super::{
    Config,
    backends::{Backend, Capability},
    backends_file::BackendsFile,
};

/// How many placeholders are made at once where the class is not configured.
const MOCK_CONCURRENCY: usize = 2;

/// Who makes the pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageEngine {
    /// The backend of the images class.
    Backend,
    /// The gateway itself: placeholders, to go on without a GPU.
    Mock,
}

impl ImageEngine {
    /// The word in the configuration and in the status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Backend => "http_openai_images",
            Self::Mock => "mock",
        }
    }
}

/// The images route.
#[derive(Debug, Clone)]
pub struct ImagesConfig {
    /// Who makes the pictures.
    pub engine: ImageEngine,
    /// The one class that they come from.
    pub class: String,
    /// The model to ask for when a request names none.
    pub model: Option<String>,
    /// Pixels of one picture.
    pub max_pixels: u64,
    /// For a whole request.
    pub timeout: Duration,
    /// Whether OpenAI's own model names get base64 unless they ask otherwise.
    pub gpt_aliases_base64: bool,
}

impl ImagesConfig {
    pub(super) fn read(settings: &mut Settings, backends: Option<&BackendsFile>) -> Option<Self> {
        let engine = settings.required("IMAGES_BACKEND", "http_openai_images or mock", |text| {
            [ImageEngine::Backend, ImageEngine::Mock].into_iter().find(|engine| engine.as_str() == text)
        });
        let class = settings.raw("IMAGES_BACKEND_CLASS")?.trim().to_owned();
        if let Some(file) = backends.filter(|_| engine != Some(ImageEngine::Mock)) {
            check_image_class(settings, file, &class);
        }
        let max_pixels = settings.required("IMAGES_MAX_PIXELS", "a number of pixels above 0", |text| {
            text.trim().parse().ok().filter(|pixels| *pixels > 0)
        });
        let timeout = settings.required("IMAGES_HTTP_TIMEOUT_SEC", "a time in seconds", duration);
        let gpt_aliases_base64 = settings.required("IMAGES_GPT_ALIASES_BASE64", "true or false", boolean);
        Some(Self {
            engine: engine?,
            class,
            model: settings.raw("IMAGES_OPENAI_MODEL").map(|model| model.trim().to_owned()),
            max_pixels: max_pixels?,
            timeout: timeout?,
            gpt_aliases_base64: gpt_aliases_base64?,
        })
    }
}

/// Whether the class makes pictures, for the status too.
pub(crate) fn no_images_warning(config: &Config) -> Option<String> {
    let class = &config.images.class;
    if config.backends.for_images(class).is_some() {
        return None;
    }
    let able = |backend: &&Arc<Backend>| backend.limits.contains_key(&Capability::Images);
    let able: Vec<_> =
        config.backends.all.iter().filter(able).map(|backend| backend.class.as_str()).collect();
    let other = match able[..] {
        [] => "or set IMAGES_BACKEND=mock for placeholders".to_owned(),
        _ => format!("or name one that can in IMAGES_BACKEND_CLASS: {}", able.join(", ")),
    };
    Some(format!(
        "no backend makes pictures: {class} (IMAGES_BACKEND_CLASS) is off or not configured, and picture requests are \
         refused; give it a base_url in backends_config.yaml, {other}"
    ))
}

/// A class that nobody chose, or that is there and off, is none: there are no pictures then. One that somebody named must be
/// there.
fn check_image_class(settings: &mut Settings, file: &BackendsFile, class: &str) {
    let chosen = ["IMAGES_BACKEND_CLASS", "IMAGES_HTTP_BASE_URL"]
        .iter()
        .any(|name| settings.raw(name).is_some() && settings.source(name) != SettingSource::Default);
    let wrong = match file.backends.find(class) {
        Some(backend) => !backend.limits.contains_key(&Capability::Images),
        None => chosen && !file.disabled_image_limits.contains_key(class),
    };
    if wrong {
        let known = file.backends.classes().join(", ");
        let message =
            format!("expected a configured backend class with the capability images (configured: {known})");
        settings.add_problem("IMAGES_BACKEND_CLASS", message);
    }
}

/// What placeholders count as, where no backend makes pictures under the name of their class.
pub(super) fn mock(images: &ImagesConfig, file: &BackendsFile) -> Option<Backend> {
    let able = |backend: &Arc<Backend>| backend.limits.contains_key(&Capability::Images);
    if images.engine == ImageEngine::Backend || file.backends.find(&images.class).is_some_and(able) {
        return None;
    }
    let limit = file.disabled_image_limits.get(&images.class).copied().unwrap_or(MOCK_CONCURRENCY);
    Some(Backend::mock(&images.class, limit))
}
