//! The product of saved rows with gathered dZ, against its definition in f64 and against wtacrs-core.
//!
//! Everything that the kernel has no business to read is NaN here: rows that are not selected, rows beyond the count,
//! columns beyond a row's end. Everything that it has no business to write is checked to be as it was.

mod common;

use common::{Buffer, Machine, for_each_machine};
use half::{bf16, f16};
use ndarray::{Array2, ArrayView2};
use proptest::prelude::*;
use safetensors::SafeTensors;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use wtacrs_core::design::{BuiltIn, Design};
use wtacrs_core::{Keep, Weights, product};
use wtacrs_kernels::block::output::Output;
use wtacrs_kernels::kernel::SPLIT_REDUCE;
use wtacrs_kernels::kernel::gather_gemm::{Args, Multiplier, Sizes, Tiling, tiling};

const MULTIPLIERS: [Multiplier; 4] = [Multiplier::Bf16, Multiplier::F16, Multiplier::F32, Multiplier::Tf32];

/// An element type, with its unit roundoff and the distance of its subnormal numbers.
#[derive(Clone, Copy)]
enum Type {
    F32,
    F16,
    Bf16,
}

impl Type {
    fn bytes(self) -> usize {
        if matches!(self, Self::F32) { 4 } else { 2 }
    }

    fn put(self, value: f64, to: &mut Vec<u8>) {
        match self {
            Self::F32 => to.extend((value as f32).to_le_bytes()),
            Self::F16 => to.extend(f16::from_f64(value).to_le_bytes()),
            Self::Bf16 => to.extend(bf16::from_f64(value).to_le_bytes()),
        }
    }

    fn get(self, bytes: &[u8], i: usize) -> f64 {
        let at = i * self.bytes();
        match self {
            Self::F32 => f64::from(f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])),
            Self::F16 => f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f64(),
            Self::Bf16 => bf16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f64(),
        }
    }

    fn round(self, value: f64) -> f64 {
        let mut bytes = Vec::new();
        self.put(value, &mut bytes);
        self.get(&bytes, 0)
    }

    /// How far rounding to it moves a number, at most.
    fn rounding(self, value: f64) -> f64 {
        match self {
            Self::F32 => value.abs() * 2.0_f64.powi(-24),
            Self::F16 => value.abs() * 2.0_f64.powi(-11) + 2.0_f64.powi(-25),
            Self::Bf16 => value.abs() * 2.0_f64.powi(-8),
        }
    }
}

fn element(multiplier: Multiplier) -> Type {
    match multiplier {
        Multiplier::Bf16 => Type::Bf16,
        Multiplier::F16 => Type::F16,
        Multiplier::F32 | Multiplier::Tf32 => Type::F32,
    }
}

fn output_type(output: Output) -> Type {
    match output {
        Output::F32 => Type::F32,
        Output::F16 => Type::F16,
        Output::Bf16 => Type::Bf16,
    }
}

/// How far a computed sum of products may be from the exact one, in units of Σ|a||b|.
///
/// n products are added in n − 1 + `splits` additions, each of relative error u, after the operands were rounded:
/// |error| ≤ ((1 + ρ)²(1 + u)^(n + splits) − 1) Σ|a||b| with ρ the operands' rounding, 2⁻¹¹ for tf32 and 0 else. By fma
/// u = 2⁻²⁴. Tensor cores align what they add and cut it off, so that u = 2⁻²².
fn bound(multiplier: Multiplier, rows: usize, splits: u32) -> f64 {
    let u = if multiplier == Multiplier::F32 { 2.0_f64.powi(-24) } else { 2.0_f64.powi(-22) };
    let rho = if multiplier == Multiplier::Tf32 { 2.0_f64.powi(-11) } else { 0.0 };
    (1.0 + rho).powi(2) * (1.0 + u).powi(rows as i32 + splits as i32) - 1.0
}

#[derive(Clone, Debug)]
struct Case {
    multiplier: Multiplier,
    output: Output,
    in_features: usize,
    out_features: usize,
    rows: usize,
    batch: usize,
    /// For each of the batch, or all rows.
    count: Option<Vec<usize>>,
    gathered: bool,
    accumulate: bool,
    /// Elements between a row's end and the next row: of saved, dz, dw.
    padding: [usize; 3],
    /// Elements before the first.
    shift: [usize; 3],
    wide: bool,
    splits: u32,
    seed: u64,
}

