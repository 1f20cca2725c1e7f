//! bf16, two pairs at a time: the instruction VDPBF16PS of AVX512-BF16.
//!
//! A word holds an element of two pairs, that of the first in its lower half. The instruction adds both products of two
//! words to a sum in f32: the upper halves' first, then the lower halves', each by a fused multiply-add that rounds to the
//! nearest, takes subnormal operands for zeros and makes zeros of subnormal results, whatever the thread's rounding mode
//! (Intel, *Software Developer's Manual*, volume 2, VDPBF16PS). The tests run that definition in its place, on any CPU, and compare
//! the two where the CPU has the instruction.
//!
//! Two products an instruction make this twice as fast as f32 where the instruction runs as often as f32's, as on AMD's
//! CPUs. Intel's Emerald Rapids runs it 0.42 times as often, so there f32 is faster: 0.7 of the time.

use super::factor::Factor;
use super::task::{Task, Word};
use super::vectors;
use core::ops::Range;

/// An element's bits as bf16, rounded to the nearest, ties to even.
#[inline(always)]
fn rounded(number: f32) -> u32 {
    let bits = number.to_bits();
    let nearest = (bits.wrapping_add(0x7fff + (bits >> 16 & 1))) >> 16;
    if number.is_nan() { bits >> 16 | 0x40 } else { nearest }
}

/// Elements of two pairs in bf16; of the last of an odd number, with zeros.
impl Word<f32> for u32 {
    const PAIRS: usize = 2;

    #[inline(always)]
    fn pack<'a>(
        factor: &'a dyn Factor<f32>,
        at: usize,
        columns: Range<usize>,
        [first, second]: &mut [Vec<f32>; 2],
        words: &'a mut [u32],
    ) -> &'a [u32] {
        let count = columns.len();
        let is_last = 2 * at + 1 == factor.rows();
        let in_memory = |at| factor.bf16_row(at, columns.clone());
        if !is_last && let (Some(first), Some(second)) = (in_memory(2 * at), in_memory(2 * at + 1)) {
            for ((word, &first), &second) in words.iter_mut().zip(first).zip(second) {
                *word = u32::from(first.to_bits()) | u32::from(second.to_bits()) << 16;
            }
            return words;
        }
        let first = factor.row(2 * at, columns.clone(), &mut first[..count]);
        words.iter_mut().zip(first).for_each(|(word, &first)| *word = rounded(first));
        if !is_last {
            let second = factor.row(2 * at + 1, columns, &mut second[..count]);
            words.iter_mut().zip(second).for_each(|(word, &second)| *word |= rounded(second) << 16);
        }
        words
    }
}

/// Runs a task on the instruction where it is the fastest, and on vectors of f32 elsewhere.
pub(super) fn run(task: Task<'_, '_, f32>) {
    #[cfg(target_arch = "x86_64")]
    if let Some(pairs) = hardware::Pairs::new() {
        return pairs.run(task);
    }
    vectors::run(task);
}

