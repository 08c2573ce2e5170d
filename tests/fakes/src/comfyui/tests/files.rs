//! Uploads, what workflows make of them, and pictures as they come back.

use bytes::Bytes;
use picture::Format;
use reqwest::header::CONTENT_TYPE;

use super::{
    super::pixels::{Mask, Pixels},
    *,
};

/// A field of a form: name, file name, content.
type Field<'a> = (&'a str, Option<&'a str>, Bytes);

async fn upload(fake: &FakeComfy, fields: &[Field<'_>]) -> TestResponse {
    let mut body = Vec::new();
    for (name, file, content) in fields {
        let file = file.map_or_else(String::new, |file| format!("; filename=\"{file}\""));
        let head = format!("--cut\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n");
        body.extend([head.as_bytes(), content, b"\r\n"].concat());
    }
    body.extend(b"--cut--\r\n");
    let request = http().post(format!("{}/upload/image", fake.url())).body(body);
    TestResponse::read(
        request.header(CONTENT_TYPE, "multipart/form-data; boundary=cut").send().await.unwrap(),
    )
    .await
}

async fn put(fake: &FakeComfy, name: &str, content: &Bytes) {
    assert_eq!(upload(fake, &[("image", Some(name), content.clone())]).await.status, 200);
}

/// The bytes of an answer, and their kind.
async fn view(fake: &FakeComfy, query: &str) -> (String, Bytes) {
    let answer = http().get(format!("{}/view?{query}", fake.url())).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{query}");
    (answer.headers()["content-type"].to_str().unwrap().to_owned(), answer.bytes().await.unwrap())
}

/// Runs a workflow and gives its pictures, in the order in which history lists them.
async fn pictures(fake: &FakeComfy, graph: &Value) -> Vec<Pixels> {
    let id = enqueue(fake, graph).await;
    fake.until_idle().await;
    let mut pictures = Vec::new();
    for image in entry(fake, &id).await["outputs"]["9"]["images"].as_array().unwrap() {
        let name = image["filename"].as_str().unwrap();
        let (kind, bytes) = view(fake, &format!("filename={name}&type=output&subfolder=")).await;
        assert_eq!(kind, "image/png");
        pictures.push(Pixels::read(&bytes).unwrap());
    }
    pictures
}

fn img2img(file: &str) -> Value {
    let mut graph: Value =
        serde_json::from_str(include_str!("../../../../fixtures/comfyui/img2img.json")).unwrap();
    graph["10"]["inputs"]["image"] = json!(file);
    graph
}

/// With a transparent square from 16 to 47.
fn holed() -> Bytes {
    let picture = Pixels::paint("holed", 3, 64, 64);
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 64, 64);
    encoder.set_color(png::ColorType::Rgba);
    let inside = |at: usize| (16..48).contains(&(at % 64)) && (16..48).contains(&(at / 64));
    let rgba: Vec<u8> = picture
        .rgb
        .iter()
        .enumerate()
        .flat_map(|(at, [red, green, blue])| [*red, *green, *blue, if inside(at) { 0 } else { 255 }])
        .collect();
    encoder.write_header().unwrap().write_image_data(&rgba).unwrap();
    bytes.into()
}

