//! The plan of a linear layer, or of a batch of them.

use super::engine::EngineSettings;
use super::error::{ExecuteError, PlanError};
use super::factors::{Factors, ProductSettings};
use super::gradient::{GradientReader, KeptOfGradient, Wanted, gathered_matrices};
use super::memory::{Layout, Part, check_count, check_pointer};
use super::packed::{OtherFactor, PackedFactors, PackedProduct, Side};
use super::product::{BackwardBuffers, ProductPlan};
use super::sample::{DeviceRandomness, ForwardBuffers, SamplePlan, SampleSettings};
use super::saved::{SavedParts, Streams};
use super::settings::{Engine, LinearSettings, Matrices, MatrixNames, Strides, WeightSource};
use crate::device::Device;
use crate::kernel::column_sums;
use crate::launch::Launcher;
use core::ptr;

/// The launches that estimate dW = Hᵀ dZ, and their memory.
///
/// Layers that share H share one forward pass and its saved memory, which every plan with the same tokens, input features,
/// budget, packing, batch and input type can read.
///
/// Immutable, `Send` and `Sync`; any number of calls may be in flight, each with memory of its own.
///
/// # Example
///
/// ```
/// use wtacrs_core::Keep;
/// use wtacrs_kernels::device::Device;
/// use wtacrs_kernels::plan::{LinearPlan, LinearSettings};
///
/// let plan = LinearPlan::new(LinearSettings::new(16384, 4096, 4096, Keep::Fraction(0.1)), &Device::emulated())?;
/// assert_eq!((plan.kept_rows(), plan.draws()), (1638, 16384));
/// assert_eq!(plan.saved().rows.bytes, 1638 * 4096 * 2);
/// # Ok::<(), wtacrs_kernels::plan::PlanError>(())
/// ```
#[derive(Clone, Debug)]
pub struct LinearPlan {
    settings: LinearSettings,
    pub(super) sample: SamplePlan,
    pub(super) dz: Matrices,
    pub(super) dw: Matrices,
    /// The product of native rows.
    pub(super) product: ProductPlan,
    /// The product of packed rows, if there is something to multiply.
    packed: Option<PackedProduct>,
    /// The scratch of the product of native rows.
    product_scratch: Part,
    /// The kept rows of dZ, one behind the other, if the vendor's library multiplies them.
    gathered: Part,
    /// Sums of the columns of dZ over ranges of its rows, if the bias gradient may be wanted.
    sums: Part,
    backward_bytes: u64,
}

impl LinearPlan {
    /// The plan for some settings on a device.
    ///
    /// # Errors
    ///
    /// A size that is too large, a batch of none, a budget that does not fit, rows that overlap, types that no kernel multiplies.
    pub fn new(settings: LinearSettings, device: &Device) -> Result<Self, PlanError> {
        Self::with_streams(settings, device, Streams { first: 0, step: 1 })
    }

    pub(super) fn with_streams(settings: LinearSettings, device: &Device, streams: Streams) -> Result<Self, PlanError> {
        let &LinearSettings { tokens, in_features, out_features, batch, .. } = &settings;
        let sample = SamplePlan::new(
            SampleSettings {
                pairs: tokens,
                columns: in_features,
                keep: settings.keep,
                packing: settings.packing,
                design: settings.design,
                weights: settings.weights,
                data_type: settings.input,
                batch,
                names: MatrixNames {
                    matrix: "H",
                    rows: "the rows of H",
                    row: "the length of a row of H",
                    matrices: "the matrices H",
                },
                strides: settings.input_strides,
                streams,
            },
            ["the number of tokens", "the number of input features", "the batch"],
            device,
        )?;
        check_count("the number of output features", out_features)?;
        let dz = dz_matrices(&settings, settings.gradient_strides)?;
        let dw = dw_matrices(&settings, settings.weight_gradient_strides)?;
        let of_product = ProductSettings {
            batch,
            rows: sample.budget.get(),
            left: in_features,
            right: out_features,
            types: [settings.input, settings.gradient, settings.weight_gradient],
            precision: settings.precision,
        };
        let (kept, gathers) = (sample.budget.get(), !sample.keeps_all());
        let of_gathered = gathered_matrices(&settings, kept);
        let mut layout = Layout::default();
        let packed = match sample.packed {
            Some(rows) => {
                let matrices = if gathers { of_gathered } else { dz };
                let other = OtherFactor { engine: settings.engine, gathers, matrices };
                PackedProduct::new(rows, Side::Left, of_product, other, &mut layout, device)?
            }
            None => None,
        };
        let of_engine = EngineSettings {
            engine: if packed.is_some() { Engine::Own } else { settings.engine },
            gathers: true,
            matrices: [sample.saved.matrices(kept), of_gathered, dw],
        };
        let product = ProductPlan::new(of_product, &of_engine, device)?;
        let product_scratch = if packed.is_some() { Part::default() } else { product.scratch(&mut layout)? };
        let engine = packed.as_ref().map_or_else(|| product.engine(), PackedProduct::engine);
        let rows = if gathers && engine == Engine::CublasLt { [batch as u64, kept as u64] } else { [0; 2] };
        let gathered = [&rows[..], &[of_gathered.row, settings.gradient.bytes()]].concat();
        let gathered = layout.part("the kept rows of dZ", &gathered)?;
        let sums = layout.part("the partial sums of dZ", &sums_sizes(&settings))?;
        let backward_bytes = layout.bytes();
        Ok(Self { settings, sample, dz, dw, product, packed, product_scratch, gathered, sums, backward_bytes })
    }

