//! Vector arithmetic on the widest vectors that the CPU has, chosen at run time.
//!
//! Sums of rows have the same bits on every machine: they always have [`LANES`] partial sums, and a product is rounded before it is
//! added.

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

/// Functions whose loops the compiler turns into vectors, the widest that this CPU has. (A closure would not be inlined into
/// the code for them.)
macro_rules! vectorised {
    ($($(#[$attribute:meta])* $visibility:vis fn $name:ident<'a>($($argument:ident: $type:ty),* $(,)?) $(-> $output:ty)? $body:block)*) => {$(
        $(#[$attribute])*
        $visibility fn $name<'a>($($argument: $type),*) $(-> $output)? {
            struct Job<'a> {
                $($argument: $type,)*
                lifetime: core::marker::PhantomData<&'a ()>,
            }
            impl<'a> pulp::WithSimd for Job<'a> {
                type Output = $crate::lanes::output!($($output)?);

                #[inline(always)]
                fn with_simd<S: pulp::Simd>(self, _simd: S) -> Self::Output {
                    let Self { $($argument,)* lifetime: _ } = self;
                    $body
                }
            }
            $crate::lanes::on_widest_vectors(Job { $($argument,)* lifetime: core::marker::PhantomData })
        }
    )*};
}

macro_rules! output {
    () => {
        ()
    };
    ($output:ty) => {
        $output
    };
}

pub(crate) use {output, vectorised};

/// A number type that has vectors. It is in a private module, so users cannot call its operations.
pub trait Lanes: Copy + 'static {
    /// A vector.
    type Vector<S: Simd>: Copy;
    /// All lanes zero.
    fn zeros<S: Simd>(simd: S) -> Self::Vector<S>;
    /// sum + a·b, with two roundings.
    fn add_product<S: Simd>(simd: S, sum: Self::Vector<S>, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    /// sum + a·b, with one rounding.
    fn add_fused<S: Simd>(simd: S, sum: Self::Vector<S>, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    /// a + b.
    fn add<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    /// All lanes one value.
    fn splat<S: Simd>(simd: S, value: Self) -> Self::Vector<S>;
    /// The sum of a vector's lanes: the upper half is added to the lower, and so on.
    fn total<S: Simd>(simd: S, vector: Self::Vector<S>) -> Self;
    /// A slice's whole vectors, and what is left.
    fn vectors<S: Simd>(slice: &[Self]) -> (&[Self::Vector<S>], &[Self]);
    /// The same, to be written.
    fn vectors_mut<S: Simd>(slice: &mut [Self]) -> (&mut [Self::Vector<S>], &mut [Self]);
    /// A value of a type that has this one as its parameter, with the name of this one.
    fn named<F: Of>(value: F::With<Self>) -> Named<F>;
}

/// A type with a number type as its parameter.
pub trait Of {
    /// The type for one number type.
    type With<A: Lanes + 'static>;
}

/// A value of such a type, by its number type: for code that is compiled here, whoever calls it with which type.
pub enum Named<F: Of> {
    /// f32's.
    F32(F::With<f32>),
    /// f64's.
    F64(F::With<f64>),
}

macro_rules! lanes {
    ($type:ident, $vector:ident, $splat:ident, $mul:ident, $mul_add:ident, $add:ident, $reduce:ident, $as_simd:ident, $as_mut_simd:ident, $name:ident) => {
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
            fn add_fused<S: Simd>(simd: S, sum: S::$vector, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$mul_add(a, b, sum)
            }

            #[inline(always)]
            fn add<S: Simd>(simd: S, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$add(a, b)
            }

            #[inline(always)]
            fn splat<S: Simd>(simd: S, value: Self) -> S::$vector {
                simd.$splat(value)
            }

            #[inline(always)]
            fn total<S: Simd>(simd: S, vector: S::$vector) -> $type {
                simd.$reduce(vector)
            }

            #[inline(always)]
            fn vectors<S: Simd>(slice: &[Self]) -> (&[S::$vector], &[Self]) {
                S::$as_simd(slice)
            }

            #[inline(always)]
            fn vectors_mut<S: Simd>(slice: &mut [Self]) -> (&mut [S::$vector], &mut [Self]) {
                S::$as_mut_simd(slice)
            }

            #[inline(always)]
            fn named<F: Of>(value: F::With<Self>) -> Named<F> {
                Named::$name(value)
            }
        }
    };
}

lanes!(f32, f32s, splat_f32s, mul_f32s, mul_add_f32s, add_f32s, reduce_sum_f32s, as_simd_f32s, as_mut_simd_f32s, F32);
lanes!(f64, f64s, splat_f64s, mul_f64s, mul_add_f64s, add_f64s, reduce_sum_f64s, as_simd_f64s, as_mut_simd_f64s, F64);

