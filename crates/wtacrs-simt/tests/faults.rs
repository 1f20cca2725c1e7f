//! Every mistake is found, in every order of threads, and reported with its thread and its place.

use std::sync::atomic::{AtomicU32, Ordering};
use wtacrs_simt::emulator::{Activity, Fault, Launch, MaskMisuse, Operation, launch};
use wtacrs_simt::memory::{self, U32x4};
use wtacrs_simt::shared::Shared;
use wtacrs_simt::warp::FULL;
use wtacrs_simt::{atomic, cp_async, index, matrix, sync, warp};

const SEEDS: u64 = 9;

const SHAPE: Launch = Launch { grid: [1, 1, 1], block: 64, shared_bytes: 1024, cooperative: false, seed: 0 };

/// What is wrong with a kernel, under each seed; the message must hold all of `says`.
fn faults(shape: Launch, says: &[&str], kernel: impl Fn() + Sync) -> Vec<Fault> {
    let fault = |seed| {
        let fault = launch(Launch { seed, ..shape }, &kernel).expect_err("a faulty kernel");
        let message = fault.to_string();
        for part in says {
            assert!(message.contains(part), "seed {seed}: {message:?} does not say {part:?}");
        }
        fault
    };
    (0..SEEDS).map(fault).collect()
}

macro_rules! assert_all {
    ($faults:expr, $pattern:pat $(if $guard:expr)?) => {
        for fault in $faults {
            assert!(matches!(&fault, $pattern $(if $guard)?), "{fault:?}");
        }
    };
}

#[test]
fn a_launch_that_no_gpu_takes() {
    for shape in [
        Launch { block: 0, ..SHAPE },
        Launch { block: 48, ..SHAPE },
        Launch { block: 2048, ..SHAPE },
        Launch { grid: [1, 0, 1], ..SHAPE },
        Launch { grid: [1, 1, 70_000], ..SHAPE },
        Launch { shared_bytes: 300_000, ..SHAPE },
    ] {
        assert_all!(faults(shape, &["a launch cannot have"], || {}), Fault::Shape(_));
    }
}

#[test]
fn a_barrier_that_some_threads_miss_by_ending() {
    let found = faults(SHAPE, &["block (0, 0, 0)", "threads 0-4, 6-63 at barrier", "thread 5 finished"], || {
        if index::thread() != 5 {
            sync::barrier();
        }
    });
    assert_all!(found, Fault::BarrierDivergence { .. });
}

#[test]
fn a_barrier_that_some_threads_miss_in_a_warp_s_operation() {
    let says = ["threads 0-31, 40 at barrier", "threads 32-39, 41-63 at shuffle_xor with mask 0xffffffff"];
    let found = faults(SHAPE, &says, || {
        warp::ballot(FULL, true);
        if index::warp() == 1 && index::thread() != 40 {
            warp::shuffle_xor(FULL, 0u32, 1);
        }
        sync::barrier();
    });
    assert_all!(found, Fault::BarrierDivergence { groups, .. } if groups.len() == 2);
}

#[test]
#[expect(clippy::if_same_then_else, reason = "the same call at two places")]
fn barriers_at_different_places() {
    let found = faults(SHAPE, &["threads 0-31 at barrier", "threads 32-63 at barrier"], || {
        if index::warp() == 0 {
            sync::barrier();
        } else {
            sync::barrier();
        }
    });
    assert_all!(found, Fault::BarrierDivergence { groups, .. } if groups.len() == 2);
}

#[test]
fn lanes_in_different_operations() {
    let says = ["thread 3 at ballot", "threads 0-2, 4-31 at shuffle with", "threads 32-63 finished", "faults.rs"];
    let found = faults(SHAPE, &says, || {
        if index::thread() == 3 {
            warp::ballot(FULL, true);
        } else if index::warp() == 0 {
            warp::shuffle(FULL, 1u32, 0);
        }
    });
    assert_all!(found, Fault::WarpDivergence { .. });
}

#[test]
fn lanes_at_different_matrix_operations() {
    let multiply = |is_first: bool| {
        if is_first {
            matrix::mma_bf16([0; 4], [0; 2], [0.0; 4]);
        } else {
            matrix::mma_bf16([0; 4], [0; 2], [1.0; 4]);
        }
    };
    // At one place by turns, and then not.
    let says = ["lanes part", "threads 32-39 at mma_bf16", "threads 40-63 at mma_bf16"];
    let found = faults(SHAPE, &says, || {
        multiply(true);
        multiply(index::thread() < 40);
    });
    assert_all!(found, Fault::WarpDivergence { groups, .. } if groups[0].activity != groups[1].activity);
    // Shuffles are not aligned: lanes may come from anywhere.
    let shape = Launch { seed: 3, ..SHAPE };
    let shuffled = launch(shape, &|| {
        if index::lane() < 8 {
            warp::shuffle(FULL, 1u32, 0)
        } else {
            warp::shuffle(FULL, 2u32, 0)
        };
    });
    assert_eq!(shuffled, Ok(()));
}

