//! The least work that an image needs, on plain threads without a server: received over an open connection, decoded,
//! hashed, written, flushed to the disk as file and name. What a gateway takes beyond it is its overhead.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    net::TcpStream,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use base64_simd::{STANDARD, URL_SAFE};
use sha2::{Digest, Sha256};

use super::super::backend::{AFTER, BEFORE};

const BLOCK: usize = 256 << 10;
const REQUEST: &[u8] =
    b"POST /v1/images/generations HTTP/1.1\r\nHost: baseline\r\nContent-Length: 2\r\n\r\n{}";

/// The cost over all rounds.
#[derive(Default)]
pub(super) struct Baseline {
    pub(super) wall: Duration,
    pub(super) processor: Duration,
}

impl Baseline {
    /// One more round: the images divided among threads, each with its own connection.
    pub(super) fn measure(&mut self, url: &str, threads: usize, images: usize) {
        assert_eq!(images % threads, 0, "each thread takes as many");
        let dirs: Vec<_> = (0..threads).map(|_| tempfile::tempdir().expect("a writable directory")).collect();
        let (share, start) = (images / threads, Instant::now());
        let processor = thread::scope(|scope| {
            let all = dirs.iter().map(|dir| scope.spawn(move || processor(url, dir.path(), share)));
            let all: Vec<_> = all.collect();
            all.into_iter().map(|one| one.join().expect("images")).sum::<Duration>()
        });
        self.wall += start.elapsed();
        self.processor += processor;
    }
}

/// Processor time of so many images, one after the other.
fn processor(url: &str, dir: &Path, images: usize) -> Duration {
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).expect("the backend listens");
    let mut blocks = (vec![0; BLOCK], vec![0; BLOCK]);
    let start = thread_time();
    for _ in 0..images {
        image(&mut stream, &mut blocks, dir).expect("an image");
    }
    thread_time().saturating_sub(start)
}

fn image(stream: &mut TcpStream, (read, decoded): &mut (Vec<u8>, Vec<u8>), dir: &Path) -> io::Result<()> {
    stream.write_all(REQUEST)?;
    let mut filled = 0;
    let begin = loop {
        filled += stream.read(&mut read[filled..])?;
        let before = read[..filled].windows(BEFORE.len()).position(|bytes| bytes == BEFORE.as_bytes());
        if let Some(before) = before {
            break before + BEFORE.len();
        }
    };
    let mut remaining = length(&read[..begin]) - BEFORE.len() - AFTER.len() - "{}".len();
    read.copy_within(begin..filled, 0);
    filled -= begin;
    let path = dir.join("unnamed");
    let (mut file, mut hash) = (File::create(&path)?, Sha256::new());
    while remaining > 0 {
        let decodable = filled.min(remaining) / 4 * 4;
        let bytes =
            STANDARD.decode(&read[..decodable], base64_simd::Out::from_slice(decoded)).expect("base64");
        file.write_all(bytes)?;
        hash.update(&*bytes);
        remaining -= decodable;
        read.copy_within(decodable..filled, 0);
        filled -= decodable;
        if remaining > 0 {
            filled += stream.read(&mut read[filled..])?;
        }
    }
    stream.read_exact(&mut read[filled..AFTER.len() + "}".len()])?;
    file.sync_all()?;
    fs::rename(path, dir.join(URL_SAFE.encode_to_string(hash.finalize())))?;
    File::open(dir)?.sync_all()
}

fn length(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let (_, length) = head.split_once("content-length: ").expect("a length");
    length.lines().next().and_then(|length| length.parse().ok()).expect("a number")
}

/// Of this thread so far.
fn thread_time() -> Duration {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(
        stat.split_whitespace().next().and_then(|nanoseconds| nanoseconds.parse().ok()).unwrap_or_default(),
    )
}
