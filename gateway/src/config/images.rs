//! The images route: which backend makes images, and what applies without one.

use std::sync::Arc;

use service::settings::{SettingSource, Settings};

use super::{
    Config, ImagesConfig,
    backends::{Backend, Capability},
    backends_file::BackendsFile,
};

/// How many placeholders are made at once where the class is not configured.
const MOCK_CONCURRENCY: usize = 2;

/// What makes the images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageEngine {
    /// The backend of the images class.
    Backend,
    /// The gateway itself: placeholders, to go on without a GPU.
    Mock,
}

impl ImageEngine {
    /// Reads the setting.
    pub(super) fn parse(text: &str) -> Option<Self> {
        [Self::Backend, Self::Mock].into_iter().find(|engine| engine.as_str() == text)
    }

    /// Its name in the configuration and in the status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Backend => "http_openai_images",
            Self::Mock => "mock",
        }
    }
}

/// Reads the section, and checks its class unless the gateway makes placeholders itself.
pub(super) fn read(settings: &mut Settings, backends: Option<&BackendsFile>) -> Option<ImagesConfig> {
    let images = ImagesConfig::read(settings);
    let engine = settings.raw("IMAGES_BACKEND").and_then(ImageEngine::parse);
    let class = settings.raw("IMAGES_BACKEND_CLASS").map(|class| class.trim().to_owned());
    if let Some((file, class)) = backends.zip(class).filter(|_| engine != Some(ImageEngine::Mock)) {
        check_image_class(settings, file, &class);
    }
    images
}

/// A warning if no backend makes images; for the status, too.
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
        "no image backend: {class} (IMAGES_BACKEND_CLASS) is off or not configured, so image requests are \
         refused; give it a base_url in backends_config.yaml, {other}"
    ))
}

/// A default or disabled class may be absent: image requests are refused then. A class that was named must exist.
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

/// The backend that placeholders count under, where no backend makes images under that class.
pub(super) fn mock(images: &ImagesConfig, file: &BackendsFile) -> Option<Backend> {
    let able = |backend: &Arc<Backend>| backend.limits.contains_key(&Capability::Images);
    if images.engine == ImageEngine::Backend || file.backends.find(&images.class).is_some_and(able) {
        return None;
    }
    let limit = file.disabled_image_limits.get(&images.class).copied().unwrap_or(MOCK_CONCURRENCY);
    Some(Backend::mock(&images.class, limit))
}
