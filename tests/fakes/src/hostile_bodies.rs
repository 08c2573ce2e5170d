//! Request bodies that cost a careless reader more than their length: trees of ignored fields, texts that are
//! copied, and forms that are searched again and again.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use crate::child::{peak_mib, reset_peak, resident_kib};

/// Just below what both programs take.
pub const LARGE: usize = 31 << 20;
/// Of the length that browsers use.
const BOUNDARY: &str = "----WebKitFormBoundary7MA4YWxkTrZu0gW";
/// Images of one edit.
const MAX_IMAGES: usize = 16;
/// So many bytes of each make a [`LARGE`] body.
const IMAGE: usize = (LARGE - 10_000) / MAX_IMAGES;
/// What the least image needs.
const MINIMAL_FIELDS: &str = r#""prompt":"x","size":"64x64""#;
/// The begin of an image in JSON.
const IMAGE_URL: &str = r#","images":[{"image_url":"data:image\/png;base64,"#;

/// A request for an image.
#[derive(Debug)]
pub struct HostileBody {
    /// What is odd about it.
    pub name: &'static str,
    /// Behind `/v1/images/`.
    pub path: &'static str,
    /// The header.
    pub content_type: String,
    /// About [`LARGE`] bytes.
    pub body: Vec<u8>,
    /// What the sidecar answers.
    pub sidecar: u16,
    /// What a gateway answers that paints its own images.
    pub gateway: u16,
}

/// What a request cost the service that answered it.
#[derive(Debug)]
pub struct Cost {
    /// Of the answer.
    pub status: u16,
    /// Of the answer.
    pub body: String,
    /// Memory at its peak above what it had before, in MiB.
    pub peak_mib: u64,
    /// The longest that `/healthz` took meanwhile.
    pub max_health_latency: Duration,
}

impl HostileBody {
    /// Sends it to a service in its own process, whose health is polled meanwhile.
    pub async fn send(self, url: &str, process: u32, token: &str) -> Cost {
        reset_peak(process);
        let before = resident_kib(process) >> 10;
        let request = crate::http().post(format!("{url}/v1/images/{}", self.path)).bearer_auth(token);
        let request = request.header("content-type", self.content_type).body(self.body);
        let done = AtomicBool::new(false);
        let answered = async {
            let answer = request.send().await.expect("an answer");
            let answer = (answer.status().as_u16(), answer.text().await.expect("a complete response"));
            done.store(true, Ordering::Release);
            answer
        };
        let ((status, body), silence) = tokio::join!(answered, health(url, &done));
        Cost { status, body, peak_mib: peak_mib(process).saturating_sub(before), max_health_latency: silence }
    }
}

