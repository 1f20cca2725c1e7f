//! Where the loops of this crate run: by default in the current rayon pool, or where [`Threads`] says.
//!
//! A library that must not start threads of its own accord, or that must know which ones it started, enters [`Threads`]
//! before it calls this crate. Results do not depend on it.
//!
//! ```
//! use std::sync::Arc;
//! use wtacrs_core::parallel::{OneThread, enter};
//! use wtacrs_core::product::row_norms;
//!
//! let _entered = enter(Arc::new(OneThread));
//! // Computed by this thread, which starts no other.
//! assert_eq!(row_norms(ndarray::array![[3.0f32, 4.0], [0.0, 2.0]].view()), [5.0, 2.0]);
//! ```

use core::cell::RefCell;
use rayon::ThreadPool;
use rayon::iter::plumbing::{Producer, ProducerCallback};
use rayon::prelude::*;
use std::fmt::Debug;
use std::sync::Arc;

/// The threads that loops may use.
pub trait Threads: Debug + Send + Sync {
    /// How many there are; at least one.
    fn count(&self) -> usize;

    /// The pool that contains them, started if need be. `None`: loops run on the calling thread. Loops that have nothing
    /// to share out do not ask.
    fn pool(&self) -> Option<Arc<ThreadPool>>;
}

/// The calling thread alone.
#[derive(Clone, Copy, Debug)]
pub struct OneThread;

impl Threads for OneThread {
    fn count(&self) -> usize {
        1
    }

    fn pool(&self) -> Option<Arc<ThreadPool>> {
        None
    }
}

thread_local! {
    /// The innermost threads that were entered and not yet left.
    static ENTERED: RefCell<Option<Arc<dyn Threads>>> = const { RefCell::new(None) };
}

/// Until this is dropped, loops that the thread starts run on the threads that it entered.
#[must_use = "dropping this leaves the threads"]
#[derive(Debug)]
pub struct Entered {
    before: Option<Arc<dyn Threads>>,
    /// It belongs to one thread.
    not_send: core::marker::PhantomData<*const ()>,
}

/// Makes loops that the calling thread starts run on `threads`, until the result is dropped.
pub fn enter(threads: Arc<dyn Threads>) -> Entered {
    let before = ENTERED.try_with(|entered| entered.replace(Some(threads))).unwrap_or(None);
    Entered { before, not_send: core::marker::PhantomData }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let before = self.before.take();
        // A thread that is ending has none.
        let _ = ENTERED.try_with(|entered| entered.replace(before));
    }
}

fn entered() -> Option<Arc<dyn Threads>> {
    ENTERED.try_with(|entered| entered.borrow().clone()).unwrap_or(None)
}

/// How many threads a loop of the calling thread would have.
pub fn threads() -> usize {
    entered().map_or_else(rayon::current_num_threads, |threads| threads.count())
}

/// Runs `parallel` in the pool that loops of this thread run in, or `serial` on this thread.
fn run<A: Send, S: Send, R: Send>(items: A, state: S, serial: fn(A, S) -> R, parallel: fn(A, S) -> R) -> R {
    match entered().map(|threads| threads.pool()) {
        None => parallel(items, state),
        Some(None) => serial(items, state),
        Some(Some(pool)) => pool.install(|| parallel(items, state)),
    }
}

/// Calls `work` with each item, in any order.
pub fn for_each<I: IndexedParallelIterator>(items: I, work: impl Fn(I::Item) + Send + Sync) {
    if items.len() <= 1 {
        return one_by_one(items, work);
    }
    run(items, work, |items, work| one_by_one(items, work), |items, work| items.for_each(work));
}

/// What `work` makes of each item, in the items' order.
pub fn map<I: IndexedParallelIterator, R: Send>(items: I, work: impl Fn(I::Item) -> R + Send + Sync) -> Vec<R> {
    map_with(items, || (), |(), item| work(item))
}

/// As [`map`], with a state that successive items may share.
pub fn map_with<I: IndexedParallelIterator, T, R: Send>(
    items: I,
    state: impl Fn() -> T + Send + Sync,
    work: impl Fn(&mut T, I::Item) -> R + Send + Sync,
) -> Vec<R> {
    fn serial<I: IndexedParallelIterator, T, R>(
        items: I,
        (state, work): (impl Fn() -> T, impl Fn(&mut T, I::Item) -> R),
    ) -> Vec<R> {
        let (mut results, mut state) = (Vec::with_capacity(items.len()), state());
        one_by_one(items, |item| results.push(work(&mut state, item)));
        results
    }
    if items.len() <= 1 {
        return serial(items, (state, work));
    }
    run(items, (state, work), serial, |items, (state, work)| items.map_init(state, work).collect())
}

