//! Reading a backend's answer with pictures while it comes: each is decoded, hashed and written to the store's disk piece
//! by piece, so that memory holds none whole. What is left of the JSON is small, and is parsed at the end.

mod decode;
mod escape;
mod scan;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use picture::NotAPicture;
use reqwest::Response;
use service::slots::Place;

use self::{
    decode::{Damaged, Decoder},
    scan::{Found, Scan, ScanFault},
};
use super::{BackendFault, Failure, unpack::MOST};
use crate::store::{
    disk::Store,
    incoming::Whole,
    inlet::{Inlet, Written},
    writable::Prepared,
};

/// Bytes of an answer with pictures: ten of two megapixels in base64, and room.
const ANSWER_LIMIT: usize = 128 << 20;
/// Bytes of one picture fetched by its address.
const PICTURE_LIMIT: usize = 64 << 20;
/// Decoded bytes that go to the disk at a time.
const PIECE: usize = 128 << 10;

/// An answer, received: its JSON with a mark where each picture was, and the pictures.
#[derive(Debug)]
pub(super) struct Received {
    /// The JSON.
    pub(super) rest: Vec<u8>,
    /// By their marks; or what is wrong with one.
    pub(super) pictures: Vec<Result<Whole, String>>,
}

/// The picture that a `b64_json` of [`Received::rest`] marks, or an address behind its `data:`.
pub(super) fn marked(text: &str) -> Option<usize> {
    Scan::marked(text)
}

/// Receives the body of a 2xx. What was begun of one that fails is over when this returns: whoever reads of the failure finds
/// the place free.
pub(super) async fn receive(
    mut answer: Response,
    store: &Store,
    files: &mut Prepared,
    place: &Place,
) -> Result<Received, Failure> {
    let mut reader = Reader::new(store, files, place);
    match reader.read_all(&mut answer).await {
        Ok(()) => reader.finish().await,
        Err(failure) => {
            reader.give_up().await;
            Err(failure)
        }
    }
}

/// Receives a picture as it is.
pub(super) async fn receive_one(
    mut answer: Response,
    store: &Store,
    files: &mut Prepared,
    place: &Place,
) -> Result<Whole, Failure> {
    let mut inlet = Inlet::open(store, files, place.clone());
    if let Err(failure) = read_picture(&mut answer, &mut inlet).await {
        inlet.give_up().await;
        return Err(failure);
    }
    let written = inlet.end().await?.map_err(|why| BackendFault::Unusable(no_picture(why)))?;
    Ok(written.whole().await?)
}

async fn read_picture(answer: &mut Response, inlet: &mut Inlet) -> Result<(), Failure> {
    let (mut length, mut piece) = (0, Vec::new());
    while let Some(chunk) = next(answer, &mut length, PICTURE_LIMIT).await? {
        piece.extend_from_slice(&chunk);
        if piece.len() >= PIECE {
            inlet.write(std::mem::take(&mut piece)).await?;
        }
    }
    Ok(inlet.write(piece).await?)
}

/// The next chunk of an answer up to this many bytes.
async fn next(answer: &mut Response, length: &mut usize, limit: usize) -> Result<Option<Bytes>, Failure> {
    let chunk = answer.chunk().await.map_err(|error| BackendFault::of(&error))?;
    *length += chunk.as_ref().map_or(0, Bytes::len);
    if *length > limit { Err(too_long(limit).into()) } else { Ok(chunk) }
}

fn too_long(limit: usize) -> BackendFault {
    BackendFault::Unusable(format!("its answer is longer than {limit} bytes"))
}

fn no_picture(why: NotAPicture) -> String {
    format!("it sent no picture: {why}")
}

/// The scan, and the pictures that it found.
#[derive(Debug)]
struct Reader<'a> {
    store: &'a Store,
    files: &'a mut Prepared,
    place: &'a Place,
    scan: Scan,
    current: Option<Coming>,
    pictures: Vec<Result<Written, String>>,
}

