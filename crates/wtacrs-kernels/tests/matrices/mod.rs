//! Matrices of every element type, with gaps between rows and off alignment as a test wants them.
#![allow(dead_code, unreachable_pub)]

use crate::common::{Buffer, Machine};
use half::{bf16, f16};
use ndarray::Array2;
use std::fmt::Debug;
use std::num::NonZeroU32;
use wtacrs_core::element::Element;
use wtacrs_kernels::kernel::matrix::Spacing;
use wtacrs_kernels::kernel::{self, column_sums, gather_pack, gather_rows, predictor_update, row_norms, unpack_rows};
use wtacrs_kernels::launch::Kernel;

/// An element type with its kernels.
pub trait Tested: Element<Accumulator = f32> + Debug {
    const BYTES: u32 = size_of::<Self>() as u32;
    const SUMS: Kernel<column_sums::Args>;
    const NORMS_GATHER: Kernel<column_sums::GatherArgs>;
    const FEATURES: Kernel<predictor_update::Args>;
    const PACK: Kernel<gather_pack::Args>;
    const UNPACK: Kernel<unpack_rows::Args>;
    /// The kernel for rows that lie as these do.
    fn norms(args: &row_norms::Args) -> Kernel<row_norms::Args>;
    /// The kernel for rows that lie as these do.
    fn gather(args: &gather_rows::Args) -> Kernel<gather_rows::Args>;
    fn from_f32(value: f32) -> Self;
    /// The bits, which distinguish zeros and NaNs.
    fn bits(self) -> u32;
}

macro_rules! tested {
    (
        $type:ty, $from:expr, [$norms:ident, $norms_any:ident], [$sums:ident, $norms_gather:ident], [$gather:ident, $gather_any:ident],
        $features:ident, $pack:ident, $unpack:ident
    ) => {
        impl Tested for $type {
            const SUMS: Kernel<column_sums::Args> = kernel::$sums;
            const NORMS_GATHER: Kernel<column_sums::GatherArgs> = kernel::$norms_gather;
            const FEATURES: Kernel<predictor_update::Args> = kernel::$features;
            const PACK: Kernel<gather_pack::Args> = kernel::$pack;
            const UNPACK: Kernel<unpack_rows::Args> = kernel::$unpack;
            fn norms(args: &row_norms::Args) -> Kernel<row_norms::Args> {
                if args.is_aligned(Self::BYTES) { kernel::$norms } else { kernel::$norms_any }
            }
            fn gather(args: &gather_rows::Args) -> Kernel<gather_rows::Args> {
                if args.are_aligned(Self::BYTES) == [true; 2] { kernel::$gather } else { kernel::$gather_any }
            }
            fn from_f32(value: f32) -> Self {
                $from(value)
            }
            fn bits(self) -> u32 {
                self.to_bits().into()
            }
        }
    };
}

tested!(
    f32,
    std::convert::identity,
    [ROW_NORMS_F32, ROW_NORMS_F32_ANY],
    [ROW_NORMS_SUMS_F32, ROW_NORMS_GATHER_F32],
    [GATHER_ROWS_F32, GATHER_ROWS_F32_ANY],
    PREDICTOR_FEATURES_F32,
    GATHER_PACK_F32,
    UNPACK_ROWS_F32
);
tested!(
    f16,
    f16::from_f32,
    [ROW_NORMS_F16, ROW_NORMS_F16_ANY],
    [ROW_NORMS_SUMS_F16, ROW_NORMS_GATHER_F16],
    [GATHER_ROWS_F16, GATHER_ROWS_F16_ANY],
    PREDICTOR_FEATURES_F16,
    GATHER_PACK_F16,
    UNPACK_ROWS_F16
);
tested!(
    bf16,
    bf16::from_f32,
    [ROW_NORMS_BF16, ROW_NORMS_BF16_ANY],
    [ROW_NORMS_SUMS_BF16, ROW_NORMS_GATHER_BF16],
    [GATHER_ROWS_BF16, GATHER_ROWS_BF16_ANY],
    PREDICTOR_FEATURES_BF16,
    GATHER_PACK_BF16,
    UNPACK_ROWS_BF16
);

/// Where a batch of matrices lies: `offset` elements into its buffer, rows and samples with gaps behind them, the rows of a
/// sample's heads side by side.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub offset: usize,
    pub row_gap: usize,
    pub item_gap: usize,
    pub heads: usize,
}

