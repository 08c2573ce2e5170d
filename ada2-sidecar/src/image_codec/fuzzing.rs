//! What must hold of uploaded images; see [`crate::fuzzing`].

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::{decode::decode, strip_for_decoder, strip_metadata, upright_size};

/// Larger ones take too long to be tried often.
const MAX_PIXELS: u64 = 1 << 14;

/// The size that the header tells is that of the decoded image, upright; and what is stripped changes no pixel.
pub fn upload(data: &[u8]) {
    let file = Bytes::copy_from_slice(data);
    let stripped = strip_for_decoder(&file);
    assert!(stripped.len() <= file.len() && strip_metadata(&file).len() <= file.len());
    assert_eq!(strip_for_decoder(&stripped), stripped, "nothing is left to strip");
    let Ok(size) = upright_size("image", &stripped) else { return };
    if size.pixels() > MAX_PIXELS {
        return;
    }
    let cancel = CancellationToken::new();
    let Ok(decoded) = decode("image", &stripped, &cancel) else { return };
    assert_eq!(decoded.upright_size(), size);
    if decoded.has_alpha() {
        let mask = decoded.keep_mask(&cancel).expect("it is not cancelled");
        assert_eq!(mask.dimensions(), (size.width, size.height));
    }
    let pixels = decoded.into_rgb(&cancel).expect("it is not cancelled");
    assert_eq!(pixels.dimensions(), (size.width, size.height));
    if let Ok(whole) = decode("image", &file, &cancel) {
        assert_eq!(whole.into_rgb(&cancel).expect("it is not cancelled"), pixels);
    }
}
