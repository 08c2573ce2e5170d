use std::os::unix::fs::symlink;

use super::*;

const SD_1: &str = r#"{"model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": {"shape": [640, 768]},
    "model.diffusion_model.input_blocks.0.0.weight": {"shape": [320, 4, 3, 3]}}"#;
const KREA_2: &str = r#"{"txtfusion.projector.weight": {"shape": [1, 12]}}"#;

fn safetensors(header: &str) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat()
}

fn with_length(length: u64, header: &str) -> Vec<u8> {
    [&length.to_le_bytes()[..], header.as_bytes()].concat()
}

async fn kind_of(dir: &ModelDir, folder: Folder, file: &str) -> String {
    dir.read(vec![(folder, file.to_owned())]).await;
    dir.kind(folder, file).map_or("?".to_owned(), |kind| kind.to_string())
}

#[tokio::test]
async fn the_header_of_a_file_is_read_wherever_the_engine_loads_it_from() {
    use Folder::{Checkpoints, DiffusionModels};
    let root = fakes::new_temp_dir();
    let elsewhere = fakes::new_temp_dir();
    let write = |path: &str, bytes: Vec<u8>| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    write("checkpoints/a.safetensors", safetensors(SD_1));
    write("checkpoints/sub/b.sft", safetensors(SD_1));
    write("checkpoints/c.ckpt", safetensors(SD_1));
    write("diffusion_models/a.safetensors", safetensors(KREA_2));
    write("unet/both.safetensors", safetensors(KREA_2));
    write("diffusion_models/both.safetensors", safetensors(SD_1));
    write("outside.safetensors", safetensors(SD_1));
    fs::write(elsewhere.path().join("d"), safetensors(KREA_2)).unwrap();
    symlink(elsewhere.path().join("d"), root.path().join("checkpoints/link.safetensors")).unwrap();
    symlink(elsewhere.path().join("gone"), root.path().join("checkpoints/broken.safetensors")).unwrap();
    let absolute = root.path().join("outside.safetensors").display().to_string();
    let dir = ModelDir::new(root.path().to_owned());
    for (folder, file, expected) in [
        (Checkpoints, "a.safetensors", "SD 1.5"),
        (Checkpoints, "sub/b.sft", "SD 1.5"),
        (Checkpoints, "c.ckpt", "?"),
        (Checkpoints, "link.safetensors", "Krea 2"),
        (Checkpoints, "broken.safetensors", "?"),
        (Checkpoints, "gone.safetensors", "?"),
        (Checkpoints, "../outside.safetensors", "?"),
        (Checkpoints, "sub/../../outside.safetensors", "?"),
        (Checkpoints, &absolute, "?"),
        (DiffusionModels, "a.safetensors", "Krea 2"),
        (DiffusionModels, "both.safetensors", "Krea 2"),
    ] {
        assert_eq!(kind_of(&dir, folder, file).await, expected, "{file}");
    }
}

#[tokio::test]
async fn what_is_not_a_model_is_left_alone() {
    let root = fakes::new_temp_dir();
    let checkpoints = root.path().join("checkpoints");
    fs::create_dir(&checkpoints).unwrap();
    for (name, bytes) in [
        ("empty", Vec::new()),
        ("short", vec![1, 2, 3]),
        ("garbage", vec![b'x'; 5000]),
        ("huge", with_length(1 << 60, SD_1)),
        ("longer", with_length(SD_1.len() as u64 + 1, SD_1)),
        ("cut", safetensors(&SD_1[..40])),
        ("array", safetensors("[]")),
        ("page", safetensors("<!DOCTYPE html>")),
    ] {
        fs::write(checkpoints.join(format!("{name}.safetensors")), bytes).unwrap();
    }
    fs::create_dir(checkpoints.join("folder.safetensors")).unwrap();
    let fifo = checkpoints.join("fifo.safetensors");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    symlink("/dev/zero", checkpoints.join("device.safetensors")).unwrap();
    let dir = ModelDir::new(root.path().to_owned());
    for name in
        ["empty", "short", "garbage", "huge", "longer", "cut", "array", "page", "folder", "fifo", "device"]
    {
        assert_eq!(kind_of(&dir, Folder::Checkpoints, &format!("{name}.safetensors")).await, "?", "{name}");
    }
    // A header is not read to its end if it is longer than any model's.
    let sparse = File::create(checkpoints.join("sparse.safetensors")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    let mut long = with_length(MAX_HEADER + 1, SD_1);
    long.resize(usize::try_from(MAX_HEADER).unwrap() + 9, b' ');
    fs::write(checkpoints.join("limit.safetensors"), long).unwrap();
    for name in ["sparse", "limit"] {
        assert_eq!(kind_of(&dir, Folder::Checkpoints, &format!("{name}.safetensors")).await, "?", "{name}");
    }
}

#[tokio::test]
async fn a_file_is_read_once_for_each_change_of_it() {
    let root = fakes::new_temp_dir();
    let file = root.path().join("checkpoints/a.safetensors");
    fs::create_dir(file.parent().unwrap()).unwrap();
    fs::write(&file, safetensors(SD_1)).unwrap();
    let dir = ModelDir::new(root.path().to_owned());
    let first = async || kind_of(&dir, Folder::Checkpoints, "a.safetensors").await;
    assert_eq!(first().await, "SD 1.5");
    let before = fs::metadata(&file).unwrap().modified().unwrap();
    let mut other = safetensors(KREA_2);
    other.resize(safetensors(SD_1).len(), b' ');
    fs::write(&file, other).unwrap();
    File::options().write(true).open(&file).unwrap().set_modified(before).unwrap();
    assert_eq!(first().await, "SD 1.5", "not read again");
    let later = before + std::time::Duration::from_secs(1);
    File::options().write(true).open(&file).unwrap().set_modified(later).unwrap();
    assert_eq!(first().await, "Krea 2");
    fs::remove_file(&file).unwrap();
    assert_eq!(first().await, "?", "gone");
    assert!(dir.0.kinds().is_empty());
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_reported_once_and_read_when_it_comes() {
    let root = fakes::new_temp_dir();
    let dir = ModelDir::new(root.path().join("models"));
    assert_eq!(kind_of(&dir, Folder::Checkpoints, "a.safetensors").await, "?");
    assert!(dir.0.warned.load(Ordering::Relaxed));
    let checkpoints = root.path().join("models/checkpoints");
    fs::create_dir_all(&checkpoints).unwrap();
    fs::write(checkpoints.join("a.safetensors"), safetensors(SD_1)).unwrap();
    assert_eq!(kind_of(&dir, Folder::Checkpoints, "a.safetensors").await, "SD 1.5");
    assert!(!dir.0.warned.load(Ordering::Relaxed));
}
