//! The threads that contexts of the CPU compute on.
//!
//! Contexts of equal count share a pool. The first call that is large enough starts it, and its threads have ended when the
//! last object of those contexts is destroyed. A process that was forked has none of its parent's threads, so it starts
//! its own. Where threads cannot start, the calling thread computes, and the next call tries again.

use crate::boundary::log::{self, LogLevelInC};
use crate::boundary::panics::{self, Code};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};
use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use wtacrs_core::parallel::{self, Entered, OneThread, Threads};

/// The pools that objects use, by their count of threads.
static SHARED: Mutex<BTreeMap<usize, Weak<SharedPool>>> = Mutex::new(BTreeMap::new());

/// So many threads, shared with all others that want as many. 0: as many as RAYON_NUM_THREADS says, or as there are cores.
pub(crate) fn shared(count: usize) -> Arc<dyn Threads> {
    let count = if count == 0 { default_count() } else { count };
    if count == 1 {
        return Arc::new(OneThread);
    }
    let mut pools = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(pool) = pools.get(&count).and_then(Weak::upgrade) {
        return pool;
    }
    pools.retain(|_, pool| pool.strong_count() > 0);
    let pool = Arc::new(SharedPool { count, state: AtomicPtr::new(null_mut()) });
    pools.insert(count, Arc::downgrade(&pool));
    pool
}

/// Makes loops that this thread starts run on the threads of an object, until the result is dropped.
pub(super) fn enter(threads: &Arc<dyn Threads>) -> Entered {
    parallel::enter(Arc::clone(threads))
}

/// The most threads of a context.
pub(crate) fn most() -> usize {
    rayon::max_num_threads()
}

fn default_count() -> usize {
    let wanted = std::env::var("RAYON_NUM_THREADS").ok().and_then(|text| text.parse().ok());
    let wanted = wanted.filter(|&count: &usize| count > 0);
    wanted.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from)).min(most())
}

/// A pool that starts when it is needed.
#[derive(Debug)]
struct SharedPool {
    count: usize,
    /// Of the process that used the pool last; null before. Once set, it leads to a state until the pool is dropped.
    state: AtomicPtr<State>,
}

/// The pool in one process.
#[derive(Debug)]
struct State {
    process: u32,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    pool: Arc<ThreadPool>,
    threads: Vec<JoinHandle<()>>,
}

impl Threads for SharedPool {
    fn count(&self) -> usize {
        self.count
    }

    fn pool(&self) -> Option<Arc<ThreadPool>> {
        let mut running = self.state().running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.is_none() {
            match Running::start(self.count) {
                Ok(started) => *running = Some(started),
                Err(error) => {
                    drop(running);
                    let count = self.count;
                    log::write(
                        LogLevelInC::WTACRS_LOG_LEVEL_WARNING,
                        &format!("{count} threads cannot start, so the calling thread computes: {error}"),
                    );
                    return None;
                }
            }
        }
        running.as_ref().map(|running| Arc::clone(&running.pool))
    }
}

impl SharedPool {
    /// The state in this process. A forked process abandons its parent's: a lock in it may be held by a thread that is not
    /// here, and what a pool does when it is dropped waits for such threads.
    fn state(&self) -> &State {
        let process = std::process::id();
        let mut found = self.state.load(Ordering::Acquire);
        loop {
            // SAFETY: null, or a state that lives until the pool is dropped, as documented; then nobody is here.
            if let Some(state) = unsafe { found.as_ref() }.filter(|state| state.process == process) {
                return state;
            }
            let new = Box::into_raw(Box::new(State { process, running: Mutex::new(None) }));
            match self.state.compare_exchange(found, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => found = new,
                Err(other) => {
                    // SAFETY: made above, and seen by nobody else.
                    drop(unsafe { Box::from_raw(new) });
                    found = other;
                }
            }
        }
    }
}

impl Drop for SharedPool {
    fn drop(&mut self) {
        let state = *self.state.get_mut();
        // SAFETY: null, or a state that only this pool knows, and whose process is read before anything else.
        if unsafe { state.as_ref() }.is_some_and(|state| state.process == std::process::id()) {
            // SAFETY: made by `Box::into_raw`, and nobody uses it any more.
            let state = unsafe { Box::from_raw(state) };
            let running = state.running.into_inner().unwrap_or_else(PoisonError::into_inner);
            if let Some(Running { pool, threads }) = running {
                // The last owner, since calls have left it: its threads end.
                drop(pool);
                join(threads);
            }
        }
    }
}

impl Running {
    fn start(count: usize) -> Result<Self, ThreadPoolBuildError> {
        let mut threads = Vec::new();
        let pool = ThreadPoolBuilder::new().num_threads(count).spawn_handler(|worker| {
            let builder = thread::Builder::new().name(format!("wtacrs {}", worker.index()));
            threads.push(builder.spawn(move || panics::within(Code::Pool, || worker.run()))?);
            Ok(())
        });
        match pool.build() {
            Ok(pool) => Ok(Self { pool: Arc::new(pool), threads }),
            Err(error) => {
                // The others end when one cannot start.
                join(threads);
                Err(error)
            }
        }
    }
}

fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        // A worker that panicked has ended too.
        let _ = thread.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_counts_share_a_pool_whose_threads_end_with_it() {
        let (first, second, other) = (shared(3), shared(3), shared(2));
        assert_eq!((first.count(), other.count(), shared(1).count()), (3, 2, 1));
        let pool = first.pool().expect("threads start");
        assert!(Arc::ptr_eq(&pool, &second.pool().expect("the same")));
        assert!(!Arc::ptr_eq(&pool, &other.pool().expect("another")));
        assert!(shared(1).pool().is_none());
        let name = pool.install(|| thread::current().name().map(str::to_owned));
        assert!(name.is_some_and(|name| name.starts_with("wtacrs ")));
        drop(pool);
        let alive = Arc::downgrade(&first);
        drop((first, second));
        assert!(alive.upgrade().is_none());
    }

    #[test]
    fn the_default_is_at_least_one() {
        assert!((1..=most()).contains(&shared(0).count()));
    }
}