/// The instruction itself. This is the one place of the crate with unsafe code, for twice the speed of f32.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod hardware {
    use super::Task;
    use crate::product::multiply::task::Multiplier;
    use core::arch::x86_64::{__cpuid, __m512, __m512bh, __m512i, _mm512_dpbf16_ps};
    use pulp::Simd;
    use pulp::x86::V4;
    use std::sync::LazyLock;

    /// Proof that the CPU has AVX512-BF16.
    #[derive(Clone, Copy)]
    pub(super) struct Pairs(V4);

    impl Pairs {
        /// Where the instruction is the fastest way to multiply bf16.
        pub(super) fn new() -> Option<Self> {
            // A virtual machine may take long to answer what CPU it is.
            static FOUND: LazyLock<Option<Pairs>> = LazyLock::new(|| Pairs::available().filter(|_| is_amd()));
            *FOUND
        }

        /// Where the CPU has the instruction.
        pub(super) fn available() -> Option<Self> {
            V4::try_new().filter(|_| is_x86_feature_detected!("avx512bf16")).map(Self)
        }

        /// Runs a task with this instruction.
        pub(super) fn run(self, task: Task<'_, '_, f32>) {
            // SAFETY: `self` exists only if the CPU has these features: V4 proves all but avx512bf16, which `available`
            // has checked.
            unsafe { run(task, self) }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512bf16,avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
    fn run(task: Task<'_, '_, f32>, pairs: Pairs) {
        task.run(pairs);
    }

    fn is_amd() -> bool {
        let vendor = __cpuid(0);
        [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).as_flattened() == b"AuthenticAMD"
    }

    impl Multiplier for Pairs {
        type Number = f32;
        type Word = u32;
        type Words = <V4 as Simd>::u32s;
        type Sums = <V4 as Simd>::f32s;
        const LANES: usize = 16;
        const REGISTERS: usize = 32;

        #[inline(always)]
        fn zeros(self) -> Self::Sums {
            self.0.splat_f32s(0.0)
        }

        #[inline(always)]
        fn splat(self, word: u32) -> Self::Words {
            self.0.splat_u32s(word)
        }

        #[inline(always)]
        fn add_product(self, sums: Self::Sums, a: Self::Words, b: Self::Words) -> Self::Sums {
            let (a, b): (__m512i, __m512i) = (pulp::cast(a), pulp::cast(b));
            // SAFETY: `self` proves that the CPU has the instruction. The types are 64 bytes without padding, and any bits
            // are a value of each.
            let sums: __m512 = unsafe {
                let (a, b) =
                    (core::mem::transmute::<__m512i, __m512bh>(a), core::mem::transmute::<__m512i, __m512bh>(b));
                _mm512_dpbf16_ps(pulp::cast(sums), a, b)
            };
            pulp::cast(sums)
        }

        #[inline(always)]
        fn add(self, a: Self::Sums, b: Self::Sums) -> Self::Sums {
            self.0.add_f32s(a, b)
        }

        #[inline(always)]
        fn words(slice: &[u32]) -> &[Self::Words] {
            V4::as_simd_u32s(slice).0
        }

        #[inline(always)]
        fn sums_mut(slice: &mut [f32]) -> &mut [Self::Sums] {
            V4::as_mut_simd_f32s(slice).0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::element::Element;
    use crate::product::multiply::task::Multiplier;
    use crate::product::multiply::{Plain, Scaled, multiply, multiply_by};
    use crate::product::{Kept, Precision, Saved, Update};
    use crate::sampling::{Randomness, Selection};
    use half::bf16;
    use ndarray::Array2;
    use wtacrs_exact::packing::{Bits, PackingBits};

    /// sum + a·b by the instruction's definition.
    fn dot(sum: f32, a: u32, b: u32) -> f32 {
        let upper = fused(sum, f32::from_bits(a & 0xffff_0000), f32::from_bits(b & 0xffff_0000));
        fused(upper, f32::from_bits(a << 16), f32::from_bits(b << 16))
    }

    fn fused(sum: f32, a: f32, b: f32) -> f32 {
        flushed(flushed(a).mul_add(flushed(b), flushed(sum)))
    }

    fn flushed(number: f32) -> f32 {
        if number.is_subnormal() { 0_f32.copysign(number) } else { number }
    }

    /// The definition in place of the instruction, so that every CPU can test what is around it.
    #[derive(Clone, Copy)]
    struct Emulated;

    impl Multiplier for Emulated {
        type Number = f32;
        type Word = u32;
        type Words = [u32; 16];
        type Sums = [f32; 16];
        const LANES: usize = 16;
        const REGISTERS: usize = 32;

        fn zeros(self) -> [f32; 16] {
            [0.0; 16]
        }

        fn splat(self, word: u32) -> [u32; 16] {
            [word; 16]
        }

        fn add_product(self, sums: [f32; 16], a: [u32; 16], b: [u32; 16]) -> [f32; 16] {
            core::array::from_fn(|i| dot(sums[i], a[i], b[i]))
        }

        fn add(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
            core::array::from_fn(|i| a[i] + b[i])
        }

        fn words(slice: &[u32]) -> &[[u32; 16]] {
            slice.as_chunks().0
        }

        fn sums_mut(slice: &mut [f32]) -> &mut [[f32; 16]] {
            slice.as_chunks_mut().0
        }
    }

    /// Uneven bits, from a fixed seed.
    fn bits(seed: u64) -> impl FnMut() -> u32 {
        let mut state = seed;
        move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 32) as u32
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_instruction_does_what_its_definition_says() {
        let Some(pairs) = hardware::Pairs::available() else {
            eprintln!("skipped: this CPU has no AVX512-BF16");
            return;
        };
        let mut bits = bits(1);
        for round in 0..100_000 {
            // Of all rounds some have any exponents, and some those near the least or near one another.
            let exponents = |number: u32| match round % 4 {
                0 => number,
                1 => number & 0x83ff_83ff | 0x3c00_3c00,
                2 => number & 0x9fff_9fff | 0x2000_2000,
                _ => number & 0x81ff_81ff,
            };
            let mut words = || core::array::from_fn::<u32, 16, _>(|_| exponents(bits()));
            let (sums, a, b) = (words().map(f32::from_bits), words(), words());
            let mut found = sums;
            let vector = &mut hardware::Pairs::sums_mut(&mut found)[0];
            *vector = add_product(pairs, *vector, &a, &b);
            for i in 0..16 {
                let expected = dot(sums[i], a[i], b[i]);
                let is_same = found[i].to_bits() == expected.to_bits() || found[i].is_nan() && expected.is_nan();
                assert!(is_same, "{:e} + {:08x}·{:08x} = {:e}, not {expected:e}", sums[i], a[i], b[i], found[i]);
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn add_product(
        pairs: hardware::Pairs,
        sums: <hardware::Pairs as Multiplier>::Sums,
        a: &[u32; 16],
        b: &[u32; 16],
    ) -> <hardware::Pairs as Multiplier>::Sums {
        pairs.add_product(sums, hardware::Pairs::words(a)[0], hardware::Pairs::words(b)[0])
    }

    #[test]
    fn rounds_as_bf16_does() {
        let mut bits = bits(2);
        for _ in 0..100_000 {
            let number = f32::from_bits(bits());
            assert_eq!(rounded(number), u32::from(bf16::from_f32(number).to_bits()), "{number:e}");
        }
        for number in [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::NAN, 1.003_906_2, 1.011_718_7] {
            assert_eq!(rounded(number), u32::from(bf16::from_f32(number).to_bits()), "{number:e}");
        }
    }

    fn values(rows: usize, columns: usize, seed: u64) -> Array2<bf16> {
        let mut bits = bits(seed);
        Array2::from_shape_simple_fn((rows, columns), || bf16::from_f32((bits() >> 8) as f32 / (1 << 23) as f32 - 1.0))
    }

    fn selection(pairs: usize) -> Selection {
        let indices: Vec<u32> = (0..pairs as u32).filter(|i| i % 3 != 1).collect();
        let scales = indices.iter().map(|&i| if i % 4 == 0 { 1.0 } else { 1.0 + f64::from(i % 7) / 5.0 }).collect();
        Selection::new(pairs, 0, indices, scales).expect("valid")
    }

    fn run(left: &dyn Factor<f32>, right: &dyn Factor<f32>, by: &(dyn Fn(Task<'_, '_, f32>) + Sync)) -> Array2<f32> {
        let mut output = Array2::from_elem((left.columns(), right.columns()), f32::NAN);
        multiply_by(left, right, output.view_mut(), Update::Overwrite, by);
        output
    }

    #[test]
    fn scaled_rows_are_rounded_once_and_others_not_at_all() {
        let (pairs, inputs, outputs) = (451, 45, 70);
        let (h, dz, selection) = (values(pairs, inputs, 3), values(pairs, outputs, 4), selection(pairs));
        let kept = crate::product::gather(h.view(), &selection).expect("fits");
        let (left, right) = (Plain(kept.view()), Scaled { x: dz.view(), kept: Kept::Selected(&selection) });
        assert!(left.fits_bf16() && right.fits_bf16());
        let found = run(&left, &right, &|task| task.run(Emulated));
        #[cfg(target_arch = "x86_64")]
        if let Some(hardware) = hardware::Pairs::available() {
            assert_eq!(run(&left, &right, &|task| hardware.run(task)), found);
        }
        let element = |i: usize, j: usize, round: bool| -> (f64, f64) {
            let of_pair = |(at, (index, scale)): (usize, (usize, f64))| {
                let scaled = dz[[index, j]].to_f32() * scale as f32;
                let scaled = if round { bf16::from_f32(scaled).to_f32() } else { scaled };
                f64::from(kept[[at, i]].to_f32()) * f64::from(scaled)
            };
            let terms = || selection.iter().enumerate().map(of_pair);
            (terms().sum(), terms().map(f64::abs).sum())
        };
        let (mut square, mut sum_of_squares) = (0.0, 0.0);
        for ((i, j), &found) in found.indexed_iter() {
            let (rounded, size) = element(i, j, true);
            // Sums of f32: blocks of 256 pairs, and a few blocks.
            assert!((f64::from(found) - rounded).abs() <= 260.0 * f64::from(f32::EPSILON) * size);
            let (exact, size) = element(i, j, false);
            let error = f64::from(found) - exact;
            assert!(error.abs() <= 2_f64.powi(-8) * size);
            (square, sum_of_squares) = (square + error * error, sum_of_squares + exact * exact);
        }
        // Errors of elements average out: relative to dW, they are about those of one rounding, 2⁻⁹.
        let relative = (square / sum_of_squares).sqrt();
        assert!((0.0002..0.0016).contains(&relative), "{relative}");

        // Without scales, nothing is rounded.
        let all = Scaled { x: dz.view(), kept: Kept::All(pairs) };
        let exact = run(&Plain(h.view()), &all, &|task| task.run(Emulated));
        let expected = h.mapv(|v| f64::from(v.to_f32())).t().dot(&dz.mapv(|v| f64::from(v.to_f32())));
        assert!(exact.iter().zip(&expected).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-4));
    }

    #[test]
    fn packed_rows_are_rounded_where_they_are_read() {
        let (h, dz, selection) = (values(301, 200, 7), values(301, 50, 8), selection(301));
        for bits in [Bits::Bits4, Bits::Bits2] {
            let random = PackingBits::new(Randomness::new(7, 1000), 2);
            let saved = Saved::pack(h.view(), Some(selection.clone()), bits, random).expect("finite");
            let rows = saved.rows().packed().expect("packed");
            let right = Scaled { x: dz.view(), kept: rows.kept() };
            let run = |by: &(dyn Fn(Task<'_, '_, f32>) + Sync)| {
                let mut dw = Array2::from_elem((200, 50), f32::NAN);
                multiply_by(&rows, &right, dw.view_mut(), Update::Overwrite, by);
                dw
            };
            let found = run(&|task| task.run(Emulated));
            #[cfg(target_arch = "x86_64")]
            if let Some(hardware) = hardware::Pairs::available() {
                assert_eq!(run(&|task| hardware.run(task)), found);
            }
            let wide = run(&vectors::run);
            let square = |matrix: &Array2<f32>| matrix.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>();
            let relative = (square(&(&found - &wide)) / square(&wide)).sqrt();
            assert!((0.0005..0.003).contains(&relative), "{relative}");
        }
        let random = PackingBits::new(Randomness::new(7, 1000), 2);
        let of_8_bits = Saved::pack(h.view(), None, Bits::Bits8, random).expect("finite");
        assert!(!Factor::<f32>::fits_bf16(&of_8_bits.rows().packed().expect("packed")));
    }

    #[test]
    fn wide_products_round_nothing() {
        let (h, dz, selection) = (values(200, 30, 5), values(200, 20, 6), selection(200));
        let kept = crate::product::gather(h.view(), &selection).expect("fits");
        let right = Scaled { x: dz.view(), kept: Kept::Selected(&selection) };
        let mut wide = Array2::zeros((30, 20));
        multiply(&Plain(kept.view()), &right, wide.view_mut(), Update::Overwrite, Precision::Wide);
        let (of_h, of_dz) = (kept.mapv(Element::widen), dz.mapv(Element::widen));
        let right = Scaled { x: of_dz.view(), kept: Kept::Selected(&selection) };
        let mut single = Array2::zeros((30, 20));
        multiply(&Plain(of_h.view()), &right, single.view_mut(), Update::Overwrite, Precision::Native);
        assert_eq!(wide, single);
    }
}
