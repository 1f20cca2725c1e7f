//! Races on global memory: found in every order of threads and blocks, and never where something orders the accesses.

use std::collections::HashSet;
use wtacrs_simt::emulator::{Fault, Launch, launch};
use wtacrs_simt::memory::{self, U32x4};
use wtacrs_simt::shared::Shared;
use wtacrs_simt::warp::FULL;
use wtacrs_simt::{atomic, cp_async, index, sync, warp};

const SEEDS: u64 = 17;

const BLOCK: Launch = Launch { grid: [1, 1, 1], block: 128, shared_bytes: 4096, cooperative: false, seed: 0 };

/// Several blocks that wait for none.
const BLOCKS: Launch = Launch { grid: [2, 2, 1], block: 64, ..BLOCK };

/// 512 words of global memory that kernels may access, zero at first.
#[derive(Clone, Copy)]
struct Words(usize);

impl Words {
    fn at(self, i: u32) -> *mut u32 {
        assert!(i < 512, "within the words");
        std::ptr::with_exposed_provenance_mut::<u32>(self.0).wrapping_add(i as usize)
    }

    #[track_caller]
    fn write(self, i: u32, value: u32) {
        // SAFETY: within the words; if there is a race, the emulator ends the launch.
        unsafe { memory::store(self.at(i), value) };
    }

    #[track_caller]
    fn read(self, i: u32) -> u32 {
        // SAFETY: as above.
        unsafe { memory::load(self.at(i)) }
    }

    #[track_caller]
    fn add(self, i: u32) -> u32 {
        // SAFETY: as above.
        unsafe { atomic::atomic_add(self.at(i), 1) }
    }
}

/// Launches a kernel on words of its own; returns what it has left there.
fn outcome(shape: Launch, kernel: impl Fn(Words) + Sync) -> Result<Vec<u32>, Fault> {
    let mut words = vec![U32x4::default(); 128];
    let first = Words(words.as_mut_ptr().expose_provenance());
    launch(shape, &|| kernel(first))?;
    Ok(words.iter().flat_map(|four| four.0).collect())
}

/// A race under each seed, between two threads at the given lines of this file, in either order.
fn races(shape: Launch, lines: [u32; 2], kernel: impl Fn(Words) + Sync) {
    for seed in 0..SEEDS {
        let fault = outcome(Launch { seed, ..shape }, &kernel).expect_err("a race");
        let Fault::GlobalRace { culprit, other, .. } = &fault else { panic!("seed {seed}: {fault}") };
        assert_ne!((culprit.block, culprit.thread), (other.block, other.thread), "seed {seed}");
        let mut found = [culprit.place.0.line(), other.place.0.line()];
        found.sort_unstable();
        assert_eq!(found, lines, "seed {seed}: {fault}");
        let message = fault.to_string();
        for thread in [culprit, other] {
            assert!(message.contains(&thread.to_string()), "{message}");
        }
    }
}

fn is_right(shape: Launch, kernel: impl Fn(Words) + Sync) {
    for seed in 0..SEEDS {
        if let Err(fault) = outcome(Launch { seed, ..shape }, &kernel) {
            panic!("seed {seed}: {fault}");
        }
    }
}

#[test]
fn threads_of_a_block_without_a_barrier() {
    let kernel = |barrier: bool| {
        move |words: Words| {
            let thread = index::thread();
            words.write(thread, 1);
            warp::ballot(FULL, true);
            if barrier {
                sync::barrier();
            }
            words.read((thread + 1) % 128);
        }
    };
    let line = line!();
    races(BLOCK, [line - 8, line - 3], kernel(false));
    is_right(BLOCK, kernel(true));
}

#[test]
fn a_write_after_a_read_without_a_barrier() {
    let kernel = |barrier: bool| {
        move |words: Words| {
            let thread = index::thread();
            words.read((thread + 40) % 128);
            if barrier {
                sync::barrier();
            }
            words.write(thread, 1);
        }
    };
    let line = line!();
    races(BLOCK, [line - 7, line - 3], kernel(false));
    is_right(BLOCK, kernel(true));
}

