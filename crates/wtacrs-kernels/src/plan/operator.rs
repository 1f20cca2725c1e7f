//! The plan of an operator: an activation function, a gated unit, dropout, softmax or a norm.

use super::error::{ExecuteError, PlanError};
use super::kernels;
use super::memory::{Layout, Memory, Part, check_count, check_pointer};
use super::sample::DeviceRandomness;
use super::saved::check_groups;
use crate::kernel::column_sums::{self, FinishArgs};
use crate::kernel::matrix::DataType;
use crate::kernel::norm::{self, Ranges};
use crate::kernel::operator::{Function, SIGNS, SavedValues, Start};
use crate::kernel::packed_rows::GroupShares;
use crate::kernel::split_reduce::{self, SumsArgs};
use crate::kernel::{self, pointwise, softmax, unpack_values};
use crate::launch::Launcher;
use core::ptr;
use wtacrs_core::operators::{Operation, Operator};

/// An operator on an array.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct OperatorSettings {
    /// What it computes, and how its saved part is packed.
    pub operator: Operator,
    /// Rows of the array.
    pub rows: usize,
    /// Its columns.
    pub columns: usize,
    /// The type of its elements. Weight, bias and their gradients are f32.
    pub data_type: DataType,
}

impl OperatorSettings {
    /// Of bf16.
    pub const fn new(operator: Operator, rows: usize, columns: usize) -> Self {
        Self { operator, rows, columns, data_type: DataType::Bf16 }
    }
}

/// The parts of an operator's saved memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OperatorParts {
    /// Seed and offset of the random bits; empty if nothing is drawn.
    pub origin: Part,
    /// The codes of one array or two: rows × [`Self::row_words`] words.
    pub codes: [Part; 2],
    /// Words of a row's codes: those of [`Operator::layout`], in whole vectors of 16 bytes unless they are ReLU's signs.
    pub row_words: u64,
    /// The words of the grids: a word for each group of a row.
    pub grids: [Part; 2],
    /// The numbers of rows (f32).
    pub statistics: Part,
    /// Bytes of all parts.
    pub bytes: u64,
}

/// The arguments of a forward pass: device pointers to dense arrays. Those that the operator does not have are null.
#[derive(Clone, Copy, Debug)]
pub struct OperatorForward {
    /// rows × columns elements.
    pub x: *const u8,
    /// As many, for a gated operator.
    pub gate: *const u8,
    /// A norm's weight for each column; null for 1.
    pub weight: *const f32,
    /// A layer norm's bias for each column; null for 0.
    pub bias: *const f32,
    /// rows × columns elements, which may be `x` or `gate`; null: only the saved memory is written.
    pub y: *mut u8,
    /// [`OperatorParts::bytes`] bytes.
    pub saved: Memory,
}

/// The arguments of a backward pass: device pointers to dense arrays. Those that the operator does not have are null.
#[derive(Clone, Copy, Debug)]
pub struct OperatorBackward {
    /// rows × columns elements, where [`Operator::keeps`] names the input.
    pub x: *const u8,
    /// As many, where it names the gate.
    pub gate: *const u8,
    /// As many, where it names the output.
    pub y: *const u8,
    /// A norm's weight for each column; null for 1.
    pub weight: *const f32,
    /// rows × columns elements.
    pub dy: *const u8,
    /// As many, which may be `dy`.
    pub dx: *mut u8,
    /// As many, for a gated operator.
    pub dgate: *mut u8,
    /// Receives the gradient of a norm's weight; null if it is not wanted.
    pub dweight: *mut f32,
    /// Receives the gradient of a layer norm's bias; null if it is not wanted.
    pub dbias: *mut f32,
    /// What a forward pass of the plan saved.
    pub saved: Memory,
    /// [`OperatorPlan::backward_scratch_bytes`] bytes.
    pub scratch: Memory,
}

/// The launches of an operator, and their memory: one launch forward, one backward, and another one for each gradient of a norm's
/// weight and bias.
///
/// Immutable, `Send` and `Sync`; any number of calls may be in flight, each with memory of its own.
///
/// # Example
///
/// ```
/// use wtacrs_core::operators::{Operation, Operator};
/// use wtacrs_core::product::Packing;
/// use wtacrs_kernels::plan::{OperatorPlan, OperatorSettings};
///
/// let gelu = Operator::new(Operation::Gelu).with_packing(Packing::Bits4).with_dropout(0.1)?;
/// let plan = OperatorPlan::new(OperatorSettings::new(gelu, 4096, 3072))?;
/// assert_eq!(plan.saved().codes[0].bytes, 4096 * 3072 / 2);
/// assert_eq!((plan.draws(), plan.backward_scratch_bytes()), (4096 * 3072 / 4, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct OperatorPlan {
    settings: OperatorSettings,
    shares: GroupShares,
    saved: OperatorParts,
    ranges: Ranges,
    /// Partial sums for the gradients of a norm's weight and bias.
    of_weight: Part,
    of_bias: Part,
    backward_bytes: u64,
}

