//! The prompts of one job: one for each image.

use super::ComfyUi;
use crate::engine::GeneratedImage;

/// One image's prompt.
#[derive(Debug)]
pub(super) struct Prompt {
    /// Chosen by us, so that it is known even if the engine's response is lost.
    pub(super) id: String,
    pub(super) seed: u64,
    pub(super) stage: PromptStage,
    pub(super) image: Option<GeneratedImage>,
}

impl Prompt {
    pub(super) fn new(seed: u64) -> Self {
        let id = uuid::Uuid::new_v4().to_string();
        Self { id, seed, stage: PromptStage::NotSubmitted, image: None }
    }
}

/// What the engine knows of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PromptStage {
    /// Nothing.
    NotSubmitted,
    /// Perhaps nothing: there is no response yet.
    Sent,
    /// It was accepted or rejected.
    Acknowledged,
    /// It has ended.
    Finished,
}

/// Marks the prompts as having a waiting request.
pub(super) struct ActivePrompts<'a> {
    engine: &'a ComfyUi,
    prompts: Vec<String>,
}

impl<'a> ActivePrompts<'a> {
    pub(super) fn register(engine: &'a ComfyUi, prompts: &[Prompt]) -> Self {
        let prompts: Vec<_> = prompts.iter().map(|prompt| prompt.id.clone()).collect();
        engine.state().active_prompts.extend(prompts.iter().cloned());
        Self { engine, prompts }
    }
}

impl Drop for ActivePrompts<'_> {
    fn drop(&mut self) {
        let mut state = self.engine.state();
        for prompt in &self.prompts {
            state.active_prompts.remove(prompt);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::EngineSetup;

    #[test]
    fn a_panicking_job_becomes_an_orphan() {
        let engine = ComfyUi::new("http://127.0.0.1:9".parse().unwrap(), &EngineSetup::default());
        let prompt = Prompt::new(1);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _active = ActivePrompts::register(&engine, std::slice::from_ref(&prompt));
            assert!(engine.state().active_prompts.contains(&prompt.id), "before the engine hears of it");
            panic!("a fault of ours");
        }));
        assert!(panicked.is_err());
        assert!(engine.state().active_prompts.is_empty());
    }
}
