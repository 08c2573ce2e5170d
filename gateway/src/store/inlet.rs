//! From the async threads into the store. A picture is hashed and judged where it was received, while its bytes are in that
//! core's cache; its pieces then go through a short queue to a blocking thread that writes them, so that neither a slow
//! disk nor a large picture holds anybody else up, or memory.

use tokio::{
    sync::mpsc,
    task::{JoinHandle, spawn_blocking},
};

use picture::NotAPicture;
use service::slots::Place;

use super::{
    StoreFault,
    disk::Store,
    incoming::{Inspected, Inspection, Unfinished, Whole},
    writable::Prepared,
};

/// Pieces that may wait for the disk.
const QUEUE: usize = 2;

/// What the disk is told.
#[derive(Debug)]
enum Order {
    Write(Vec<u8>),
    /// That was all.
    Flush(Inspected),
}

/// Where a picture's pieces go. Dropped before [`Inlet::end`], it leaves nothing behind.
#[derive(Debug)]
pub(crate) struct Inlet {
    inspection: Inspection,
    orders: mpsc::Sender<Order>,
    written: Written,
}

/// A picture whose last piece was given.
#[derive(Debug)]
pub(crate) struct Written(JoinHandle<Result<Whole, StoreFault>>);

impl Inlet {
    /// For one picture, which comes under this place, into a file that was prepared if there is one left.
    pub(crate) fn open(store: &Store, prepared: &mut Prepared, place: Place) -> Self {
        let (orders, queue) = mpsc::channel(QUEUE);
        let (store, file) = (store.clone(), prepared.take());
        let written = Written(spawn_blocking(move || {
            let _held = place;
            write(&store, file, queue)
        }));
        Self { inspection: Inspection::default(), orders, written }
    }

    /// The next piece.
    pub(crate) async fn write(&mut self, piece: Vec<u8>) -> Result<(), StoreFault> {
        self.inspection.feed(&piece);
        self.send(Order::Write(piece)).await
    }

    /// That was all; or the bytes are no picture.
    pub(crate) async fn end(mut self) -> Result<Result<Written, NotAPicture>, StoreFault> {
        match std::mem::take(&mut self.inspection).finish() {
            Ok(what) => {
                self.send(Order::Flush(what)).await?;
                Ok(Ok(self.written))
            }
            Err(why) => {
                self.give_up().await;
                Ok(Err(why))
            }
        }
    }

    /// Nothing more will come. Its file is gone then, and its share in the place.
    pub(crate) async fn give_up(self) {
        drop(self.orders);
        self.written.give_up().await;
    }

    /// Who writes ends early only where the store failed.
    async fn send(&mut self, order: Order) -> Result<(), StoreFault> {
        if self.orders.send(order).await.is_ok() {
            return Ok(());
        }
        match (&mut self.written.0).await {
            Ok(Err(fault)) => Err(fault),
            Ok(Ok(_)) | Err(_) => Err(ended_early()),
        }
    }
}

impl Written {
    /// The picture, once it is safe on the disk.
    pub(crate) async fn whole(self) -> Result<Whole, StoreFault> {
        self.0.await.unwrap_or_else(|_| Err(ended_early()))
    }

    /// The same where nobody wants it.
    pub(crate) async fn give_up(self) {
        // Where the store failed, its end was read already, and cannot be read twice.
        if !self.0.is_finished() {
            let _ = self.0.await;
        }
    }
}

fn write(
    store: &Store,
    file: Option<Unfinished>,
    mut queue: mpsc::Receiver<Order>,
) -> Result<Whole, StoreFault> {
    let file = file.map_or_else(|| store.unfinished(), Ok)?;
    while let Some(order) = queue.blocking_recv() {
        match order {
            Order::Write(piece) => file.fill(&piece)?,
            Order::Flush(what) => return Ok(Whole::flush(file, what)?),
        }
    }
    Err(ended_early())
}

fn ended_early() -> StoreFault {
    StoreFault::Io(std::io::Error::other("a picture was given up"))
}