impl OperatorPlan {
    /// The plan for some settings.
    ///
    /// # Errors
    ///
    /// An operator whose settings do not go together; more rows, columns or groups than kernels count.
    pub fn new(settings: OperatorSettings) -> Result<Self, PlanError> {
        let OperatorSettings { operator, rows, columns, .. } = settings;
        operator.check()?;
        check_count("the number of rows", rows)?;
        check_count("the number of columns", columns)?;
        check_groups(rows, columns)?;
        let (rows, columns) = (rows as u32, columns as u32);
        let ranges = Ranges::new(rows, columns);
        let sums = |wanted: bool| {
            let ranges = if wanted && rows > 0 { ranges.count(rows) } else { 0 };
            [u64::from(ranges), column_sums::partial_leading(columns), 4]
        };
        let operation = operator.operation();
        let mut layout = Layout::default();
        let of_weight = layout.part("the partial sums of the weight's gradient", &sums(operation.is_norm()))?;
        let has_bias = operation == Operation::LayerNorm;
        let of_bias = layout.part("the partial sums of the bias's gradient", &sums(has_bias))?;
        Ok(Self {
            settings,
            shares: GroupShares::new(rows, columns, 1),
            saved: OperatorParts::new(&settings)?,
            ranges,
            of_weight,
            of_bias,
            backward_bytes: layout.bytes(),
        })
    }

    /// The settings of the plan.
    pub fn settings(&self) -> &OperatorSettings {
        &self.settings
    }

    /// How far a forward pass advances the offset of its randomness.
    pub fn draws(&self) -> u64 {
        self.settings.operator.draws(self.shape())
    }

    /// The parts of the saved memory; [`OperatorParts::bytes`] is its size.
    pub fn saved(&self) -> &OperatorParts {
        &self.saved
    }

    /// Bytes that a backward pass needs while it runs.
    pub fn backward_scratch_bytes(&self) -> u64 {
        self.backward_bytes
    }

    fn shape(&self) -> [usize; 2] {
        [self.settings.rows, self.settings.columns]
    }

    fn is_empty(&self) -> bool {
        self.shape().contains(&0)
    }

    /// Writes y, and what the backward pass needs: one launch, or none for an array without elements.
    ///
    /// # Errors
    ///
    /// An operand that is missing, is not aligned to its elements, or has no meaning for the operator; saved memory that is too
    /// small; the launcher's error.
    ///
    /// # Safety
    ///
    /// The pointers lead to memory of the launcher's device, of the sizes that [`OperatorForward`] and the plan say, alive and
    /// otherwise unused until the launch has run; `further_offset` is null or such a pointer. Arrays do not overlap, but `y`
    /// may be `x` or `gate`.
    pub unsafe fn forward<L: Launcher>(
        &self,
        launcher: &mut L,
        buffers: &OperatorForward,
        randomness: DeviceRandomness,
    ) -> Result<(), ExecuteError<L::Error>> {
        let &OperatorForward { x, gate, weight, bias, y, saved } = buffers;
        let operator = self.settings.operator;
        let operation = operator.operation();
        self.check_array("x", x, true)?;
        self.check_array("the gate", gate, operator.is_gated())?;
        self.check_numbers("the weight", weight, operation.is_norm())?;
        self.check_numbers("the bias", bias, operation == Operation::LayerNorm)?;
        if !y.is_null() {
            self.check_array("y", y.cast_const(), true)?;
        }
        saved.check("the saved memory", self.saved.bytes)?;
        if self.is_empty() {
            return Ok(());
        }
        let values = self.values(saved);
        let DeviceRandomness { start, further_offset } = randomness;
        let start = Start { seed: start.seed, offset: start.offset, further_offset };
        // SAFETY: the caller's promise; the outputs are y and parts of the saved memory.
        let launched = unsafe {
            match function(operation) {
                Some(function) => {
                    let args = pointwise::ForwardArgs { x, gate, y, function: function as u32, saved: values, start };
                    let (kernel, shape) = kernels::pointwise_forward(&args);
                    launcher.launch(kernel, shape, &args)
                }
                None if operation.is_norm() => {
                    let args = norm::ForwardArgs {
                        x,
                        weight,
                        bias,
                        y,
                        has_mean: self.has_mean(),
                        epsilon: operator.epsilon(),
                        saved: values,
                        start,
                    };
                    let (kernel, shape) = kernels::norm_forward(&args);
                    launcher.launch(kernel, shape, &args)
                }
                None => {
                    let args = softmax::ForwardArgs { x, y, saved: values, start };
                    let (kernel, shape) = kernels::softmax_forward(&args);
                    launcher.launch(kernel, shape, &args)
                }
            }
        };
        launched.map_err(ExecuteError::Launch)
    }

