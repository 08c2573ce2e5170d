//! Every way in which clients write an image in JSON, and what is never fetched.

use serde_json::{Value, json};

use super::{PORTRAIT, address, both, least, made, refused, with};

/// Not an image, but the address of one.
const TINY: &str = "data:;base64,aGk=";

#[tokio::test]
async fn both_programs_parse_json_edits_alike() {
    let both = both().await;
    let recorded: Value =
        serde_json::from_str(include_str!("../../../fixtures/requests/edit-json-image.json")).unwrap();
    made(&both.edit(&with(recorded, &json!({"steps": 1}))).await, "as recorded");
    let data = address(PORTRAIT);
    let (head, base64) = data.split_at(data.find(',').unwrap() + 1);
    let lines: Vec<_> = base64.as_bytes().chunks(76).map(|line| str::from_utf8(line).unwrap()).collect();
    let object = json!({"image_url": data});
    for image in [
        json!({"image": data}),
        json!({"image": object}),
        json!({"image": [data]}),
        json!({"images": data}),
        json!({"images": object}),
        json!({"images": [data], "image": ""}),
        json!({"images": [object], "image": null, "mask": ""}),
        json!({"image": format!("{head}{}\r\n", lines.join("\r\n"))}),
        json!({"image": format!("{head}\n {}", lines.join("\n "))}),
        json!({"image": data.replace('+', "-").replace('/', "_").replacen("image_jpeg", "image/jpeg", 1)}),
        json!({"image": data.trim_end_matches('=')}),
    ] {
        let cut: String = image.to_string().chars().take(80).collect();
        made(&both.edit(&with(least(), &image)).await, &cut);
    }
    let elsewhere = "http://127.0.0.1:1/x.png";
    for (image, param, text) in [
        (json!({}), "images", "is required"),
        (json!({"image": [], "images": null}), "images", "is required"),
        (json!({"image": data, "images": data}), "images", "not both"),
        (json!({"image": elsewhere}), "image", "nothing is fetched"),
        (json!({"images": [{"image_url": elsewhere}]}), "images", "nothing is fetched"),
        (json!({"images": [data, {"file_id": "f"}]}), "images", "file_id"),
        (json!({"image": {"file_id": "f"}}), "image", "file_id"),
        (json!({"image": data, "mask": elsewhere}), "mask", "nothing is fetched"),
        (json!({"image": data, "mask": [data, data]}), "mask", "one image"),
        (json!({"image": "data:image/png;base64,%%%"}), "image", "invalid base64"),
        (
            json!({"image": data, "ref_images": [data, "data:;base64,aGk="]}),
            "ref_images",
            "(image 3 of 3) must be",
        ),
        (json!({"images": vec![TINY; 17]}), "images", "at most 16 images, not 17"),
        (json!({"image[]": vec![TINY; 16], "ref_images": TINY}), "image[]", "at most 16 images, not 17"),
    ] {
        let cut: String = image.to_string().chars().take(80).collect();
        refused(&both.edit(&with(least(), &image)).await, Some(param), text, &cut);
    }
}
