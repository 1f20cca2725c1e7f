//! What one block wrote, read by another: a fault wherever a fence, a barrier, a release or an acquire is missing.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use wtacrs_simt::emulator::{Fault, Launch, launch};
use wtacrs_simt::shared::Shared;
use wtacrs_simt::{atomic, index, memory, sync};

const SEEDS: u64 = 33;

const SHAPE: Launch = Launch { grid: [3, 1, 1], block: 64, shared_bytes: 64, cooperative: true, seed: 0 };

/// Global memory of these tests.
struct Memory {
    /// Published when it is not 0.
    flags: [AtomicU32; 3],
    done: AtomicU32,
    data: [[AtomicU32; 64]; 3],
}

impl Default for Memory {
    fn default() -> Self {
        let zero = || AtomicU32::new(0);
        Self {
            flags: std::array::from_fn(|_| zero()),
            done: zero(),
            data: std::array::from_fn(|_| std::array::from_fn(|_| zero())),
        }
    }
}

impl Memory {
    fn flag(&self, block: u32) -> *mut u32 {
        self.flags[block as usize].as_ptr()
    }

    fn data(&self, block: u32, i: u32) -> *mut u32 {
        self.data[block as usize][i as usize].as_ptr()
    }

    /// The thread's word of its block's data.
    #[track_caller]
    fn write(&self) {
        // SAFETY: a word of this memory; if there is a race, the emulator ends the launch.
        unsafe { memory::store(self.data(index::block()[0], index::thread()), 7) };
    }

    /// The word of another thread in a block's data.
    #[track_caller]
    fn read(&self, block: u32) {
        // SAFETY: as above.
        assert_eq!(unsafe { memory::load(self.data(block, 63 - index::thread())) }, 7);
    }
}

fn outcome(seed: u64, cooperative: bool, kernel: impl Fn(&Memory) + Sync) -> Result<(), Fault> {
    let memory = Memory::default();
    launch(Launch { seed, cooperative, ..SHAPE }, &|| kernel(&memory))
}

fn races(kernel: impl Fn(&Memory) + Sync) {
    for seed in 0..SEEDS {
        let fault = outcome(seed, true, &kernel).expect_err("a race");
        let Fault::GlobalRace { culprit, other, .. } = &fault else { panic!("seed {seed}: {fault}") };
        assert_ne!(culprit.block, other.block, "{fault}");
    }
}

fn is_right(kernel: impl Fn(&Memory) + Sync) {
    for seed in 0..SEEDS {
        if let Err(fault) = outcome(seed, true, &kernel) {
            panic!("seed {seed}: {fault}");
        }
    }
}

fn fence_if(wanted: bool) {
    if wanted {
        sync::device_fence();
    }
}

/// Waits for a flag with relaxed loads.
fn wait_for(flag: *mut u32) {
    // SAFETY: a flag, accessed atomically only.
    while unsafe { atomic::load_relaxed(flag) } == 0 {
        sync::spin();
    }
}

fn publish(flag: *mut u32) {
    // SAFETY: as above.
    unsafe { atomic::store_relaxed(flag, 1) };
}

/// Block 0 publishes its data, and the others read them.
fn handing_over(barrier: bool, fences: [bool; 2]) -> impl Fn(&Memory) + Sync {
    move |memory| {
        if index::block()[0] == 0 {
            memory.write();
            if barrier {
                sync::barrier();
            }
            if index::thread() == 0 {
                fence_if(fences[0]);
                publish(memory.flag(0));
            }
        } else {
            if index::thread() == 0 {
                wait_for(memory.flag(0));
                fence_if(fences[1]);
            }
            sync::barrier();
            memory.read(0);
        }
    }
}

#[test]
fn fences_of_writer_and_reader() {
    is_right(handing_over(true, [true, true]));
    races(handing_over(true, [false, true]));
    races(handing_over(true, [true, false]));
    races(handing_over(false, [true, true]));
}

#[test]
fn a_fence_covers_what_comes_before_it() {
    let kernel = |of_all: bool| {
        move |memory: &Memory| {
            if index::block()[0] == 0 {
                memory.write();
                fence_if(of_all || index::thread() == 0);
                sync::barrier();
                if index::thread() == 0 {
                    publish(memory.flag(0));
                }
            } else {
                if index::thread() == 0 {
                    wait_for(memory.flag(0));
                }
                sync::barrier();
                sync::device_fence();
                memory.read(0);
            }
        }
    };
    // Every thread fences, and one publishes after the barrier.
    is_right(kernel(true));
    races(kernel(false));
}

#[test]
fn release_and_acquire() {
    let kernel = |release: bool, acquire: bool| {
        move |memory: &Memory| {
            let flag = memory.flag(0);
            if index::block()[0] == 0 {
                memory.write();
                sync::barrier();
                if index::thread() == 0 {
                    // SAFETY: a flag, accessed atomically only.
                    unsafe { if release { atomic::store_release(flag, 1) } else { atomic::store_relaxed(flag, 1) } };
                }
            } else {
                if index::thread() == 0 {
                    // SAFETY: as above.
                    let found =
                        || unsafe { if acquire { atomic::load_acquire(flag) } else { atomic::load_relaxed(flag) } };
                    while found() == 0 {
                        sync::spin();
                    }
                }
                sync::barrier();
                memory.read(0);
            }
        }
    };
    is_right(kernel(true, true));
    races(kernel(false, true));
    races(kernel(true, false));
}

