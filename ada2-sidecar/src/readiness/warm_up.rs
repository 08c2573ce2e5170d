//! Whether the default model is loaded; the worker that loads it is `warm_up`.

/// Whether the default model is loaded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum WarmUp {
    /// Turned off.
    #[default]
    Off,
    /// Not yet begun, or of an engine that has restarted since.
    Pending,
    /// Being loaded.
    Running,
    /// Loaded in the engine's start of this number.
    Done(u64),
    /// Could not be loaded in the engine's start of this number, and why.
    Failed(u64, String),
}

impl WarmUp {
    /// As it stands for this start of the engine.
    #[must_use]
    pub fn for_start(&self, start: u64) -> &Self {
        match self {
            Self::Done(of) | Self::Failed(of, _) if *of != start => &Self::Pending,
            _ => self,
        }
    }
}
