//! The plan of C = A·B for every (batch, head): attention's two products, see `TensorMul` of wtacrs-core.

use super::columns::{ColumnsPlan, ColumnsSettings};
use super::error::PlanError;
use super::linear::LinearPlan;
use super::memory::check_size;
use super::sample::{SamplePlan, SampleSettings};
use super::saved::Streams;
use super::settings::{Engine, LinearSettings, Matrices, MatrixNames, Precision, Strides, WeightSource};
use crate::device::Device;
use crate::kernel::matrix::DataType;
use wtacrs_core::Keep;
use wtacrs_core::product::Packing;
use wtacrs_core::sampling::design::BuiltIn;

/// C = A·B (rows × inner, inner × columns) for every (batch, head), with gradients from G = dC.
///
/// | gradient | sums over | plan |
/// |---|---|---|
/// | dA = G·Bᵀ | columns | [`MatmulPlan::left`] |
/// | dB = Aᵀ·G | rows | [`MatmulPlan::right`] |
///
/// The framework computes gradients that are not sampled. A row's elements lie side by side. Rows, heads and samples lie at
/// any distances ([`Strides`]), so `x.view(B, S, H, D).transpose(1, 2)` needs no copy.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct MatmulSettings {
    /// Samples of a batch.
    pub batch: usize,
    /// Heads of a sample.
    pub heads: usize,
    /// Rows of A and C.
    pub rows: usize,
    /// Columns of A, rows of B.
    pub inner: usize,
    /// Columns of B and C.
    pub columns: usize,
    /// How many columns to keep for dA; none: dA is not planned.
    pub left: Option<Keep>,
    /// How many rows to keep for dB; none: dB is not planned.
    pub right: Option<Keep>,
    /// How kept columns and rows are saved: see [`LinearSettings::packing`].
    pub packing: Packing,
    /// The design that selects them.
    pub design: BuiltIn,
    /// The source of both gradients' weights, besides the norms of A's rows or B's columns.
    pub weights: WeightSource,
    /// The type of A and B.
    pub input: DataType,
    /// The type of G.
    pub gradient: DataType,
    /// The type of dA and dB: f32, or that of A, B and G.
    pub result: DataType,
    /// How f32 matrices are multiplied.
    pub precision: Precision,
    /// Which program multiplies.
    pub engine: Engine,
    /// Where A's rows lie, if it is not dense.
    pub a_strides: Option<Strides>,
    /// Where the rows of B's transpose (columns × inner) lie, if it is not dense.
    pub b_transposed_strides: Option<Strides>,
    /// Where G's rows lie, if it is not dense.
    pub gradient_strides: Option<Strides>,
    /// Where dA's rows are to lie, if not dense.
    pub da_strides: Option<Strides>,
    /// Where dB's rows are to lie, if not dense.
    pub db_strides: Option<Strides>,
}

impl MatmulSettings {
    /// Dense bf16 matrices of so many samples, heads, rows, inner and columns. Gradients are in f32, and none is sampled. The
    /// default design, weights from A and B alone.
    pub fn new([batch, heads, rows, inner, columns]: [usize; 5]) -> Self {
        Self {
            batch,
            heads,
            rows,
            inner,
            columns,
            left: None,
            right: None,
            packing: Packing::default(),
            design: BuiltIn::default(),
            weights: WeightSource::Input,
            input: DataType::Bf16,
            gradient: DataType::Bf16,
            result: DataType::F32,
            precision: Precision::default(),
            engine: Engine::default(),
            a_strides: None,
            b_transposed_strides: None,
            gradient_strides: None,
            da_strides: None,
            db_strides: None,
        }
    }
}

/// The launches that estimate the gradients of attention's products, for all (batch, head) together.
///
/// Each gradient has a threshold and draws of its own for every (batch, head): item i of dA draws from stream 2i, of dB
/// from stream 2i + 1, both at the same offset.
#[derive(Clone, Debug)]
pub struct MatmulPlan {
    left: Option<ColumnsPlan>,
    right: Option<LinearPlan>,
    draws: u64,
}

