//! Reads a backend's JSON while it arrives: each image is decoded, hashed and written to the store's disk piece by piece, so
//! that none is ever in memory as a whole. The JSON that remains is small and parsed at the end.

#[cfg(test)]
mod tests;

use bytes::Bytes;
use picture::InvalidImage;
use reqwest::Response;
use service::slots::SharedPermit;

use super::{
    ImageRequestError,
    decode::{Base64Decoder, DecodeError},
    response::MAX_IMAGES,
    scan::{JsonScanner, ScanError, ScanEvent},
};
use crate::{
    backend::BackendError,
    store::{
        disk::ImageStore,
        staging::FlushedFile,
        writable::ReservedFiles,
        writer::{ImageWriter, PendingWrite},
    },
};

/// Ten images of two megapixels in base64, with room to spare.
const MAX_RESPONSE_BYTES: usize = 128 << 20;
/// Largest image fetched by its URL.
const MAX_IMAGE_BYTES: usize = 64 << 20;
/// Decoded bytes that are written to the disk at a time.
const CHUNK_BYTES: usize = 128 << 10;

/// Where images are written, and the slot that is held while they are.
#[derive(Debug)]
pub(super) struct Destination<'a> {
    pub(super) store: &'a ImageStore,
    pub(super) files: &'a mut ReservedFiles,
    pub(super) slot: SharedPermit,
}

impl Destination<'_> {
    fn writer(&mut self) -> ImageWriter {
        ImageWriter::open(self.store, self.files, self.slot.clone())
    }
}

/// A response's JSON with a marker in place of each image, and the images.
#[derive(Debug)]
pub(super) struct ReceivedBody {
    pub(super) json: Vec<u8>,
    /// In the order of their markers; or what is wrong with one.
    pub(super) images: Vec<Result<FlushedFile, String>>,
}

/// Receives the JSON of a 2xx. On failure, returns only after every started write has ended, so that the slot is free by the time
/// the failure is known.
pub(super) async fn receive_json(
    mut response: Response,
    destination: &mut Destination<'_>,
) -> Result<ReceivedBody, ImageRequestError> {
    let mut reader = ResponseReader::new(destination);
    match reader.read_all(&mut response).await {
        Ok(()) => reader.finish().await,
        Err(error) => {
            reader.abort().await;
            Err(error)
        }
    }
}

/// Receives a response that is one image.
pub(super) async fn receive_image(
    mut response: Response,
    destination: &mut Destination<'_>,
) -> Result<FlushedFile, ImageRequestError> {
    let mut writer = destination.writer();
    if let Err(error) = write_image(&mut response, &mut writer).await {
        writer.abort().await;
        return Err(error);
    }
    let written = writer.finish().await?.map_err(|error| BackendError::Unusable(not_an_image(error)))?;
    Ok(written.flushed().await?)
}

async fn write_image(response: &mut Response, writer: &mut ImageWriter) -> Result<(), ImageRequestError> {
    let (mut length, mut buffer) = (0, Vec::new());
    while let Some(chunk) = next_chunk(response, &mut length, MAX_IMAGE_BYTES).await? {
        buffer.extend_from_slice(&chunk);
        if buffer.len() >= CHUNK_BYTES {
            writer.write(std::mem::take(&mut buffer)).await?;
        }
    }
    Ok(writer.write(buffer).await?)
}

/// The next chunk; an error once there are more than `limit` bytes.
async fn next_chunk(
    response: &mut Response,
    length: &mut usize,
    limit: usize,
) -> Result<Option<Bytes>, ImageRequestError> {
    let chunk = response.chunk().await.map_err(|error| BackendError::from_reqwest(&error))?;
    *length += chunk.as_ref().map_or(0, Bytes::len);
    if *length > limit {
        return Err(BackendError::Unusable(format!("its response exceeds {limit} bytes")).into());
    }
    Ok(chunk)
}

fn not_an_image(error: InvalidImage) -> String {
    format!("it sent no image: {error}")
}

