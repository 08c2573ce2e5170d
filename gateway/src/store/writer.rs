//! From the async threads into the store. A picture is hashed and judged where it was received, while its bytes are in that
//! core's cache; its pieces then go through a short queue to a blocking thread that writes them, so that neither a slow
//! disk nor a large picture holds anybody else up, or memory.

use tokio::{
    sync::mpsc,
    task::{JoinHandle, spawn_blocking},
};

use picture::InvalidImage;
use service::slots::SharedPermit;

use super::{
    StoreError,
    disk::ImageStore,
    staging::{FlushedFile, ImageDigest, ImageValidator, TempFile},
    writable::ReservedFiles,
};

/// Pieces that may wait for the disk.
const QUEUE: usize = 2;

/// What the disk is told.
#[derive(Debug)]
enum WriteCommand {
    Write(Vec<u8>),
    /// That was all.
    Flush(ImageDigest),
}

/// Where a picture's pieces go. Dropped before [`ImageWriter::finish`], it leaves nothing behind.
#[derive(Debug)]
pub(crate) struct ImageWriter {
    validator: ImageValidator,
    commands: mpsc::Sender<WriteCommand>,
    written: PendingWrite,
}

/// A picture whose last piece was given.
#[derive(Debug)]
pub(crate) struct PendingWrite(JoinHandle<Result<FlushedFile, StoreError>>);

impl ImageWriter {
    /// For one picture, which comes under this place, into a file that was prepared if there is one left.
    pub(crate) fn open(store: &ImageStore, reserved: &mut ReservedFiles, permit: SharedPermit) -> Self {
        let (orders, queue) = mpsc::channel(QUEUE);
        let (store, file) = (store.clone(), reserved.take());
        let written = PendingWrite(spawn_blocking(move || {
            let _held = permit;
            write(&store, file, queue)
        }));
        Self { validator: ImageValidator::default(), commands: orders, written }
    }

    /// The next piece.
    pub(crate) async fn write(&mut self, chunk: Vec<u8>) -> Result<(), StoreError> {
        self.validator.update(&chunk);
        self.send(WriteCommand::Write(chunk)).await
    }

    /// That was all; or the bytes are no picture.
    pub(crate) async fn finish(mut self) -> Result<Result<PendingWrite, InvalidImage>, StoreError> {
        match std::mem::take(&mut self.validator).finish() {
            Ok(digest) => {
                self.send(WriteCommand::Flush(digest)).await?;
                Ok(Ok(self.written))
            }
            Err(why) => {
                self.abort().await;
                Ok(Err(why))
            }
        }
    }

    /// Nothing more will come. Its file is gone then, and its share in the place.
    pub(crate) async fn abort(self) {
        drop(self.commands);
        self.written.abort().await;
    }

    /// Who writes ends early only where the store failed.
    async fn send(&mut self, command: WriteCommand) -> Result<(), StoreError> {
        if self.commands.send(command).await.is_ok() {
            return Ok(());
        }
        match (&mut self.written.0).await {
            Ok(Err(fault)) => Err(fault),
            Ok(Ok(_)) | Err(_) => Err(aborted()),
        }
    }
}

impl PendingWrite {
    /// The picture, once it is safe on the disk.
    pub(crate) async fn flushed(self) -> Result<FlushedFile, StoreError> {
        self.0.await.unwrap_or_else(|_| Err(aborted()))
    }

    /// The same where nobody wants it.
    pub(crate) async fn abort(self) {
        // Where the store failed, its end was read already, and cannot be read twice.
        if !self.0.is_finished() {
            let _ = self.0.await;
        }
    }
}

fn write(
    store: &ImageStore,
    file: Option<TempFile>,
    mut queue: mpsc::Receiver<WriteCommand>,
) -> Result<FlushedFile, StoreError> {
    let file = file.map_or_else(|| store.create_temp_file(), Ok)?;
    while let Some(command) = queue.blocking_recv() {
        match command {
            WriteCommand::Write(chunk) => file.write_all(&chunk)?,
            WriteCommand::Flush(digest) => return Ok(FlushedFile::flush(file, digest)?),
        }
    }
    Err(aborted())
}

fn aborted() -> StoreError {
    StoreError::Io(std::io::Error::other("a picture was given up"))
}
