//! Stacks of coroutines, pooled, and no more than the system allows.

use corosensei::stack::{DefaultStack, Stack, StackPointer};
use std::sync::{Condvar, Mutex};

/// Bytes of one stack. Only pages that are touched cost memory.
const BYTES: usize = 256 * 1024;

/// The most stacks at once. Each is two mappings (guard and stack), of which Linux allows 65,530 by default.
pub(super) const MOST: usize = 24 * 1024;

/// A stack whose base is moved a little, so that the tops of many stacks do not share the same few cache sets.
pub(super) struct StaggeredStack {
    inner: DefaultStack,
    base: StackPointer,
}

// SAFETY: the inner stack's memory and guard page, less at most 4 KiB of 256 KiB at the base.
unsafe impl Stack for StaggeredStack {
    fn base(&self) -> StackPointer {
        self.base
    }

    fn limit(&self) -> StackPointer {
        self.inner.limit()
    }

    #[cfg(windows)]
    fn teb_fields(&self) -> corosensei::stack::StackTebFields {
        self.inner.teb_fields()
    }

    #[cfg(windows)]
    fn update_teb_fields(&mut self, stack_limit: usize, guaranteed_stack_bytes: usize) {
        self.inner.update_teb_fields(stack_limit, guaranteed_stack_bytes);
    }
}

impl StaggeredStack {
    fn new(color: usize) -> std::io::Result<Self> {
        let inner = DefaultStack::new(BYTES)?;
        let lower = color % 16 * 256;
        let base = StackPointer::new(inner.base().get() - lower).unwrap_or(inner.base());
        Ok(Self { inner, base })
    }
}

struct Pool {
    idle: Vec<StaggeredStack>,
    /// Stacks that launches have reserved.
    reserved: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { idle: Vec::new(), reserved: 0 });
static RETURNED: Condvar = Condvar::new();

fn locked() -> std::sync::MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A reservation of so many stacks, with those that are idle meanwhile. Returned when dropped.
pub(super) struct Stacks {
    idle: Vec<StaggeredStack>,
    reserved: usize,
    made: usize,
}

impl Stacks {
    /// Waits until so many stacks may be used. A launch reserves all that it needs at once, so no two wait for each
    /// other.
    pub(super) fn reserve(count: usize) -> Self {
        let mut pool = locked();
        while pool.reserved != 0 && pool.reserved + count > MOST {
            pool = RETURNED.wait(pool).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        pool.reserved += count;
        Self { idle: Vec::new(), reserved: count, made: 0 }
    }

    /// A stack: the one returned last, if there is one.
    pub(super) fn take(&mut self) -> std::io::Result<StaggeredStack> {
        if let Some(stack) = self.idle.pop() {
            return Ok(stack);
        }
        let pooled = locked().idle.pop();
        self.made += 1;
        pooled.map_or_else(|| StaggeredStack::new(self.made), Ok)
    }

    pub(super) fn give(&mut self, stack: StaggeredStack) {
        self.idle.push(stack);
    }
}

impl Drop for Stacks {
    fn drop(&mut self) {
        let mut pool = locked();
        pool.reserved -= self.reserved;
        pool.idle.append(&mut self.idle);
        pool.idle.truncate(MOST / 4);
        drop(pool);
        RETURNED.notify_all();
    }
}
