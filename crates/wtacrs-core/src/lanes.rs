//! Vector arithmetic for sums that have the same bits on every machine: the widest vectors that the CPU has, chosen at
//! run time, always with [`LANES`] partial sums, and with a product rounded before it is added, never fused.

use pulp::{Arch, Scalar128b, Simd, WithSimd};

/// Partial sums kept side by side: fixed, so that every machine adds in the same order.
pub(crate) const LANES: usize = 32;

/// Runs a kernel with the widest vectors that this CPU has.
#[inline]
pub(crate) fn on_widest_vectors<K: WithSimd>(kernel: K) -> K::Output {
    match Arch::new() {
        // Single numbers, but the compiler may use what every CPU of the target has: four at a time.
        Arch::Scalar => kernel.with_simd(Scalar128b),
        arch => arch.dispatch(kernel),
    }
}

/// A number type with vectors of it. In a private module, so that its operations are nobody else's concern.
pub trait Lanes: Copy {
    /// A vector.
    type Vector<S: Simd>: Copy;
    /// All lanes zero.
    fn zeros<S: Simd>(simd: S) -> Self::Vector<S>;
    /// sum + a·b, with two roundings.
    fn add_product<S: Simd>(simd: S, sum: Self::Vector<S>, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    /// A slice's whole vectors, and what is left.
    fn vectors<S: Simd>(slice: &[Self]) -> (&[Self::Vector<S>], &[Self]);
    /// The same, to be written.
    fn vectors_mut<S: Simd>(slice: &mut [Self]) -> (&mut [Self::Vector<S>], &mut [Self]);
}

macro_rules! lanes {
    ($type:ident, $vector:ident, $splat:ident, $mul:ident, $add:ident, $as_simd:ident, $as_mut_simd:ident) => {
        impl Lanes for $type {
            type Vector<S: Simd> = S::$vector;

            #[inline(always)]
            fn zeros<S: Simd>(simd: S) -> S::$vector {
                simd.$splat(0.0)
            }

            #[inline(always)]
            fn add_product<S: Simd>(simd: S, sum: S::$vector, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$add(sum, simd.$mul(a, b))
            }

            #[inline(always)]
            fn vectors<S: Simd>(slice: &[Self]) -> (&[S::$vector], &[Self]) {
                S::$as_simd(slice)
            }

            #[inline(always)]
            fn vectors_mut<S: Simd>(slice: &mut [Self]) -> (&mut [S::$vector], &mut [Self]) {
                S::$as_mut_simd(slice)
            }
        }
    };
}

lanes!(f32, f32s, splat_f32s, mul_f32s, add_f32s, as_simd_f32s, as_mut_simd_f32s);
lanes!(f64, f64s, splat_f64s, mul_f64s, add_f64s, as_simd_f64s, as_mut_simd_f64s);

/// As many columns as there are lanes, where no vector of them lies across two cache lines.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Chunk<A>(pub(crate) [A; LANES]);

/// A row cut into chunks, the last one filled with zeros.
pub(crate) fn chunks<A: Copy + Default>(row: impl ExactSizeIterator<Item = A>) -> Vec<Chunk<A>> {
    let mut chunks = vec![Chunk([A::default(); LANES]); row.len().div_ceil(LANES)];
    row.enumerate().for_each(|(j, value)| chunks[j / LANES].0[j % LANES] = value);
    chunks
}

/// For a row's elements v, Σv² and, if there are two, Σv·direction over the columns that fall on each lane.
pub(crate) type Sums<A, const COUNT: usize> = [[A; LANES]; COUNT];

/// Adds a row's next elements to its sums, which count as zero before the `first` of them. A number of elements that is
/// no multiple of [`LANES`] ends the row; `direction` begins at the same column and is as long.
#[inline(always)]
pub(crate) fn add_to_sums<S: Simd, A: Lanes + Default, const COUNT: usize>(
    simd: S,
    sums: &mut Sums<A, COUNT>,
    first: bool,
    values: &[A],
    direction: &[Chunk<A>],
) {
    let vectors = A::vectors::<S>(&sums[0]).0.len();
    // As many vectors of sums at a time as fit the registers beside the operands.
    match (S::REGISTER_COUNT / 2 / COUNT).min(vectors) {
        0..2 => add_groups::<S, A, COUNT, 1>(simd, sums, first, values, direction),
        2..4 => add_groups::<S, A, COUNT, 2>(simd, sums, first, values, direction),
        4..8 => add_groups::<S, A, COUNT, 4>(simd, sums, first, values, direction),
        _ => add_groups::<S, A, COUNT, 8>(simd, sums, first, values, direction),
    }
}

#[inline(always)]
fn add_groups<S: Simd, A: Lanes + Default, const COUNT: usize, const GROUP: usize>(
    simd: S,
    sums: &mut Sums<A, COUNT>,
    first: bool,
    values: &[A],
    direction: &[Chunk<A>],
) {
    let (chunks, rest) = values.as_chunks::<LANES>();
    let per_chunk = A::vectors::<S>(&sums[0]).0.len();
    for group in (0..per_chunk).step_by(GROUP) {
        let mut held = [[A::zeros(simd); GROUP]; COUNT];
        if !first {
            for (held, sums) in held.iter_mut().zip(&*sums) {
                held.copy_from_slice(&A::vectors::<S>(sums).0[group..group + GROUP]);
            }
        }
        if COUNT == 1 {
            for chunk in chunks {
                add_chunk(simd, &mut held, group, chunk, chunk);
            }
        } else {
            for (chunk, direction) in chunks.iter().zip(direction) {
                add_chunk(simd, &mut held, group, chunk, &direction.0);
            }
        }
        if !rest.is_empty() {
            // Zeros change no sum.
            let mut padded = [A::default(); LANES];
            padded[..rest.len()].copy_from_slice(rest);
            let direction = if COUNT == 1 { &padded } else { &direction[chunks.len()].0 };
            add_chunk(simd, &mut held, group, &padded, direction);
        }
        for (held, sums) in held.iter().zip(&mut *sums) {
            A::vectors_mut::<S>(sums).0[group..group + GROUP].copy_from_slice(held);
        }
    }
}

/// The vectors from number `group` on of one chunk.
#[inline(always)]
fn add_chunk<S: Simd, A: Lanes, const COUNT: usize, const GROUP: usize>(
    simd: S,
    sums: &mut [[A::Vector<S>; GROUP]; COUNT],
    group: usize,
    values: &[A; LANES],
    direction: &[A; LANES],
) {
    let values = &A::vectors::<S>(values).0[group..group + GROUP];
    let direction = &A::vectors::<S>(direction).0[group..group + GROUP];
    for i in 0..GROUP {
        sums[0][i] = A::add_product(simd, sums[0][i], values[i], values[i]);
        if COUNT > 1 {
            sums[1][i] = A::add_product(simd, sums[1][i], values[i], direction[i]);
        }
    }
}
