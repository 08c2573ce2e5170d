//! The images route: which backend makes images, and what happens without one.

use std::sync::Arc;

use service::settings::{SettingSource, Settings};

use super::{
    Config, ImagesConfig,
    backends::{Backend, Capability},
    backends_file::BackendsFile,
};

/// Concurrent placeholders if the class is not configured.
const MOCK_CONCURRENCY: usize = 2;

/// What makes the images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageEngine {
    /// The backend of the images class.
    Backend,
    /// The gateway itself: placeholders, while there is no GPU.
    Mock,
}

impl ImageEngine {
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

/// A warning if no backend makes images; the status shows it, too.
pub(crate) fn no_images_warning(config: &Config) -> Option<String> {
    let class = &config.images.class;
    if config.backends.for_images(class).is_some() {
        return None;
    }
    let can_make_images = |backend: &&Arc<Backend>| backend.limits.contains_key(&Capability::Images);
    let able: Vec<_> =
        config.backends.all.iter().filter(can_make_images).map(|backend| backend.class.as_str()).collect();
    let other = match able[..] {
        [] => "or set IMAGES_BACKEND=mock for placeholders".to_owned(),
        _ => format!("or name one that can in IMAGES_BACKEND_CLASS: {}", able.join(", ")),
    };
    Some(format!(
        "no image backend: {class} (IMAGES_BACKEND_CLASS) is off or not configured, so image requests are \
         refused; give it a base_url in backends_config.yaml, {other}"
    ))
}

/// The default class may be absent, and any class disabled: image requests are refused then. A class that was set must exist.
fn check_image_class(settings: &mut Settings, file: &BackendsFile, class: &str) {
    let is_set = ["IMAGES_BACKEND_CLASS", "IMAGES_HTTP_BASE_URL"]
        .iter()
        .any(|name| settings.raw(name).is_some() && settings.source(name) != SettingSource::Default);
    let is_invalid = match file.backends.find(class) {
        Some(backend) => !backend.limits.contains_key(&Capability::Images),
        None => is_set && !file.disabled_image_limits.contains_key(class),
    };
    if is_invalid {
        let configured = file.backends.classes().join(", ");
        let message = format!(
            "expected a configured backend class with the capability images (configured: {configured})"
        );
        settings.add_problem("IMAGES_BACKEND_CLASS", message);
    }
}

/// The backend that holds the limits for placeholders, if no configured one does.
pub(super) fn mock(images: &ImagesConfig, file: &BackendsFile) -> Option<Backend> {
    let makes_images = |backend: &Arc<Backend>| backend.limits.contains_key(&Capability::Images);
    if images.engine == ImageEngine::Backend || file.backends.find(&images.class).is_some_and(makes_images) {
        return None;
    }
    let limit = file.disabled_image_limits.get(&images.class).copied().unwrap_or(MOCK_CONCURRENCY);
    Some(Backend::mock(&images.class, limit))
}
