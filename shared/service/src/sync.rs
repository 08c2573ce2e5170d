//! What guards state that several threads change: std's, or, with the feature `shuttle`, that of a test which runs threads in many
//! orders.

#[cfg(feature = "shuttle")]
pub use shuttle::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicUsize, Ordering},
};
#[cfg(not(feature = "shuttle"))]
pub use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicUsize, Ordering},
};
