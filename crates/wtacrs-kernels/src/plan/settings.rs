//! The settings of a linear layer's plan: sizes, types, the source of the weights, strides.

use super::error::PlanError;
use super::memory::{MOST_BYTES, product};
use crate::kernel::matrix::{DataType, Spacing};
use crate::kernel::select::SourceKind;
use wtacrs_core::Keep;
use wtacrs_core::product::Packing;
use wtacrs_core::sampling::design::BuiltIn;

/// A linear layer Z = H·W, or a batch of them, whose weight gradient dW = Hᵀ dZ is to be estimated.
///
/// H is tokens × in_features, dZ tokens × out_features, dW in_features × out_features; each in row-major order, with
/// strides of their own if they are not dense.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LinearSettings {
    /// Rows of H and dZ: n. It and the features may be 0; then there are fewer launches, or none.
    pub tokens: usize,
    /// Columns of H, rows of dW.
    pub in_features: usize,
    /// Columns of dZ and dW.
    pub out_features: usize,
    /// How many tokens to keep: k.
    pub keep: Keep,
    /// How kept rows are saved. If all tokens are kept and packed, a forward pass computes no norms and no weights, selects
    /// nothing, and saves neither indices nor scales.
    pub packing: Packing,
    /// The design that selects them.
    pub design: BuiltIn,
    /// The source of the weights.
    pub weights: WeightSource,
    /// The type of H, and of native rows that are saved.
    pub input: DataType,
    /// The type of dZ.
    pub gradient: DataType,
    /// The type of dW: f32, or that of H and dZ.
    pub weight_gradient: DataType,
    /// How f32 matrices are multiplied.
    pub precision: Precision,
    /// Which program multiplies.
    pub engine: Engine,
    /// Whether backward passes may write the bias gradient. Their scratch then has room for partial sums: at most a quarter of
    /// the bytes of dZ, and for up to 65,536 tokens at most 256 rows of f32.
    pub bias_gradient: bool,
    /// How many problems there are. Each has matrices, a threshold and draws of its own: problem b draws from stream b.
    pub batch: usize,
    /// Where H's rows lie, if it is not dense.
    pub input_strides: Option<Strides>,
    /// Where dZ's rows lie, if it is not dense.
    pub gradient_strides: Option<Strides>,
    /// Where dW's rows lie, if it is not dense.
    pub weight_gradient_strides: Option<Strides>,
}

/// The source of a forward pass's weights, besides the norms of H's rows.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum WeightSource {
    /// Nothing else: w = ‖h‖.
    Input,
    /// A norm of dZ for each token, taken as it is: w = ‖h‖ · norm.
    Norms,
    /// Norms from a cache, negative where it has none; see `Weights::from_cache` of wtacrs-core.
    Cached {
        /// λ in [0, 1], the share of the input's own norms.
        mix: f64,
    },
    /// A norm predictor's θ: w = ‖h‖ · e^(θ·h/‖h‖).
    Predicted {
        /// Guesses stay within e^±clamp of their geometric mean; in (0, 20].
        clamp: f64,
    },
}

/// How two f32 matrices are multiplied; 16-bit types have only one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Precision {
    /// In f32 throughout.
    #[default]
    Exact,
    /// Factors rounded to tf32 (10 bits behind the point), sums in f32: several times faster.
    Tf32,
}

/// Where the rows of a batch of matrices lie, in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strides {
    /// From one row to the next.
    pub row: usize,
    /// From one matrix of the batch to the next.
    pub matrices: Spacing,
}

/// Which program multiplies kept rows with those of the gradient.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Engine {
    /// cuBLASLt where it is expected to be faster and can be loaded, and this library's kernels elsewhere.
    #[default]
    Auto,
    /// This library's kernels: the same sums in the same order on every GPU of one kind, whatever else is installed.
    Own,
    /// cuBLASLt, after a gather of the gradient's kept rows. A plan is refused where it cannot be loaded. If all tokens are packed and a
    /// row of H is not finite, it multiplies zeros with dZ: where dZ is not finite, dW is then NaN and not zero.
    CublasLt,
}

impl Strides {
    /// Strides of matrices that are equally far apart.
    pub const fn even(row: usize, matrix: usize) -> Self {
        Self { row, matrices: Spacing::even(matrix as u64) }
    }
}

impl LinearSettings {
    /// A single dense layer of bf16 matrices with dW in f32, the default design, weights from the input alone.
    pub fn new(tokens: usize, in_features: usize, out_features: usize, keep: Keep) -> Self {
        Self {
            tokens,
            in_features,
            out_features,
            keep,
            packing: Packing::default(),
            design: BuiltIn::default(),
            weights: WeightSource::Input,
            input: DataType::Bf16,
            gradient: DataType::Bf16,
            weight_gradient: DataType::F32,
            precision: Precision::default(),
            engine: Engine::default(),
            bias_gradient: false,
            batch: 1,
            input_strides: None,
            gradient_strides: None,
            weight_gradient_strides: None,
        }
    }