#[test]
fn waiting_for_a_block_that_never_comes() {
    let flag = AtomicU32::new(0);
    let wait = || {
        // SAFETY: the flag is an atomic.
        while unsafe { atomic::load_acquire(flag.as_ptr()) } == 0 {
            sync::spin();
        }
    };
    let shape = Launch { grid: [3, 1, 1], cooperative: true, ..SHAPE };
    assert_all!(faults(shape, &["deadlock", "threads 0-63 at spin"], wait), Fault::Deadlock { .. });
    let found = faults(shape, &["deadlock", "thread 7 at spin", "threads 0-6, 8-63 at barrier"], || {
        if index::thread() == 7 {
            wait();
        }
        sync::barrier();
    });
    assert_all!(found, Fault::Deadlock { groups, .. }
        if groups.iter().any(|group| matches!(group.activity, Activity::Spinning(_)) && group.threads == [7]));
    let shape = Launch { cooperative: false, ..shape };
    assert_all!(faults(shape, &["spins in a launch that is not cooperative"], wait), Fault::Spin { .. });
    let shape = Launch { grid: [1, 1, 1], block: 32, ..shape };
    let found = faults(shape, &["spin"], || {
        // SAFETY: the flag is an atomic.
        while unsafe { atomic::load_acquire(flag.as_ptr()) } == 0 {}
    });
    assert_all!(found, Fault::Spin { .. });
}

#[test]
fn polls_without_spin() {
    let (flag, word) = (AtomicU32::new(0), AtomicU32::new(0));
    // SAFETY: of an atomic.
    let poll = |at: &AtomicU32| unsafe { atomic::load_relaxed(at.as_ptr()) };
    // SAFETY: as above.
    let add = |at: &AtomicU32| unsafe { atomic::atomic_add(at.as_ptr(), 1) };
    let shape = Launch { grid: [2, 1, 1], block: 32, cooperative: true, ..SHAPE };
    // A thread's own changes do not end its wait.
    let found = faults(shape, &["for ever"], || {
        while (index::block()[0], index::thread()) == (0, 7) && poll(&flag) == 0 {
            add(&word);
        }
    });
    assert_all!(found, Fault::Spin { .. });

    for seed in 0..SEEDS {
        // Enough polls for a fault, with barriers between.
        let shape = Launch { seed, ..shape };
        let barriers = launch(Launch { grid: [1, 1, 1], ..shape }, &|| {
            for _ in 0..5000 {
                (0..20).for_each(|_| assert_eq!(poll(&flag), 0));
                sync::barrier();
            }
        });
        assert_eq!(barriers, Ok(()), "seed {seed}");
        // Another block's change comes when that block runs.
        let published = AtomicU32::new(0);
        let waits = launch(shape, &|| match (index::block()[0], index::thread()) {
            (0, 0) => while poll(&published) == 0 {},
            (0, _) => {}
            _ => assert!(add(&published) < 32),
        });
        assert_eq!(waits, Ok(()), "seed {seed}");
    }
}

#[test]
fn lane_masks() {
    let found = faults(SHAPE, &["thread 9 (warp 0, lane 9)", "not in the mask 0x000000ff"], || {
        if index::thread() == 9 {
            warp::ballot(0xFF, true);
        }
    });
    assert_all!(found, Fault::LaneMask { misuse: MaskMisuse::CallerMissing { mask: 0xFF }, .. });

    let found = faults(SHAPE, &["names lane 30, which has finished", "reduce_add"], || {
        if index::lane() != 30 {
            warp::reduce_add(FULL, 1);
        }
    });
    assert_all!(found, Fault::LaneMask { misuse: MaskMisuse::LaneFinished { lane: 30, .. }, .. });

    let found = faults(SHAPE, &["the masks differ", "0x000000ff", "0x000001ff"], || match index::thread() {
        0..4 => sync::warp_barrier(0xFF),
        4..9 => sync::warp_barrier(0x1FF),
        _ => {}
    });
    assert_all!(found, Fault::LaneMask { misuse: MaskMisuse::Different { .. }, .. });

    let found = faults(SHAPE, &["the source lane 20 is not in the mask 0x0000ffff", "shuffle:"], || {
        if index::lane() < 16 {
            warp::shuffle(0xFFFF, 1.0f32, if index::lane() == 3 { 20 } else { 0 });
        }
    });
    assert_all!(found, Fault::LaneMask { misuse: MaskMisuse::SourceMissing { lane: 20, .. }, operation: Operation::Shuffle, culprit } if culprit.thread % 32 == 3);

    let found = faults(SHAPE, &["the distance 32 is not below 32"], || {
        warp::shuffle_down(FULL, 1u64, 32);
    });
    assert_all!(found, Fault::LaneMask { misuse: MaskMisuse::Distance { distance: 32 }, .. });
}