async fn health(url: &str, done: &AtomicBool) -> Duration {
    let mut slowest = Duration::ZERO;
    while !done.load(Ordering::Acquire) {
        let begin = Instant::now();
        let answer = crate::http().get(format!("{url}/healthz")).send().await.expect("it is alive");
        assert_eq!(answer.status().as_u16(), 200);
        slowest = slowest.max(begin.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    slowest
}

type MakeBody = fn() -> Vec<u8>;

/// All of them, each built on demand.
pub fn all() -> impl Iterator<Item = HostileBody> {
    const MAKE: &str = "generations";
    let json: [(&str, &str, MakeBody, u16, u16); 12] = [
        ("objects in a list", MAKE, || json(r#","a":["#, r#"{"":0},"#, "0]"), 200, 200),
        ("many keys", MAKE, many_keys, 200, 200),
        ("lists without end", MAKE, || json(r#","a":"#, "[", ""), 400, 400),
        ("a long key", MAKE, || json(",\"", r"\u0041", "\":0"), 200, 200),
        ("a long prompt", MAKE, || json(",\"negative_prompt\":\"", r"long\n", "\""), 400, 200),
        ("a long number", MAKE, || json(",\"n\":1", "0", ""), 400, 400),
        ("a long model", MAKE, || json(",\"model\":\"gpt-image", "xyz", "\""), 400, 400),
        ("an address", "edits", || json(IMAGE_URL, "////AAAA", "\"}]"), 400, 200),
        ("an address in escapes", "edits", || json(IMAGE_URL, r"\/\/\/A", "\"}]"), 400, 200),
        ("many addresses", "edits", many_addresses, 400, 200),
        (
            "too many",
            "edits",
            || json(r#","image":["#, r#""data:;base64,AA","#, "\"data:;base64,AA\"]"),
            400,
            400,
        ),
        ("addresses", "edits", || json(r#","images":["#, r#"{"image_url":"data:,"},"#, "0]"), 400, 400),
    ];
    let forms: [(&str, MakeBody, u16, u16); 10] = [
        ("line ends", || form(BOUNDARY, &image_part("\r\n")), 400, 200),
        (
            "all but delimiters",
            || form(BOUNDARY, &image_part("\r\n------WebKitFormBoundary7MA4YWxk")),
            400,
            200,
        ),
        ("texts in a PNG", || png_of(&chunk(b"tEXta\0")), 400, 200),
        ("a profile in a PNG", || png_of(&packed_profile()), 400, 200),
        ("profiles in a JPEG", jpeg_of_profiles, 400, 200),
        ("many images", || form_with_images(MAX_IMAGES, &b"\r\n".repeat(IMAGE / 2)), 400, 200),
        ("texts in many PNGs", || form_with_images(MAX_IMAGES, &png(&chunk(b"tEXta\0"), IMAGE)), 400, 200),
        ("a head without end", || form(BOUNDARY, &filled("name=\"a\"; x=\"", "a", "")), 400, 400),
        ("a long name", || form(BOUNDARY, &filled("name=\"", "a", "\"\r\n\r\nx")), 400, 400),
        (
            "parts",
            || form(BOUNDARY, &filled("name=\"a\"\r\n\r\n", &part("name=\"b\"\r\n\r\n"), "")),
            400,
            400,
        ),
    ];
    let json = json.into_iter().map(|(name, path, body, sidecar, gateway)| HostileBody {
        name,
        path,
        content_type: "application/json".to_owned(),
        body: body(),
        sidecar,
        gateway,
    });
    let forms = forms.into_iter().map(|(name, body, sidecar, gateway)| HostileBody {
        name,
        path: "edits",
        content_type: format!("multipart/form-data; boundary={BOUNDARY}"),
        body: body(),
        sidecar,
        gateway,
    });
    json.chain(forms).chain(std::iter::once_with(long_boundary))
}

/// One object with so much of what is repeated that it is [`LARGE`].
fn json(begin: &str, repeated: &str, end: &str) -> Vec<u8> {
    let times = (LARGE - MINIMAL_FIELDS.len() - begin.len() - end.len() - 2) / repeated.len();
    format!("{{{MINIMAL_FIELDS}{begin}{}{end}}}", repeated.repeat(times)).into_bytes()
}

fn many_keys() -> Vec<u8> {
    use std::fmt::Write;
    let mut body = format!("{{{MINIMAL_FIELDS}");
    for nth in 0.. {
        if body.len() > LARGE {
            break;
        }
        write!(body, ",\"{nth}\":0").expect("memory");
    }
    (body + "}").into_bytes()
}

/// A part's head and content with the repeated part so often that the total is [`LARGE`].
fn filled(begin: &str, repeated: &str, end: &str) -> String {
    format!("{begin}{}{end}", repeated.repeat((LARGE - 1000) / repeated.len()))
}

fn image_part(repeated: &str) -> String {
    filled("name=\"image\"; filename=\"a\"\r\n\r\n", repeated, "")
}

/// A delimiter, and a part.
fn part(head_and_content: &str) -> String {
    format!("\r\n--{BOUNDARY}\r\nContent-Disposition: form-data; {head_and_content}")
}

/// A form for the least image, and one more part.
fn form(boundary: &str, further: &str) -> Vec<u8> {
    let part = |rest: &str| format!("--{boundary}\r\nContent-Disposition: form-data; {rest}\r\n");
    let least = part("name=\"prompt\"\r\n\r\nx") + &part("name=\"size\"\r\n\r\n64x64");
    (least + &part(further) + &format!("--{boundary}--\r\n")).into_bytes()
}

/// A form with this as its only image.
fn form_with_image(content: &[u8]) -> Vec<u8> {
    form_with_images(1, content)
}

/// A form with so many images.
fn form_with_images(count: usize, content: &[u8]) -> Vec<u8> {
    const HEAD: &str = "name=\"image[]\"; filename=\"a\"\r\n\r\n";
    let empty = form(BOUNDARY, HEAD);
    let (begin, end) = empty.split_at(empty.len() - format!("\r\n--{BOUNDARY}--\r\n").len());
    [begin, &vec![content; count].join(part(HEAD).as_bytes()), end].concat()
}

fn many_addresses() -> Vec<u8> {
    let address = format!("{{\"image_url\":\"data:;base64,{}\"}}", "////AAAA".repeat((IMAGE - 100) / 8));
    format!("{{{MINIMAL_FIELDS},\"image\":[{}]}}", vec![address; MAX_IMAGES].join(",")).into_bytes()
}

fn png_of(chunks: &[u8]) -> Vec<u8> {
    form_with_image(&png(chunks, LARGE - 1000))
}

/// The head of an image of 64x64, and these chunks up to a length.
fn png(chunks: &[u8], len: usize) -> Vec<u8> {
    let head = chunk(b"IHDR\0\0\0\x40\0\0\0\x40\x08\x02\0\0\0");
    let chunks = chunks.repeat((len / chunks.len()).max(1));
    [b"\x89PNG\r\n\x1a\n", &head[..], &chunks].concat()
}

/// A chunk of a PNG.
fn chunk(kind_and_data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(kind_and_data.len() - 4).expect("a short chunk");
    [&length.to_be_bytes()[..], kind_and_data, &crc(kind_and_data).to_be_bytes()].concat()
}

/// The profile of a colour space, a quarter of a gigabyte when unpacked.
fn packed_profile() -> Vec<u8> {
    let mut info = png::Info::with_size(1, 1);
    info.icc_profile = Some(vec![0; 256 << 20].into());
    let mut file = Vec::new();
    let writer = png::Encoder::with_info(&mut file, info).and_then(png::Encoder::write_header);
    drop(writer.expect("memory"));
    let begin = file.windows(4).position(|kind| kind == b"iCCP").expect("it is written") - 4;
    let length = u32::from_be_bytes(file[begin..begin + 4].try_into().expect("four bytes")) as usize;
    file[begin..begin + 12 + length].to_vec()
}

fn jpeg_of_profiles() -> Vec<u8> {
    let profile = b"\xff\xe2\0\x11ICC_PROFILE\0\x01\x01p";
    form_with_image(&[b"\xff\xd8", &profile.repeat((LARGE - 1000) / profile.len())[..]].concat())
}

/// The check sum of PNG's chunks.
fn crc(bytes: &[u8]) -> u32 {
    let one = |sum: u32| if sum & 1 == 1 { sum >> 1 ^ 0xEDB8_8320 } else { sum >> 1 };
    !bytes.iter().fold(u32::MAX, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), |sum, _| one(sum)))
}

/// A boundary of 40 kB, and content that is nearly it again and again.
fn long_boundary() -> HostileBody {
    let boundary = "q".repeat(40_000);
    HostileBody {
        name: "a long boundary",
        path: "edits",
        content_type: format!("multipart/form-data; boundary={boundary}"),
        body: form(&boundary, &image_part(&format!("\r\n--{}", &boundary[..39_000]))),
        sidecar: 400,
        gateway: 400,
    }
}