#[test]
fn order_passes_from_block_to_block() {
    let kernel = |fences: [bool; 2]| {
        move |memory: &Memory| {
            let block = index::block()[0];
            if block > 0 {
                if index::thread() == 0 {
                    wait_for(memory.flag(block - 1));
                    fence_if(block == 2 || fences[0]);
                }
                sync::barrier();
            }
            if block == 0 {
                memory.write();
                sync::barrier();
            }
            if block < 2 && index::thread() == 0 {
                fence_if(block == 0 || fences[1]);
                publish(memory.flag(block));
            }
            if block == 2 {
                memory.read(0);
            }
        }
    };
    is_right(kernel([true, true]));
    // One fence acquires and releases.
    is_right(kernel([false, true]));
    races(kernel([false, false]));
    // Block 2 learns only of fences before the store that it has read: the last one here comes before block 1 knows.
    races(|memory| {
        let block = index::block()[0];
        match (block, index::thread()) {
            (0, 0) => {
                memory.write();
                sync::device_fence();
                publish(memory.flag(0));
            }
            (1, 0) => {
                sync::device_fence();
                wait_for(memory.flag(0));
                publish(memory.flag(1));
            }
            (2, 63) => {
                wait_for(memory.flag(1));
                sync::device_fence();
                memory.read(0);
            }
            _ => {}
        }
    });
}

/// The block that comes last, whichever it is, reads the data of all.
fn last_block(fences: [bool; 2]) -> impl Fn(&Memory) + Sync {
    move |memory| {
        const IS_LAST: Shared<u32> = Shared::new(0, 1);
        memory.write();
        sync::barrier();
        if index::thread() == 0 {
            fence_if(fences[0]);
            // SAFETY: a count, accessed atomically only; a word of shared memory.
            unsafe { IS_LAST.write(0, u32::from(atomic::atomic_add(memory.done.as_ptr(), 1) == 2)) };
            fence_if(fences[1]);
        }
        sync::barrier();
        // SAFETY: written before the barrier.
        if unsafe { IS_LAST.read(0) } != 0 {
            (0..3).for_each(|block| memory.read(block));
        }
    }
}

#[test]
fn the_last_block_to_end() {
    for cooperative in [false, true] {
        for seed in 0..SEEDS {
            for fences in [[false, true], [true, false], [false, false]] {
                let fault = outcome(seed, cooperative, last_block(fences)).expect_err("a fence is missing");
                assert!(matches!(fault, Fault::GlobalRace { .. }), "seed {seed}: {fault}");
            }
            if let Err(fault) = outcome(seed, cooperative, last_block([true, true])) {
                panic!("seed {seed}: {fault}");
            }
        }
    }
}

/// Two relaxed stores of block 0, which block 1 reads in the other order: how often it sees the second without the first.
fn seen_in_another_order(fence: bool, rounds: u64) -> usize {
    let stale = |seed: &u64| {
        let memory = Memory::default();
        let found = AtomicU32::new(0);
        let outcome = launch(Launch { seed: *seed, ..SHAPE }, &|| {
            let (block, thread) = (index::block()[0], index::thread());
            // SAFETY: words that are accessed atomically only.
            unsafe {
                if (block, thread) == (0, 0) {
                    atomic::store_relaxed(memory.data(0, 0), 7);
                    fence_if(fence);
                    publish(memory.flag(0));
                } else if (block, thread) == (1, 40) {
                    wait_for(memory.flag(0));
                    fence_if(fence);
                    found.store(atomic::load_relaxed(memory.data(0, 0)), Relaxed);
                }
            }
        });
        outcome.expect("atomics do not race");
        assert_eq!(memory.data[0][0].load(Relaxed), 7);
        found.into_inner() == 0
    };
    (0..rounds).filter(stale).count()
}

#[test]
fn relaxed_stores_arrive_in_any_order() {
    assert!(seen_in_another_order(false, 200) > 5);
    assert_eq!(seen_in_another_order(true, 200), 0);
}

#[test]
fn a_block_sees_its_own_relaxed_stores() {
    is_right(|memory| {
        let (block, thread) = (index::block()[0], index::thread());
        // SAFETY: words of the thread alone.
        unsafe {
            for value in 1..20 {
                atomic::store_relaxed(memory.data(block, thread), value);
                atomic::store_relaxed(memory.data(block, thread), value + 1);
                assert_eq!(atomic::load_relaxed(memory.data(block, thread)), value + 1);
                atomic::store_relaxed(memory.data(block, thread), value);
                assert_eq!(memory::load(memory.data(block, thread)), value);
                atomic::store_relaxed(memory.data(block, thread), value + 5);
                assert_eq!(atomic::atomic_add(memory.data(block, thread), 1), value + 5);
            }
        }
    });
}