    /// The same plan for other strides of H, dZ and dW; none: dense. It costs a few comparisons, little enough for every
    /// call.
    ///
    /// # Errors
    ///
    /// Rows that overlap, or end beyond any address.
    pub fn with_strides(&self, [input, gradient, weight_gradient]: [Option<Strides>; 3]) -> Result<Self, PlanError> {
        let mut plan = self.clone();
        plan.sample.set_strides(input)?;
        plan.dz = dz_matrices(&self.settings, gradient)?;
        plan.dw = dw_matrices(&self.settings, weight_gradient)?;
        plan.settings.input_strides = input;
        plan.settings.gradient_strides = gradient;
        plan.settings.weight_gradient_strides = weight_gradient;
        Ok(plan)
    }

    /// The same plan with another clamp of a predictor's guesses, if its weights are
    /// [`Predicted`](WeightSource::Predicted).
    ///
    /// # Errors
    ///
    /// A clamp out of its range.
    pub fn with_clamp(&self, clamp: f64) -> Result<Self, PlanError> {
        let mut plan = self.clone();
        if let WeightSource::Predicted { clamp: old } = &mut plan.sample.settings.weights {
            *old = clamp;
        }
        plan.sample.settings.weights.check()?;
        plan.settings.weights = plan.sample.settings.weights;
        Ok(plan)
    }

    /// The settings of the plan.
    pub fn settings(&self) -> &LinearSettings {
        &self.settings
    }

    /// k: how many rows are saved for each problem.
    pub fn kept_rows(&self) -> usize {
        self.sample.budget.get()
    }

    /// How far a forward pass advances the offset of its randomness.
    pub fn draws(&self) -> u64 {
        self.sample.draws()
    }

    /// The parts of the saved memory; [`SavedParts::bytes`] is its size.
    pub fn saved(&self) -> &SavedParts {
        &self.sample.saved
    }

    /// Bytes that a forward pass needs while it runs.
    pub fn forward_scratch_bytes(&self) -> u64 {
        self.sample.scratch.bytes
    }

    /// Where a forward pass leaves the norms of H's rows (batch × tokens, f32) in its scratch; empty if all tokens are packed.
    pub fn input_norms(&self) -> Part {
        self.sample.scratch.norms
    }

    /// Bytes that a backward pass needs while it runs.
    pub fn backward_scratch_bytes(&self) -> u64 {
        self.backward_bytes
    }

    /// Into how many ranges of kept rows, added in a fixed order, the product is cut.
    pub fn splits(&self) -> u32 {
        self.packed.as_ref().map_or_else(|| self.product.splits(), PackedProduct::splits)
    }

    /// The program that computes the product of [`Self::backward`]: [`Engine::Own`] or [`Engine::CublasLt`].
    pub fn engine(&self) -> Engine {
        self.packed.as_ref().map_or_else(|| self.product.engine(), PackedProduct::engine)
    }