#[test]
fn shared_memory_out_of_bounds() {
    let says = ["thread 33 (warp 1, lane 1)", "4 bytes at 128 of shared memory pass its end at 128"];
    let found = faults(SHAPE, &says, || {
        if index::thread() == 33 {
            // SAFETY: it is not; the emulator refuses it.
            unsafe { Shared::<u32>::new(0, 32).write(32, 1) };
        }
    });
    assert_all!(found, Fault::OutOfBounds { offset: 128, bytes: 4, end: 128, .. });
    // Within its window, which is larger than the launch's bytes.
    let found = faults(SHAPE, &["8 bytes at 1024", "end at 1024"], || {
        // SAFETY: as above.
        unsafe { Shared::<u64>::new(512, 128).atomic_add(64, 1) };
    });
    assert_all!(found, Fault::OutOfBounds { .. });
    let found = faults(SHAPE, &["16 bytes at 1024"], || {
        // SAFETY: as above.
        unsafe { matrix::load_x4(Shared::<U32x4>::new(0, 64).address(64)) };
    });
    assert_all!(found, Fault::OutOfBounds { .. });
    let source = [0u32; 4];
    let found = faults(SHAPE, &["16 bytes at 1024"], || {
        // SAFETY: as above.
        unsafe { cp_async::copy::<16>(Shared::<U32x4>::new(0, 64).address(64), (&raw const source).cast(), 16) };
    });
    assert_all!(found, Fault::OutOfBounds { .. });
}

#[test]
fn misaligned_accesses() {
    let words = [const { AtomicU32::new(0) }; 16];
    let base = (0..4).find(|i| words[*i].as_ptr().addr().is_multiple_of(16)).expect("one of four words");
    let address = words[base].as_ptr();
    let place = address.expose_provenance();
    let word = || std::ptr::with_exposed_provenance_mut::<u32>(place);
    let one = |kernel: &(dyn Fn() + Sync)| {
        assert_all!(faults(SHAPE, &["is not a multiple of"], kernel), Fault::Misaligned { .. });
    };
    // SAFETY: none of these accesses is aligned; the emulator refuses them.
    unsafe {
        one(&|| _ = memory::load(word().add(1).cast::<U32x4>()));
        one(&|| _ = memory::load(word().add(3).cast::<f64>()));
        one(&|| memory::store(word().cast::<u8>().add(2).cast::<f32>(), 1.0));
        one(&|| _ = memory::load_constant(word().cast::<u8>().add(1).cast::<u16>()));
        one(&|| _ = atomic::atomic_add(word().add(1).cast::<u64>(), 1));
        one(&|| Shared::<u64>::new(4, 2).write(0, 1));
        one(&|| _ = matrix::load_x2(Shared::<u32>::new(0, 64).address(2)));
        one(&|| cp_async::copy::<16>(Shared::<u32>::new(0, 64).address(0), word().add(1).cast(), 16));
        one(&|| cp_async::copy::<8>(Shared::<u32>::new(0, 64).address(1), word().cast(), 8));
        let found = faults(SHAPE, &["null pointer"], || _ = memory::load(std::ptr::null::<u32>()));
        assert_all!(found, Fault::Null { .. });
    }
}