/// As many columns or sums as there are lanes, where no vector of them lies across two cache lines.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Chunk<A>(pub(crate) [A; LANES]);

/// A row cut into chunks, each element converted, the last one filled with zeros.
pub(crate) fn chunks<T: Copy, A: Copy + Default>(row: &[T], convert: impl Fn(T) -> A) -> Vec<Chunk<A>> {
    let mut chunks = vec![Chunk([A::default(); LANES]); row.len().div_ceil(LANES)];
    for (chunk, part) in chunks.iter_mut().zip(row.chunks(LANES)) {
        chunk.0.iter_mut().zip(part).for_each(|(to, &from)| *to = convert(from));
    }
    chunks
}

/// For a row's elements v, Σv² and, if there are two, Σv·direction over the columns that fall on each lane.
pub(crate) type Sums<A, const COUNT: usize> = [Chunk<A>; COUNT];

/// Vectors of a chunk.
#[inline(always)]
fn vectors_per_chunk<S: Simd, A: Lanes + Default>() -> usize {
    A::vectors::<S>(&[A::default(); LANES]).0.len()
}

/// The sums of the lanes: the upper half is added to the lower, and so on.
#[inline(always)]
pub(crate) fn totals<S: Simd, A: Lanes + Default, const COUNT: usize>(simd: S, sums: &Sums<A, COUNT>) -> [A; COUNT] {
    let mut totals = [A::default(); COUNT];
    for (found, lanes) in totals.iter_mut().zip(sums) {
        let vectors = A::vectors::<S>(&lanes.0).0;
        let mut held = [A::zeros(simd); LANES];
        held[..vectors.len()].copy_from_slice(vectors);
        *found = total(simd, held, vectors.len());
    }
    totals
}

/// The sum of all lanes of the first `count` vectors.
#[inline(always)]
fn total<S: Simd, A: Lanes, const MOST: usize>(simd: S, mut vectors: [A::Vector<S>; MOST], mut count: usize) -> A {
    while count > 1 {
        count /= 2;
        for i in 0..count {
            vectors[i] = A::add(simd, vectors[i], vectors[i + count]);
        }
    }
    A::total(simd, vectors[0])
}

/// The totals of whole rows, as from [`add_to_sums`] and [`totals`], but without a way through memory if all sums fit the
/// registers.
#[inline(always)]
pub(crate) fn totals_of_rows<S: Simd, A: Lanes + Default, const COUNT: usize, const ROWS: usize>(
    simd: S,
    rows: [&[A]; ROWS],
    direction: &[Chunk<A>],
) -> [[A; COUNT]; ROWS] {
    let vectors = vectors_per_chunk::<S, A>();
    match if 2 * COUNT * ROWS * vectors <= S::REGISTER_COUNT { vectors } else { 0 } {
        1 => totals_in_registers::<S, A, COUNT, ROWS, 1>(simd, rows, direction),
        2 => totals_in_registers::<S, A, COUNT, ROWS, 2>(simd, rows, direction),
        4 => totals_in_registers::<S, A, COUNT, ROWS, 4>(simd, rows, direction),
        8 => totals_in_registers::<S, A, COUNT, ROWS, 8>(simd, rows, direction),
        _ => {
            let mut sums = [[Chunk([A::default(); LANES]); COUNT]; ROWS];
            add_to_sums(simd, &mut sums, true, rows, direction);
            let mut found = [[A::default(); COUNT]; ROWS];
            for (found, sums) in found.iter_mut().zip(&sums) {
                *found = totals(simd, sums);
            }
            found
        }
    }
}

#[inline(always)]
fn totals_in_registers<S: Simd, A: Lanes + Default, const COUNT: usize, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    rows: [&[A]; ROWS],
    direction: &[Chunk<A>],
) -> [[A; COUNT]; ROWS] {
    let mut held = [[[A::zeros(simd); VECTORS]; COUNT]; ROWS];
    add_rows(simd, &mut held, 0, rows, direction);
    let mut found = [[A::default(); COUNT]; ROWS];
    for row in 0..ROWS {
        for count in 0..COUNT {
            found[row][count] = total(simd, held[row][count], VECTORS);
        }
    }
    found
}

