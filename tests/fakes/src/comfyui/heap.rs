//! The queue as Python's `heapq` keeps it: `GET /queue` shows the raw array, so its order must be the same.

use super::queue::ComfyPrompt;

/// What waits, by number and then by id.
#[derive(Debug, Default)]
pub(super) struct Heap(Vec<Waiting>);

/// Just enough of an item to order it.
#[derive(Debug, Clone)]
struct Waiting {
    number: f64,
    prompt_id: String,
    index: usize,
}

impl Waiting {
    fn before(&self, other: &Self) -> bool {
        (self.number, &self.prompt_id) < (other.number, &other.prompt_id)
    }
}

impl Heap {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Indices of items, in the order of the array.
    pub(super) fn indices(&self) -> impl DoubleEndedIterator<Item = usize> + '_ {
        self.0.iter().map(|waiting| waiting.index)
    }

    pub(super) fn push(&mut self, index: usize, item: &ComfyPrompt) {
        let number = item.number.as_f64().expect("a number of a prompt is finite");
        self.0.push(Waiting { number, prompt_id: item.prompt_id.clone(), index });
        self.rise(0, self.0.len() - 1);
    }

    /// The lowest.
    pub(super) fn pop(&mut self) -> Option<usize> {
        let last = self.0.pop()?;
        if self.0.is_empty() {
            return Some(last.index);
        }
        let lowest = std::mem::replace(&mut self.0[0], last);
        self.sink(0);
        Some(lowest.index)
    }

    pub(super) fn remove(&mut self, index: usize) {
        self.0.retain(|waiting| waiting.index != index);
        for at in (0..self.0.len() / 2).rev() {
            self.sink(at);
        }
    }

    fn rise(&mut self, top: usize, mut at: usize) {
        while at > top {
            let parent = (at - 1) / 2;
            if !self.0[at].before(&self.0[parent]) {
                return;
            }
            self.0.swap(at, parent);
            at = parent;
        }
    }

    /// As Python does it: down to a leaf along the smaller children, then up again.
    fn sink(&mut self, top: usize) {
        let mut at = top;
        loop {
            let (left, right) = (2 * at + 1, 2 * at + 2);
            if left >= self.0.len() {
                break;
            }
            let takes_right = right < self.0.len() && !self.0[left].before(&self.0[right]);
            let child = if takes_right { right } else { left };
            self.0.swap(at, child);
            at = child;
        }
        self.rise(top, at);
    }
}
