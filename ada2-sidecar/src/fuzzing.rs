//! What must hold of the parsers, whatever their input. `tests/fuzz` looks for inputs for which it does not hold; the test
//! below repeats the inputs that are kept there. Compiled for these two only.

mod templates;

use std::{sync::LazyLock, time::SystemTime};

use clap::ArgMatches;
use serde_json::Value;
use wire::{health::GpuReport, openai::fields::Fields};

use crate::{
    config::fuzzing::settings_file,
    images::{
        ImageRequest, Limits, REQUEST_FIELDS,
        models::{Tensors, kind_from_header},
    },
    smi::SmiQuery,
};

pub use crate::{
    engine::fuzzing::engine_frames, image_codec::fuzzing::upload, routes::images::fuzzing::edit_form,
};
pub use templates::{template, workflow};

const LIMITS: Limits =
    Limits { max_n: 4, max_pixels: 4 << 20, max_seed: u32::MAX as u64, schedulers: &["euler", "ddim"] };

/// The fields of an image request in JSON: what is accepted is within its limits, and the same however it is written.
pub fn image_fields(data: &[u8]) {
    let read = |body: &[u8]| {
        Fields::parse(body, REQUEST_FIELDS).and_then(|fields| ImageRequest::read(&fields, LIMITS))
    };
    let Ok(request) = read(data) else { return };
    assert!((1..=LIMITS.max_n).contains(&request.n) && !request.prompt.trim().is_empty());
    assert!(request.size.is_none_or(|size| size.pixels() <= LIMITS.max_pixels && size.width % 8 == 0));
    assert!(request.seed.is_none_or(|seed| seed <= LIMITS.max_seed));
    assert!(request.steps.is_none_or(|steps| (1..=150).contains(&steps)));
    assert!(request.cfg_scale.is_none_or(|scale| (1.0..=30.0).contains(&scale)));
    assert!(request.strength.is_none_or(|strength| (0.0..=1.0).contains(&strength)));
    assert!(request.partial_images.is_none_or(|count| count <= 3 && request.n == 1));
    let value = serde_json::from_slice::<Value>(data).ok();
    if let Some(value) = value.filter(|value| !has_float(value)) {
        let written = serde_json::to_vec_pretty(&value).expect("it is JSON");
        assert_eq!(read(&written), Ok(request));
    }
}

/// Large ones are not written as they were read.
fn has_float(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(items) => items.iter().any(has_float),
        Value::Object(members) => members.values().any(has_float),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}

/// The query of `/gpu`; the first line of the input is the format. Each line has a cell for each field.
pub fn gpu_query(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (format, fields) = text.split_once('\n').unwrap_or(("csv", &text));
    match SmiQuery::parse(fields, format) {
        Ok(query) => {
            let csv = query.to_csv(&GpuReport::default(), SystemTime::UNIX_EPOCH);
            let cells = fields.split(',').count();
            assert!(csv.lines().all(|line| line.split(", ").count() == cells), "{csv}");
            assert_eq!(csv.lines().count(), if format.contains("noheader") { 1 } else { 2 });
        }
        Err(error) => assert!(error.to_string().len() < 8 << 10, "it quotes little"),
    }
}

/// The configuration file.
pub fn sidecar_settings(data: &[u8]) {
    static FLAGS: LazyLock<ArgMatches> =
        LazyLock::new(|| crate::cli::command().get_matches_from(["ada2-sidecar"]));
    settings_file(&FLAGS, data);
}

/// The header of a model file.
pub fn model_header(data: &[u8]) {
    let Ok(tensors) = serde_json::from_slice::<Tensors>(data) else { return };
    assert_eq!(kind_from_header(&tensors), kind_from_header(&tensors.clone()));
}

#[cfg(test)]
mod tests {
    use fakes::fuzz_seeds::repeat;

    #[test]
    fn the_kept_inputs_hold() {
        repeat("edit_form", super::edit_form);
        repeat("engine_frames", super::engine_frames);
        repeat("gpu_query", super::gpu_query);
        repeat("image_fields", super::image_fields);
        repeat("model_header", super::model_header);
        repeat("sidecar_settings", super::sidecar_settings);
        repeat("template", super::template);
        repeat("upload", super::upload);
        repeat("workflow", super::workflow);
    }
}