    pub(super) fn gradient_reader(&self) -> GradientReader<'_> {
        GradientReader { settings: &self.settings, dz: self.dz, kept: self.kept_rows() }
    }

    /// Whether all tokens are kept and packed: then nothing is weighed or selected, and neither indices nor scales are saved.
    pub fn keeps_all(&self) -> bool {
        self.sample.keeps_all()
    }

    /// Chooses the tokens of H to keep, and saves their rows: three launches, or one if all tokens are packed.
    ///
    /// # Errors
    ///
    /// An invalid pointer or size, before anything is launched; or the launcher's error. An invalid weight is reported in the
    /// saved [status](SavedParts::status).
    ///
    /// # Safety
    ///
    /// The pointers lead to memory of the launcher's device, of the sizes that [`ForwardBuffers`] and the plan say, alive
    /// and otherwise unused until the launches have run; `further_offset` is null or such a pointer. Saved memory,
    /// scratch and input do not overlap.
    pub unsafe fn forward<L: Launcher>(
        &self,
        launcher: &mut L,
        buffers: &ForwardBuffers,
        randomness: DeviceRandomness,
    ) -> Result<(), ExecuteError<L::Error>> {
        // SAFETY: the caller's promise.
        unsafe { self.sample.forward(launcher, buffers, randomness) }
    }

    /// Writes or adds the estimate of dW. If wanted, it also writes the norms of dZ's rows and their exact sum. At most three
    /// launches, of which the first reads dZ once; at most four from packed rows. Where cuBLASLt multiplies a batch whose samples are not
    /// equally far apart, there is a product for each sample.
    ///
    /// # Errors
    ///
    /// An invalid pointer or size, before anything is launched; or the launcher's error.
    ///
    /// # Safety
    ///
    /// As for [`Self::forward`], with [`BackwardBuffers`]; a forward pass of such a plan wrote the saved memory
    /// earlier, on the same stream or on one that this one waits for.
    pub unsafe fn backward<L: Launcher>(
        &self,
        launcher: &mut L,
        buffers: &BackwardBuffers,
    ) -> Result<(), ExecuteError<L::Error>> {
        let &BackwardBuffers { saved, gradient, gradient_norms, weight_gradient, bias_gradient, update, scratch } =
            buffers;
        let &LinearSettings { tokens, in_features, out_features, .. } = &self.settings;
        if tokens > 0 && out_features > 0 {
            check_pointer("dZ", gradient, self.settings.gradient.bytes())?;
        }
        if in_features > 0 && out_features > 0 {
            check_pointer("dW", weight_gradient.cast_const(), self.settings.weight_gradient.bytes())?;
        }
        saved.check("the saved memory", self.sample.saved.bytes)?;
        scratch.check("the scratch of the backward pass", self.backward_bytes)?;
        // Without tokens no norm is written, and without features no sum.
        let (gradient_norms, bias_gradient) = (
            if tokens > 0 { gradient_norms } else { ptr::null_mut() },
            if out_features > 0 { bias_gradient } else { ptr::null_mut() },
        );
        if !gradient_norms.is_null() {
            check_pointer("the norms of dZ", gradient_norms.cast_const(), 4)?;
        }
        if !bias_gradient.is_null() {
            if !self.settings.bias_gradient {
                return Err(ExecuteError::Unplanned { what: "the bias gradient" });
            }
            check_pointer("the bias gradient", bias_gradient.cast_const(), 4)?;
        }
        let (parts, gathers) = (&self.sample.saved, self.engine() == Engine::CublasLt && !self.keeps_all());
        let kept = KeptOfGradient {
            indices: if self.keeps_all() { ptr::null() } else { saved.of(parts.indices) },
            count: saved.of(parts.count),
            out: if gathers { scratch.of(self.gathered) } else { ptr::null_mut() },
        };
        let wanted = Wanted { norms: gradient_norms, bias_gradient, partials: scratch.of(self.sums), update };
        // SAFETY: the caller's promise; the saved indices lie within dZ, and sums and gathered rows within the scratch.
        let sums = unsafe { self.gradient_reader().read(launcher, gradient, &wanted, &kept) }?;
        let (other, other_matrices, indices) = if gathers {
            (kept.out.cast_const(), gathered_matrices(&self.settings, self.kept_rows()), ptr::null())
        } else {
            (gradient, self.dz, kept.indices)
        };
        if let Some(packed) = &self.packed {
            let factors = PackedFactors {
                saved,
                parts: *parts,
                other,
                other_matrices,
                indices,
                product: weight_gradient,
                product_matrices: self.dw,
                update,
                scratch,
            };
            // SAFETY: the caller's promise; the saved indices lie within dZ.
            return unsafe {
                packed.unpack(launcher, saved, parts, scratch)?;
                packed.multiply(launcher, &factors, sums)
            };
        }
        let factors = Factors {
            left: saved.of(parts.rows),
            left_matrices: parts.matrices(self.sample.budget.get()),
            right: other,
            right_matrices: other_matrices,
            indices,
            count: saved.of(parts.count),
            product: weight_gradient,
            product_matrices: self.dw,
            update,
            partials: scratch.of(self.product_scratch),
            workspace: scratch.of(self.product_scratch),
        };
        // SAFETY: the caller's promise; the saved parts lie within the saved memory, and their indices within dZ.
        unsafe { self.product.run(launcher, &factors, sums) }
    }
}

/// The partial sums of dZ's columns, if the bias gradient may be wanted.
fn sums_sizes(settings: &LinearSettings) -> [u64; 4] {
    let &LinearSettings { tokens, out_features, batch, gradient, bias_gradient, .. } = settings;
    if !bias_gradient {
        return [0; 4];
    }
    // Sizes were checked to be no more than kernels count.
    let ranges = column_sums::ranges(tokens as u32, out_features as u32, gradient.bytes() as u32);
    [batch as u64, u64::from(ranges), column_sums::partial_leading(out_features as u32), 4]
}

fn dz_matrices(settings: &LinearSettings, strides: Option<Strides>) -> Result<Matrices, PlanError> {
    let names = MatrixNames {
        matrix: "dZ",
        rows: "the rows of dZ",
        row: "the length of a row of dZ",
        matrices: "the matrices dZ",
    };
    let &LinearSettings { batch, tokens, out_features, gradient, .. } = settings;
    Matrices::read(names, [batch, tokens, out_features], gradient.bytes(), strides)
}

fn dw_matrices(settings: &LinearSettings, strides: Option<Strides>) -> Result<Matrices, PlanError> {
    let names = MatrixNames {
        matrix: "dW",
        rows: "the rows of dW",
        row: "the length of a row of dW",
        matrices: "the matrices dW",
    };
    let &LinearSettings { batch, in_features, out_features, weight_gradient, .. } = settings;
    Matrices::written(names, [batch, in_features, out_features], weight_gradient.bytes(), strides)
}