    /// Writes dX, and the gradients of the gate, the weight and the bias: one launch, and one for each gradient of weight and bias.
    ///
    /// # Errors
    ///
    /// As for [`Self::forward`].
    ///
    /// # Safety
    ///
    /// As for [`Self::forward`], with [`OperatorBackward`]; a forward pass of such a plan wrote the saved memory earlier, on the
    /// same stream or on one that this one waits for. Arrays do not overlap, but `dx` or `dgate` may be `dy`, and an array that
    /// the forward pass read.
    pub unsafe fn backward<L: Launcher>(
        &self,
        launcher: &mut L,
        buffers: &OperatorBackward,
    ) -> Result<(), ExecuteError<L::Error>> {
        let &OperatorBackward { x, gate, y, weight, dy, dx, dgate, dweight, dbias, saved, scratch } = buffers;
        let operator = self.settings.operator;
        let (operation, keeps) = (operator.operation(), operator.keeps());
        self.check_array("x", x, keeps.input)?;
        self.check_array("the gate", gate, keeps.gate)?;
        self.check_array("y", y, keeps.output)?;
        self.check_numbers("the weight", weight, operation.is_norm())?;
        self.check_array("dY", dy, true)?;
        self.check_array("dX", dx.cast_const(), true)?;
        self.check_array("the gradient of the gate", dgate.cast_const(), operator.is_gated())?;
        let has_bias = operation == Operation::LayerNorm;
        self.check_numbers("the gradient of the weight", dweight.cast_const(), operation.is_norm())?;
        self.check_numbers("the gradient of the bias", dbias.cast_const(), has_bias)?;
        saved.check("the saved memory", self.saved.bytes)?;
        let wants_sums = !dweight.is_null() || !dbias.is_null();
        scratch.check("the scratch of the backward pass", if wants_sums { self.backward_bytes } else { 0 })?;
        let values = self.values(saved);
        if self.is_empty() {
            // SAFETY: the caller's promise. Sums over no rows are 0.
            return unsafe { self.finish_sums(launcher, scratch, [dweight, dbias]) };
        }
        // SAFETY: the caller's promise; the outputs are its arrays and parts of the scratch.
        unsafe {
            match function(operation) {
                Some(function) => {
                    let function = function as u32;
                    let args = pointwise::BackwardArgs { x, gate, dy, dx, dgate, function, saved: values };
                    let (kernel, shape) = kernels::pointwise_backward(&args);
                    launcher.launch(kernel, shape, &args).map_err(ExecuteError::Launch)
                }
                None if operation.is_norm() => {
                    let partials = |sums: *mut f32, part| if sums.is_null() { sums } else { scratch.of(part) };
                    let args = norm::BackwardArgs {
                        x,
                        weight,
                        dy,
                        dx,
                        of_weight: partials(dweight, self.of_weight),
                        of_bias: partials(dbias, self.of_bias),
                        has_mean: self.has_mean(),
                        ranges: self.ranges,
                        saved: values,
                    };
                    let (kernel, shape) = kernels::norm_backward(&args);
                    launcher.launch(kernel, shape, &args).map_err(ExecuteError::Launch)?;
                    self.finish_sums(launcher, scratch, [dweight, dbias])
                }
                None => {
                    let args = softmax::BackwardArgs { y, dy, dx, saved: values };
                    let (kernel, shape) = kernels::softmax_backward(&args);
                    launcher.launch(kernel, shape, &args).map_err(ExecuteError::Launch)
                }
            }
        }
    }

    /// Writes y again, from what a forward pass saved: one launch.
    ///
    /// # Errors
    ///
    /// [`ExecuteError::Unplanned`] if what is saved does not contain it ([`Operator::restores`]); else as for [`Self::forward`].
    ///
    /// # Safety
    ///
    /// As for [`Self::backward`]; `y` has rows × columns elements.
    pub unsafe fn restore<L: Launcher>(
        &self,
        launcher: &mut L,
        saved: Memory,
        y: *mut u8,
    ) -> Result<(), ExecuteError<L::Error>> {
        if !self.settings.operator.restores() {
            return Err(ExecuteError::Unplanned { what: "the restored output" });
        }
        self.check_array("y", y.cast_const(), true)?;
        saved.check("the saved memory", self.saved.bytes)?;
        if self.is_empty() {
            return Ok(());
        }
        let has_roots = u32::from(self.settings.operator.operation() == Operation::Softmax);
        let args = unpack_values::Args { saved: self.values(saved), has_roots, y };
        let (kernel, shape) = kernels::unpack_values(&args);
        // SAFETY: the caller's promise.
        unsafe { launcher.launch(kernel, shape, &args) }.map_err(ExecuteError::Launch)
    }