#[test]
fn a_warp_s_barrier_orders_its_lanes_alone() {
    let kernel = |flip: u32| {
        move |words: Words| {
            let thread = index::thread();
            words.write(thread, 1);
            sync::warp_barrier(FULL);
            words.read(thread ^ flip);
        }
    };
    let line = line!();
    races(BLOCK, [line - 5, line - 3], kernel(32));
    is_right(BLOCK, kernel(31));
}

#[test]
fn blocks_that_share_a_word() {
    let line = line!();
    races(BLOCKS, [line + 2, line + 2], |words| {
        words.write(index::thread(), 5);
    });
    let kernel = |apart: u32| {
        move |words: Words| {
            let block = 2 * index::block()[1] + index::block()[0];
            words.write(64 * block + index::thread(), block);
            sync::barrier();
            words.read((64 * (block + apart) + index::thread()) % 256);
        }
    };
    let line = line!();
    races(BLOCKS, [line - 5, line - 3], kernel(1));
    is_right(BLOCKS, kernel(0));
}

#[test]
fn parts_of_a_word_are_different_places() {
    let kernel = |flip: u32| {
        move |words: Words| {
            let half = |i: u32| words.at(0).cast::<u16>().wrapping_add(i as usize);
            let thread = index::thread();
            // SAFETY: within the words; if there is a race, the emulator ends the launch.
            unsafe {
                memory::store(half(thread), 1);
                memory::load(half(thread ^ flip));
            }
        }
    };
    let line = line!();
    races(BLOCK, [line - 5, line - 4], kernel(1));
    is_right(BLOCK, kernel(0));
    let line = line!();
    races(BLOCK, [line + 3, line + 7], |words| {
        if index::thread() == 64 {
            words.write(9, 1);
        } else {
            let four = words.at(4 * (index::thread() % 8)).cast::<U32x4>();
            // SAFETY: aligned and within the words; the emulator ends the launch.
            unsafe { memory::load(four) };
        }
    });
}

#[test]
fn atomics_race_with_plain_accesses_alone() {
    is_right(BLOCKS, |words| {
        words.add(index::thread() % 2);
        // SAFETY: within the words.
        unsafe { atomic::load_relaxed(words.at(1)) };
    });
    let line = line!();
    races(BLOCKS, [line + 3, line + 5], |words| {
        if index::block() == [1, 0, 0] {
            words.add(3);
        } else if index::block() == [0, 1, 0] {
            words.read(3);
        }
    });
    // A change of its own does not hide those of others.
    let line = line!();
    races(BLOCKS, [line + 3, line + 6], |words| {
        if index::block() == [1, 0, 0] {
            words.add(3);
        } else if index::block() == [0, 1, 0] {
            words.add(3);
            words.read(3);
        }
    });
    // Nor does one hide what the thread has written before.
    let line = line!();
    races(BLOCKS, [line + 3, line + 6], |words| {
        if index::block() == [1, 0, 0] && index::thread() == 0 {
            words.write(3, 1);
            words.add(3);
        } else if index::block() == [0, 1, 0] {
            words.add(3);
        }
    });
}

