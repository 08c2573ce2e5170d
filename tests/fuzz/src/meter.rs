//! Processor time and memory of a piece of work on this thread.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use rustix::time::{ClockId, clock_gettime};

/// What a piece of work took.
pub(crate) struct Cost {
    pub(crate) nanos: u64,
    /// Most bytes in use at once, beyond those in use before.
    pub(crate) peak: usize,
    /// All bytes allocated.
    pub(crate) total: usize,
}

pub(crate) fn measure(work: impl FnOnce()) -> Cost {
    let (live, total) = (LIVE.get(), TOTAL.get());
    PEAK.set(live);
    let began = nanos();
    work();
    let nanos = nanos() - began;
    let peak = usize::try_from(PEAK.get() - live).unwrap_or_default();
    Cost { nanos, peak, total: TOTAL.get() - total }
}

fn nanos() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

thread_local! {
    /// May be negative: what one thread allocates another may free.
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
    static TOTAL: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn grow(bytes: usize) {
    TOTAL.set(TOTAL.get().wrapping_add(bytes));
    LIVE.set(LIVE.get() + bytes.cast_signed());
    PEAK.set(PEAK.get().max(LIVE.get()));
}

fn shrink(bytes: usize) {
    LIVE.set(LIVE.get() - bytes.cast_signed());
}

// Safety: every call is passed on to the system's allocator as it is; the counters neither allocate nor are dropped.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        shrink(layout.size());
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        grow(size);
        shrink(layout.size());
        unsafe { System.realloc(pointer, layout, size) }
    }
}
