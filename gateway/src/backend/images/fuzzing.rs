//! A backend's response with images: read as it arrives, and at once; see [`crate::fuzzing`].

use reqwest::Url;
use serde_json::Value;

use super::{
    decode::{Base64Decoder, DecodeError},
    response::{ImageSource, MAX_IMAGES, parse_images_response},
    scan::{JsonScanner, ScanEvent},
};
use crate::backend::decode_base64;

/// What a response holds: images or their URLs; an error if it is unusable.
pub(super) type Content = Result<Vec<Result<Vec<u8>, String>>, ()>;

/// An image that arrives, as far as it is decoded.
type PendingImage = Result<(Base64Decoder, Vec<u8>), DecodeError>;

/// Reads a response chunk by chunk.
pub(super) fn streamed<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> Content {
    let (mut scanner, mut current, mut images) = (JsonScanner::default(), None, Vec::new());
    for mut chunk in chunks {
        while let Some(event) = scanner.next(&mut chunk).map_err(drop)? {
            receive(&event, &mut current, &mut images);
        }
    }
    let base = "http://ada2/".parse().map_err(drop)?;
    let parsed = parse_images_response(scanner.into_rest(), &base).map_err(drop)?;
    let one = |source| match source {
        ImageSource::Inline(index) => images[index].clone().map(Ok).map_err(drop),
        ImageSource::Url(url) => Ok(Err(url.to_string())),
    };
    parsed.entries.into_iter().map(|entry| one(entry.source)).collect()
}

fn receive(
    event: &ScanEvent<'_>,
    current: &mut Option<PendingImage>,
    images: &mut Vec<Result<Vec<u8>, DecodeError>>,
) {
    let pushed = match (event, &mut *current) {
        (ScanEvent::ImageStart { is_data_url }, _) => {
            *current = Some(Ok((Base64Decoder::new(*is_data_url), Vec::new())));
            return;
        }
        (ScanEvent::ImageEnd, image) => {
            let image = image.take().expect("an image starts before it ends");
            images.push(image.and_then(|(decoder, bytes)| Ok([bytes, decoder.finish()?].concat())));
            return;
        }
        (ScanEvent::EscapedByte(byte), Some(Ok((decoder, _)))) => decoder.push_byte(*byte),
        (ScanEvent::Bytes(text), Some(Ok((decoder, _)))) => decoder.push(text),
        (ScanEvent::EscapedByte(_) | ScanEvent::Bytes(_), _) => return,
    };
    if let Some(Ok((decoder, bytes))) = current {
        bytes.extend(decoder.take(7).unwrap_or_default());
    }
    if let Err(damaged) = pushed {
        *current = Some(Err(damaged));
    }
}

/// Reads a response at once, as JSON.
pub(super) fn at_once(body: &[u8]) -> Content {
    let json: Value = serde_json::from_slice(body).map_err(drop)?;
    let data = json.as_object().and_then(|json| json.get("data")?.as_array()).ok_or(())?;
    if data.is_empty() || data.len() > MAX_IMAGES {
        return Err(());
    }
    let one = |entry: &Value| {
        let text = |name: &str| entry[name].as_str().filter(|text| !text.is_empty());
        match (text("b64_json"), text("url")) {
            (Some(text), _) => decode_base64(text).map(Ok).map_err(drop),
            (None, Some(url)) if url.starts_with("data:") => decode_base64(url).map(Ok).map_err(drop),
            (None, Some(url)) => {
                let base: Url = "http://ada2/".parse().map_err(drop)?;
                let url = base.join(url).map_err(drop)?;
                let is_same =
                    url.origin() == base.origin() && url.username().is_empty() && url.password().is_none();
                if is_same { Ok(Err(url.to_string())) } else { Err(()) }
            }
            (None, None) => Err(()),
        }
    };
    data.iter().map(one).collect()
}

/// Chunks do not matter, and what parses as JSON has the same images.
pub fn image_response(data: &[u8]) {
    let size = usize::from(data.last().copied().unwrap_or_default()) % 61 + 1;
    let read = streamed(std::iter::once(data));
    assert_eq!(streamed(data.chunks(size)), read, "in chunks of {size}");
    let whole = at_once(data);
    if whole.is_ok() {
        assert_eq!(read, whole);
    }
}
