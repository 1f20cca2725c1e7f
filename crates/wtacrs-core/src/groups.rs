//! Groups of 128 elements or fewer in vectors: their rotation, their range, and their codes in words. Loops have a constant length, so that they
//! become vectors where they are inlined into code for them.

use ndarray::LinalgScalar;

/// Numbers that begin at a cache line, so that no vector of them lies across two.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Aligned<T, const P: usize>(pub(crate) [T; P]);

/// The unnormalised fast Walsh-Hadamard transform.
#[inline(always)]
pub(crate) fn butterflies<A: LinalgScalar, const P: usize>(mut y: Aligned<A, P>) -> Aligned<A, P> {
    let mut other = Aligned([A::zero(); P]);
    for _ in 0..P.trailing_zeros() / 2 {
        stage(&y, &mut other);
        stage(&other, &mut y);
    }
    if !P.trailing_zeros().is_multiple_of(2) {
        stage(&y, &mut other);
        y = other;
    }
    y
}

/// One stage of the butterflies. Stages work on elements 1, 2, 4, … apart in turn, but always find them side by side: each
/// moves the bit that it has worked on to the top of the elements' numbers.
#[inline(always)]
fn stage<A: LinalgScalar, const P: usize>(from: &Aligned<A, P>, to: &mut Aligned<A, P>) {
    let (sums, differences) = to.0.split_at_mut(P / 2);
    for ((sum, difference), pair) in sums.iter_mut().zip(differences).zip(from.0.as_chunks::<2>().0) {
        *sum = pair[0] + pair[1];
        *difference = pair[0] - pair[1];
    }
}

/// The element that comes before all others.
#[inline(always)]
pub(crate) fn least<const P: usize>(y: &Aligned<f32, P>, before: impl Fn(f32, f32) -> bool) -> f32 {
    let mut held = *y;
    let mut half = P / 2;
    while half > 0 {
        for i in 0..half {
            let (a, b) = (held.0[i], held.0[i + half]);
            held.0[i] = if before(b, a) { b } else { a };
        }
        half /= 2;
    }
    held.0[0]
}

/// Writes the words of P codes: [`place`](wtacrs_exact::packing::place) says which is where.
#[inline(always)]
pub(crate) fn fold_codes<const P: usize, const BITS: usize>(mut codes: Aligned<u32, P>, words: &mut [u32]) {
    // Element j belongs into word j % count: halves are laid over one another until one word of each is left.
    let count = P * BITS / 32;
    let mut half = P / 2;
    while half >= count {
        for i in 0..half {
            codes.0[i] |= codes.0[i + half] << (half / count * BITS);
        }
        half /= 2;
    }
    words[..count].copy_from_slice(&codes.0[..count]);
}

/// P codes from their words, each with what lies above it in its word.
#[inline(always)]
pub(crate) fn spread_codes<const P: usize, const BITS: usize>(words: &[u32]) -> Aligned<u32, P> {
    let count = P * BITS / 32;
    let mut codes = Aligned([0_u32; P]);
    codes.0[..count].copy_from_slice(&words[..count]);
    // Words are laid out until each element has one whose lowest bits are its code.
    let mut half = count;
    while half < P {
        let (from, to) = codes.0[..2 * half].split_at_mut(half);
        for (to, from) in to.iter_mut().zip(from) {
            *to = *from >> (half / count * BITS);
        }
        half *= 2;
    }
    codes
}
