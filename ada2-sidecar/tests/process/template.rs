//! `ada2-sidecar template`: from a workflow to a picture.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::running::{Running, run, text};

fn workflow() -> Value {
    json!({
        "3": {"class_type": "KSampler", "inputs": {"seed": 5, "steps": 20, "cfg": 8, "sampler_name": "euler",
            "scheduler": "normal", "denoise": 1, "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0],
            "latent_image": ["5", 0]}},
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd.safetensors"}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 512, "batch_size": 1}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["4", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry", "clip": ["4", 1]}},
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0]}}})
}

fn write(dir: &Path, name: &str, content: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, content).expect("the directory can be written");
    path.display().to_string()
}

#[test]
fn a_proposed_file_is_one_that_check_config_takes() {
    let dir = fakes::fresh_dir("propose");
    let graph = write(&dir, "mine.json", &json!({"input": {"workflow": workflow()}}).to_string());
    let output = run(&["template", "propose", &graph]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.ends_with("comfyui workflow, usable for the task generate\n"), "{stderr}");
    write(&dir, "mine.yaml", &String::from_utf8(output.stdout).unwrap());
    let file = write(&dir, "config.yaml", "engine: comfyui\npresets: {mine: {template: mine.json}}\n");
    let output = run(&["check-config", "--config", &file]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("binds prompt (6.text), negative_prompt (7.text)"), "{}", text(&output));
}

#[test]
fn what_cannot_be_used_ends_with_1_and_the_reason() {
    let dir = fakes::fresh_dir("refused");
    let mut film = workflow();
    film["9"]["class_type"] = "SaveAnimatedWEBP".into();
    for (content, reason) in [
        (film.to_string(), "error: the workflow makes a film or sound (9 (SaveAnimatedWEBP))"),
        (r#"{"nodes": [], "links": []}"#.to_owned(), "error: this is ComfyUI's own workflow format"),
        ("{}".to_owned(), "is no workflow"),
        ("nothing".to_owned(), "is no workflow"),
    ] {
        let path = write(&dir, "w.json", &content);
        let output = run(&["template", "propose", &path]);
        assert_eq!(output.status.code(), Some(1), "{content}");
        assert!(text(&output).contains(reason), "{}", text(&output));
    }
    let missing = run(&["template", "propose", "/no/such/file"]);
    assert!(
        missing.status.code() == Some(1) && text(&missing).contains("/no/such/file: "),
        "{}",
        text(&missing)
    );
    assert_eq!(run(&["template"]).status.code(), Some(78));
}

#[tokio::test]
async fn one_picture_is_made_and_written_once() {
    let dir = fakes::fresh_dir("try");
    let sidecar = Running::start(&dir, &["--engine", "builtin"]);
    sidecar.ready().await;
    let address = sidecar.url.trim_start_matches("http://").to_owned();
    let attempt =
        |arguments: &[&str]| run(&[&["template", "try"], arguments, &["--listen", &address]].concat());
    let file: PathBuf = dir.join("one.png");
    let path = file.display().to_string();
    let made = attempt(&["sd-v1-5", "--prompt", "a cat", "--seed", "7", "--output", &path]);
    assert_eq!(made.status.code(), Some(0), "{}", text(&made));
    let line = text(&made);
    assert!(line.contains("model ") && line.contains("seed 7"), "{line}");
    assert!(
        line.contains(" s: ") && line.ends_with(&format!("{path}\n")) && line.lines().count() == 1,
        "{line}"
    );
    let first = std::fs::read(&file).unwrap();
    assert!(first.starts_with(b"\x89PNG"));
    let again = attempt(&["sd-v1-5", "--output", &path]);
    assert_eq!(again.status.code(), Some(1));
    assert!(
        text(&again).contains("exists: name another file with --output, or add --force"),
        "{}",
        text(&again)
    );
    assert_eq!(std::fs::read(&file).unwrap(), first, "it is as it was");
    let edited = attempt(&["sd-v1-5", "--seed", "8", "--image", &path, "--output", &path, "--force"]);
    assert_eq!(edited.status.code(), Some(0), "{}", text(&edited));
    assert_ne!(std::fs::read(&file).unwrap(), first);
    let other = dir.join("other.png").display().to_string();
    for (arguments, words) in [
        (vec!["no-such-model", "--output", &other], "no-such-model"),
        (vec!["sd-v1-5", "--seed", "x", "--output", &other], "seed"),
        (vec!["sd-v1-5", "--image", "/no/such/file", "--output", &other], "/no/such/file"),
    ] {
        let refused = attempt(&arguments);
        assert_eq!(refused.status.code(), Some(1), "{arguments:?}");
        assert!(text(&refused).contains(words), "{arguments:?}: {}", text(&refused));
        assert!(!Path::new(&other).exists(), "nothing is written");
    }
    assert_eq!(attempt(&["sd-v1-5", "--mask", &path]).status.code(), Some(78), "a mask needs a picture");
    let alone = run(&["template", "try", "x", "--output", &other, "--listen", "127.0.0.1:9"]);
    assert!(
        alone.status.code() == Some(1) && text(&alone).contains("ada2-sidecar serve"),
        "{}",
        text(&alone)
    );
}