    /// The same for matrices of one type all three.
    #[must_use]
    pub fn of_type(self, data_type: DataType) -> Self {
        Self { input: data_type, gradient: data_type, weight_gradient: data_type, ..self }
    }
}

impl WeightSource {
    /// Its kind, its mix and its clamp, as the kernel takes them.
    pub(super) fn parts(self) -> (SourceKind, f64, f64) {
        match self {
            Self::Input => (SourceKind::Input, 0.0, 0.0),
            Self::Norms => (SourceKind::Norms, 0.0, 0.0),
            Self::Cached { mix } => (SourceKind::Cached, mix, 0.0),
            Self::Predicted { clamp } => (SourceKind::Predicted, 0.0, clamp),
        }
    }

    pub(super) fn check(self) -> Result<(), PlanError> {
        match self {
            Self::Cached { mix } if !(0.0..=1.0).contains(&mix) => {
                Err(PlanError::OutOfRange { what: "the mix", found: mix, allowed: "between 0 and 1" })
            }
            Self::Predicted { clamp } if !(clamp > 0.0 && clamp <= 20.0) => {
                Err(PlanError::OutOfRange { what: "the clamp", found: clamp, allowed: "above 0 and at most 20" })
            }
            _ => Ok(()),
        }
    }
}

/// Checked strides of a batch of matrices in the caller's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Matrices {
    pub(super) row: u64,
    pub(super) spacing: Spacing,
}

/// The names of a batch of matrices in errors.
#[derive(Clone, Copy, Debug)]
pub(super) struct MatrixNames {
    pub(super) matrix: &'static str,
    pub(super) rows: &'static str,
    pub(super) row: &'static str,
    pub(super) matrices: &'static str,
}

impl Matrices {
    /// Matrices that are equally far apart.
    pub(super) fn even(row: u64, matrix: u64) -> Self {
        Self { row, spacing: Spacing::even(matrix) }
    }

    /// The strides given, or those of dense matrices. A matrix's rows must not overlap, and no element may lie beyond the last
    /// address. Matrices that are only read may overlap one another.
    pub(super) fn read(
        names: MatrixNames,
        [batch, rows, columns]: [usize; 3],
        element_bytes: u64,
        strides: Option<Strides>,
    ) -> Result<Self, PlanError> {
        let what = names.matrix;
        let dense = product(what, &[rows as u64, columns as u64, element_bytes])? / element_bytes;
        let Strides { row, matrices } = strides.unwrap_or(Strides::even(columns, dense as usize));
        // Kernels count the bytes of a row, rounded up to 16, in 32 bits.
        let most = (u32::MAX as u64 / element_bytes) as usize - 16;
        if row.max(columns) > most {
            return Err(PlanError::TooLarge { what: names.row, found: row.max(columns), most });
        }
        if rows > 1 && row < columns {
            return Err(PlanError::Overlap { what: names.rows, found: row, needed: columns });
        }
        let [heads, samples] = of_a_batch(batch, matrices);
        let steps = [(rows as u64, row as u64), (heads, matrices.head), (samples, matrices.sample)];
        let mut end = product(what, &[columns as u64, element_bytes])?;
        for (count, distance) in steps {
            // Each is less than 2⁴⁵: they do not overflow together.
            end += product(what, &[count.saturating_sub(1), distance, element_bytes])?;
        }
        if end > MOST_BYTES {
            return Err(PlanError::Overflow { what });
        }
        Ok(Self { row: row as u64, spacing: matrices })
    }

    /// The same for matrices that are written: no element may belong to two rows or matrices. So rows, heads and samples, in
    /// the order of their distances, must each be further apart than the nearer ones reach together. All views of a dense
    /// array that are cut out of it or transposed are so.
    pub(super) fn written(
        names: MatrixNames,
        [batch, rows, columns]: [usize; 3],
        element_bytes: u64,
        strides: Option<Strides>,
    ) -> Result<Self, PlanError> {
        let matrices = Self::read(names, [batch, rows, columns], element_bytes, strides)?;
        if rows == 0 {
            return Ok(matrices);
        }
        let Self { row, spacing } = matrices;
        let [heads, samples] = of_a_batch(batch, spacing);
        let mut steps = [
            (row, rows as u64, names.rows),
            (spacing.head, heads, names.matrices),
            (spacing.sample, samples, names.matrices),
        ];
        steps.sort_by_key(|&(distance, ..)| distance);
        let mut needed = columns as u64;
        for (distance, count, what) in steps.into_iter().filter(|&(_, count, _)| count > 1) {
            if distance < needed {
                return Err(PlanError::Overlap { what, found: distance as usize, needed: needed as usize });
            }
            needed += distance * (count - 1);
        }
        Ok(matrices)
    }
}

/// The number of heads of a sample, and of samples.
fn of_a_batch(batch: usize, spacing: Spacing) -> [u64; 2] {
    let (batch, heads) = (batch as u64, u64::from(spacing.heads.get()));
    [heads.min(batch), batch.div_ceil(heads)]
}
