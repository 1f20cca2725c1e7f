//! Loads and stores of every word, in global memory and in windows of shared memory.

use super::buffers::{Args, put, put_wide};
use crate::memory::{U32x2, U32x4, load, load_constant, store};
use crate::shared::Shared;
use crate::{index, sync};

#[cfg(not(target_arch = "nvptx64"))]
pub(super) fn loads_input() -> Vec<u32> {
    // Exponents that are not all ones, so no NaN.
    super::buffers::random(128, 1).into_iter().map(|word| word & 0xBFBF_BFBF).collect()
}

/// Every thread moves four words to the mirrored place, in pieces of each size.
#[inline(always)]
pub(super) unsafe fn loads(args: &Args) {
    let thread = index::thread() as usize;
    let mirrored = 31 - thread;
    // SAFETY: four words for every thread, in each of the seven parts of the output.
    unsafe {
        let mut i = 0;
        while i < 16 {
            let byte: u8 = load(args.input.cast::<u8>().add(16 * thread + i));
            store(args.output.cast::<u8>().add(16 * mirrored + i), byte);
            i += 1;
        }
        let mut i = 0;
        while i < 8 {
            let half: u16 = load_constant(args.input.cast::<u16>().add(8 * thread + i));
            store(args.output.add(128).cast::<u16>().add(8 * mirrored + i), half);
            i += 1;
        }
        let mut i = 0;
        while i < 4 {
            let word: f32 = load(args.input.cast::<f32>().add(4 * thread + i));
            store(args.output.add(256).cast::<f32>().add(4 * mirrored + i), word);
            i += 1;
        }
        let mut i = 0;
        while i < 2 {
            let word: u64 = load_constant(args.input.cast::<u64>().add(2 * thread + i));
            store(args.output.add(384).cast::<u64>().add(2 * mirrored + i), word);
            let word: f64 = load(args.input.cast::<f64>().add(2 * thread + i));
            store(args.output.add(512).cast::<f64>().add(2 * mirrored + i), word);
            let pair: U32x2 = load(args.input.cast::<U32x2>().add(2 * thread + i));
            store(args.output.add(640).cast::<U32x2>().add(2 * mirrored + i), pair);
            i += 1;
        }
        let four: U32x4 = load_constant(args.input.cast::<U32x4>().add(thread));
        store(args.output.add(768).cast::<U32x4>().add(mirrored), four);
    }
}

#[cfg(not(target_arch = "nvptx64"))]
pub(super) fn loads_expected(input: &[u32]) -> Vec<u32> {
    let mirrored: Vec<u32> = input.chunks(4).rev().flatten().copied().collect();
    mirrored.repeat(7)
}

/// Every thread writes words of every size to shared memory and reads those of the mirrored thread.
#[inline(always)]
pub(super) unsafe fn windows(args: &Args) {
    let thread = index::thread();
    let bytes = Shared::<u8>::new(16, 32);
    let halves = Shared::<u16>::new(bytes.end(), 32);
    let words = Shared::<u32>::new(halves.end(), 32);
    let floats = Shared::<f32>::new(words.end(), 32);
    let wide = Shared::<u64>::new(floats.end(), 32);
    let doubles = Shared::<f64>::new(wide.end(), 32);
    let pairs = Shared::<U32x2>::new(doubles.end(), 32);
    let fours = Shared::<U32x4>::new(pairs.end(), 32);
    // SAFETY: an element for every thread in each window; a barrier between writing and reading.
    unsafe {
        let four: U32x4 = load(args.input.cast::<U32x4>().add(thread as usize));
        let [a, b, c, d] = four.0;
        bytes.write(thread, a as u8);
        halves.write(thread, b as u16);
        words.write(thread, c);
        floats.write(thread, f32::from_bits(d));
        wide.write(thread, u64::from(b) << 32 | u64::from(a));
        doubles.write(thread, f64::from_bits(u64::from(d) << 32 | u64::from(c)));
        pairs.write(thread, U32x2([a, d]));
        fours.write(thread, four);
        sync::barrier();
        let mirrored = 31 - thread;
        let row = 14 * thread;
        put(args, row, u32::from(bytes.read(mirrored)));
        put(args, row + 1, u32::from(halves.read(mirrored)));
        put(args, row + 2, words.read(mirrored));
        put(args, row + 3, floats.read(mirrored).to_bits());
        put_wide(args, row + 4, wide.read(mirrored));
        put_wide(args, row + 6, doubles.read(mirrored).to_bits());
        let [a, d] = pairs.read(mirrored).0;
        put(args, row + 8, a);
        put(args, row + 9, d);
        let [a, b, c, d] = fours.read(mirrored).0;
        put(args, row + 10, a);
        put(args, row + 11, b);
        put(args, row + 12, c);
        put(args, row + 13, d);
    }
}

#[cfg(not(target_arch = "nvptx64"))]
pub(super) fn windows_expected(input: &[u32]) -> Vec<u32> {
    let row = |four: &[u32]| {
        let &[a, b, c, d] = four else { unreachable!("chunks of four") };
        [a & 0xFF, b & 0xFFFF, c, d, a, b, c, d, a, d, a, b, c, d]
    };
    input.chunks(4).rev().flat_map(row).collect()
}
