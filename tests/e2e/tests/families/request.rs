//! A request for a picture, as JSON or as a form, and what is said about the picture.

use ada2_sidecar::images::Task;
use e2e::sidecar::Sidecar;
use fakes::TestResponse;
use image::{DynamicImage, ImageFormat, Rgb, RgbImage, Rgba, RgbaImage};
use serde_json::{Map, Value};

use crate::edit_form::{EditForm, encoded};

/// Every family takes multiples of 32.
pub(super) const WIDTH: u32 = 128;
pub(super) const HEIGHT: u32 = 96;

/// A request of one task.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) task: Task,
    pub(super) pictures: u8,
    pub(super) fields: Map<String, Value>,
}

/// The answer of a request that made a picture.
pub(super) struct Made {
    pub(super) pixels: RgbImage,
    pub(super) ignored: Vec<String>,
    pub(super) settings: Value,
    pub(super) size: String,
}

impl Request {
    pub(super) fn new(task: Task, pictures: u8, fields: Value) -> Self {
        let Value::Object(fields) = fields else { unreachable!("an object") };
        Self { task, pictures, fields }
    }

    /// With these fields as well.
    pub(super) fn with<'a>(&self, more: impl IntoIterator<Item = (&'a str, Value)>) -> Self {
        let mut changed = self.clone();
        changed.fields.extend(more.into_iter().map(|(name, value)| (name.to_owned(), value)));
        changed
    }

    /// With this many pictures.
    pub(super) fn of_pictures(&self, pictures: u8) -> Self {
        Self { pictures, ..self.clone() }
    }

    pub(super) async fn send(&self, sidecar: &Sidecar) -> TestResponse {
        if self.task == Task::Generate {
            return sidecar.generate(&Value::from(self.fields.clone())).await;
        }
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let form = EditForm::new();
        let form = self.fields.iter().fold(form, |form, (name, value)| form.text(name, &text(value)));
        let name = if self.pictures == 1 { "image" } else { "image[]" };
        let form = (0..self.pictures).fold(form, |form, nth| form.file(name, &picture(nth)));
        let form = if self.task == Task::Inpaint { form.file("mask", &mask()) } else { form };
        form.send(sidecar).await
    }

    /// What was made; the error in words.
    pub(super) async fn make(&self, sidecar: &Sidecar) -> Result<Made, String> {
        let answer = self.send(sidecar).await;
        if answer.status != 200 {
            return Err(format!("{} {}", answer.status, answer.json));
        }
        let ignored = answer.json["ignored"].as_array().into_iter().flatten();
        Ok(Made {
            pixels: image::load_from_memory(&answer.images()[0]).unwrap().into_rgb8(),
            ignored: ignored.filter_map(Value::as_str).map(str::to_owned).collect(),
            settings: answer.json["data"][0]["settings"].clone(),
            size: answer.json["size"].as_str().unwrap_or_default().to_owned(),
        })
    }
}

/// The picture of this place in a list: it can be told by its red.
pub(super) fn picture(nth: u8) -> Vec<u8> {
    encoded(&DynamicImage::ImageRgb8(pixels(nth)), ImageFormat::Png)
}

pub(super) fn pixels(nth: u8) -> RgbImage {
    let part = |of: u32| u8::try_from(of).unwrap();
    RgbImage::from_fn(WIDTH, HEIGHT, |x, y| Rgb([nth * 15, part(x), part(y)]))
}

/// The place of a picture that [`picture`] made.
pub(super) fn place(bytes: &[u8]) -> u8 {
    image::load_from_memory(bytes).unwrap().into_rgb8().get_pixel(0, 0)[0] / 15
}

/// Transparent in its left half, which is to be replaced.
pub(super) fn mask() -> Vec<u8> {
    let pixel = |x: u32, _| Rgba([0, 0, 0, if x < WIDTH / 2 { 0 } else { 255 }]);
    encoded(&DynamicImage::ImageRgba8(RgbaImage::from_fn(WIDTH, HEIGHT, pixel)), ImageFormat::Png)
}
