//! f32 and f64, on the widest vectors that the CPU has.

use super::factor::Factor;
use super::task::{Multiplier, Task, Word};
use crate::element::Accumulator;
use crate::lanes::Lanes;
use core::marker::PhantomData;
use core::ops::Range;
use pulp::{Arch, Scalar128b, Simd, WithSimd};

/// A number of one pair.
impl<A: Accumulator> Word<A> for A {
    const PAIRS: usize = 1;

    #[inline(always)]
    fn pack<'a>(
        factor: &'a dyn Factor<A>,
        at: usize,
        columns: Range<usize>,
        _numbers: &mut [Vec<A>; 2],
        words: &'a mut [A],
    ) -> &'a [A] {
        factor.row(at, columns, words)
    }
}

/// Words are numbers. With `FUSED`, a product is not rounded before it is added: as every CPU does it whose
/// vectors can, and so with the same bits.
#[derive(Clone, Copy)]
pub(super) struct Vectors<S, A, const FUSED: bool>(S, PhantomData<A>);

impl<S, A, const FUSED: bool> Vectors<S, A, FUSED> {
    pub(super) fn new(simd: S) -> Self {
        Self(simd, PhantomData)
    }
}

impl<S: Simd, A: Accumulator, const FUSED: bool> Multiplier for Vectors<S, A, FUSED> {
    type Number = A;
    type Word = A;
    type Words = A::Vector<S>;
    type Sums = A::Vector<S>;
    const LANES: usize = size_of::<A::Vector<S>>() / size_of::<A>();
    const REGISTERS: usize = S::REGISTER_COUNT;

    #[inline(always)]
    fn zeros(self) -> Self::Sums {
        A::zeros(self.0)
    }

    #[inline(always)]
    fn splat(self, word: A) -> Self::Words {
        A::splat(self.0, word)
    }

    #[inline(always)]
    fn add_product(self, sums: Self::Sums, a: Self::Words, b: Self::Words) -> Self::Sums {
        if FUSED { A::add_fused(self.0, sums, a, b) } else { A::add_product(self.0, sums, a, b) }
    }

    #[inline(always)]
    fn add(self, a: Self::Sums, b: Self::Sums) -> Self::Sums {
        <A as Lanes>::add(self.0, a, b)
    }

    #[inline(always)]
    fn words(slice: &[A]) -> &[Self::Words] {
        A::vectors::<S>(slice).0
    }

    #[inline(always)]
    fn sums_mut(slice: &mut [A]) -> &mut [Self::Sums] {
        A::vectors_mut::<S>(slice).0
    }
}

impl<A: Accumulator> WithSimd for Task<'_, '_, A> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        self.run(Vectors::<S, A, true>::new(simd));
    }
}

/// Runs a task on the widest vectors.
pub(super) fn run<A: Accumulator>(task: Task<'_, '_, A>) {
    match Arch::new() {
        // Fused operations would be calls of a function.
        Arch::Scalar => task.run(Vectors::<_, A, false>::new(Scalar128b)),
        arch => arch.dispatch(task),
    }
}