impl Case {
    fn new(multiplier: Multiplier, in_features: usize, out_features: usize, rows: usize) -> Self {
        Self {
            multiplier,
            output: Output::F32,
            in_features,
            out_features,
            rows,
            batch: 1,
            count: None,
            gathered: true,
            accumulate: false,
            padding: [0; 3],
            shift: [0; 3],
            wide: false,
            splits: 1,
            seed: 1,
        }
    }

    fn tokens(&self) -> usize {
        if self.gathered { 2 * self.rows + 3 } else { self.rows }
    }

    fn tiling(&self) -> Tiling {
        Tiling::new(self.multiplier, self.sizes(), self.wide, self.splits)
    }

    fn sizes(&self) -> Sizes {
        Sizes {
            in_features: self.in_features as u32,
            out_features: self.out_features as u32,
            rows: self.rows as u32,
            batch: self.batch as u32,
        }
    }
}

/// Numbers between −1 and 1, some tiny, from a seed.
fn number(seed: u64, i: u64) -> f64 {
    let mut z = (seed << 40).wrapping_add(i).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let unit = ((z >> 11) as f64) / (1_u64 << 52) as f64 - 1.0;
    if z.is_multiple_of(7) { unit * 2.0_f64.powi(-9) } else { unit }
}

/// Matrices with room between rows and before the first; the room, and rows that are not `present`, hold NaN.
struct Matrices {
    bytes: Vec<u8>,
    leading: usize,
    stride: usize,
}

impl Matrices {
    fn new(
        of: Type,
        [batch, rows, columns]: [usize; 3],
        padding: usize,
        shift: usize,
        present: impl Fn(usize, usize) -> bool,
        value: impl Fn(usize, usize, usize) -> f64,
    ) -> Self {
        let leading = columns + padding;
        let stride = rows * leading;
        let mut bytes = Vec::new();
        (0..shift).for_each(|_| of.put(f64::NAN, &mut bytes));
        for b in 0..batch {
            for r in 0..rows {
                let inside = present(b, r);
                (0..columns).for_each(|c| of.put(if inside { value(b, r, c) } else { f64::NAN }, &mut bytes));
                if (b, r) != (batch - 1, rows - 1) {
                    (0..padding).for_each(|_| of.put(f64::NAN, &mut bytes));
                }
            }
        }
        Self { bytes, leading, stride }
    }
}