#[tokio::test]
async fn uploads_are_named_as_recorded() {
    let answers: Value =
        serde_json::from_str(include_str!("../../../../fixtures/comfyui/answers.json")).unwrap();
    let fake = FakeComfy::start().await;
    for recorded in answers["uploads"].as_array().unwrap() {
        let fields: Vec<Field> = recorded["fields"]
            .as_array()
            .unwrap()
            .iter()
            .map(|field| {
                // The same count of bytes stands for the same bytes.
                let sized = || vec![b'x'; usize::try_from(field["bytes"].as_u64().unwrap()).unwrap()].into();
                let content =
                    field["value"].as_str().map_or_else(sized, |word| word.as_bytes().to_vec().into());
                (field["name"].as_str().unwrap(), field["filename"].as_str(), content)
            })
            .collect();
        // The recording's client escaped it; raw, it leads out.
        let is_raw = fields[0].1 == Some("../evil.png");
        let answer = upload(&fake, &fields).await;
        assert_eq!(
            json!(answer.status),
            if is_raw { json!(400) } else { recorded["status"].clone() },
            "{recorded}"
        );
        if !is_raw && answer.status == 200 {
            assert_eq!(answer.json, recorded["answer"]);
        }
    }
    assert_eq!(upload(&fake, &[("other", None, Bytes::new())]).await.status, 400);
    fake.script(|script| script.max_upload = 100);
    let large = upload(&fake, &[("image", Some("big.bin"), vec![0; 101].into())]).await;
    assert_eq!(large.status, 413);
    assert_eq!(get(&fake, "/features").await["max_upload_size"], 100);
    let listed = get(&fake, "/object_info/LoadImage").await;
    assert_eq!(listed["LoadImage"]["input"]["required"]["image"][0][0], "in (1).png");
}

#[tokio::test]
async fn a_batch_is_listed_in_order_and_begins_with_the_single_picture() {
    let fake = FakeComfy::start().await;
    let single = pictures(&fake, &txt2img(5)).await;
    let mut batch = txt2img(5);
    batch["5"]["inputs"]["batch_size"] = json!(3);
    let many = pictures(&fake, &batch).await;
    assert_eq!(many.len(), 3);
    assert_eq!(many[0], single[0]);
    assert_ne!(many[1], many[2]);
    let names = ["output/t2i_00002_.png", "output/t2i_00003_.png", "output/t2i_00004_.png"];
    assert_eq!(fake.items()[1].images, names);
    assert_eq!(pictures(&fake, &txt2img(6)).await[0].width, 64);
    assert_ne!(pictures(&fake, &txt2img(6)).await[0], single[0]);
}

#[tokio::test]
async fn a_picture_carries_its_whole_workflow_until_it_is_encoded_anew() {
    let fake = FakeComfy::start().await;
    let mut graph = txt2img(5);
    graph["6"]["inputs"]["text"] = json!("größer than \u{1f600}");
    enqueue(&fake, &graph).await;
    fake.until_idle().await;
    let (_, bytes) = view(&fake, "filename=t2i_00001_.png").await;
    assert_eq!(Format::detect(&bytes), Ok(Format::Png));
    let reader = png::Decoder::new(std::io::Cursor::new(&bytes)).read_info().unwrap();
    let chunk = &reader.info().uncompressed_latin1_text[0];
    assert_eq!(chunk.keyword, "prompt");
    assert!(chunk.text.contains("gr\\u00f6\\u00dfer than \\ud83d\\ude00"), "{}", chunk.text);
    assert_eq!(serde_json::from_str::<Value>(&chunk.text).unwrap(), fake.items()[0].graph);

    let (_, plain) = view(&fake, "filename=t2i_00001_.png&channel=rgb").await;
    assert!(!String::from_utf8_lossy(&plain).contains("prompt"));
    assert_eq!(Pixels::read(&plain), Pixels::read(&bytes));
    fake.script(|script| script.image_bytes = ImageBytes::CutOff);
    assert!(Format::detect(&view(&fake, "filename=t2i_00001_.png").await.1).is_err());
    fake.script(|script| script.image_bytes = ImageBytes::Html);
    assert!(view(&fake, "filename=t2i_00001_.png").await.0.starts_with("text/html"));
}