/// Calls `work` with each item, in any order.
///
/// # Errors
///
/// The error of the first item that has one. All others are worked on all the same.
pub fn try_for_each<I: IndexedParallelIterator, E: Send>(
    items: I,
    work: impl Fn(I::Item) -> Result<(), E> + Send + Sync,
) -> Result<(), E> {
    map(items, work).into_iter().collect()
}

/// Both results; the functions may run at the same time.
pub fn join<A: Send, B: Send>(a: impl FnOnce() -> A + Send, b: impl FnOnce() -> B + Send) -> (A, B) {
    run(a, b, |a, b| (a(), b()), |a, b| rayon::join(a, b))
}

/// Calls `work` with each item in order, on this thread.
fn one_by_one<I: IndexedParallelIterator>(items: I, work: impl FnMut(I::Item)) {
    struct Callback<W>(W);

    impl<T, W: FnMut(T)> ProducerCallback<T> for Callback<W> {
        type Output = ();

        fn callback<P: Producer<Item = T>>(self, producer: P) {
            producer.into_iter().for_each(self.0);
        }
    }

    items.with_producer(Callback(work));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[derive(Debug)]
    struct Pool(Arc<ThreadPool>);

    impl Threads for Pool {
        fn count(&self) -> usize {
            self.0.current_num_threads()
        }

        fn pool(&self) -> Option<Arc<ThreadPool>> {
            Some(Arc::clone(&self.0))
        }
    }

    fn pool(threads: usize) -> Arc<Pool> {
        Arc::new(Pool(Arc::new(rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool"))))
    }

    /// The threads that worked on many items.
    fn at_work() -> Vec<thread::ThreadId> {
        let mut threads = map((0..1000).into_par_iter(), |_| thread::current().id());
        let (a, b) = join(|| thread::current().id(), || thread::current().id());
        threads.extend([a, b]);
        threads
    }

    #[test]
    fn one_thread_works_alone() {
        let me = thread::current().id();
        let _entered = enter(Arc::new(OneThread));
        assert_eq!(threads(), 1);
        assert!(at_work().iter().all(|&thread| thread == me));
    }

    #[test]
    fn a_pool_works_until_it_is_left() {
        let me = thread::current().id();
        let outer = enter(Arc::new(OneThread));
        let inner = enter(pool(3));
        assert_eq!(threads(), 3);
        assert!(at_work().iter().all(|&thread| thread != me));
        // Loops within a loop stay in the pool.
        assert_eq!(map((0..4).into_par_iter(), |_| threads()), [3; 4]);
        drop(inner);
        assert_eq!((threads(), at_work()[0]), (1, me));
        drop(outer);
        assert_eq!(threads(), rayon::current_num_threads());
    }

    #[test]
    fn a_single_item_asks_no_pool() {
        #[derive(Debug)]
        struct Never;
        impl Threads for Never {
            fn count(&self) -> usize {
                2
            }
            fn pool(&self) -> Option<Arc<ThreadPool>> {
                panic!("asked for a pool")
            }
        }
        let _entered = enter(Arc::new(Never));
        assert_eq!(map([7].into_par_iter(), |x| x + 1), [8]);
        for_each(Vec::<u8>::new().into_par_iter(), |_| {});
    }

    #[test]
    fn results_are_in_order_and_the_first_error_is_returned() {
        for threads in [Arc::new(OneThread) as Arc<dyn Threads>, pool(2)] {
            let _entered = enter(threads);
            assert_eq!(map((0..100).into_par_iter(), |i| i * i), (0..100).map(|i| i * i).collect::<Vec<_>>());
            let starts = map_with((0..100).into_par_iter(), Vec::new, |seen: &mut Vec<i32>, i| {
                seen.push(i);
                seen.len()
            });
            assert!(starts.iter().all(|&length| length >= 1));
            let odd = |i| if i % 2 == 1 { Err(i) } else { Ok(()) };
            assert_eq!(try_for_each((0..100).into_par_iter(), odd), Err(1));
            assert_eq!(try_for_each((0..100).into_par_iter().map(|i| 2 * i), odd), Ok(()));
        }
    }
}
