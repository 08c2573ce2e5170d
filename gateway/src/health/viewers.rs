//! How many open pages show a backend: while there is one, the backend is probed every second.

use tokio::sync::watch;

/// The count. Cheap to clone; all clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Viewers(watch::Sender<usize>);

/// One open page; dropping it closes the page.
#[derive(Debug)]
pub(crate) struct Viewer(watch::Sender<usize>);

impl Default for Viewers {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl Viewers {
    /// Counts one more.
    pub(super) fn open(&self) -> Viewer {
        self.0.send_modify(|open| *open += 1);
        Viewer(self.0.clone())
    }

    /// Changes of the count.
    pub(super) fn subscribe(&self) -> watch::Receiver<usize> {
        self.0.subscribe()
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}
