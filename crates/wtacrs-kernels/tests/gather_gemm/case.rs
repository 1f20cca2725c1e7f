//! One product, its exact value, and how far off it may be.

use crate::common::{Buffer, Machine};
use half::{bf16, f16};
use ndarray::Array2;
use std::num::NonZeroU32;
use wtacrs_kernels::kernel::gather_gemm::Args;
use wtacrs_kernels::kernel::matrix::DataType;
use wtacrs_kernels::kernel::matrix::Spacing;
use wtacrs_kernels::kernel::{SPLIT_REDUCE, split_reduce};
use wtacrs_kernels::plan::tiling::{Multiplier, ProductSizes, Tile, Tiling};

pub(crate) const MULTIPLIERS: [Multiplier; 4] = [Multiplier::Bf16, Multiplier::F16, Multiplier::F32, Multiplier::Tf32];

/// An element type, with its unit roundoff and the distance of its subnormal numbers.
#[derive(Clone, Copy)]
pub(crate) enum Type {
    F32,
    F16,
    Bf16,
}

impl Type {
    pub(crate) fn bytes(self) -> usize {
        if matches!(self, Self::F32) { 4 } else { 2 }
    }

    pub(crate) fn put(self, value: f64, to: &mut Vec<u8>) {
        match self {
            Self::F32 => to.extend((value as f32).to_le_bytes()),
            Self::F16 => to.extend(f16::from_f64(value).to_le_bytes()),
            Self::Bf16 => to.extend(bf16::from_f64(value).to_le_bytes()),
        }
    }

    pub(crate) fn get(self, bytes: &[u8], i: usize) -> f64 {
        let at = i * self.bytes();
        match self {
            Self::F32 => f64::from(f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])),
            Self::F16 => f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f64(),
            Self::Bf16 => bf16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f64(),
        }
    }

    pub(crate) fn round(self, value: f64) -> f64 {
        let mut bytes = Vec::new();
        self.put(value, &mut bytes);
        self.get(&bytes, 0)
    }

    /// How far rounding to it moves a number, at most.
    pub(crate) fn rounding(self, value: f64) -> f64 {
        match self {
            Self::F32 => value.abs() * 2.0_f64.powi(-24),
            Self::F16 => value.abs() * 2.0_f64.powi(-11) + 2.0_f64.powi(-25),
            Self::Bf16 => value.abs() * 2.0_f64.powi(-8),
        }
    }
}

pub(crate) fn element(multiplier: Multiplier) -> Type {
    match multiplier {
        Multiplier::Bf16 => Type::Bf16,
        Multiplier::F16 => Type::F16,
        Multiplier::F32 | Multiplier::Tf32 => Type::F32,
    }
}

pub(crate) fn output_type(output: DataType) -> Type {
    match output {
        DataType::F32 => Type::F32,
        DataType::F16 => Type::F16,
        DataType::Bf16 => Type::Bf16,
        _ => panic!("{output} is not tested"),
    }
}

/// How far a computed sum of products may be from the exact one, in units of Σ|a||b|.
///
/// n products are added in n − 1 + `splits` additions, each of relative error u, after the operands were rounded:
/// |error| ≤ ((1 + ρ)²(1 + u)^(n + splits) − 1) Σ|a||b| with ρ the operands' rounding, 2⁻¹¹ for tf32 and 0 else. By fma
/// u = 2⁻²⁴. Tensor cores align their summands and cut them off, so that u = 2⁻²².
pub(crate) fn bound(multiplier: Multiplier, rows: usize, splits: u32) -> f64 {
    let u = if multiplier == Multiplier::F32 { 2.0_f64.powi(-24) } else { 2.0_f64.powi(-22) };
    let rho = if multiplier == Multiplier::Tf32 { 2.0_f64.powi(-11) } else { 0.0 };
    (1.0 + rho).powi(2) * (1.0 + u).powi(rows as i32 + splits as i32) - 1.0
}

#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) multiplier: Multiplier,
    pub(crate) output: DataType,
    pub(crate) in_features: usize,
    pub(crate) out_features: usize,
    pub(crate) rows: usize,
    pub(crate) batch: usize,
    /// Of a sample.
    pub(crate) heads: u32,
    /// For each of the batch, or all rows.
    pub(crate) count: Option<Vec<usize>>,
    pub(crate) gathered: bool,
    pub(crate) accumulate: bool,
    /// Elements between a row's end and the next row: of saved, dz, dw.
    pub(crate) padding: [usize; 3],
    /// Elements before the first.
    pub(crate) shift: [usize; 3],
    pub(crate) tile: Tile,
    pub(crate) splits: u32,
    pub(crate) seed: u64,
}

