//! Reading a backend's answer with pictures while it comes: each is decoded, hashed and written to the store's disk piece
//! by piece, so that memory holds none whole. What is left of the JSON is small, and is parsed at the end.

mod decode;
mod escape;
mod scan;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use picture::InvalidImage;
use reqwest::Response;
use service::slots::SharedPermit;

use self::{
    decode::{Base64Decoder, DecodeError},
    scan::{JsonScanner, ScanError, ScanEvent},
};
use super::{BackendError, ImageRequestError, images_response::MAX_IMAGES};
use crate::store::{
    disk::ImageStore,
    staging::FlushedFile,
    writable::ReservedFiles,
    writer::{ImageWriter, PendingWrite},
};

/// Bytes of an answer with pictures: ten of two megapixels in base64, and room.
const MAX_RESPONSE_BYTES: usize = 128 << 20;
/// Bytes of one picture fetched by its address.
const MAX_IMAGE_BYTES: usize = 64 << 20;
/// Decoded bytes that go to the disk at a time.
const CHUNK_BYTES: usize = 128 << 10;

/// An answer, received: its JSON with a mark where each picture was, and the pictures.
#[derive(Debug)]
pub(super) struct ReceivedBody {
    /// The JSON.
    pub(super) json: Vec<u8>,
    /// By their marks; or what is wrong with one.
    pub(super) images: Vec<Result<FlushedFile, String>>,
}

/// The picture that a `b64_json` of [`ReceivedBody::json`] marks, or an address behind its `data:`.
pub(super) fn image_index(text: &str) -> Option<usize> {
    JsonScanner::image_index(text)
}

/// Receives the body of a 2xx. What was begun of one that fails is over when this returns: whoever reads of the failure finds
/// the place free.
pub(super) async fn receive(
    mut answer: Response,
    store: &ImageStore,
    files: &mut ReservedFiles,
    place: &SharedPermit,
) -> Result<ReceivedBody, ImageRequestError> {
    let mut reader = ResponseReader::new(store, files, place);
    match reader.read_all(&mut answer).await {
        Ok(()) => reader.finish().await,
        Err(failure) => {
            reader.abort().await;
            Err(failure)
        }
    }
}

/// Receives a picture as it is.
pub(super) async fn receive_image(
    mut answer: Response,
    store: &ImageStore,
    files: &mut ReservedFiles,
    place: &SharedPermit,
) -> Result<FlushedFile, ImageRequestError> {
    let mut writer = ImageWriter::open(store, files, place.clone());
    if let Err(failure) = read_image(&mut answer, &mut writer).await {
        writer.abort().await;
        return Err(failure);
    }
    let written = writer.finish().await?.map_err(|why| BackendError::Unusable(not_an_image(why)))?;
    Ok(written.flushed().await?)
}

async fn read_image(answer: &mut Response, writer: &mut ImageWriter) -> Result<(), ImageRequestError> {
    let (mut length, mut piece) = (0, Vec::new());
    while let Some(chunk) = next_chunk(answer, &mut length, MAX_IMAGE_BYTES).await? {
        piece.extend_from_slice(&chunk);
        if piece.len() >= CHUNK_BYTES {
            writer.write(std::mem::take(&mut piece)).await?;
        }
    }
    Ok(writer.write(piece).await?)
}

/// The next chunk of an answer up to this many bytes.
async fn next_chunk(
    answer: &mut Response,
    length: &mut usize,
    limit: usize,
) -> Result<Option<Bytes>, ImageRequestError> {
    let chunk = answer.chunk().await.map_err(|error| BackendError::from_reqwest(&error))?;
    *length += chunk.as_ref().map_or(0, Bytes::len);
    if *length > limit { Err(too_long(limit).into()) } else { Ok(chunk) }
}

fn too_long(limit: usize) -> BackendError {
    BackendError::Unusable(format!("its answer is longer than {limit} bytes"))
}

fn not_an_image(why: InvalidImage) -> String {
    format!("it sent no picture: {why}")
}

