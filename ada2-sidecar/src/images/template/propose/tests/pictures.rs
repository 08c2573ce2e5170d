//! Source images, strength and masks.

use super::{numbers::in_parts, *};

#[test]
fn several_pictures_have_an_order_with_a_reason() {
    let load =
        |title: &str| json!({"class_type": "LoadImage", "inputs": {"image": "x"}, "_meta": {"title": title}});
    let edit = |first: &str, second: &str| {
        let encode =
            json!({"prompt": "make it red", "clip": ["4", 1], "image1": [first, 0], "image2": [second, 0]});
        node("TextEncodeQwenImageEditPlus", &encode)
    };
    for (changes, first, second, reason) in [
        (
            [("20", load("Picture 2")), ("21", load("Picture 1")), ("6", edit("20", "21"))],
            "21",
            "20",
            "titles",
        ),
        (
            [("20", load("a")), ("21", load("b")), ("6", edit("21", "20"))],
            "21",
            "20",
            "inputs that they go to",
        ),
        ([("20", load("a")), ("21", load("b")), ("6", edit("20", "20"))], "20", "", ""),
    ] {
        let proposal = of(&changed(&changes));
        let file = |node: &str| if node.is_empty() { String::new() } else { format!("{node}.image") };
        assert_eq!((bound(&proposal, "image"), bound(&proposal, "image_2")), (file(first), file(second)));
        assert!(proposal.text.contains(reason), "{reason}: {}", proposal.text);
    }
    let chained = changed(&[
        ("20", load("a")),
        ("21", load("b")),
        ("22", node("ReferenceLatent", &json!({"conditioning": ["6", 0], "latent": ["24", 0]}))),
        ("23", node("ReferenceLatent", &json!({"conditioning": ["22", 0], "latent": ["25", 0]}))),
        ("24", node("VAEEncode", &json!({"pixels": ["20", 0]}))),
        ("25", node("VAEEncode", &json!({"pixels": ["21", 0]}))),
        ("3.positive", json!(["23", 0])),
    ]);
    let proposal = of(&chained);
    assert_eq!(
        (bound(&proposal, "image"), bound(&proposal, "image_2")),
        ("20.image".into(), "21.image".into())
    );
    assert!(proposal.text.contains("in the order of their ids"), "{}", proposal.text);
    assert_eq!(bound(&proposal, "prompt"), "6.text");
}

#[test]
fn a_picture_that_is_no_uploaded_file_stays() {
    let proposal =
        of(&change(from_picture(), &[("10", node("ETN_LoadImageBase64", &json!({"image": "iVBO"})))]));
    assert_eq!((bound(&proposal, "image"), proposal.outcome.clone()), (String::new(), Ok(Task::Generate)));
    assert!(notes(&proposal).contains("image is not bound to 10 (ETN_LoadImageBase64)"), "{proposal:?}");
}

#[test]
fn strength_is_that_of_a_sampler_that_starts_from_the_picture() {
    let inputs = |graph: &Value| bound(&of(graph), "strength");
    assert_eq!(inputs(&from_picture()), "3.denoise");
    assert_eq!(inputs(&change(from_picture(), &[("3.denoise", json!(1))])), "", "nothing of it is kept");
    assert_eq!(inputs(&change(from_picture(), &[("3.latent_image", json!(["5", 0]))])), "", "it is not used");
    assert_eq!(inputs(&inpaint()), "3.denoise", "a mask keeps the rest");
    let parts = change(
        in_parts(),
        &[
            ("10", node("LoadImage", &json!({"image": "a.png"}))),
            ("11", node("VAEEncode", &json!({"pixels": ["10", 0], "vae": ["4", 2]}))),
            ("3.latent_image", json!(["11", 0])),
            ("17.denoise", json!(0.5)),
        ],
    );
    assert_eq!(inputs(&parts), "17.denoise");
    let upscaler = json!({"image": ["10", 0], "positive": ["6", 0], "negative": ["7", 0], "model": ["4", 0], "seed": 1,
        "steps": 20, "cfg": 8, "denoise": 0.2});
    let enlarged =
        change(from_picture(), &[("3", node("UltimateSDUpscale", &upscaler)), ("9.images", json!(["3", 0]))]);
    assert_eq!(inputs(&enlarged), "3.denoise", "it encodes the picture itself");
    let made = json!({"image": ["8", 0], "positive": ["6", 0], "negative": ["7", 0], "seed": 1, "steps": 20, "denoise": 0.5});
    let detailed = changed(&[("20", node("FaceDetailer", &made)), ("9.images", json!(["20", 0]))]);
    assert_eq!(inputs(&detailed), "", "its picture is made from nothing");
}

