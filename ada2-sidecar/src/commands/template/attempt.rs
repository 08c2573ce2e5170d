//! `ada2-sidecar template try`: one picture through the running service.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::ArgMatches;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::{
    commands::client::{EDITS, GENERATIONS, PROMPT, SidecarClient, block_on, decode_image, service_address},
    config::Config,
};

/// The service ends a request itself; this is for one that does not.
const GRACE: Duration = Duration::from_secs(30);

pub(super) fn attempt(arguments: &ArgMatches, config: &Config) -> io::Result<ExitCode> {
    let text = |name: &str| arguments.get_one::<String>(name).map(String::as_str);
    let name = text("name").expect("it is required");
    let path = text("output").map_or_else(|| default_path(name), PathBuf::from);
    let is_forced = arguments.get_flag("force");
    if !is_forced && path.exists() {
        return Err(exists(&path));
    }
    let images: Vec<&String> = arguments.get_many("image").into_iter().flatten().collect();
    let (route, body) = request(name, text("prompt"), text("seed"), &images, text("mask"))?;
    let address =
        service_address(config).ok_or_else(|| io::Error::other("no address to ask: listen is empty"))?;
    let client = SidecarClient::new(address)?;
    let (started, limit) = (Instant::now(), config.request_timeout + GRACE);
    let response = block_on(client.post(route, config.token.as_ref(), &body, limit))?;
    let (status, body) = response.map_err(|error| {
        io::Error::other(format!("the sidecar at {address}: {error}; start it: ada2-sidecar serve"))
    })?;
    if status != StatusCode::OK {
        return Err(io::Error::other(refusal(status, &body)));
    }
    let (bytes, _) = decode_image(&body).map_err(io::Error::other)?;
    write(&path, &bytes, is_forced)?;
    let took = started.elapsed();
    writeln!(io::stdout(), "{} in {:.1} s: {}", settings(name, &body), took.as_secs_f64(), path.display())?;
    Ok(ExitCode::SUCCESS)
}

/// A name may have slashes, as files of models do.
fn default_path(name: &str) -> PathBuf {
    let name = name.rsplit(['/', '\\']).next().unwrap_or(name);
    PathBuf::from(format!("{}.png", name.trim_start_matches('.')))
}

/// The route and what is posted to it.
fn request(
    name: &str,
    prompt: Option<&str>,
    seed: Option<&str>,
    images: &[&String],
    mask: Option<&str>,
) -> io::Result<(&'static str, Value)> {
    let mut body = json!({"model": name, "prompt": prompt.unwrap_or(PROMPT), "output_format": "png"});
    if let Some(seed) = seed {
        // A word is rejected by the service, in its own words.
        body["seed"] =
            seed.parse::<i128>().ok().and_then(|seed| serde_json::to_value(seed).ok()).unwrap_or(json!(seed));
    }
    if let Some(mask) = mask {
        body["mask"] = json!({"image_url": data_url(mask)?});
    }
    if images.is_empty() {
        return Ok((GENERATIONS, body));
    }
    let images = images
        .iter()
        .map(|path| Ok(json!({"image_url": data_url(path)?})))
        .collect::<io::Result<Vec<_>>>()?;
    body["images"] = json!(images);
    Ok((EDITS, body))
}

fn data_url(path: &str) -> io::Result<String> {
    let bytes = fs::read(path).map_err(|error| io::Error::other(format!("{path}: {error}")))?;
    Ok(format!("data:application/octet-stream;base64,{}", base64_simd::STANDARD.encode_to_string(bytes)))
}

fn refusal(status: StatusCode, body: &Value) -> String {
    match body["error"]["message"].as_str() {
        Some(message) => message.to_owned(),
        None => format!("the answer is {status}, and not the sidecar's; fix: sudo ada2-sidecar doctor"),
    }
}

fn exists(path: &Path) -> io::Error {
    io::Error::other(format!("{} exists: name another file with --output, or add --force", path.display()))
}

fn write(path: &Path, bytes: &[u8], is_forced: bool) -> io::Result<()> {
    let file = if is_forced {
        OpenOptions::new().write(true).create(true).truncate(true).open(path)
    } else {
        OpenOptions::new().write(true).create_new(true).open(path)
    };
    file.and_then(|mut file| file.write_all(bytes)).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => exists(path),
        _ => io::Error::other(format!("{}: {error}", path.display())),
    })
}

/// What ran, as the service says it; without its settings, what else it says of the picture.
fn settings(name: &str, body: &Value) -> String {
    let image = &body["data"][0];
    let mut settings = image["settings"].as_object().cloned().unwrap_or_default();
    for (key, value) in [("model", &json!(name)), ("size", &body["size"]), ("seed", &image["seed"])] {
        if !value.is_null() {
            settings.entry(key).or_insert_with(|| value.clone());
        }
    }
    if let Some(ignored) = body.get("ignored") {
        settings.insert("ignored".to_owned(), ignored.clone());
    }
    let list = settings.iter().map(|(name, value)| match value {
        Value::String(text) => format!("{name} {text}"),
        other => format!("{name} {other}"),
    });
    list.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_ran() {
        let bare = json!({"size": "64x64", "data": [{"seed": 7}]});
        assert_eq!(settings("mine", &bare), "model mine, seed 7, size 64x64");
        let full = json!({"size": "64x64", "ignored": ["strength"], "data": [{"seed": 7, "settings":
            {"model": "z-image-turbo", "seed": 7, "size": "64x64", "steps": 8}}]});
        let line = "ignored [\"strength\"], model z-image-turbo, seed 7, size 64x64, steps 8";
        assert_eq!(settings("mine", &full), line);
    }

    #[test]
    fn the_file_is_named_as_the_model() {
        for (name, file) in
            [("mine", "mine.png"), ("dir/a.safetensors", "a.safetensors.png"), ("..\\x", "x.png")]
        {
            assert_eq!(default_path(name), PathBuf::from(file), "{name}");
        }
    }

    #[test]
    fn a_picture_makes_it_an_edit() {
        let (route, body) = request("m", None, Some("9"), &[], None).unwrap();
        assert_eq!((route, &body["seed"], &body["prompt"]), (GENERATIONS, &json!(9), &json!(PROMPT)));
        let file = format!("{}/Cargo.toml", env!("CARGO_MANIFEST_DIR"));
        let (route, body) = request("m", Some("p"), Some("x"), &[&file, &file], Some(&file)).unwrap();
        assert_eq!((route, &body["seed"]), (EDITS, &json!("x")));
        let images = body["images"].as_array().unwrap();
        assert_eq!((images.len(), &body["mask"]), (2, &images[0]));
    }
}
