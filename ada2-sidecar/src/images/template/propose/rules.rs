//! What an engine calls the things that a proposal looks for.

/// An engine's names. Words of classes are compared as parts of the class name, names of inputs as a whole.
#[derive(Debug)]
pub struct ProposeRules {
    /// Classes that write a picture where the sidecar reads it; any other with one of `saved` is one only if nothing reads it.
    pub savers: &'static [&'static str],
    /// Words of classes that show a picture, and count less than those that save one.
    pub previews: &'static [&'static str],
    /// Inputs, and their values, by which a node says that it saves what it makes.
    pub self_saving: &'static [(&'static str, &'static [&'static str])],
    /// Inputs by which a saver gets its picture.
    pub saved: &'static [&'static str],
    /// Words of classes whose picture the sidecar cannot fetch, each with what to do.
    pub unreadable: &'static [(&'static str, &'static str)],
    /// Words of classes that make or write films and sound.
    pub films: &'static [&'static str],
    /// Inputs with a number of frames.
    pub frames: &'static [&'static str],
    /// The prompts.
    pub texts: Texts,
    /// Inputs with a seed.
    pub seeds: &'static [&'static str],
    /// Inputs with steps.
    pub steps: &'static [&'static str],
    /// Inputs with the guidance that 1 switches off.
    pub cfg: &'static [&'static str],
    /// Inputs with the guidance of models that are distilled for it.
    pub guidance: &'static [&'static str],
    /// Inputs with a sampler or a schedule.
    pub schedulers: &'static [&'static str],
    /// Words of the only classes whose schedulers are bound, and the names that they take, if these are not all that requests
    /// may have. Without any row: all classes, and all names.
    pub scheduler_classes: &'static [(&'static str, &'static [&'static str])],
    /// Where the size is.
    pub sizes: SizeInputs,
    /// Where the pictures are.
    pub pictures: Pictures,
    /// Inputs of loaders that name the model.
    pub models: &'static [&'static str],
    /// Words of the classes of those loaders; any class, if there are none.
    pub model_loaders: &'static [&'static str],
    /// Inputs of nodes that add a LoRA, with its name.
    pub loras: &'static [&'static str],
    /// Inputs with a number of pictures.
    pub batches: &'static [&'static str],
    /// The node that records how the picture was made: its class, and its input for each binding.
    pub record: Option<(&'static str, &'static [(&'static str, &'static str)])>,
}

/// Where prompts are, and how they get to the sampler.
#[derive(Debug)]
pub struct Texts {
    /// Inputs with what is wanted.
    pub positive: &'static [&'static str],
    /// Inputs with what is not wanted.
    pub negative: &'static [&'static str],
    /// How the names of inputs begin that pass conditioning on.
    pub passes: &'static [&'static str],
    /// Inputs of encoders with their text.
    pub encoder: &'static [&'static str],
    /// How the names of inputs begin that hold text in a node for texts.
    pub parts: &'static [&'static str],
    /// Classes behind which no text counts.
    pub zeroed: &'static [&'static str],
}

/// Where the size of a picture is.
#[derive(Debug)]
pub struct SizeInputs {
    /// What makes the empty latent image: all words of its class, width, height.
    pub latents: &'static [(&'static [&'static str], &'static str, &'static str)],
    /// Inputs that must have the same size: class, width, height.
    pub agreeing: &'static [(&'static str, &'static str, &'static str)],
    /// Words of classes that scale pictures.
    pub scalers: &'static [&'static str],
}

/// Where pictures come in.
#[derive(Debug)]
pub struct Pictures {
    /// Words of classes that load one; any class, if there are none.
    pub loaders: &'static [&'static str],
    /// Their inputs with a picture.
    pub images: &'static [&'static str],
    /// Inputs with a mask.
    pub masks: &'static [&'static str],
    /// Classes that load a mask.
    pub mask_loaders: &'static [&'static str],
    /// Words of classes that turn a picture into a mask.
    pub to_mask: &'static [&'static str],
    /// The output of a loader that is the picture's transparency as a mask.
    pub transparency: Option<&'static str>,
    /// Words of classes that repaint or paste by a mask; none: all masks do.
    pub repaint: &'static [&'static str],
    /// Words of classes that invert a mask, for an engine that repaints where it is white.
    pub inverters: &'static [&'static str],
    /// Words of classes whose picture is not a file that is uploaded.
    pub unusable: &'static [&'static str],
    /// Classes that each hold a reference of their own, even while it is empty.
    pub references: &'static [&'static str],
    /// Inputs with the share of noise.
    pub strength: &'static [&'static str],
    /// Inputs with the point at which denoising starts.
    pub start: &'static [&'static str],
    /// Inputs by which a sampler gets the latent image.
    pub latents: &'static [&'static str],
    /// Words of classes that restrict noise to a mask.
    pub noise_masks: &'static [&'static str],
    /// Inputs of samplers that do.
    pub noise_mask_inputs: &'static [&'static str],
}