/// Runs it, checks every element of dw against the definition, and returns dw's bytes.
fn check(machine: &mut Machine, case: &Case) -> Vec<u8> {
    let Case { in_features, out_features, rows, batch, .. } = *case;
    let (of, to) = (element(case.multiplier), output_type(case.output));
    let counts = case.count.clone().unwrap_or_else(|| vec![rows; batch]);
    let tokens = case.tokens();
    let index = |b: usize, r: usize| if case.gathered { (2 * r + (b + r) % 3) % tokens } else { r };
    let selected: Vec<Vec<bool>> = (0..batch)
        .map(|b| {
            let mut selected = vec![false; tokens];
            (0..counts[b]).for_each(|r| selected[index(b, r)] = true);
            selected
        })
        .collect();

    let saved_value = |b: usize, r: usize, c: usize| number(case.seed, ((b * 1000 + r) * 10_000 + c) as u64);
    let dz_value = |b: usize, r: usize, c: usize| number(case.seed + 1, ((b * 1000 + r) * 10_000 + c) as u64);
    let dw_value = |b: usize, r: usize, c: usize| number(case.seed + 2, ((b * 1000 + r) * 10_000 + c) as u64);
    let [saved_padding, dz_padding, dw_padding] = case.padding;
    let [saved_shift, dz_shift, dw_shift] = case.shift;
    let saved =
        Matrices::new(of, [batch, rows, in_features], saved_padding, saved_shift, |b, r| r < counts[b], saved_value);
    let dz = Matrices::new(of, [batch, tokens, out_features], dz_padding, dz_shift, |b, r| selected[b][r], dz_value);
    let dw =
        Matrices::new(to, [batch, in_features, out_features], dw_padding, dw_shift, |_, _| case.accumulate, dw_value);
    let indices: Vec<u32> = (0..batch)
        .flat_map(|b| (0..rows).map(move |r| (b, r)))
        .map(|(b, r)| if r < counts[b] { index(b, r) as u32 } else { u32::MAX })
        .collect();

    let tiling = case.tiling();
    let buffers = (
        machine.upload(&saved.bytes),
        machine.upload(&dz.bytes),
        machine.upload(&dw.bytes),
        machine.upload(&indices),
        machine.upload(&counts.iter().map(|&c| c as u32).collect::<Vec<_>>()),
        machine.filled::<u8>(tiling.partial_bytes as usize, 0xff),
    );
    let at = |buffer: &Buffer<u8>, shift: usize, of: Type| buffer.bytes().wrapping_add(shift * of.bytes());
    let args = Args {
        saved: at(&buffers.0, saved_shift, of),
        saved_leading: saved.leading as u64,
        saved_batch_stride: saved.stride as u64,
        dz: at(&buffers.1, dz_shift, of),
        dz_leading: dz.leading as u64,
        dz_batch_stride: dz.stride as u64,
        indices: if case.gathered { buffers.3.pointer() } else { std::ptr::null() },
        count: if case.count.is_some() { buffers.4.pointer() } else { std::ptr::null() },
        rows: rows as u32,
        in_features: in_features as u32,
        out_features: out_features as u32,
        splits: tiling.splits,
        accumulate: u32::from(case.accumulate),
        output: case.output as u32,
        dw: at(&buffers.2, dw_shift, to),
        dw_leading: dw.leading as u64,
        dw_batch_stride: dw.stride as u64,
        partials: buffers.5.bytes().cast(),
    };
    let (kernel, shape) = tiling.launch(args.aligned(of.bytes() as u32));
    // SAFETY: buffers are as large as the sizes tell, and live until their content is downloaded.
    unsafe {
        machine.run(kernel, shape, &args);
        if let Some(shape) = tiling.reduce {
            machine.run(&SPLIT_REDUCE, shape, &args.reduce());
        }
    }

    let found = machine.download(&buffers.2);
    let mut written = vec![false; dw.bytes.len() / to.bytes()];
    for (b, &count) in counts.iter().enumerate() {
        let left = Array2::from_shape_fn((count, in_features), |(r, c)| of.round(saved_value(b, r, c)));
        let right = Array2::from_shape_fn((count, out_features), |(r, c)| of.round(dz_value(b, index(b, r), c)));
        let exact = left.t().dot(&right);
        let sizes = left.mapv(f64::abs).t().dot(&right.mapv(f64::abs));
        for ((i, j), &exact) in exact.indexed_iter() {
            let at = dw_shift + b * dw.stride + i * dw.leading + j;
            written[at] = true;
            let old = if case.accumulate { to.round(dw_value(b, i, j)) } else { 0.0 };
            let sum = bound(case.multiplier, count, case.splits) * sizes[[i, j]];
            // Added to the old value in f32, then rounded to the output's type.
            let whole = (exact + old).abs() + sum;
            let allowed =
                sum + Type::F32.rounding(whole) + if to.bytes() == 2 { to.rounding(whole * 1.001) } else { 0.0 };
            let value = to.get(&found, at);
            assert!(
                (value - exact - old).abs() <= allowed,
                "{machine:?}: dw[{b}][{i}, {j}] = {value}, not {} ± {allowed:e}, of {case:?}",
                exact + old
            );
        }
    }
    for (at, _) in written.iter().enumerate().filter(|&(_, &written)| !written) {
        let bytes = at * to.bytes()..(at + 1) * to.bytes();
        assert_eq!(found[bytes.clone()], dw.bytes[bytes], "{machine:?}: element {at} is not dw's, of {case:?}");
    }
    found
}