/// The scan, and the pictures that it found.
#[derive(Debug)]
struct ResponseReader<'a> {
    store: &'a ImageStore,
    files: &'a mut ReservedFiles,
    slot: &'a SharedPermit,
    scan: JsonScanner,
    current: Option<PendingImage>,
    images: Vec<Result<PendingWrite, String>>,
}

/// A picture that comes; once it is seen to be damaged, the rest of it is passed over.
type PendingImage = Result<(Base64Decoder, ImageWriter), DecodeError>;

impl<'a> ResponseReader<'a> {
    fn new(store: &'a ImageStore, files: &'a mut ReservedFiles, place: &'a SharedPermit) -> Self {
        Self { store, files, slot: place, scan: JsonScanner::default(), current: None, images: Vec::new() }
    }

    async fn read_all(&mut self, answer: &mut Response) -> Result<(), ImageRequestError> {
        let mut length = 0;
        while let Some(chunk) = next_chunk(answer, &mut length, MAX_RESPONSE_BYTES).await? {
            self.read(&chunk).await?;
        }
        Ok(())
    }

    async fn read(&mut self, mut chunk: &[u8]) -> Result<(), ImageRequestError> {
        while let Some(found) = self.scan.next(&mut chunk).map_err(scan_failure)? {
            match found {
                ScanEvent::ImageStart { is_data_url: address } => {
                    if self.images.len() == MAX_IMAGES {
                        return Err(
                            BackendError::Unusable("its answer has more than ten pictures".into()).into()
                        );
                    }
                    let writer = ImageWriter::open(self.store, self.files, self.slot.clone());
                    self.current = Some(Ok((Base64Decoder::new(address), writer)));
                }
                ScanEvent::Bytes(text) => self.decode(|decoder| decoder.push(text)).await?,
                ScanEvent::EscapedByte(byte) => self.decode(|decoder| decoder.push_byte(byte)).await?,
                ScanEvent::ImageEnd => self.end().await?,
            }
        }
        Ok(())
    }

    async fn decode(
        &mut self,
        feed: impl FnOnce(&mut Base64Decoder) -> Result<(), DecodeError>,
    ) -> Result<(), ImageRequestError> {
        let Some(current) = &mut self.current else { return Ok(()) };
        let Ok((decoder, writer)) = current else { return Ok(()) };
        match feed(decoder) {
            Err(damaged) => {
                if let Ok((_, writer)) = std::mem::replace(current, Err(damaged)) {
                    writer.abort().await;
                }
            }
            Ok(()) => {
                if let Some(piece) = decoder.take(CHUNK_BYTES) {
                    writer.write(piece).await?;
                }
            }
        }
        Ok(())
    }

    async fn end(&mut self) -> Result<(), ImageRequestError> {
        let ended = match self.current.take() {
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
        self.images.push(ended);
        Ok(())
    }

    async fn finish(self) -> Result<ReceivedBody, ImageRequestError> {
        if let Some(Ok((_, writer))) = self.current {
            writer.abort().await; // the answer ended in the middle of it
        }
        let mut written = Vec::with_capacity(self.images.len());
        // All of them, whatever becomes of one.
        for image in self.images {
            written.push(match image {
                Ok(image) => image.flushed().await.map(Ok),
                Err(why) => Ok(Err(why)),
            });
        }
        let pictures = written.into_iter().collect::<Result<_, _>>()?;
        Ok(ReceivedBody { json: self.scan.into_rest(), images: pictures })
    }

    async fn abort(self) {
        if let Some(Ok((_, writer))) = self.current {
            writer.abort().await;
        }
        for written in self.images.into_iter().flatten() {
            written.abort().await;
        }
    }
}

fn scan_failure(fault: ScanError) -> ImageRequestError {
    let why = match fault {
        ScanError::NotJson => "it answered 2xx with no JSON object",
        ScanError::TooLong => "its answer has more than 1 MiB besides pictures",
    };
    BackendError::Unusable(why.to_owned()).into()
}
