//! A gateway that is killed (`kill -9`) again and again while it stores images. Whatever it answered must be served
//! afterwards, byte for byte as its hash says; nothing else must be; and after a restart no unfinished file is left.
//!
//! `cargo bench -p benches --bench kills -- [images]`

use std::{
    collections::BTreeSet,
    io::Write,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use e2e::gateway::{Gateway, TOKEN, gpu_heavy};
use fakes::{
    child::{self, Child},
    upstream::Upstream,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const IMAGES: usize = 2_000;
const CALLERS: u64 = 4;
/// A life lasts up to so long, in ms.
const LONGEST_LIFE: u64 = 100;

#[tokio::main]
async fn main() {
    let given: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [first, dir, backend] = &given[..]
        && first == "gateway"
    {
        let yaml = backend.replace("images: 2", "images: 8");
        let gateway = Gateway::start_in(dir.into(), &yaml, &[]).await;
        gateway.until_ready("gpu_heavy", true).await;
        return child::listening(&gateway.url).await;
    }
    let goal = given.first().and_then(|images| images.parse().ok()).unwrap_or(IMAGES);
    let upstream = Upstream::start().await;
    let dir = tempfile::tempdir().expect("a writable directory");
    let (store, yaml) = (dir.path().join("pictures"), gpu_heavy(&upstream));
    let arguments = ["gateway", &dir.path().display().to_string(), &yaml];
    let (answered, seeds) = (Mutex::new(BTreeSet::new()), AtomicU64::new(0));
    let (mut kills, mut litter) = (0, 0);
    while count(&answered) < goal {
        let mut gateway = Child::start(&arguments);
        assert_eq!(unfinished(&store), 0, "a restart removes unfinished files");
        let url = gateway.url.clone();
        let clients = (0..CALLERS).map(|_| request_images(&url, &seeds, &answered));
        let life = random() % LONGEST_LIFE;
        tokio::select! {
            _ = futures_util::future::join_all(clients) => {}
            () = tokio::time::sleep(Duration::from_millis(life)) => {}
        }
        gateway.kill();
        kills += 1;
        litter += unfinished(&store);
    }
    let gateway = Child::start(&arguments);
    assert_eq!(unfinished(&store), 0, "a restart removes unfinished files");
    let answered = answered.into_inner().unwrap_or_else(PoisonError::into_inner);
    for url in &answered {
        check(&gateway.url, url).await;
    }
    let served = files(&store);
    for name in &served {
        check(&gateway.url, &format!("/ui/images/{name}")).await;
    }
    let unanswered = served.len() - answered.len();
    let _ = writeln!(
        std::io::stdout(),
        "{} images answered over {kills} kills: each is served as its hash says; {unanswered} more were complete when their \
         answer was lost; {litter} unfinished files lay about after kills, none after a restart",
        answered.len()
    );
}

/// Requests one image after the other until the gateway is killed.
async fn request_images(url: &str, seeds: &AtomicU64, answered: &Mutex<BTreeSet<String>>) {
    loop {
        let seed = seeds.fetch_add(1, Ordering::Relaxed);
        let format = if seed.is_multiple_of(5) { "b64_json" } else { "url" };
        let body = json!({"prompt": "p", "size": "256x256", "n": 1 + seed % 2, "seed": seed * 2,
            "response_format": format});
        let request = fakes::http().post(format!("{url}/v1/images/generations")).bearer_auth(TOKEN);
        let request = request.header("content-type", "application/json").body(body.to_string());
        let Ok(answer) = request.send().await else { return };
        let status = answer.status().as_u16();
        let Ok(bytes) = answer.bytes().await else { return };
        let body: Value = serde_json::from_slice(&bytes).expect("a complete response is JSON");
        assert_eq!(status, 200, "{body}");
        for entry in body["data"].as_array().expect("images") {
            if let Some(url) = entry["url"].as_str() {
                answered.lock().unwrap_or_else(PoisonError::into_inner).insert(url.to_owned());
            }
        }
    }
}

/// The image is served, and it is the one in its name.
async fn check(gateway: &str, url: &str) {
    let answer = fakes::http().get(format!("{gateway}{url}")).send().await.expect("an answer");
    assert_eq!(answer.status().as_u16(), 200, "{url}");
    let bytes = answer.bytes().await.expect("a complete image");
    let hash = Sha256::digest(&bytes)[..8].iter().fold(0_u64, |hash, byte| hash << 8 | u64::from(*byte));
    assert!(url.contains(&format!("_{hash:016x}.")), "{url} has the bytes of {hash:016x}");
}

fn count(answered: &Mutex<BTreeSet<String>>) -> usize {
    answered.lock().unwrap_or_else(PoisonError::into_inner).len()
}

fn files(store: &Path) -> Vec<String> {
    let names = std::fs::read_dir(store).into_iter().flatten().flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let is_image = |name: &String| {
        name != ".lock" && !name.starts_with(".incoming-") && name.strip_suffix(".json").is_none()
    };
    names.filter(is_image).collect()
}

fn unfinished(store: &Path) -> usize {
    let names = std::fs::read_dir(store).into_iter().flatten().flatten();
    names.filter(|entry| entry.file_name().to_string_lossy().starts_with(".incoming-")).count()
}

/// From the hasher's random keys: no two runs kill at the same instants.
fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}