#[test]
fn whole_tiles_and_a_little_more() {
    for_each_machine(|machine| {
        for multiplier in MULTIPLIERS {
            for wide in [true, false] {
                if wide && matches!(multiplier, Multiplier::F32 | Multiplier::Tf32) {
                    continue;
                }
                check(machine, &Case { wide, ..Case::new(multiplier, 136, 264, 70) });
            }
        }
    });
}

#[test]
fn one_of_everything() {
    for_each_machine(|machine| {
        for multiplier in MULTIPLIERS {
            for (in_features, out_features, rows) in [(1, 1, 1), (1, 9, 2), (9, 1, 33), (8, 8, 1), (130, 3, 5)] {
                check(machine, &Case::new(multiplier, in_features, out_features, rows));
            }
        }
    });
}

#[test]
fn no_rows_give_zeros_or_what_was_there() {
    for_each_machine(|machine| {
        for multiplier in MULTIPLIERS {
            for accumulate in [false, true] {
                check(machine, &Case { accumulate, ..Case::new(multiplier, 5, 16, 0) });
                check(machine, &Case { accumulate, count: Some(vec![0]), ..Case::new(multiplier, 8, 16, 7) });
            }
        }
    });
}

#[test]
fn rows_beyond_the_count_are_not_touched() {
    for_each_machine(|machine| {
        for multiplier in MULTIPLIERS {
            for count in [1, 31, 32, 33, 64] {
                let case = Case::new(multiplier, 16, 24, 65);
                check(machine, &Case { count: Some(vec![count]), wide: true, ..case });
            }
        }
    });
}

#[test]
fn batches_have_counts_and_indices_of_their_own() {
    for_each_machine(|machine| {
        for multiplier in MULTIPLIERS {
            for splits in [1, 2] {
                let case = Case { batch: 3, splits, accumulate: true, ..Case::new(multiplier, 24, 40, 40) };
                check(machine, &Case { count: Some(vec![40, 3, 17]), ..case.clone() });
                check(machine, &Case { gathered: false, padding: [8, 16, 3], ..case });
            }
        }
    });
}

#[test]
fn any_alignment_gives_the_same() {
    for_each_machine(|machine| {
        for multiplier in MULTIPLIERS {
            let case = Case { accumulate: true, ..Case::new(multiplier, 24, 40, 37) };
            for (padding, shift) in
                [([1, 0, 0], [0; 3]), ([0, 3, 1], [0, 0, 1]), ([0; 3], [1, 3, 2]), ([8, 8, 4], [8, 8, 4])]
            {
                for output in [Output::F32, Output::F16, Output::Bf16] {
                    check(machine, &Case { padding, shift, output, ..case.clone() });
                }
            }
        }
        // Sums over the same rows in the same order, whoever loads them.
        for multiplier in [Multiplier::F32, Multiplier::Tf32] {
            let case = Case::new(multiplier, 24, 40, 37);
            let shifted = Case { shift: [1, 1, 0], ..case.clone() };
            assert_eq!(check(machine, &case), check(machine, &shifted));
        }
    });
}

#[test]
fn splits_are_added_in_order() {
    for multiplier in MULTIPLIERS {
        for splits in 1..=4 {
            let case = Case { splits, accumulate: true, ..Case::new(multiplier, 16, 20, 75) };
            let first = check(&mut Machine::emulator(0), &case);
            for seed in 1..4 {
                assert_eq!(check(&mut Machine::emulator(seed), &case), first, "seed {seed} of {case:?}");
            }
            if let Some(mut gpu) = Machine::gpu() {
                let once = check(&mut gpu, &case);
                assert_eq!(check(&mut gpu, &case), once);
            }
        }
    }
}

#[test]
fn more_splits_than_rows() {
    for_each_machine(|machine| {
        for multiplier in MULTIPLIERS {
            check(machine, &Case { splits: 4, output: Output::Bf16, ..Case::new(multiplier, 16, 24, 3) });
        }
    });
}

/// Zeroed memory of which only what is written is ever there.
struct Sparse {
    at: *mut u8,
    layout: Layout,
}