    /// Launches the ends of the wanted sums over rows.
    ///
    /// # Safety
    ///
    /// The sums are null, or have a place for each column; if there are rows, the partial sums were written.
    unsafe fn finish_sums<L: Launcher>(
        &self,
        launcher: &mut L,
        scratch: Memory,
        sums: [*mut f32; 2],
    ) -> Result<(), ExecuteError<L::Error>> {
        let GroupShares { rows, columns, .. } = self.shares;
        for (sums, part) in sums.into_iter().zip([self.of_weight, self.of_bias]) {
            if sums.is_null() || columns == 0 {
                continue;
            }
            let finish = FinishArgs {
                partials: scratch.of(part),
                ranges: if rows > 0 { self.ranges.count(rows) } else { 0 },
                columns,
                accumulate: 0,
                sums,
            };
            let (args, shape) = SumsArgs::launch(split_reduce::Args::NONE, None, finish, 1);
            // SAFETY: the caller's promise.
            unsafe { launcher.launch(&kernel::SPLIT_REDUCE_SUMS, shape, &args) }.map_err(ExecuteError::Launch)?;
        }
        Ok(())
    }

    fn has_mean(&self) -> u32 {
        u32::from(self.settings.operator.operation() == Operation::LayerNorm)
    }

    /// What the kernels receive of the saved memory.
    fn values(&self, saved: Memory) -> SavedValues {
        let parts = &self.saved;
        let place = |part: Part| if part.bytes > 0 { saved.of(part) } else { ptr::null_mut() };
        let operator = self.settings.operator;
        let mask = operator.mask();
        SavedValues {
            shares: self.shares,
            element: self.settings.data_type as u32,
            bits: match operator.packing().bits() {
                _ if operator.saves_signs() => SIGNS,
                Some(bits) => bits.count(),
                None => 0,
            },
            codes: parts.codes.map(place),
            row_words: parts.row_words,
            grids: parts.grids.map(place),
            statistics: if parts.statistics.bytes > 0 { saved.of(parts.statistics) } else { ptr::null_mut() },
            origin: if parts.origin.bytes > 0 { saved.of(parts.origin) } else { ptr::null_mut() },
            threshold: mask.threshold,
            scale: mask.scale,
        }
    }

    /// Refuses an array that is missing or not aligned, or was given without a meaning.
    fn check_array<E>(&self, what: &'static str, at: *const u8, is_needed: bool) -> Result<(), ExecuteError<E>> {
        if !is_needed {
            return if at.is_null() { Ok(()) } else { Err(ExecuteError::Unplanned { what }) };
        }
        if self.is_empty() { Ok(()) } else { check_pointer(what, at, self.settings.data_type.bytes()) }
    }

    /// Refuses numbers that are not aligned, or were given without a meaning.
    fn check_numbers<E>(&self, what: &'static str, at: *const f32, has_meaning: bool) -> Result<(), ExecuteError<E>> {
        match at.is_null() {
            true => Ok(()),
            false if !has_meaning => Err(ExecuteError::Unplanned { what }),
            false => check_pointer(what, at, 4),
        }
    }
}

impl OperatorParts {
    fn new(settings: &OperatorSettings) -> Result<Self, PlanError> {
        let &OperatorSettings { operator, rows, columns, .. } = settings;
        let shape = [rows, columns];
        let of_rows = operator.layout(shape);
        let rows = rows as u64;
        let row_words = match of_rows.codes[0] as u64 {
            words if operator.saves_signs() => words,
            words => words.next_multiple_of(4),
        };
        let codes = |field: usize| if of_rows.codes[field] > 0 { row_words } else { 0 };
        let grids = |field: usize| of_rows.grids[field] as u64;
        let mut layout = Layout::default();
        let mut part = |what, words: u64| layout.part(what, &[rows, words, 4]);
        let codes = [part("the saved codes", codes(0))?, part("the saved codes", codes(1))?];
        let grids = [part("the saved grids", grids(0))?, part("the saved grids", grids(1))?];
        let statistics = part("the saved statistics", of_rows.statistics as u64)?;
        let origin = layout.part("the origin", &[u64::from(operator.draws(shape) > 0), 2, 8])?;
        Ok(Self { origin, codes, row_words, grids, statistics, bytes: layout.bytes() })
    }
}

/// The function of each element, unless the operation works on rows.
fn function(operation: Operation) -> Option<Function> {
    match operation {
        Operation::Identity => Some(Function::Identity),
        Operation::Relu => Some(Function::Relu),
        Operation::Gelu => Some(Function::Gelu),
        Operation::GeluTanh => Some(Function::GeluTanh),
        Operation::Silu => Some(Function::Silu),
        Operation::Softmax | Operation::LayerNorm | Operation::RmsNorm => None,
    }
}