/// Adds the next elements of some rows to their sums, which count as zero before the `first` of them. Rows and
/// `direction`, which begins at the same column, are equally long; a length that is not a multiple of [`LANES`] must end
/// them. What is added to a row's sums does not depend on the rows beside it.
#[inline(always)]
pub(crate) fn add_to_sums<S: Simd, A: Lanes + Default, const COUNT: usize, const ROWS: usize>(
    simd: S,
    sums: &mut [Sums<A, COUNT>; ROWS],
    first: bool,
    rows: [&[A]; ROWS],
    direction: &[Chunk<A>],
) {
    let vectors = vectors_per_chunk::<S, A>();
    // As many vectors of sums at a time as fit the registers beside the operands.
    match (S::REGISTER_COUNT / 2 / COUNT / ROWS).min(vectors) {
        0..2 => add_groups::<S, A, COUNT, ROWS, 1>(simd, sums, first, rows, direction),
        2..4 => add_groups::<S, A, COUNT, ROWS, 2>(simd, sums, first, rows, direction),
        4..8 => add_groups::<S, A, COUNT, ROWS, 4>(simd, sums, first, rows, direction),
        _ => add_groups::<S, A, COUNT, ROWS, 8>(simd, sums, first, rows, direction),
    }
}

#[inline(always)]
fn add_groups<S: Simd, A: Lanes + Default, const COUNT: usize, const ROWS: usize, const GROUP: usize>(
    simd: S,
    sums: &mut [Sums<A, COUNT>; ROWS],
    first: bool,
    rows: [&[A]; ROWS],
    direction: &[Chunk<A>],
) {
    for group in (0..vectors_per_chunk::<S, A>()).step_by(GROUP) {
        let mut held = [[[A::zeros(simd); GROUP]; COUNT]; ROWS];
        if !first {
            for row in 0..ROWS {
                for (held, sums) in held[row].iter_mut().zip(&sums[row]) {
                    held.copy_from_slice(&A::vectors::<S>(&sums.0).0[group..group + GROUP]);
                }
            }
        }
        add_rows(simd, &mut held, group, rows, direction);
        for row in 0..ROWS {
            for (held, sums) in held[row].iter().zip(&mut sums[row]) {
                A::vectors_mut::<S>(&mut sums.0).0[group..group + GROUP].copy_from_slice(held);
            }
        }
    }
}

/// The vectors from number `group` on of all chunks of each row.
#[inline(always)]
fn add_rows<S: Simd, A: Lanes + Default, const COUNT: usize, const ROWS: usize, const GROUP: usize>(
    simd: S,
    sums: &mut [[[A::Vector<S>; GROUP]; COUNT]; ROWS],
    group: usize,
    rows: [&[A]; ROWS],
    direction: &[Chunk<A>],
) {
    // One length for all, so that the loop has one check for it.
    let length = rows[0].len();
    let whole = length / LANES;
    // Not `map`, which is not inlined here.
    let mut chunks = [&[][..]; ROWS];
    for (chunks, row) in chunks.iter_mut().zip(&rows) {
        *chunks = &row[..length].as_chunks::<LANES>().0[..whole];
    }
    let direction_of_rest = direction.get(whole);
    let direction = if COUNT > 1 { &direction[..whole] } else { direction };
    for at in 0..whole {
        let direction = if COUNT > 1 { Some(&direction[at]) } else { None };
        let mut chunk = [&chunks[0][at]; ROWS];
        for (chunk, chunks) in chunk.iter_mut().zip(&chunks) {
            *chunk = &chunks[at];
        }
        add_chunks(simd, sums, group, chunk, direction);
    }
    if length > whole * LANES {
        // Zeros change no sum.
        let mut padded = [[A::default(); LANES]; ROWS];
        for (padded, row) in padded.iter_mut().zip(&rows) {
            padded[..length - whole * LANES].copy_from_slice(&row[whole * LANES..length]);
        }
        add_chunks(simd, sums, group, padded.each_ref(), direction_of_rest);
    }
}

/// The vectors from number `group` on of one chunk of each row.
#[inline(always)]
fn add_chunks<S: Simd, A: Lanes, const COUNT: usize, const ROWS: usize, const GROUP: usize>(
    simd: S,
    sums: &mut [[[A::Vector<S>; GROUP]; COUNT]; ROWS],
    group: usize,
    rows: [&[A; LANES]; ROWS],
    direction: Option<&Chunk<A>>,
) {
    for i in group..group + GROUP {
        let direction = direction.map(|direction| A::vectors::<S>(&direction.0).0[i]);
        for row in 0..ROWS {
            let values = A::vectors::<S>(rows[row]).0[i];
            let sums = &mut sums[row];
            sums[0][i - group] = A::add_product(simd, sums[0][i - group], values, values);
            if let (true, Some(direction)) = (COUNT > 1, direction) {
                sums[1][i - group] = A::add_product(simd, sums[1][i - group], values, direction);
            }
        }
    }
}
