//! A store whose disk is full: a small file system of its own. Mounting needs root; without, the test says that it is
//! skipped.
//!
//! `cargo test -p e2e full_disk -- --nocapture`

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use e2e::gateway::{Gateway, gpu_heavy};
use fakes::upstream::Upstream;
use reqwest::Method;
use serde_json::json;

/// A file system in memory; unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Option<Self> {
        Self::mount_of("1m", at)
    }

    fn mount_of(size: &str, at: &Path) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let mut mount = Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"]).arg(at).output();
        match mounted {
            Ok(done) if done.status.success() => Some(Self(at.to_owned())),
            refused => {
                let why = refused.map_or_else(
                    |error| error.to_string(),
                    |done| String::from_utf8_lossy(&done.stderr).trim().to_owned(),
                );
                let _ = writeln!(
                    std::io::stderr(),
                    "SKIPPED full disk: no small disk can be mounted here: {why}"
                );
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_507_frees_the_slot_and_recovers_when_there_is_space() {
    let dir = fakes::fresh_dir("full-disk");
    let Some(disk) = SmallDisk::mount(&dir.join("pictures")) else { return };
    let upstream = Upstream::start().await;
    let gateway = Gateway::start_in(dir, &gpu_heavy(&upstream), &[]).await;
    let ask = json!({"prompt": "p", "size": "64x64"});
    assert_eq!(gateway.generate(&ask).await.status, 200);
    let filler = disk.0.join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    drop(file);
    let ready = async |status: u16| {
        let follows = async || {
            let answer = gateway.anonymous(Method::GET, "/readyz").send().await.unwrap();
            (answer.status().as_u16() == status).then_some(())
        };
        fakes::eventually("readiness follows the disk", follows).await;
    };
    ready(503).await;
    for request in [&ask, &json!({"prompt": "p", "size": "64x64", "response_format": "b64_json"})] {
        let full = gateway.generate(request).await;
        assert_eq!((full.status, full.code()), (507, "storage_full"));
        assert_eq!(full.header("x-should-retry"), "false");
        assert_eq!(gateway.inflight("gpu_heavy.images").await, 0);
    }
    let mut left: Vec<_> = std::fs::read_dir(&disk.0)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.retain(|name| ![".lock", "filler"].contains(&name.as_str()) && name.strip_suffix(".json").is_none());
    assert_eq!(left.len(), 1, "the first image, and no unfinished file: {left:?}");
    std::fs::remove_file(filler).unwrap();
    let answer = gateway.generate(&ask).await;
    assert_eq!(answer.status, 200, "without restart: {answer:?}");
    ready(200).await;
}

#[tokio::test]
async fn a_disk_nine_tenths_full_is_a_warning_while_images_are_still_made() {
    let dir = fakes::fresh_dir("nearly-full");
    let Some(disk) = SmallDisk::mount_of("8m", &dir.join("pictures")) else { return };
    let upstream = Upstream::start().await;
    std::fs::write(disk.0.join("filler"), vec![0; 5 << 20]).unwrap();
    let warnings =
        async |gateway: &Gateway| gateway.get("/v1/gateway/status").await.json["gateway"]["warnings"].clone();
    let gateway = Gateway::start_in(dir.clone(), &gpu_heavy(&upstream), &[]).await;
    fakes::eventually("the disk was looked at", async || {
        gateway.get("/v1/gateway/status").await.json["store"]["disk_bytes"]
            .as_u64()
            .filter(|bytes| *bytes == 8 << 20)
    })
    .await;
    let about = |report: &serde_json::Value| report.to_string().contains("the disk with the images");
    assert!(!about(&warnings(&gateway).await));
    gateway.stop().await;
    // Images are refused when less than a quarter is free; a warning is given at nine tenths of the rest.
    std::fs::write(disk.0.join("more"), vec![0; 600 << 10]).unwrap();
    let gateway = Gateway::start_in(dir, &gpu_heavy(&upstream), &[]).await;
    let report =
        fakes::eventually("the disk is reported", async || Some(warnings(&gateway).await).filter(about))
            .await;
    assert!(
        report.to_string().contains("% full") && report.to_string().contains("UI_IMAGE_STORE_MAX_BYTES"),
        "{report}"
    );
    let answer = gateway.generate(&json!({"prompt": "p", "size": "64x64"})).await;
    assert_eq!(answer.status, 200, "it is no 507 yet");
}

#[tokio::test]
async fn a_disk_without_room_for_an_image_is_507_before_a_backend_gets_it() {
    let dir = fakes::fresh_dir("scarce-disk");
    let Some(disk) = SmallDisk::mount(&dir.join("pictures")) else { return };
    let upstream = Upstream::start().await;
    let gateway = Gateway::start_in(dir, &gpu_heavy(&upstream), &[]).await;
    let ready = async |status: u16| {
        fakes::eventually("readiness follows the disk", async || {
            let answer = gateway.anonymous(Method::GET, "/readyz").send().await.unwrap();
            (answer.status().as_u16() == status).then_some(())
        })
        .await;
    };
    ready(200).await;
    // Four million bytes at most, on a disk of one.
    let large = gateway.generate(&json!({"prompt": "p", "size": "1024x1024"})).await;
    assert_eq!((large.status, large.code()), (507, "storage_full"));
    assert!(large.message().contains("KiB are free on its disk"), "{}", large.message());
    // Almost full: a small file can still be made.
    std::fs::write(disk.0.join("filler"), vec![0; 900 << 10]).unwrap();
    ready(503).await;
    let report = gateway.get("/readyz").await;
    assert!(report.json["store"].as_str().is_some_and(|text| text.contains("are free")), "{report:?}");
    for request in [
        json!({"prompt": "p", "size": "64x64"}),
        json!({"prompt": "p"}),
        json!({"prompt": "p", "size": "64x64", "stream": true}),
    ] {
        let scarce = gateway.generate(&request).await;
        assert_eq!((scarce.status, scarce.code()), (507, "storage_full"), "{request}");
        assert_eq!(scarce.header("x-should-retry"), "false");
    }
    assert!(upstream.images().is_empty(), "no GPU time was spent");
    assert_eq!(gateway.inflight("gpu_heavy.images").await, 0);
    std::fs::remove_file(disk.0.join("filler")).unwrap();
    assert_eq!(gateway.generate(&json!({"prompt": "p", "size": "64x64"})).await.status, 200);
}