impl Place {
    pub const TIGHT: Self = Self { offset: 0, row_gap: 0, item_gap: 0, heads: 1 };
    pub const ODD: Self = Self { offset: 1, row_gap: 3, item_gap: 1, heads: 1 };
    pub const HEADS: Self = Self { heads: 2, ..Self::TIGHT };
}

/// A batch of matrices of one shape in a machine's memory.
pub struct Uploaded<T> {
    buffer: Buffer<T>,
    place: Place,
    rows: usize,
    columns: usize,
    batch: usize,
}

impl<T: Tested> Uploaded<T> {
    /// Gaps hold `filler`.
    pub fn new(machine: &Machine, items: &[Array2<T>], place: Place, filler: T) -> Self {
        let (rows, columns) = items[0].dim();
        let mut uploaded = Self { buffer: machine.upload(&[]), place, rows, columns, batch: items.len() };
        let samples = items.len().div_ceil(place.heads);
        let mut values = vec![filler; place.offset + samples * uploaded.spacing().sample as usize];
        for (b, item) in items.iter().enumerate() {
            for ((i, j), &value) in item.indexed_iter() {
                values[uploaded.index(b, i, j)] = value;
            }
        }
        uploaded.buffer = machine.upload(&values);
        uploaded
    }

    pub fn pointer(&self) -> *mut u8 {
        self.buffer.pointer().wrapping_add(self.place.offset).cast()
    }

    pub fn leading(&self) -> u64 {
        self.spacing().head * self.place.heads as u64
    }

    pub fn spacing(&self) -> Spacing {
        let Place { row_gap, item_gap, heads, .. } = self.place;
        let head = self.columns + row_gap;
        let sample = (self.rows * head * heads + item_gap) as u64;
        let heads = NonZeroU32::new(heads as u32).expect("there are heads");
        Spacing { sample, head: head as u64, heads }
    }

    /// Where an element of an item lies in the buffer.
    fn index(&self, item: usize, row: usize, column: usize) -> usize {
        self.place.offset + self.spacing().of(item as u32) as usize + row * self.leading() as usize + column
    }

    /// The matrices, after a check that the gaps are unchanged.
    pub fn download(&self, machine: &Machine, filler: T) -> Vec<Array2<T>> {
        let values = machine.download(&self.buffer);
        let mut is_gap = vec![true; values.len()];
        let items = (0..self.batch).map(|b| {
            Array2::from_shape_fn((self.rows, self.columns), |(i, j)| {
                let at = self.index(b, i, j);
                is_gap[at] = false;
                values[at]
            })
        });
        let items: Vec<_> = items.collect();
        let gaps = values.iter().zip(&is_gap).filter(|(_, is_gap)| **is_gap);
        assert!(gaps.into_iter().all(|(value, _)| value.bits() == filler.bits()), "gaps stay as they were");
        items
    }
}

/// Numbers that look random, of both signs, within ±1 and with many different bits.
pub fn noise<T: Tested>(rows: usize, columns: usize, seed: u64) -> Array2<T> {
    Array2::from_shape_fn((rows, columns), |(i, j)| {
        let bits = wtacrs_exact::philox::bits((i as u128) << 64 | j as u128, seed) as u32;
        T::from_f32((bits as f32 / 2.0_f32.powi(31) - 1.0).powi(3))
    })
}

/// Numbers without a pattern, rows of very different sizes.
pub fn made_up(rows: usize, columns: usize, seed: u64) -> Array2<f32> {
    let unit = |index: u64| {
        let bits = wtacrs_exact::philox::bits(u128::from(index), seed) as u64;
        (bits >> 40) as f32 / (1 << 24) as f32
    };
    Array2::from_shape_fn((rows, columns), |(i, j)| {
        let size = (4.0 * unit(i as u64) - 2.0).exp();
        size * (2.0 * unit((1 << 40) + (i * columns + j) as u64) - 1.0)
    })
}

/// ‖found − expected‖ / ‖expected‖, Frobenius.
pub fn relative_error<'a>(
    found: &[f32],
    expected: impl IntoIterator<Item = &'a f32, IntoIter: ExactSizeIterator>,
) -> f64 {
    let expected = expected.into_iter();
    assert_eq!(found.len(), expected.len());
    let (mut error, mut size) = (0.0, 0.0);
    for (&found, &expected) in found.iter().zip(expected) {
        error += f64::from(found - expected).powi(2);
        size += f64::from(expected).powi(2);
    }
    (error / size).sqrt()
}
