//! Edits: what is kept of an image, and what is replaced.

use fakes::engine::{FakeEngine, RequestKind};

use super::start;
use crate::edit_form::{EditForm, assert_left_half_replaced, encoded, image_of, mask, source};
use image::ImageFormat;

pub(super) async fn opaque_mask_pixels_keep_the_source_byte_for_byte<E: FakeEngine>() {
    let (engine, sidecar) = start::<E>(|_| (), &[]).await;
    let source = encoded(&source(), ImageFormat::Png);
    let form = EditForm::new().text("prompt", "a cat").text("steps", "2");
    let answer = form.file("image", &source).file("mask", &mask()).send(&sidecar).await;
    assert_left_half_replaced(&image_of(&answer));
    assert_eq!(answer.json["size"], "128x96", "the image's own size");
    assert_eq!(engine.jobs()[0].denoise.to_string(), "1");
}

pub(super) async fn without_a_mask_strength_decides_how_much_of_the_image_stays<E: FakeEngine>() {
    let (engine, sidecar) = start::<E>(|_| (), &[]).await;
    let source = encoded(&source(), ImageFormat::Jpeg);
    let form = EditForm::new().file("image[]", &source).text("prompt", "a cat").text("strength", "0.25");
    let answer = form.text("size", "256x192").text("n", "2").text("steps", "2").send(&sidecar).await;
    assert_eq!(image_of(&answer).dimensions(), (256, 192));
    assert_eq!(answer.images().len(), 2);
    assert_eq!(engine.jobs()[0].denoise.to_string(), "0.25");
    assert_eq!(engine.requests_of(RequestKind::Upload).len(), 1, "once for both images, and no mask");
}