impl Sparse {
    fn new(bytes: usize) -> Option<Self> {
        // 16: what calloc gives by itself. For more, all of it would be cleared.
        let layout = Layout::from_size_align(bytes, 16).expect("a size");
        // SAFETY: not of size zero.
        let at = unsafe { alloc_zeroed(layout) };
        (!at.is_null()).then_some(Self { at, layout })
    }
}

impl Drop for Sparse {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and freed once.
        unsafe { dealloc(self.at, self.layout) };
    }
}

#[test]
fn rows_beyond_two_to_the_31_elements() {
    // Rows of 2 GiB in a matrix of 8 GiB. A machine that does not give so much address space cannot run this.
    let leading = 1_usize << 30;
    let Some(dz) = Sparse::new(8 * leading) else { return };
    let one = bf16::ONE.to_bits();
    // SAFETY: the first 8 columns of row 3 lie in the matrix.
    unsafe { std::slice::from_raw_parts_mut(dz.at.cast::<u16>().add(3 * leading), 8) }.fill(one);
    let (saved, indices, mut dw) = (vec![one; 2 * 8], [1_u32, 3], vec![f32::NAN; 8 * 8]);
    let args = Args {
        saved: saved.as_ptr().cast(),
        saved_leading: 8,
        saved_batch_stride: 0,
        dz: dz.at,
        dz_leading: leading as u64,
        dz_batch_stride: 0,
        indices: indices.as_ptr(),
        count: std::ptr::null(),
        rows: 2,
        in_features: 8,
        out_features: 8,
        splits: 1,
        accumulate: 0,
        output: Output::F32 as u32,
        dw: dw.as_mut_ptr().cast(),
        dw_leading: 8,
        dw_batch_stride: 0,
        partials: std::ptr::null_mut(),
    };
    let tiling = Tiling::new(Multiplier::Bf16, Sizes { in_features: 8, out_features: 8, rows: 2, batch: 1 }, false, 1);
    for aligned in [true, false] {
        dw.fill(f32::NAN);
        let (kernel, shape) = tiling.launch(aligned);
        // SAFETY: the pointers lead to matrices of these sizes.
        unsafe { Machine::emulator(0).run(kernel, shape, &Args { dw: dw.as_mut_ptr().cast(), ..args }) };
        assert_eq!(dw, vec![1.0; 64]);
    }
}

