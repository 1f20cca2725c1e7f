//! The cost of the emulator's operations, in nanoseconds of one core for one thread's call.
//!
//! cargo run -p wtacrs-simt --features emulator --example speed

use std::hint::black_box;
use std::time::{Duration, Instant};
use wtacrs_simt::emulator::{Launch, launch};
use wtacrs_simt::memory::U32x4;
use wtacrs_simt::shared::Shared;
use wtacrs_simt::warp::FULL;
use wtacrs_simt::{cp_async, index, matrix, memory, sync, warp};

/// Calls of all threads together, so few that a launch ends before the system lets another process run.
const CALLS: u32 = 65_536;

/// The fastest of thirty runs.
fn measure(name: &str, block: u32, kernel: impl Fn() + Sync) {
    measure_in_order(0, name, block, kernel);
}

fn measure_in_order(seed: u64, name: &str, block: u32, kernel: impl Fn() + Sync) {
    let launched = || {
        let shape = Launch { grid: [1, 1, 1], block, shared_bytes: 65_536, cooperative: false, seed };
        let start = Instant::now();
        launch(shape, &kernel).expect("a kernel without faults");
        start.elapsed()
    };
    let best = (0..30).map(|_| launched()).min().unwrap_or(Duration::ZERO);
    let each = best.as_secs_f64() * 1e9 / f64::from(CALLS);
    println!("{name:<32} {block:>5} threads {each:>8.1} ns");
}

fn times(mut call: impl FnMut(u32)) {
    for i in 0..CALLS / index::block_threads() {
        call(i);
    }
}

fn main() {
    let source: Vec<U32x4> = vec![U32x4([1; 4]); 1024];
    let place = source.as_ptr().expose_provenance();
    let own = || std::ptr::with_exposed_provenance::<U32x4>(place).wrapping_add(index::thread() as usize);
    const FOURS: Shared<U32x4> = Shared::new(0, 1024);
    const WORDS: Shared<u32> = Shared::new(0, 1024);
    const HALVES: Shared<u16> = Shared::new(0, 1024);
    for block in [32, 256, 1024] {
        measure("barrier", block, || times(|_| sync::barrier()));
        measure("warp_barrier", block, || times(|_| sync::warp_barrier(FULL)));
        measure("shuffle_xor", block, || times(|i| _ = black_box(warp::shuffle_xor(FULL, i, 1))));
        measure_in_order(1, "barrier, random order", block, || times(|_| sync::barrier()));
        measure_in_order(1, "shuffle_xor, random order", block, || {
            times(|i| _ = black_box(warp::shuffle_xor(FULL, i, 1)));
        });
        measure("reduce_add", block, || times(|i| _ = black_box(warp::reduce_add(FULL, i))));
        // SAFETY: every thread accesses its own elements.
        unsafe {
            measure("shared write and read, 4 bytes", block, || {
                times(|i| {
                    WORDS.write(index::thread(), i);
                    black_box(WORDS.read(index::thread()));
                });
            });
            measure("shared write and read, 16 bytes", block, || {
                times(|i| {
                    FOURS.write(index::thread(), U32x4([i; 4]));
                    black_box(FOURS.read(index::thread()));
                });
            });
            measure("shared write and read, 2 bytes", block, || {
                times(|i| {
                    HALVES.write(index::thread(), i as u16);
                    black_box(HALVES.read(index::thread()));
                });
            });
            measure("global load, 16 bytes", block, || times(|_| _ = black_box(memory::load(own()))));
            measure("copy, commit and wait, 16 bytes", block, || {
                times(|_| {
                    cp_async::copy::<16>(FOURS.address(index::thread()), own().cast(), 16);
                    cp_async::commit();
                    cp_async::wait::<0>();
                });
            });
            measure("load_x4", block, || {
                FOURS.write(index::thread(), U32x4::default());
                times(|_| _ = black_box(matrix::load_x4(FOURS.address(index::thread()))));
            });
        }
        measure("mma_bf16", block, || {
            let mut sums = [0.0; 4];
            times(|_| sums = matrix::mma_bf16([0x3F80_3F80; 4], [0x3C00_3C00; 2], sums));
            black_box(sums);
        });
    }
}
