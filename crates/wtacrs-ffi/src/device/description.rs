//! What a layer, a batched product or an operator is like: plain data, filled by setters and frozen into a plan.

use crate::arguments::{Array, Dtype, Precision, Source};
use crate::boundary::Outcome;
use wtacrs_core::Keep;
use wtacrs_core::layers::{Contraction, Linear, TensorMul};
use wtacrs_core::operators::Operator;
use wtacrs_core::product::Packing;
use wtacrs_core::sampling::{Budget, BudgetError, BuiltIn, DEFAULT_MIX};
use wtacrs_kernels::plan::Engine;

/// A linear layer with everything that its plan needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinearDescription {
    pub(crate) tokens: usize,
    pub(crate) in_features: usize,
    pub(crate) out_features: usize,
    pub(crate) budget: Budget,
    pub(crate) linear: Linear,
    pub(crate) h: Dtype,
    pub(crate) dz: Dtype,
    pub(crate) dw: Dtype,
    pub(crate) source: Source,
    pub(crate) precision: Precision,
    pub(crate) engine: Engine,
    pub(crate) further_offset: FurtherOffset,
}

impl LinearDescription {
    pub(crate) fn h_shape(&self) -> [usize; 2] {
        [self.tokens, self.in_features]
    }

    pub(crate) fn dz_shape(&self) -> [usize; 2] {
        [self.tokens, self.out_features]
    }

    pub(crate) fn dw_shape(&self) -> [usize; 2] {
        [self.in_features, self.out_features]
    }

    /// Whether forward passes pack all rows of H: then they take no norms, need no guess and choose nothing.
    pub(crate) fn keeps_all(&self) -> bool {
        self.linear.packing.keeps_all(self.budget.get(), self.tokens)
    }
}

/// A batched product C = A B with everything that its plan needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TensorMulDescription {
    pub(crate) batch: usize,
    pub(crate) heads: usize,
    pub(crate) rows: usize,
    pub(crate) inner: usize,
    pub(crate) columns: usize,
    pub(crate) product: TensorMul,
    pub(crate) operands: Dtype,
    pub(crate) gradient: Dtype,
    pub(crate) precision: Precision,
    pub(crate) engine: Engine,
    pub(crate) further_offset: FurtherOffset,
}

impl TensorMulDescription {
    /// How many matrices there are.
    pub(crate) fn items(&self) -> usize {
        self.batch * self.heads
    }

    pub(crate) fn a_shape(&self) -> [usize; 4] {
        [self.batch, self.heads, self.rows, self.inner]
    }

    pub(crate) fn b_shape(&self) -> [usize; 4] {
        [self.batch, self.heads, self.inner, self.columns]
    }

    pub(crate) fn c_shape(&self) -> [usize; 4] {
        [self.batch, self.heads, self.rows, self.columns]
    }
}

/// An operator with everything that its plan needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OperatorDescription {
    pub(crate) operator: Operator,
    /// Rows and columns.
    pub(crate) shape: [usize; 2],
    /// Of x, y, the gate and their gradients: f32, f16 or bf16.
    pub(crate) dtype: Dtype,
    pub(crate) further_offset: FurtherOffset,
}

impl OperatorDescription {
    /// Bytes of an array of the shape, which can be addressed.
    pub(crate) fn bytes(&self) -> usize {
        self.shape[0] * self.shape[1] * self.dtype.bytes()
    }

    /// How far a forward pass advances the offset of its randomness.
    pub(crate) fn draws(&self) -> u64 {
        self.operator.draws(self.shape)
    }
}

/// How the rows of a description are chosen and saved, as far as setters have said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sampling {
    pub(crate) design: BuiltIn,
    pub(crate) mix: f64,
    pub(crate) packing: Packing,
    pub(crate) precision: Precision,
    pub(crate) engine: Engine,
    pub(crate) further_offset: FurtherOffset,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            design: BuiltIn::default(),
            mix: DEFAULT_MIX,
            packing: Packing::default(),
            precision: Precision::default(),
            engine: Engine::default(),
            further_offset: FurtherOffset::NONE,
        }
    }
}

/// The budget of one gradient.
pub(crate) fn budget_of(contraction: Contraction, pairs: usize) -> Result<Budget, BudgetError> {
    match contraction {
        Contraction::Exact => Keep::Fraction(1.0).budget(pairs),
        Contraction::Sampled(keep) => keep.budget(pairs),
    }
}

/// Where a number lies that forward passes add to their offset; or null. In the memory of the plan's device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FurtherOffset(*const u64);

// SAFETY: an address; only unsafe functions read what is there, on their callers' promises.
unsafe impl Send for FurtherOffset {}
// SAFETY: as above.
unsafe impl Sync for FurtherOffset {}

impl FurtherOffset {
    pub(crate) const NONE: Self = Self(core::ptr::null());

    pub(crate) fn new(pointer: *const u64) -> Outcome<Self> {
        Array::optional(pointer, 1, "further_offset")?;
        Ok(Self(pointer))
    }

    pub(crate) fn as_ptr(self) -> *const u64 {
        self.0
    }
}