impl MatmulPlan {
    /// The plan for some settings on a device.
    ///
    /// # Errors
    ///
    /// A size that is zero or too large, a budget that does not fit, rows that overlap, types that no kernel multiplies.
    pub fn new(settings: &MatmulSettings, device: &Device) -> Result<Self, PlanError> {
        let &MatmulSettings { batch, heads, rows, inner, columns, packing, design, weights, .. } = settings;
        check_size("the batch", batch)?;
        check_size("the number of heads", heads)?;
        check_size("the number of rows", rows)?;
        check_size("the inner size", inner)?;
        check_size("the number of columns", columns)?;
        if matches!(weights, WeightSource::Predicted { .. }) {
            return Err(PlanError::Unsupported { what: "a norm predictor for products of attention" });
        }
        let what = "the number of (batch, head) pairs";
        let items = batch.checked_mul(heads).ok_or(PlanError::Overflow { what })?;
        let left = settings.left.map(|keep| {
            let sample = SamplePlan::new(
                SampleSettings {
                    pairs: columns,
                    columns: inner,
                    keep,
                    packing,
                    design,
                    weights,
                    data_type: settings.input,
                    batch: items,
                    names: MatrixNames {
                        matrix: "B",
                        rows: "the columns of B",
                        row: "the length of a column of B",
                        matrices: "the matrices B",
                    },
                    strides: settings.b_transposed_strides,
                    streams: Streams { first: 0, step: 2 },
                },
                ["the number of columns", "the inner size", what],
                device,
            )?;
            let g = Matrices::read(
                MatrixNames {
                    matrix: "G",
                    rows: "the rows of G",
                    row: "the length of a row of G",
                    matrices: "the matrices G",
                },
                [items, rows, columns],
                settings.gradient.bytes(),
                settings.gradient_strides,
            )?;
            let da = Matrices::written(
                MatrixNames {
                    matrix: "dA",
                    rows: "the rows of dA",
                    row: "the length of a row of dA",
                    matrices: "the matrices dA",
                },
                [items, rows, inner],
                settings.result.bytes(),
                settings.da_strides,
            )?;
            let &MatmulSettings { gradient, result, precision, engine, .. } = settings;
            ColumnsPlan::new(sample, &ColumnsSettings { rows, gradient, result, g, da, precision, engine }, device)
        });
        let right = settings.right.map(|keep| {
            let settings = LinearSettings {
                tokens: rows,
                in_features: inner,
                out_features: columns,
                keep,
                packing,
                design,
                weights,
                input: settings.input,
                gradient: settings.gradient,
                weight_gradient: settings.result,
                precision: settings.precision,
                engine: settings.engine,
                bias_gradient: false,
                batch: items,
                input_strides: settings.a_strides,
                gradient_strides: settings.gradient_strides,
                weight_gradient_strides: settings.db_strides,
            };
            LinearPlan::with_streams(settings, device, Streams { first: 1, step: 2 })
        });
        let (left, right) = (left.transpose()?, right.transpose()?);
        let of_left = left.as_ref().map_or(0, ColumnsPlan::draws);
        let draws = of_left.max(right.as_ref().map_or(0, LinearPlan::draws));
        Ok(Self { left, right, draws })
    }

    /// dA, if it is sampled: its forward pass takes Bᵀ (batch × heads × columns × inner).
    pub fn left(&self) -> Option<&ColumnsPlan> {
        self.left.as_ref()
    }

    /// dB, if it is sampled: its forward pass takes A (batch × heads × rows × inner).
    pub fn right(&self) -> Option<&LinearPlan> {
        self.right.as_ref()
    }

    /// How far the forward passes of both advance their common offset.
    pub fn draws(&self) -> u64 {
        self.draws
    }
}