/// The mask inverted, as ComfyUI needs it.
pub(super) fn inpaint() -> Value {
    change(
        from_picture(),
        &[
            ("12", node("LoadImageMask", &json!({"image": "m.png", "channel": "red"}))),
            ("13", node("InvertMask", &json!({"mask": ["12", 0]}))),
            ("14", node("SetLatentNoiseMask", &json!({"samples": ["11", 0], "mask": ["13", 0]}))),
            ("3.latent_image", json!(["14", 0])),
            ("3.denoise", json!(1)),
        ],
    )
}

#[test]
fn a_mask_is_used_the_right_way_round() {
    assert_eq!(bound(&of(&inpaint()), "mask"), "12.image");
    let as_it_is = change(inpaint(), &[("14.mask", json!(["12", 0]))]);
    assert!(reasons(&of(&as_it_is)).contains("put InvertMask behind it"));
    let picture = change(
        inpaint(),
        &[
            ("12", node("LoadImage", &json!({"image": "m.png"}))),
            ("15", node("ImageToMask", &json!({"image": ["12", 0], "channel": "red"}))),
            ("13.mask", json!(["15", 0])),
        ],
    );
    let proposal = of(&picture);
    assert_eq!((bound(&proposal, "mask"), bound(&proposal, "image")), ("12.image".into(), "10.image".into()));
    let attention = change(
        from_picture(),
        &[
            ("12", node("LoadImageMask", &json!({"image": "m.png", "channel": "red"}))),
            ("13", node("IPAdapter", &json!({"model": ["4", 0], "attn_mask": ["12", 0]}))),
            ("3.model", json!(["13", 0])),
        ],
    );
    let proposal = of(&attention);
    assert_eq!((bound(&proposal, "mask"), proposal.outcome.clone()), (String::new(), Ok(Task::Edit)));
    assert!(notes(&proposal).contains("it does not say where to repaint"), "{proposal:?}");
}

#[test]
fn a_mask_may_be_the_transparency_of_the_picture() {
    let own = of(&change(inpaint(), &[("14.mask", json!(["10", 1]))]));
    assert_eq!((bound(&own, "image"), bound(&own, "mask")), ("10.image".into(), "10.image".into()));
    assert_eq!(own.outcome, Ok(Task::Inpaint));
    let alpha = change(inpaint(), &[("12.channel", json!("alpha")), ("14.mask", json!(["12", 0]))]);
    let other = of(&alpha);
    assert_eq!(
        (bound(&other, "image"), bound(&other, "mask")),
        ("10.image, 12.image".into(), "12.image".into())
    );
    assert_eq!(other.outcome, Ok(Task::Inpaint));
    for inverted in [
        change(inpaint(), &[("13.mask", json!(["10", 1]))]),
        change(inpaint(), &[("12.channel", json!("alpha"))]),
    ] {
        assert!(reasons(&of(&inverted)).contains("remove the node that inverts it"), "{inverted}");
    }
    let second = of(&change(
        inpaint(),
        &[
            ("15", node("LoadImage", &json!({"image": "b.png"}))),
            ("16", node("IPAdapter", &json!({"model": ["4", 0], "image": ["10", 0]}))),
            ("3.model", json!(["16", 0])),
            ("11.pixels", json!(["15", 0])),
            ("14.mask", json!(["15", 1])),
        ],
    ));
    assert_eq!((bound(&second, "image"), bound(&second, "image_2")), ("15.image".into(), "10.image".into()));
    let attention = of(&change(
        from_picture(),
        &[
            ("12", node("LoadImage", &json!({"image": "m.png"}))),
            ("13", node("IPAdapter", &json!({"model": ["4", 0], "attn_mask": ["12", 1]}))),
            ("3.model", json!(["13", 0])),
        ],
    ));
    assert_eq!((bound(&attention, "image"), attention.outcome.clone()), ("10.image".into(), Ok(Task::Edit)));
    assert!(
        !attention.text.contains("12.image") && notes(&attention).contains("does not say where to repaint")
    );
}
