//! The order of threads: the same for the same seed, another for another, and every one completes what must complete.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use wtacrs_simt::emulator::{Fault, Launch, launch};
use wtacrs_simt::shared::Shared;
use wtacrs_simt::warp::FULL;
use wtacrs_simt::{atomic, index, sync, warp};

/// In which order threads take tickets, two blocks in one launch.
fn tickets(seed: u64, cooperative: bool) -> Vec<u32> {
    let next = [const { AtomicU32::new(0) }; 2];
    let taken: Vec<AtomicU32> = (0..128).map(|_| AtomicU32::new(0)).collect();
    let shape = Launch { grid: [2, 1, 1], block: 64, shared_bytes: 0, cooperative, seed };
    let outcome = launch(shape, &|| {
        let block = index::block()[0] as usize;
        let mut sum = 0;
        for round in 0..3 {
            // SAFETY: an atomic of this block, or one of both in turns.
            sum = 64 * sum + unsafe { atomic::atomic_add(next[block].as_ptr(), 1) } % 64;
            if round == 1 {
                sync::barrier();
            }
        }
        taken[64 * block + index::thread() as usize].store(sum, Relaxed);
    });
    outcome.expect("a kernel without faults");
    taken.iter().map(|x| x.load(Relaxed)).collect()
}

#[test]
fn a_seed_gives_one_order() {
    for cooperative in [false, true] {
        let orders: HashSet<Vec<u32>> = (0..16)
            .map(|seed| {
                let order = tickets(seed, cooperative);
                assert_eq!(order, tickets(seed, cooperative), "seed {seed}");
                order
            })
            .collect();
        // Index order and its reverse come more than once.
        assert!(orders.len() >= 12, "{}", orders.len());
    }
}

#[test]
fn a_missing_barrier_shows_in_the_result() {
    // Rust's own atomics, which are not recorded: the sum of what the neighbour may have written by then.
    let sums: HashSet<u32> = (0..16)
        .map(|seed| {
            let values: Vec<AtomicU32> = (0..64).map(|_| AtomicU32::new(0)).collect();
            let sum = AtomicU32::new(0);
            let shape = Launch { grid: [1, 1, 1], block: 64, shared_bytes: 0, cooperative: false, seed };
            let outcome = launch(shape, &|| {
                let thread = index::thread();
                warp::ballot(FULL, true);
                values[thread as usize].store(1 << (thread % 8), Relaxed);
                sum.fetch_add(values[(thread as usize + 9) % 64].load(Relaxed) * (1 + thread), Relaxed);
            });
            outcome.expect("nothing that is checked");
            sum.into_inner()
        })
        .collect();
    assert!(sums.len() > 8, "{}", sums.len());
}

#[test]
fn a_lock_between_blocks() {
    for seed in 0..12 {
        let (lock, count) = (AtomicU32::new(0), AtomicU32::new(0));
        let shape = Launch { grid: [5, 1, 1], block: 64, shared_bytes: 0, cooperative: true, seed };
        let outcome = launch(shape, &|| {
            // One lane of each warp takes the lock ten times.
            for _ in 0..10 {
                if index::lane() == 0 {
                    // SAFETY: an atomic.
                    unsafe {
                        while atomic::compare_exchange(lock.as_ptr(), 0, 1) != 0 {
                            sync::spin();
                        }
                        let seen = count.load(Relaxed);
                        atomic::atomic_add(count.as_ptr(), 0);
                        count.store(seen + 1, Relaxed);
                        atomic::store_release(lock.as_ptr(), 0);
                    }
                }
                sync::warp_barrier(FULL);
            }
        });
        outcome.expect("a kernel without faults");
        assert_eq!(count.into_inner(), 100);
    }
}

#[test]
fn many_large_blocks() {
    let sum = AtomicU32::new(0);
    let shape = Launch { grid: [16, 4, 1], block: 1024, shared_bytes: 100 * 1024, cooperative: false, seed: 5 };
    let outcome = launch(shape, &|| {
        let window = Shared::<u32>::new(96 * 1024, 1024);
        let thread = index::thread();
        // SAFETY: an element for every thread, a barrier between.
        unsafe {
            window.write(thread, thread);
            sync::barrier();
            let value = warp::reduce_add(FULL, window.read(1023 - thread));
            if index::lane() == 0 {
                atomic::atomic_add(sum.as_ptr(), value);
            }
        }
    });
    outcome.expect("a kernel without faults");
    assert_eq!(sum.into_inner(), 64 * 1023 * 512);
}

#[test]
fn cooperative_blocks_are_all_resident() {
    let arrived = AtomicU32::new(0);
    let shape = Launch { grid: [16, 1, 1], block: 1024, shared_bytes: 16, cooperative: true, seed: 3 };
    let outcome = launch(shape, &|| {
        if index::thread() == 0 {
            // SAFETY: an atomic.
            unsafe {
                atomic::atomic_add(arrived.as_ptr(), 1);
                while atomic::load_acquire(arrived.as_ptr()) < 16 {
                    sync::spin();
                }
            }
        }
        sync::barrier();
    });
    outcome.expect("a kernel without faults");
    let fault = launch(Launch { grid: [100, 1, 1], ..shape }, &|| {}).expect_err("more threads than stacks");
    assert!(matches!(fault, Fault::Stacks { threads: 102_400, .. }), "{fault}");
}