/// A picture that comes; once it is seen to be damaged, the rest of it is passed over.
type Coming = Result<(Decoder, Inlet), Damaged>;

impl<'a> Reader<'a> {
    fn new(store: &'a Store, files: &'a mut Prepared, place: &'a Place) -> Self {
        Self { store, files, place, scan: Scan::default(), current: None, pictures: Vec::new() }
    }

    async fn read_all(&mut self, answer: &mut Response) -> Result<(), Failure> {
        let mut length = 0;
        while let Some(chunk) = next(answer, &mut length, ANSWER_LIMIT).await? {
            self.read(&chunk).await?;
        }
        Ok(())
    }

    async fn read(&mut self, mut chunk: &[u8]) -> Result<(), Failure> {
        while let Some(found) = self.scan.next(&mut chunk).map_err(unusable)? {
            match found {
                Found::Begin { address } => {
                    if self.pictures.len() == MOST {
                        return Err(
                            BackendFault::Unusable("its answer has more than ten pictures".into()).into()
                        );
                    }
                    let inlet = Inlet::open(self.store, self.files, self.place.clone());
                    self.current = Some(Ok((Decoder::new(address), inlet)));
                }
                Found::Text(text) => self.decode(|decoder| decoder.text(text)).await?,
                Found::Letter(letter) => self.decode(|decoder| decoder.letter(letter)).await?,
                Found::End => self.end().await?,
            }
        }
        Ok(())
    }

    async fn decode(
        &mut self,
        feed: impl FnOnce(&mut Decoder) -> Result<(), Damaged>,
    ) -> Result<(), Failure> {
        let Some(current) = &mut self.current else { return Ok(()) };
        let Ok((decoder, inlet)) = current else { return Ok(()) };
        match feed(decoder) {
            Err(damaged) => {
                if let Ok((_, inlet)) = std::mem::replace(current, Err(damaged)) {
                    inlet.give_up().await;
                }
            }
            Ok(()) => {
                if let Some(piece) = decoder.take(PIECE) {
                    inlet.write(piece).await?;
                }
            }
        }
        Ok(())
    }

    async fn end(&mut self) -> Result<(), Failure> {
        let ended = match self.current.take() {
            Some(Ok((decoder, mut inlet))) => match decoder.finish() {
                Ok(last) => {
                    inlet.write(last).await?;
                    inlet.end().await?.map_err(no_picture)
                }
                Err(Damaged(why)) => {
                    inlet.give_up().await;
                    Err(why.to_owned())
                }
            },
            Some(Err(Damaged(why))) => Err(why.to_owned()),
            None => return Ok(()),
        };
        self.pictures.push(ended);
        Ok(())
    }

    async fn finish(self) -> Result<Received, Failure> {
        if let Some(Ok((_, inlet))) = self.current {
            inlet.give_up().await; // the answer ended in the middle of it
        }
        let mut written = Vec::with_capacity(self.pictures.len());
        // All of them, whatever becomes of one.
        for picture in self.pictures {
            written.push(match picture {
                Ok(picture) => picture.whole().await.map(Ok),
                Err(why) => Ok(Err(why)),
            });
        }
        let pictures = written.into_iter().collect::<Result<_, _>>()?;
        Ok(Received { rest: self.scan.into_rest(), pictures })
    }

    async fn give_up(self) {
        if let Some(Ok((_, inlet))) = self.current {
            inlet.give_up().await;
        }
        for written in self.pictures.into_iter().flatten() {
            written.give_up().await;
        }
    }
}

fn unusable(fault: ScanFault) -> Failure {
    let why = match fault {
        ScanFault::NotJson => "it answered 2xx with no JSON object",
        ScanFault::TooLong => "its answer has more than 1 MiB besides pictures",
    };
    BackendFault::Unusable(why.to_owned()).into()
}