/// The scanner and the images that it has found.
#[derive(Debug)]
struct ResponseReader<'a, 'd> {
    destination: &'a mut Destination<'d>,
    scanner: JsonScanner,
    current: Option<PendingImage>,
    images: Vec<Result<PendingWrite, String>>,
}

/// An image that is arriving. Once it turns out to be damaged, the rest of it is skipped.
type PendingImage = Result<(Base64Decoder, ImageWriter), DecodeError>;

impl<'a, 'd> ResponseReader<'a, 'd> {
    fn new(destination: &'a mut Destination<'d>) -> Self {
        Self { destination, scanner: JsonScanner::default(), current: None, images: Vec::new() }
    }

    async fn read_all(&mut self, response: &mut Response) -> Result<(), ImageRequestError> {
        let mut length = 0;
        while let Some(chunk) = next_chunk(response, &mut length, MAX_RESPONSE_BYTES).await? {
            self.read(&chunk).await?;
        }
        Ok(())
    }

    async fn read(&mut self, mut chunk: &[u8]) -> Result<(), ImageRequestError> {
        while let Some(event) = self.scanner.next(&mut chunk).map_err(scan_error)? {
            match event {
                ScanEvent::ImageStart { is_data_url } => {
                    if self.images.len() == MAX_IMAGES {
                        let why = format!("its response has more than {MAX_IMAGES} images");
                        return Err(BackendError::Unusable(why).into());
                    }
                    self.current = Some(Ok((Base64Decoder::new(is_data_url), self.destination.writer())));
                }
                ScanEvent::Bytes(text) => self.decode(|decoder| decoder.push(text)).await?,
                ScanEvent::EscapedByte(byte) => self.decode(|decoder| decoder.push_byte(byte)).await?,
                ScanEvent::ImageEnd => self.end_image().await?,
            }
        }
        Ok(())
    }

    async fn decode(
        &mut self,
        push: impl FnOnce(&mut Base64Decoder) -> Result<(), DecodeError>,
    ) -> Result<(), ImageRequestError> {
        let Some(current) = &mut self.current else { return Ok(()) };
        let Ok((decoder, writer)) = current else { return Ok(()) };
        match push(decoder) {
            Err(error) => {
                if let Ok((_, writer)) = std::mem::replace(current, Err(error)) {
                    writer.abort().await;
                }
            }
            Ok(()) => {
                if let Some(bytes) = decoder.take(CHUNK_BYTES) {
                    writer.write(bytes).await?;
                }
            }
        }
        Ok(())
    }

    async fn end_image(&mut self) -> Result<(), ImageRequestError> {
        let image = match self.current.take() {
            Some(Ok((decoder, mut writer))) => match decoder.finish() {
                Ok(last) => {
                    writer.write(last).await?;
                    writer.finish().await?.map_err(not_an_image)
                }
                Err(DecodeError(why)) => {
                    writer.abort().await;
                    Err(why.to_owned())
                }
            },
            Some(Err(DecodeError(why))) => Err(why.to_owned()),
            None => return Ok(()),
        };
        self.images.push(image);
        Ok(())
    }

    async fn finish(self) -> Result<ReceivedBody, ImageRequestError> {
        if let Some(Ok((_, writer))) = self.current {
            writer.abort().await; // the response ended in the middle of it
        }
        let mut images = Vec::with_capacity(self.images.len());
        // Every write is awaited, even after one has failed.
        for image in self.images {
            images.push(match image {
                Ok(image) => image.flushed().await.map(Ok),
                Err(why) => Ok(Err(why)),
            });
        }
        let images = images.into_iter().collect::<Result<_, _>>()?;
        Ok(ReceivedBody { json: self.scanner.into_rest(), images })
    }

    async fn abort(self) {
        if let Some(Ok((_, writer))) = self.current {
            writer.abort().await;
        }
        for write in self.images.into_iter().flatten() {
            write.abort().await;
        }
    }
}

fn scan_error(error: ScanError) -> ImageRequestError {
    let why = match error {
        ScanError::NotJson => "it returned 2xx without a JSON object",
        ScanError::TooLong => "its response has more than 1 MiB besides images",
    };
    BackendError::Unusable(why.to_owned()).into()
}
