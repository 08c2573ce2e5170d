//! From the async threads into the store: pieces of a picture go through a short queue to a blocking thread that writes
//! and hashes them, so that neither a slow disk nor a large picture holds anybody else up, or memory.

use tokio::{
    sync::mpsc,
    task::{JoinHandle, spawn_blocking},
};

use shared::picture::NotAPicture;

use super::{StoreFault, disk::Store, incoming::Whole};

/// Pieces that may wait for the disk.
const QUEUE: usize = 2;

/// What is to be written; none says that this was all.
type Piece = Option<Vec<u8>>;

/// Where a picture's pieces go. Dropped before [`Inlet::end`], it leaves nothing behind.
#[derive(Debug)]
pub(crate) struct Inlet {
    pieces: mpsc::Sender<Piece>,
    written: Written,
}

/// A picture whose last piece was given.
#[derive(Debug)]
pub(crate) struct Written(JoinHandle<Result<Result<Whole, NotAPicture>, StoreFault>>);

impl Inlet {
    /// For one picture.
    pub(crate) fn open(store: &Store) -> Self {
        let (pieces, queue) = mpsc::channel(QUEUE);
        let store = store.clone();
        Self { pieces, written: Written(spawn_blocking(move || write(&store, queue))) }
    }

    /// The next piece.
    pub(crate) async fn write(&mut self, piece: Vec<u8>) -> Result<(), StoreFault> {
        self.send(Some(piece)).await
    }

    /// That was all.
    pub(crate) async fn end(mut self) -> Result<Written, StoreFault> {
        self.send(None).await?;
        Ok(self.written)
    }

    /// Who writes ends early only where the store failed.
    async fn send(&mut self, piece: Piece) -> Result<(), StoreFault> {
        if self.pieces.send(piece).await.is_ok() {
            return Ok(());
        }
        match (&mut self.written.0).await {
            Ok(Err(fault)) => Err(fault),
            Ok(Ok(_)) | Err(_) => Err(ended_early()),
        }
    }
}

impl Written {
    /// The picture, once it is safe on the disk; or why the bytes are none.
    pub(crate) async fn whole(self) -> Result<Result<Whole, NotAPicture>, StoreFault> {
        self.0.await.unwrap_or_else(|_| Err(ended_early()))
    }
}

fn write(store: &Store, mut queue: mpsc::Receiver<Piece>) -> Result<Result<Whole, NotAPicture>, StoreFault> {
    let mut incoming = store.incoming()?;
    while let Some(piece) = queue.blocking_recv() {
        match piece {
            Some(piece) => incoming.write(&piece)?,
            None => return incoming.finish(),
        }
    }
    Err(ended_early())
}

fn ended_early() -> StoreFault {
    StoreFault::Io(std::io::Error::other("a picture was given up"))
}