#[test]
fn copies_read_their_source_until_they_land() {
    const STAGE: Shared<u32> = Shared::new(0, 128);
    // The thread itself, and another one after a barrier: both write before the wait.
    for apart in [0, 70] {
        let kernel = |early: bool| {
            move |words: Words| {
                let thread = index::thread();
                // SAFETY: aligned and within both; the emulator ends the launch if it finds a fault.
                unsafe { cp_async::copy::<4>(STAGE.address(thread), words.at(thread).cast(), 4) };
                cp_async::commit();
                if !early {
                    cp_async::wait::<0>();
                }
                sync::barrier();
                words.write((thread + apart) % 128, 1);
                cp_async::wait::<0>();
            }
        };
        let line = line!();
        for seed in 0..SEEDS {
            let fault = outcome(Launch { seed, ..BLOCK }, kernel(true)).expect_err("a write to a source");
            let Fault::CopySource { culprit, issuer, .. } = &fault else { panic!("seed {seed}: {fault}") };
            assert_eq!((culprit.thread + apart) % 128, issuer.thread);
            assert_eq!([issuer.place.0.line(), culprit.place.0.line()], [line - 10, line - 4]);
        }
        is_right(BLOCK, kernel(false));
    }
    // Without a barrier, whoever comes first.
    let line = line!();
    for seed in 0..SEEDS {
        let fault = outcome(Launch { seed, ..BLOCK }, |words| {
            let thread = index::thread();
            // SAFETY: as above.
            unsafe { cp_async::copy::<4>(STAGE.address(thread), words.at(thread).cast(), 4) };
            cp_async::commit();
            cp_async::wait::<0>();
            words.write((thread + 70) % 128, 1);
        });
        let fault = fault.expect_err("no barrier");
        let (Fault::GlobalRace { culprit: one, other, .. } | Fault::CopySource { culprit: one, issuer: other, .. }) =
            &fault
        else {
            panic!("seed {seed}: {fault}")
        };
        let mut found = [one.place.0.line(), other.place.0.line()];
        found.sort_unstable();
        assert_eq!(found, [line + 5, line + 8], "{fault}");
    }
}

#[test]
fn copies_read_their_source_at_any_moment() {
    const STAGE: Shared<u32> = Shared::new(0, 128);
    let copied = |seed| {
        let words = outcome(Launch { seed, block: 32, ..BLOCK }, |words| {
            let thread = index::thread();
            // SAFETY: aligned and within both. Plain stores, which the emulator does not see, are between.
            unsafe {
                words.at(thread).write(1);
                cp_async::copy::<4>(STAGE.address(thread), words.at(thread).cast(), 4);
                words.at(thread).write(2);
                cp_async::commit();
                words.at(thread).write(3);
                cp_async::wait::<0>();
                words.at(thread).write(STAGE.read(thread));
            }
        });
        words.expect("nothing that the emulator sees")[..32].to_vec()
    };
    assert_eq!(copied(0), [3; 32]);
    let values: HashSet<u32> = (0..SEEDS).flat_map(copied).collect();
    assert_eq!(values, HashSet::from([1, 2, 3]));
}

#[test]
fn the_read_only_path_of_what_the_launch_has_written() {
    let kernel = |read: u32| {
        move |words: Words| {
            if index::thread() == 5 {
                words.write(7, 1);
            }
            sync::barrier();
            if index::thread() == 90 {
                // SAFETY: within the words; if the launch writes them, the emulator ends it.
                unsafe { memory::load_constant(words.at(read)) };
            }
        }
    };
    let line = line!();
    for seed in 0..SEEDS {
        let fault = outcome(Launch { seed, ..BLOCK }, kernel(7)).expect_err("not constant");
        let Fault::NotConstant { culprit, writer, .. } = &fault else { panic!("seed {seed}: {fault}") };
        assert_eq!((culprit.thread, culprit.place.0.line()), (90, line - 4));
        assert_eq!((writer.thread, writer.place.0.line()), (5, line - 9));
        let message = fault.to_string();
        assert!(message.contains(&culprit.to_string()) && message.contains(&writer.to_string()), "{message}");
    }
    is_right(BLOCK, kernel(8));
}

#[test]
fn a_shuffle_orders_reads_before_writes() {
    fn read(words: Words, i: u32) {
        words.read(i);
    }
    fn write(words: Words, i: u32) {
        words.write(i, 1);
    }
    let line = line!();
    let kernel = |one: fn(Words, u32), other: fn(Words, u32)| {
        move |words: Words| {
            let thread = index::thread();
            one(words, thread);
            warp::shuffle_xor(FULL, 0u32, 1);
            other(words, thread ^ 31);
        }
    };
    is_right(BLOCK, kernel(read, write));
    races(BLOCK, [line - 2, line - 2], kernel(write, write));
    races(BLOCK, [line - 5, line - 2], kernel(write, read));
    // No lane of another warp.
    let line = line!();
    races(BLOCK, [line + 2, line + 4], |words| {
        words.read(index::thread());
        warp::ballot(FULL, true);
        words.write(index::thread() ^ 32, 1);
    });
}