#[test]
fn copies_that_have_not_landed() {
    let source: Vec<U32x4> = vec![U32x4([7; 4]); 64];
    let place = source.as_ptr().expose_provenance();
    const WORDS: Shared<U32x4> = Shared::new(0, 64);
    let issue = || {
        let thread = index::thread();
        let from = std::ptr::with_exposed_provenance::<U32x4>(place).wrapping_add(thread as usize);
        // SAFETY: aligned, and 64 elements on either side.
        unsafe { cp_async::copy::<16>(WORDS.address(thread), from.cast(), 16) };
        cp_async::commit();
    };
    // SAFETY: accesses of what has not landed, which the emulator refuses.
    unsafe {
        let found = faults(SHAPE, &["byte 16 of shared memory awaits a copy of thread 1, issued at"], || {
            issue();
            sync::barrier();
            if index::thread() == 5 {
                WORDS.read(1);
            }
            sync::barrier();
            cp_async::wait::<0>();
        });
        assert_all!(found, Fault::InFlight { culprit, issuer: 1, .. } if culprit.thread == 5);
        // The newest group is still on its way.
        let found = faults(SHAPE, &["awaits a copy"], || {
            issue();
            cp_async::wait::<1>();
            sync::barrier();
            WORDS.read(index::thread());
        });
        assert_all!(found, Fault::InFlight { .. });
        // A copy that was never committed is not waited for.
        let found = faults(SHAPE, &["awaits a copy"], || {
            let from = std::ptr::with_exposed_provenance::<u8>(place);
            if index::thread() == 0 {
                cp_async::copy::<4>(WORDS.address(0), from, 4);
                cp_async::wait::<0>();
                WORDS.read(0);
            }
        });
        assert_all!(found, Fault::InFlight { .. });
        let found = faults(SHAPE, &["awaits a copy"], || {
            issue();
            Shared::<u16>::new(0, 512).write(8 * index::thread() + 3, 1);
        });
        assert_all!(found, Fault::InFlight { .. });
        let found = faults(SHAPE, &["awaits a copy"], || {
            if index::thread() == 0 {
                issue();
                issue();
            }
        });
        assert_all!(found, Fault::InFlight { .. });
        let found = faults(SHAPE, &["awaits a copy"], || {
            issue();
            matrix::load_x4(WORDS.address(index::thread()));
        });
        assert_all!(found, Fault::InFlight { .. });
    }
    let found = faults(SHAPE, &["does not wait for this copy", "faults.rs"], || {
        issue();
    });
    assert_all!(found, Fault::CopyAbandoned { .. });
    let found = faults(SHAPE, &["16 bytes, 17 of them valid"], || {
        let from = std::ptr::with_exposed_provenance::<u8>(place);
        // SAFETY: it is not; the emulator refuses it.
        unsafe { cp_async::copy::<16>(WORDS.address(0), from, 17) };
    });
    assert_all!(found, Fault::CopySize { .. });
}

#[test]
fn what_was_never_written() {
    let found = faults(SHAPE, &["byte 252 of shared memory was never written"], || {
        let words = Shared::<u32>::new(0, 64);
        let thread = index::thread();
        if thread != 63 {
            // SAFETY: element 63 is read all the same; the emulator refuses it.
            unsafe { words.write(thread, thread) };
        }
        sync::barrier();
        // SAFETY: as above.
        unsafe { words.read(63 - thread) };
    });
    assert_all!(found, Fault::Unwritten { culprit, offset: 252 } if culprit.thread == 0);
    // A word of which half was written.
    let found = faults(SHAPE, &["byte 2 of shared memory was never written"], || {
        if index::thread() == 0 {
            // SAFETY: the upper half is not written; the emulator refuses it.
            unsafe {
                Shared::<u16>::new(0, 2).write(0, 1);
                Shared::<u32>::new(0, 1).read(0);
            }
        }
    });
    assert_all!(found, Fault::Unwritten { offset: 2, .. });
}

#[test]
fn what_another_block_wrote_is_not_there() {
    let shape = Launch { grid: [64, 1, 1], ..SHAPE };
    let found = faults(shape, &["never written"], || {
        // SAFETY: half of the blocks do not write; the emulator refuses it.
        unsafe {
            if index::block()[0].is_multiple_of(2) {
                Shared::<u32>::new(0, 64).write(index::thread(), 1);
            }
            Shared::<u32>::new(0, 64).read(index::thread());
        }
    });
    // Of all faulty blocks the lowest is named.
    assert_all!(found, Fault::Unwritten { culprit, .. } if culprit.block == [1, 0, 0]);
}

#[test]
fn a_panic_and_a_trap() {
    let found = faults(SHAPE, &["block (0, 0, 0), thread 12: panic: of 3 reasons"], || {
        sync::barrier();
        if index::thread() == 12 {
            panic!("of {} reasons", 3);
        }
        sync::barrier();
    });
    assert_all!(found, Fault::Panic { thread: 12, .. });
    let found = faults(SHAPE, &["thread 12 (warp 0, lane 12)", "trap"], || {
        if index::thread() == 12 {
            sync::trap();
        }
        sync::barrier();
    });
    assert_all!(found, Fault::Trap { .. });
}

/// Counts when it is dropped.
struct Counted<'a>(&'a AtomicU32);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_fault_unwinds_every_thread() {
    for seed in 0..SEEDS {
        let (made, dropped) = (AtomicU32::new(0), AtomicU32::new(0));
        let shape = Launch { grid: [4, 1, 1], block: 1024, seed, ..SHAPE };
        let outcome = launch(shape, &|| {
            made.fetch_add(1, Ordering::Relaxed);
            let _counted = Counted(&dropped);
            sync::barrier();
            if index::thread() == 77 {
                sync::trap();
            }
            sync::barrier();
        });
        assert!(matches!(outcome, Err(Fault::Trap { culprit }) if culprit.block == [0, 0, 0]));
        assert_eq!(made.into_inner(), dropped.into_inner());
    }
}
