//! From async threads into the store. An image is validated and hashed on the thread that received it, while its bytes are in that
//! core's cache. A short queue takes the pieces to a blocking thread that writes them, so that a slow disk blocks no other
//! request and a large image needs little memory.

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

#[derive(Debug)]
enum WriteCommand {
    Write(Vec<u8>),
    /// After the last piece.
    Flush(ImageDigest),
}

/// Takes an image's pieces. Dropped before [`ImageWriter::finish`], it leaves no file behind.
#[derive(Debug)]
pub(crate) struct ImageWriter {
    validator: ImageValidator,
    commands: mpsc::Sender<WriteCommand>,
    written: PendingWrite,
}

/// An image whose last piece was sent.
#[derive(Debug)]
pub(crate) struct PendingWrite(JoinHandle<Result<FlushedFile, StoreError>>);

impl ImageWriter {
    /// Writes to a reserved file if one is left. The slot is held until the image is written.
    pub(crate) fn open(store: &ImageStore, reserved: &mut ReservedFiles, permit: SharedPermit) -> Self {
        let (commands, queue) = mpsc::channel(QUEUE);
        let (store, file) = (store.clone(), reserved.take());
        let written = PendingWrite(spawn_blocking(move || {
            let _held = permit;
            write(&store, file, queue)
        }));
        Self { validator: ImageValidator::default(), commands, written }
    }

    pub(crate) async fn write(&mut self, chunk: Vec<u8>) -> Result<(), StoreError> {
        self.validator.update(&chunk);
        self.send(WriteCommand::Write(chunk)).await
    }

    /// After the last piece; the inner error says that the bytes are not a complete image.
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

    /// Returns when its file is removed and its share of the slot released.
    pub(crate) async fn abort(self) {
        drop(self.commands);
        self.written.abort().await;
    }

    /// The writing thread ends early only if the store failed.
    async fn send(&mut self, command: WriteCommand) -> Result<(), StoreError> {
        if self.commands.send(command).await.is_ok() {
            return Ok(());
        }
        match (&mut self.written.0).await {
            Ok(Err(error)) => Err(error),
            Ok(Ok(_)) | Err(_) => Err(aborted()),
        }
    }
}

impl PendingWrite {
    /// The image, once it is flushed to disk.
    pub(crate) async fn flushed(self) -> Result<FlushedFile, StoreError> {
        self.0.await.unwrap_or_else(|_| Err(aborted()))
    }

    /// Discards the image.
    pub(crate) async fn abort(self) {
        // If the store failed, the thread was joined already, which is possible only once.
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
    StoreError::Io(std::io::Error::other("writing the image was aborted"))
}
