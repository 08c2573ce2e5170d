//! What a model accepts besides what its graph takes.

use std::ops::RangeInclusive;

use super::{
    Binding, GraphFormat, TemplateError,
    binding_file::{BindingFile, Omission, QualityRule, SizeRule},
};

/// The sides of an image are multiples of this, unless a binding file says otherwise.
pub const DEFAULT_MULTIPLE: u32 = 8;

/// What models need. All divide the sizes that engines and requests take.
const MULTIPLES: [u32; 4] = [8, 16, 32, 64];
/// The fewest pixels of an image: 64x64.
const MIN_PIXELS: u64 = 64 * 64;
const CFG_SCALES: RangeInclusive<f64> = 1.0..=30.0;
const STEPS: RangeInclusive<u32> = 1..=150;

/// The rules of a binding file.
#[derive(Debug, Clone, PartialEq)]
pub struct GraphRules {
    /// What happens to a size that the graph does not take itself. None: it is rejected.
    pub size: Option<SizeRule>,
    /// What every request has, and the graph has no input for.
    pub without: Vec<Binding>,
    /// The guidance that the graph always has.
    pub fixed_cfg_scale: Option<f64>,
    /// The steps that the graph always takes.
    pub fixed_steps: Option<u32>,
    /// Whether `quality` scales the steps.
    pub scales_steps: bool,
    /// The schedulers that it takes. None: all of the engine's.
    pub schedulers: Option<Vec<String>>,
    /// Width and height are multiples of this.
    pub multiple: u32,
    /// Source images with more pixels are scaled down. None: the limit of the request.
    pub image_pixels: Option<u64>,
    /// How `strength` becomes the point where denoising starts: 1 - strength^exponent. None: 1.
    strength_exponent: Option<f64>,
}

impl GraphRules {
    pub(super) fn read(file: &BindingFile) -> Self {
        Self {
            size: file.size,
            without: file.without.iter().copied().map(Omission::binding).collect(),
            fixed_cfg_scale: file.fixed.cfg_scale,
            fixed_steps: file.fixed.steps,
            scales_steps: file.quality != Some(QualityRule::Ignore),
            schedulers: file.schedulers.clone(),
            multiple: file.multiple.unwrap_or(DEFAULT_MULTIPLE),
            image_pixels: file.image_pixels,
            strength_exponent: file.strength_exponent,
        }
    }

    /// The exponent with which `strength` becomes the point where denoising starts.
    pub fn strength_exponent(&self) -> f64 {
        self.strength_exponent.unwrap_or(1.0)
    }
}

/// Values that no model could have.
pub(super) fn check(file: &BindingFile, format: GraphFormat) -> Vec<TemplateError> {
    let mut errors = Vec::new();
    let mut expect = |is_valid: bool, key: &str, expected: &str| {
        if !is_valid {
            errors.push(TemplateError(format!("{key}: expected {expected}")));
        }
    };
    let is_multiple = |multiple| MULTIPLES.contains(&multiple);
    expect(file.multiple.is_none_or(is_multiple), "multiple", "8, 16, 32 or 64");
    let is_image = |pixels| pixels >= MIN_PIXELS;
    expect(file.image_pixels.is_none_or(is_image), "image_pixels", "at least 4096, which is 64x64");
    let is_exponent = |exponent: f64| exponent > 0.0 && exponent.is_finite();
    expect(file.strength_exponent.is_none_or(is_exponent), "strength_exponent", "a number above 0");
    let fixed = &file.fixed;
    let is_scale = |scale| CFG_SCALES.contains(&scale);
    expect(fixed.cfg_scale.is_none_or(is_scale), "fixed.cfg_scale", "a number from 1 (none) to 30");
    let is_steps = |steps| STEPS.contains(&steps);
    expect(fixed.steps.is_none_or(is_steps), "fixed.steps", "a whole number from 1 to 150");
    let known = format.schedulers();
    let are_known =
        |names: &Vec<String>| !names.is_empty() && names.iter().all(|name| known.contains(&name.as_str()));
    let expected = format!("one or several of {}", known.join(", "));
    expect(file.schedulers.as_ref().is_none_or(are_known), "schedulers", &expected);
    errors
}

#[cfg(test)]
mod tests {
    use crate::{engine::comfyui, images::template::Template};

    #[test]
    fn values_that_no_model_could_have_are_rejected() {
        let errors = |rule: &str| {
            let graph = r#"{"a": {"class_type": "A", "inputs": {"prompt": "", "seed": 0}}}"#;
            let yaml = format!("output: a\nbindings: {{prompt: [a.prompt], seed: [a.seed]}}\n{rule}");
            let read = Template::read(comfyui::GRAPH_FORMAT, graph, &yaml);
            read.err().unwrap_or_default().into_iter().map(|error| error.0).collect::<Vec<_>>()
        };
        for (rule, expected) in [
            ("multiple: 0", "multiple: expected 8, 16, 32 or 64"),
            ("multiple: 100", "multiple: expected 8, 16, 32 or 64"),
            ("image_pixels: 4095", "image_pixels: expected at least 4096, which is 64x64"),
            ("strength_exponent: 0", "strength_exponent: expected a number above 0"),
            ("strength_exponent: -1", "strength_exponent: expected a number above 0"),
            ("strength_exponent: .inf", "strength_exponent: expected a number above 0"),
            ("strength_exponent: .nan", "strength_exponent: expected a number above 0"),
            ("fixed: {cfg_scale: 0.5}", "fixed.cfg_scale: expected a number from 1 (none) to 30"),
            ("fixed: {cfg_scale: 31}", "fixed.cfg_scale: expected a number from 1 (none) to 30"),
            ("fixed: {steps: 0}", "fixed.steps: expected a whole number from 1 to 150"),
            ("fixed: {steps: 151}", "fixed.steps: expected a whole number from 1 to 150"),
            ("schedulers: []", "schedulers: expected one or several of ddim, ddpm, "),
            ("schedulers: [euler, magic]", "schedulers: expected one or several of ddim, ddpm, "),
        ] {
            let errors = errors(rule);
            assert!(errors.len() == 1 && errors[0].starts_with(expected), "{rule}: {errors:?}");
        }
        for rule in
            ["multiple: 64", "image_pixels: 4096", "strength_exponent: 0.2", "schedulers: [res_multistep]"]
        {
            assert_eq!(errors(rule), [""; 0], "{rule}");
        }
        assert_eq!(errors("fixed: {cfg_scale: 1, steps: 150}"), [""; 0]);
    }
}
