//! Every intrinsic on the emulator, under several orders: the bodies that run on a GPU too.

use wtacrs_simt::checks::{ALL, Args, Check};
use wtacrs_simt::emulator::{Launch, launch};
use wtacrs_simt::memory::U32x4;

const SEEDS: u64 = 13;

/// Words aligned to 16 bytes.
fn aligned(words: &[u32]) -> Vec<U32x4> {
    let four = |chunk: &[u32]| U32x4(std::array::from_fn(|i| chunk.get(i).copied().unwrap_or(0)));
    words.chunks(4).map(four).collect()
}

struct Shared(Args);

// SAFETY: the checks' threads access the memory behind the pointers as kernels may.
unsafe impl Sync for Shared {}

impl Shared {
    fn get(&self) -> &Args {
        &self.0
    }
}

fn run(check: &Check, seed: u64) -> Vec<u32> {
    let input = (check.input)();
    let length = (check.expected)(&input).len();
    let input = aligned(&input);
    let mut output = aligned(&vec![0; length]);
    let args = Shared(Args { input: input.as_ptr().cast(), output: output.as_mut_ptr().cast() });
    let &Check { body, grid, block, shared_bytes, cooperative, .. } = check;
    let shape = Launch { grid, block, shared_bytes, cooperative, seed };
    // SAFETY: input and output are as the check describes them.
    let outcome = launch(shape, &|| unsafe { body(args.get()) });
    if let Err(fault) = outcome {
        panic!("{}, seed {seed}: {fault}", check.name);
    }
    output.into_iter().flat_map(|four| four.0).take(length).collect()
}

#[test]
fn every_intrinsic_does_what_a_plain_loop_says() {
    for check in ALL {
        let expected = (check.expected)(&(check.input)());
        for seed in 0..SEEDS {
            let found = run(check, seed);
            let wrong = found.iter().zip(&expected).position(|(a, b)| a != b);
            if let Some(at) = wrong {
                let (found, expected) = (found[at], expected[at]);
                panic!("{}, seed {seed}: word {at} is {found:#x}, not {expected:#x}", check.name);
            }
        }
    }
}