impl Case {
    pub(crate) fn new(multiplier: Multiplier, in_features: usize, out_features: usize, rows: usize) -> Self {
        Self {
            multiplier,
            output: DataType::F32,
            in_features,
            out_features,
            rows,
            batch: 1,
            heads: 1,
            count: None,
            gathered: true,
            accumulate: false,
            padding: [0; 3],
            shift: [0; 3],
            tile: Tile::Square,
            splits: 1,
            seed: 1,
        }
    }

    pub(crate) fn tokens(&self) -> usize {
        if self.gathered { 2 * self.rows + 3 } else { self.rows }
    }

    pub(crate) fn tiling(&self) -> Tiling {
        Tiling::new(self.multiplier, self.sizes(), self.tile, self.splits)
    }

    pub(crate) fn sizes(&self) -> ProductSizes {
        ProductSizes {
            in_features: self.in_features as u32,
            out_features: self.out_features as u32,
            rows: self.rows as u32,
            batch: self.batch as u32,
        }
    }
}

/// Numbers between −1 and 1, some tiny, from a seed.
pub(crate) fn number(seed: u64, i: u64) -> f64 {
    let mut z = (seed << 40).wrapping_add(i).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let unit = ((z >> 11) as f64) / (1_u64 << 52) as f64 - 1.0;
    if z.is_multiple_of(7) { unit * 2.0_f64.powi(-9) } else { unit }
}

/// Matrices with room between rows and before the first; the room, and rows that are not `present`, hold NaN. Nothing lies
/// behind the last row. Rows of a sample's heads lie side by side.
struct Matrices {
    bytes: Vec<u8>,
    leading: usize,
    spacing: Spacing,
}

impl Matrices {
    pub(crate) fn new(
        of: Type,
        [batch, rows, columns]: [usize; 3],
        heads: u32,
        padding: usize,
        shift: usize,
        present: impl Fn(usize, usize) -> bool,
        value: impl Fn(usize, usize, usize) -> f64,
    ) -> Self {
        let head = columns + padding;
        let leading = heads as usize * head;
        let spacing = Spacing {
            sample: (rows * leading) as u64,
            head: head as u64,
            heads: NonZeroU32::new(heads).expect("there are heads"),
        };
        let mut numbers = vec![f64::NAN; shift];
        for (b, r) in (0..batch).flat_map(|b| (0..rows).map(move |r| (b, r))) {
            let first = shift + spacing.of(b as u32) as usize + r * leading;
            numbers.resize(numbers.len().max(first + columns), f64::NAN);
            if present(b, r) {
                (0..columns).for_each(|c| numbers[first + c] = value(b, r, c));
            }
        }
        let mut bytes = Vec::new();
        numbers.into_iter().for_each(|number| of.put(number, &mut bytes));
        Self { bytes, leading, spacing }
    }
}

/// Runs it, checks every element of dw against the definition, and returns dw's bytes.
pub(crate) fn check(machine: &mut Machine, case: &Case) -> Vec<u8> {
    let Case { in_features, out_features, rows, batch, heads, .. } = *case;
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
    let saved = Matrices::new(
        of,
        [batch, rows, in_features],
        heads,
        saved_padding,
        saved_shift,
        |b, r| r < counts[b],
        saved_value,
    );
    let dz =
        Matrices::new(of, [batch, tokens, out_features], heads, dz_padding, dz_shift, |b, r| selected[b][r], dz_value);
    let dw = Matrices::new(
        to,
        [batch, in_features, out_features],
        heads,
        dw_padding,
        dw_shift,
        |_, _| case.accumulate,
        dw_value,
    );
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
        machine.unwritten::<u8>(tiling.partial_bytes as usize),
    );
    let at = |buffer: &Buffer<u8>, shift: usize, of: Type| buffer.bytes().wrapping_add(shift * of.bytes());
    let args = Args {
        saved: at(&buffers.0, saved_shift, of),
        saved_leading: saved.leading as u64,
        saved_spacing: saved.spacing,
        dz: at(&buffers.1, dz_shift, of),
        dz_leading: dz.leading as u64,
        dz_spacing: dz.spacing,
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
        dw_spacing: dw.spacing,
        partials: buffers.5.bytes().cast(),
    };
    let (kernel, shape) = tiling.launch(args.row_layout(of.bytes() as u32));
    // SAFETY: buffers are of the sizes that the case has, and live until their content is downloaded.
    unsafe {
        machine.run(kernel, shape, &args);
        if let Some(shape) = tiling.reduce {
            machine.run(&SPLIT_REDUCE, shape, &split_reduce::Args::of_product(&args));
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
            let at = dw_shift + dw.spacing.of(b as u32) as usize + i * dw.leading + j;
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
