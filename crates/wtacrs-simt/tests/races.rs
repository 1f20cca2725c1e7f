//! Races on shared memory: found under every order of threads, and never where barriers order the accesses.

use wtacrs_simt::emulator::{Fault, Launch, launch};
use wtacrs_simt::shared::Shared;
use wtacrs_simt::warp::FULL;
use wtacrs_simt::{cp_async, index, sync, warp};

const SEEDS: u64 = 17;

const SHAPE: Launch = Launch { grid: [1, 1, 1], block: 128, shared_bytes: 4096, cooperative: false, seed: 0 };

const WORDS: Shared<u32> = Shared::new(0, 128);
const HALVES: Shared<u16> = Shared::new(0, 256);

fn races(kernel: impl Fn() + Sync) {
    for seed in 0..SEEDS {
        let fault = launch(Launch { seed, ..SHAPE }, &kernel).expect_err("a race");
        let Fault::Race { culprit, other, .. } = &fault else { panic!("seed {seed}: {fault}") };
        assert_ne!(culprit.thread, *other);
        let message = fault.to_string();
        assert!(message.contains(&format!("thread {}", culprit.thread)), "{message}");
        assert!(message.contains(&format!("by thread {other}")), "{message}");
    }
}

fn is_right(kernel: impl Fn() + Sync) {
    for seed in 0..SEEDS {
        if let Err(fault) = launch(Launch { seed, ..SHAPE }, &kernel) {
            panic!("seed {seed}: {fault}");
        }
    }
}

/// Both halves of these accesses are checked by the emulator.
fn write(i: u32) {
    // SAFETY: within the launch's bytes; if there is a race, the emulator ends the launch.
    unsafe { WORDS.write(i, i) };
}

fn read(i: u32) -> u32 {
    // SAFETY: as above.
    unsafe { WORDS.read(i) }
}

#[test]
fn reading_what_another_thread_writes() {
    races(|| {
        let thread = index::thread();
        write(thread);
        sync::barrier();
        read((thread + 1) % 128);
        write(thread);
    });
}

#[test]
fn writing_the_same_value_twice() {
    races(|| write(5));
}

#[test]
fn a_shuffle_orders_no_memory() {
    races(|| {
        if index::warp() == 0 {
            write(index::lane());
            warp::shuffle_xor(FULL, 0u32, 1);
            read(index::lane() ^ 1);
        }
    });
}

#[test]
fn a_warp_s_barrier_orders_no_other_warp() {
    races(|| {
        let thread = index::thread();
        write(thread);
        sync::barrier();
        write(thread);
        sync::warp_barrier(FULL);
        read(thread ^ 32);
    });
}

#[test]
fn a_barrier_of_half_a_warp_orders_not_the_other_half() {
    races(|| {
        let lane = index::lane();
        if index::warp() == 0 {
            write(lane);
            sync::warp_barrier(FULL);
            write(lane);
            sync::warp_barrier(if lane < 16 { 0xFFFF } else { 0xFFFF_0000 });
            read(lane ^ 16);
        }
    });
}

#[test]
fn a_stage_refilled_while_it_may_still_be_read() {
    let source = [0u32; 128];
    let place = source.as_ptr().expose_provenance();
    races(|| {
        let thread = index::thread();
        let from = std::ptr::with_exposed_provenance::<u32>(place).wrapping_add(thread as usize);
        let mut round = 0;
        while round < 3 {
            // SAFETY: within both arrays; the race is found.
            unsafe { cp_async::copy::<4>(WORDS.address(thread), from.cast(), 4) };
            cp_async::commit();
            cp_async::wait::<0>();
            sync::barrier();
            read((thread + 64) % 128);
            round += 1;
        }
    });
}