fn cases() -> impl Strategy<Value = Case> {
    let features = || prop_oneof![Just(1), Just(8), Just(64), 1_usize..40, 120_usize..137, Just(256), Just(264)];
    let sizes = (features(), features(), prop_oneof![0_usize..5, 28_usize..70], 1_usize..3);
    let kind = (
        prop::sample::select(MULTIPLIERS.to_vec()),
        prop::sample::select(vec![Output::F32, Output::F16, Output::Bf16]),
        any::<[bool; 3]>(),
        1_u32..4,
        any::<u8>(),
    );
    let place = (
        prop::array::uniform3(prop_oneof![Just(0_usize), Just(8), 0_usize..5]),
        prop::array::uniform3(prop_oneof![Just(0_usize), Just(8), 0_usize..5]),
        prop::option::of(prop::array::uniform3(0.0..=1.0_f64)),
    );
    (sizes, kind, place).prop_map(|(sizes, kind, (padding, shift, kept))| {
        let (in_features, out_features, rows, batch) = sizes;
        let (multiplier, output, [gathered, accumulate, wide], splits, seed) = kind;
        let count =
            kept.map(|kept| kept[..batch].iter().map(|fraction| (fraction * rows as f64) as usize).collect::<Vec<_>>());
        let seed = u64::from(seed);
        let case = Case::new(multiplier, in_features, out_features, rows);
        Case { output, batch, count, gathered, accumulate, padding, shift, wide, splits, seed, ..case }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn equals_the_definition(case in cases(), seed in 0_u64..1000) {
        check(&mut Machine::emulator(seed), &case);
        if let Some(mut gpu) = Machine::gpu() {
            check(&mut gpu, &case);
        }
    }
}

struct RealLayer {
    h: Array2<f32>,
    dz: Array2<f32>,
}

fn layer() -> RealLayer {
    let path = common::testdata("minilm_l3_value_imdb_1024.safetensors");
    let bytes = std::fs::read(path).expect("the bundled layer is there");
    let tensors = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let matrix = |name: &str| {
        let view = tensors.tensor(name).expect("the tensor is there");
        let values = match view.dtype() {
            safetensors::Dtype::F32 => {
                view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
            }
            _ => view.data().chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect::<Vec<_>>(),
        };
        Array2::from_shape_vec((view.shape()[0], view.shape()[1]), values).expect("as many values as the shape has")
    };
    RealLayer { h: matrix("h"), dz: matrix("dz") }
}

/// ‖found − expected‖ / ‖expected‖.
fn distance(found: ArrayView2<'_, f32>, expected: ArrayView2<'_, f32>) -> f64 {
    let square = |x: &f64| x * x;
    let difference = found.mapv(f64::from) - expected.mapv(f64::from);
    (difference.iter().map(square).sum::<f64>() / expected.mapv(f64::from).iter().map(square).sum::<f64>()).sqrt()
}

#[test]
fn a_real_layer_equals_the_cpu() {
    let RealLayer { h, dz } = layer();
    let weights = Weights::from_norms(&product::row_norms(h.view()), &product::row_norms(dz.view())).expect("finite");
    let budget = weights.budget(Keep::Fraction(0.3)).expect("fits");
    let selection = BuiltIn::WtaPivotal.select_seeded(&weights, budget, 7, 0);
    let kept = product::gather(h.view(), &selection).expect("fits");
    let expected = product::weight_gradient(kept.view(), dz.view(), &selection).expect("fits");
    let saved = product::gather_scaled(h.view(), &selection).expect("fits");
    let (rows, in_features, out_features) = (saved.nrows(), h.ncols(), dz.ncols());

    for_each_machine(|machine| {
        // Many gradients of this layer are so small that f16 rounds them coarsely.
        for (multiplier, tolerance) in
            [(Multiplier::F32, 1e-5), (Multiplier::Tf32, 1e-3), (Multiplier::Bf16, 1e-2), (Multiplier::F16, 2e-3)]
        {
            let of = element(multiplier);
            let bytes = |matrix: &Array2<f32>| {
                let mut bytes = Vec::new();
                matrix.iter().for_each(|&value| of.put(f64::from(value), &mut bytes));
                bytes
            };
            let sizes = Sizes {
                in_features: in_features as u32,
                out_features: out_features as u32,
                rows: rows as u32,
                batch: 1,
            };
            let tiling = tiling(multiplier, sizes, machine.device().multiprocessors);
            let (saved, dz) = (machine.upload(&bytes(&saved)), machine.upload(&bytes(&dz)));
            let indices = machine.upload(selection.indices());
            let dw = machine.filled::<f32>(in_features * out_features, 0xff);
            let partials = machine.filled::<u8>(tiling.partial_bytes as usize, 0xff);
            let args = Args {
                saved: saved.bytes(),
                saved_leading: in_features as u64,
                saved_batch_stride: 0,
                dz: dz.bytes(),
                dz_leading: out_features as u64,
                dz_batch_stride: 0,
                indices: indices.pointer(),
                count: std::ptr::null(),
                rows: rows as u32,
                in_features: in_features as u32,
                out_features: out_features as u32,
                splits: tiling.splits,
                accumulate: 0,
                output: Output::F32 as u32,
                dw: dw.bytes(),
                dw_leading: out_features as u64,
                dw_batch_stride: 0,
                partials: partials.bytes().cast(),
            };
            let (kernel, shape) = tiling.launch(args.aligned(of.bytes() as u32));
            // SAFETY: buffers are as large as the sizes tell, and live until dw is downloaded.
            unsafe {
                machine.run(kernel, shape, &args);
                if let Some(shape) = tiling.reduce {
                    machine.run(&SPLIT_REDUCE, shape, &args.reduce());
                }
            }
            let found = machine.download(&dw);
            let found = ArrayView2::from_shape((in_features, out_features), &found).expect("as many as dw has");
            let distance = distance(found, expected.view());
            assert!(distance <= tolerance, "{machine:?}: {multiplier:?} is {distance:e} off");
        }
    });
}
