//! The source, mask and form of edits in tests.

use e2e::sidecar::Sidecar;
use fakes::TestResponse;
use image::{DynamicImage, ImageFormat, Rgb, RgbImage, Rgba, RgbaImage};

pub(crate) const WIDTH: u32 = 128;
pub(crate) const HEIGHT: u32 = 96;

pub(crate) fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Vec::new();
    image.write_to(&mut std::io::Cursor::new(&mut bytes), format).unwrap();
    bytes
}

pub(crate) fn source() -> DynamicImage {
    let pixel = |x: u32, y: u32| Rgb([u8::try_from(x).unwrap(), u8::try_from(y).unwrap(), 99]);
    DynamicImage::ImageRgb8(RgbImage::from_fn(WIDTH, HEIGHT, pixel))
}

/// Transparent in its left half, which is to be replaced.
pub(crate) fn mask() -> Vec<u8> {
    let pixel = |x: u32, _| Rgba([0, 0, 0, if x < WIDTH / 2 { 0 } else { 255 }]);
    encoded(&DynamicImage::ImageRgba8(RgbaImage::from_fn(WIDTH, HEIGHT, pixel)), ImageFormat::Png)
}

/// A form as openai-python sends it.
pub(crate) struct EditForm(Vec<u8>);

impl EditForm {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn text(self, name: &str, text: &str) -> Self {
        self.part(&format!("name=\"{name}\""), text.as_bytes())
    }

    pub(crate) fn file(self, name: &str, bytes: &[u8]) -> Self {
        let head = format!("name=\"{name}\"; filename=\"upload\"\r\nContent-Type: application/octet-stream");
        self.part(&head, bytes)
    }

    fn part(mut self, head: &str, body: &[u8]) -> Self {
        self.0.extend_from_slice(
            format!("--b0undary\r\nContent-Disposition: form-data; {head}\r\n\r\n").as_bytes(),
        );
        self.0.extend_from_slice(body);
        self.0.extend_from_slice(b"\r\n");
        self
    }

    pub(crate) async fn send(mut self, sidecar: &Sidecar) -> TestResponse {
        self.0.extend_from_slice(b"--b0undary--\r\n");
        let request = fakes::http().post(format!("{}/v1/images/edits", sidecar.url));
        let request = request.header("content-type", "multipart/form-data; boundary=b0undary").body(self.0);
        TestResponse::read(request.send().await.unwrap()).await
    }
}

/// The first image of an answer.
pub(crate) fn image_of(answer: &TestResponse) -> RgbImage {
    image::load_from_memory(&answer.images()[0]).unwrap().into_rgb8()
}

/// The kept half equals the source byte for byte, and the other does not.
pub(crate) fn assert_left_half_replaced(made: &RgbImage) {
    let source = source().into_rgb8();
    assert_eq!(made.dimensions(), (WIDTH, HEIGHT));
    let differs = |(x, y, pixel): &(u32, u32, &Rgb<u8>)| *pixel != source.get_pixel(*x, *y);
    let changed: Vec<_> = made.enumerate_pixels().filter(differs).collect();
    assert!(changed.iter().all(|(x, ..)| *x < WIDTH / 2), "a pixel that the mask keeps changed");
    assert!(changed.len() > (WIDTH * HEIGHT / 4) as usize, "the rest was replaced");
}