#[test]
fn landed_for_the_issuer_only() {
    let source = [0u32; 128];
    let place = source.as_ptr().expose_provenance();
    // A thread whose neighbour's copy is still under way meets a copy in flight; otherwise a race.
    for seed in 0..SEEDS {
        let fault = launch(Launch { seed, ..SHAPE }, &|| {
            let thread = index::thread();
            let from = std::ptr::with_exposed_provenance::<u32>(place).wrapping_add(thread as usize);
            // SAFETY: within both arrays; the race is found.
            unsafe { cp_async::copy::<4>(WORDS.address(thread), from.cast(), 4) };
            cp_async::commit();
            sync::warp_barrier(FULL);
            cp_async::wait::<0>();
            read(thread ^ 1);
        });
        let fault = fault.expect_err("no barrier after the wait");
        assert!(matches!(fault, Fault::Race { .. } | Fault::InFlight { .. }), "{fault}");
    }
}

#[test]
fn plain_reads_beside_atomics() {
    races(|| {
        let thread = index::thread();
        if thread == 0 {
            write(0);
        }
        sync::barrier();
        // SAFETY: the race is found.
        unsafe {
            WORDS.atomic_add(0, 1);
            WORDS.read(0);
        }
    });
}

#[test]
fn bytes_of_one_word_are_different_places() {
    let halves = |i: u32| {
        // SAFETY: within the launch's bytes; if there is a race, the emulator ends the launch.
        unsafe { HALVES.write(i, 1) };
    };
    is_right(|| {
        let thread = index::thread();
        halves(thread);
        halves(128 + thread);
        sync::barrier();
        if thread < 64 {
            read(thread);
        }
        sync::barrier();
        write(thread);
    });
    races(|| {
        let thread = index::thread();
        halves(thread);
        halves(thread ^ 1);
    });
    races(|| {
        let thread = index::thread();
        halves(thread);
        if thread < 64 {
            write(thread);
        }
    });
}

#[test]
fn barriers_order() {
    is_right(|| {
        let thread = index::thread();
        let mut round = 0;
        while round < 10 {
            write(thread);
            sync::barrier();
            read((thread + round) % 128);
            read((thread + 64) % 128);
            read(0);
            sync::barrier();
            round += 1;
        }
    });
}

#[test]
fn barriers_of_warps_order_their_lanes() {
    is_right(|| {
        let (thread, lane) = (index::thread(), index::lane());
        let warp = thread - lane;
        let mut round = 0;
        while round < 10 {
            write(thread);
            sync::warp_barrier(FULL);
            // Read by all lanes, in this and the next epoch, then written by one.
            read(warp + round);
            read(warp + (lane + 7) % 32);
            sync::warp_barrier(FULL);
            read(warp + round);
            sync::warp_barrier(FULL);
            if lane == 3 {
                write(warp + round);
            }
            sync::warp_barrier(FULL);
            read(warp + round);
            sync::warp_barrier(FULL);
            round += 1;
        }
    });
}

#[test]
fn order_passes_from_mask_to_mask() {
    // Lane 0 → lanes 0, 1 → lanes 1, 2 → lane 2.
    is_right(|| {
        if index::warp() != 0 {
            return;
        }
        match index::lane() {
            0 => {
                write(9);
                sync::warp_barrier(0b011);
            }
            1 => {
                sync::warp_barrier(0b011);
                read(9);
                sync::warp_barrier(0b110);
            }
            2 => {
                sync::warp_barrier(0b110);
                read(9);
                write(9);
            }
            _ => {}
        }
    });
    // Without the last link.
    races(|| {
        if index::warp() != 0 {
            return;
        }
        match index::lane() {
            0 => {
                write(9);
                sync::warp_barrier(0b011);
            }
            1 => {
                sync::warp_barrier(0b011);
                write(9);
            }
            2 => write(9),
            _ => {}
        }
    });
}

#[test]
fn a_reader_in_another_warp_is_not_forgotten() {
    races(|| {
        let thread = index::thread();
        if thread == 0 {
            write(0);
        }
        sync::barrier();
        // Read by three warps, written by one of them, which waits for its own readers only.
        if index::warp() < 3 {
            read(0);
            sync::warp_barrier(FULL);
            if thread == 40 {
                write(0);
            }
        }
    });
}