#[tokio::test]
async fn a_picture_from_a_picture_has_its_size_in_eights_and_shows_it() {
    let fake = FakeComfy::start().await;
    put(&fake, "odd.png", &Pixels::paint("odd", 1, 101, 75).to_png(&[])).await;
    let from_odd = pictures(&fake, &img2img("odd.png")).await.remove(0);
    assert_eq!((from_odd.width, from_odd.height), (96, 72));
    put(&fake, "odd.png", &Pixels::paint("other", 1, 101, 75).to_png(&[])).await;
    let from_other = pictures(&fake, &img2img("odd (1).png")).await.remove(0);
    assert_ne!(from_odd, from_other, "what it starts from shines through");
    put(&fake, "p.jpg", &Bytes::from_static(include_bytes!("../../../../fixtures/comfyui/preview.jpg")))
        .await;
    assert_eq!(pictures(&fake, &img2img("p.jpg")).await[0].width, 512);

    let field = |name, word: &'static str| (name, None, Bytes::from_static(word.as_bytes()));
    let small = Pixels::paint("small", 1, 64, 64).to_png(&[]);
    upload(&fake, &[("image", Some("t.png"), small.clone()), field("type", "temp")]).await;
    upload(&fake, &[("image", Some("s.png"), small), field("subfolder", "req-1")]).await;
    for name in ["t.png [temp]", "req-1/s.png"] {
        assert_eq!(pictures(&fake, &img2img(name)).await[0].width, 64, "{name}");
    }
}

#[tokio::test]
async fn unmasked_pixels_are_kept_only_by_the_composite() {
    let fake = FakeComfy::start().await;
    put(&fake, "in.png", &Pixels::paint("kept", 2, 64, 64).to_png(&[])).await;
    put(&fake, "mask_rgba.png", &holed()).await;
    let mut graph: Value = serde_json::from_str(include_str!(
        "../../../../fixtures/comfyui/inpaint_composite_keeps_unmasked.json"
    ))
    .unwrap();
    let original = Pixels::paint("kept", 2, 64, 64);
    let same = |picture: &Pixels| picture.rgb.iter().zip(&original.rgb).filter(|(a, b)| a == b).count();
    let kept = same(&pictures(&fake, &graph).await[0]);
    assert!((3072..3172).contains(&kept), "all 3072 outside the hole, {kept} in all");
    graph["9"]["inputs"]["images"] = json!(["8", 0]);
    assert!(same(&pictures(&fake, &graph).await[0]) < 100, "the VAE leaves no pixel as it was");

    // The destination's count of pictures counts.
    graph["20"] = json!({"class_type": "RepeatLatentBatch", "inputs": {"samples": ["12", 0], "amount": 2}});
    graph["3"]["inputs"]["latent_image"] = json!(["20", 0]);
    assert_eq!(pictures(&fake, &graph).await.len(), 2);
    graph["9"]["inputs"]["images"] = json!(["14", 0]);
    assert_eq!(pictures(&fake, &graph).await.len(), 1);
}

#[tokio::test]
async fn a_mask_is_seen_as_recorded_and_inverted() {
    let fake = FakeComfy::start().await;
    put(&fake, "rgba.png", &holed()).await;
    let mut graph = json!({
        "1": {"class_type": "LoadImage", "inputs": {"image": "rgba.png"}},
        "2": {"class_type": "InvertMask", "inputs": {"mask": ["1", 1]}},
        "3": {"class_type": "MaskToImage", "inputs": {"mask": ["1", 1]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "m"}},
    });
    let levels = |picture: &Pixels| (picture.rgb[32 * 64 + 32], picture.rgb[2 * 64 + 2]);
    assert_eq!(levels(&pictures(&fake, &graph).await[0]), ([255; 3], [0; 3]));
    graph["3"]["inputs"]["mask"] = json!(["2", 0]);
    assert_eq!(levels(&pictures(&fake, &graph).await[0]), ([0; 3], [255; 3]));
}

#[test]
fn a_mask_is_one_minus_alpha_and_small_and_empty_without_alpha() {
    let holed = Pixels::read(&holed()).unwrap();
    let mask = holed.channel("alpha");
    assert_eq!((mask.values[32 * 64 + 32], mask.values[2 * 64 + 2]), (255, 0));
    assert_eq!(holed.channel("red").values[0], holed.rgb[0][0]);
    let plain = Pixels::plain(96, 80, [1, 2, 3]).channel("alpha");
    assert_eq!(plain, Mask { width: 64, height: 64, values: vec![0; 64 * 64] });
}
