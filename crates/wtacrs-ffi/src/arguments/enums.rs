//! Enumerations of the interface: as C declares them, as functions receive them, and as Rust uses them.
//!
//! C sees an `enum` that is 32 bits wide. Functions receive its integer and check it, since any number can arrive.

pub use crate::boundary::log::LogLevelInC;
use crate::boundary::status::WTACRS_STATUS_INVALID_ENUM;
use crate::boundary::{Failure, Outcome};
use wtacrs_core::layers::{Side, Update};
use wtacrs_core::operators::Operation;
use wtacrs_core::product::Packing;
use wtacrs_core::sampling::BuiltIn;
use wtacrs_kernels::plan::Engine;

/// Where a context works.
#[repr(C)]
pub enum DeviceInC {
    /// The host's cores and memory.
    WTACRS_DEVICE_CPU = 0,
    /// An NVIDIA GPU of compute capability 8.0 or later, by the CUDA driver, which is loaded on first use.
    WTACRS_DEVICE_CUDA = 1,
    /// Reserved: makes the enumeration 32 bits wide.
    WTACRS_DEVICE_FORCE_32_BITS = 0x7fff_ffff,
}

/// The type of a matrix's elements.
#[repr(C)]
pub enum DtypeInC {
    /// IEEE 754 binary32.
    WTACRS_DTYPE_F32 = 0,
    /// IEEE 754 binary16.
    WTACRS_DTYPE_F16 = 1,
    /// The upper half of a binary32.
    WTACRS_DTYPE_BF16 = 2,
    /// IEEE 754 binary64, for references.
    WTACRS_DTYPE_F64 = 3,
    /// Reserved: makes the enumeration 32 bits wide.
    WTACRS_DTYPE_FORCE_32_BITS = 0x7fff_ffff,
}

/// The sampling design: the rule that turns weights and a budget into a selection.
#[repr(C)]
pub enum DesignInC {
    /// Equal probabilities, whatever the weights.
    WTACRS_DESIGN_UNIFORM = 0,
    /// Column-row sampling: independent draws in proportion to the weights.
    WTACRS_DESIGN_CRS = 1,
    /// The heaviest pairs and nothing else: biased.
    WTACRS_DESIGN_TOP_K = 2,
    /// Winners, and independent draws from the tail.
    WTACRS_DESIGN_WTA_IID = 3,
    /// Winners, and one draw from each stratum of the tail.
    WTACRS_DESIGN_WTA_STRATIFIED = 4,
    /// Winners, and distinct pairs of the tail by a tree of duels. The default.
    WTACRS_DESIGN_WTA_PIVOTAL = 5,
    /// Reserved: makes the enumeration 32 bits wide.
    WTACRS_DESIGN_FORCE_32_BITS = 0x7fff_ffff,
}

/// What the weights of a forward pass are made from, besides the norms of the rows of H.
#[repr(C)]
pub enum SourceInC {
    /// Nothing: weights are the norms of the rows of H.
    WTACRS_SOURCE_INPUT = 0,
    /// Norms of dZ that the caller passes, taken as they are.
    WTACRS_SOURCE_NORMS = 1,
    /// Norms of dZ from an earlier step, mixed with the input's; a negative norm is an unknown one.
    WTACRS_SOURCE_CACHED = 2,
    /// A norm predictor's guess from H. The default.
    WTACRS_SOURCE_PREDICTED = 3,
    /// Reserved: makes the enumeration 32 bits wide.
    WTACRS_SOURCE_FORCE_32_BITS = 0x7fff_ffff,
}

/// The unit of a budget.
#[repr(C)]
pub enum BudgetInC {
    /// A number of rows, at least one.
    WTACRS_BUDGET_ROWS = 0,
    /// A share of the rows, in (0, 1]: the nearest number of rows, at least one if there are any.
    WTACRS_BUDGET_FRACTION = 1,
    /// Every row: the gradient is exact.
    WTACRS_BUDGET_EXACT = 2,
    /// Reserved: makes the enumeration 32 bits wide.
    WTACRS_BUDGET_FORCE_32_BITS = 0x7fff_ffff,
}

/// How precisely matrices are multiplied.
#[repr(C)]
pub enum PrecisionInC {
    /// f32 matrices in f32 throughout, and bf16 in bf16 where that is faster. The default.
    WTACRS_PRECISION_F32 = 0,
    /// Both factors may be rounded to tf32 (10 bits after the point), with sums in f32.
    WTACRS_PRECISION_TF32 = 1,
    /// Every factor in the dtype of dW, whatever its own: nothing is rounded before it is multiplied.
    WTACRS_PRECISION_WIDE = 2,
    /// Reserved: makes the enumeration 32 bits wide.
    WTACRS_PRECISION_FORCE_32_BITS = 0x7fff_ffff,
}

/// Which program multiplies on a GPU.
#[repr(C)]
pub enum EngineInC {
    /// cuBLASLt where it is expected to be faster and can be loaded, and this library's kernels elsewhere. The default.
    WTACRS_ENGINE_AUTO = 0,
    /// This library's kernels: the same bits on every GPU of one kind, whatever else is installed.
    WTACRS_ENGINE_OWN = 1,
    /// cuBLASLt. Plans are refused where it cannot be loaded.
    WTACRS_ENGINE_CUBLASLT = 2,
    /// Reserved: makes the enumeration 32 bits wide.
    WTACRS_ENGINE_FORCE_32_BITS = 0x7fff_ffff,
}

/// How kept rows are saved: as they are, or packed in few bits an element without bias. A packed row adds a little noise: of
/// its square about 3e-5 at 8 bits, 0.01 at 4 and 0.25 at 2 on activations of transformers.
#[repr(C)]
pub enum PackingInC {
    /// Exact copies, in the input's dtype. The default.
    WTACRS_PACKING_NATIVE = 0,
    /// 8 bits an element.
    WTACRS_PACKING_BITS8 = 1,
    /// 4 bits an element: a quarter of bf16's bytes, and as much error as dropping 1 % of the rows.
    WTACRS_PACKING_BITS4 = 2,
    /// 2 bits an element.
    WTACRS_PACKING_BITS2 = 3,
    /// Reserved: makes the enumeration 32 bits wide.
    WTACRS_PACKING_FORCE_32_BITS = 0x7fff_ffff,
}

/// What a planner's budgets are to achieve.
#[repr(C)]
pub enum TargetInC {
    /// All layers together take at most a share of the bytes of their inputs.
    WTACRS_TARGET_MEMORY = 0,
    /// Estimates add at most a share of the variance that different batches make in the gradients.
    WTACRS_TARGET_NOISE = 1,
    /// Reserved: makes the enumeration 32 bits wide.
    WTACRS_TARGET_FORCE_32_BITS = 0x7fff_ffff,
}

/// One of the two gradients of C = A B.
#[repr(C)]
pub enum SideInC {
    /// The gradient of A, dA = G B^T, which sums over the columns of B.
    WTACRS_SIDE_LEFT = 0,
    /// The gradient of B, dB = A^T G, which sums over the rows of A.
    WTACRS_SIDE_RIGHT = 1,
    /// Reserved: makes the enumeration 32 bits wide.
    WTACRS_SIDE_FORCE_32_BITS = 0x7fff_ffff,
}

/// What an operator computes of an array of rows x columns.
#[repr(C)]
pub enum OperationInC {
    /// y = x: for dropout alone, or to pack an array that is read back by wtacrs_operator_plan_restore.
    WTACRS_OPERATION_IDENTITY = 0,
    /// max(x, 0).
    WTACRS_OPERATION_RELU = 1,
    /// x Phi(x), with the normal law Phi.
    WTACRS_OPERATION_GELU = 2,
    /// The approximation of GELU by tanh.
    WTACRS_OPERATION_GELU_TANH = 3,
    /// x / (1 + e^-x), also called Swish.
    WTACRS_OPERATION_SILU = 4,
    /// Of each row e^x over its sum.
    WTACRS_OPERATION_SOFTMAX = 5,
    /// Of each row (x - mean) / sqrt(variance + epsilon), times a weight, plus a bias.
    WTACRS_OPERATION_LAYER_NORM = 6,
    /// Of each row x / sqrt(mean of squares + epsilon), times a weight.
    WTACRS_OPERATION_RMS_NORM = 7,
    /// Reserved: makes the enumeration 32 bits wide.
    WTACRS_OPERATION_FORCE_32_BITS = 0x7fff_ffff,
}

/// Along which axis of a matrix norms are taken.
#[repr(C)]
pub enum AxisInC {
    /// A norm for each row.
    WTACRS_AXIS_ROWS = 0,
    /// A norm for each column.
    WTACRS_AXIS_COLUMNS = 1,
    /// Reserved: makes the enumeration 32 bits wide.
    WTACRS_AXIS_FORCE_32_BITS = 0x7fff_ffff,
}

/// The integers that functions receive, under the names that C uses.
macro_rules! integers {
    ($($enumeration:ident as $integer:ident { $($name:ident),* $(,)? })*) => {
        $(
            #[doc = concat!("A [`", stringify!($enumeration), "`] as an unchecked integer.")]
            pub type $integer = i32;
            $(
                #[doc = concat!("[`", stringify!($enumeration), "::", stringify!($name), "`] as an integer.")]
                pub const $name: $integer = $enumeration::$name as $integer;
            )*
        )*
    };
}

integers! {
    DeviceInC as wtacrs_device { WTACRS_DEVICE_CPU, WTACRS_DEVICE_CUDA }
    LogLevelInC as wtacrs_log_level { WTACRS_LOG_LEVEL_WARNING, WTACRS_LOG_LEVEL_ERROR }
    DtypeInC as wtacrs_dtype { WTACRS_DTYPE_F32, WTACRS_DTYPE_F16, WTACRS_DTYPE_BF16, WTACRS_DTYPE_F64 }
    DesignInC as wtacrs_design {
        WTACRS_DESIGN_UNIFORM, WTACRS_DESIGN_CRS, WTACRS_DESIGN_TOP_K, WTACRS_DESIGN_WTA_IID,
        WTACRS_DESIGN_WTA_STRATIFIED, WTACRS_DESIGN_WTA_PIVOTAL,
    }
    SourceInC as wtacrs_source {
        WTACRS_SOURCE_INPUT, WTACRS_SOURCE_NORMS, WTACRS_SOURCE_CACHED, WTACRS_SOURCE_PREDICTED,
    }
    BudgetInC as wtacrs_budget { WTACRS_BUDGET_ROWS, WTACRS_BUDGET_FRACTION, WTACRS_BUDGET_EXACT }
    PrecisionInC as wtacrs_precision { WTACRS_PRECISION_F32, WTACRS_PRECISION_TF32, WTACRS_PRECISION_WIDE }
    EngineInC as wtacrs_engine { WTACRS_ENGINE_AUTO, WTACRS_ENGINE_OWN, WTACRS_ENGINE_CUBLASLT }
    PackingInC as wtacrs_packing {
        WTACRS_PACKING_NATIVE, WTACRS_PACKING_BITS8, WTACRS_PACKING_BITS4, WTACRS_PACKING_BITS2,
    }
    TargetInC as wtacrs_target { WTACRS_TARGET_MEMORY, WTACRS_TARGET_NOISE }
    SideInC as wtacrs_side { WTACRS_SIDE_LEFT, WTACRS_SIDE_RIGHT }
    OperationInC as wtacrs_operation {
        WTACRS_OPERATION_IDENTITY, WTACRS_OPERATION_RELU, WTACRS_OPERATION_GELU, WTACRS_OPERATION_GELU_TANH,
        WTACRS_OPERATION_SILU, WTACRS_OPERATION_SOFTMAX, WTACRS_OPERATION_LAYER_NORM, WTACRS_OPERATION_RMS_NORM,
    }
    AxisInC as wtacrs_axis { WTACRS_AXIS_ROWS, WTACRS_AXIS_COLUMNS }
}

/// The type of a matrix's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dtype {
    F32,
    F16,
    Bf16,
    F64,
}

impl Dtype {
    /// All of them, by their numbers.
    pub(crate) const ALL: [Self; 4] = [Self::F32, Self::F16, Self::Bf16, Self::F64];

    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// What sums of products are taken in, and the only dtype that they are written in.
    pub(crate) fn accumulator(self) -> Self {
        if self == Self::F64 { Self::F64 } else { Self::F32 }
    }
}

/// What the weights of a forward pass are made from, besides the norms of H.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Input,
    Norms,
    Cached,
    Predicted,
}

/// How precisely matrices are multiplied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Precision {
    #[default]
    F32,
    Tf32,
    Wide,
}

impl Precision {
    /// What the CPU makes of it, which has no tf32.
    pub(crate) fn on_cpu(self) -> wtacrs_core::product::Precision {
        match self {
            Self::F32 | Self::Tf32 => wtacrs_core::product::Precision::Native,
            Self::Wide => wtacrs_core::product::Precision::Wide,
        }
    }
}

/// Along which axis norms are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Axis {
    Rows,
    Columns,
}

/// The unit of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BudgetUnit {
    Rows,
    Fraction,
    Exact,
}

pub(crate) fn budget(number: wtacrs_budget) -> Outcome<BudgetUnit> {
    one_of("the budget's unit", number, &[BudgetUnit::Rows, BudgetUnit::Fraction, BudgetUnit::Exact])
}

pub(crate) fn dtype(number: wtacrs_dtype) -> Outcome<Dtype> {
    one_of("dtype", number, &Dtype::ALL)
}

pub(crate) fn source(number: wtacrs_source) -> Outcome<Source> {
    one_of("source", number, &[Source::Input, Source::Norms, Source::Cached, Source::Predicted])
}

pub(crate) fn design(number: wtacrs_design) -> Outcome<BuiltIn> {
    one_of("design", number, &BuiltIn::ALL)
}

pub(crate) fn precision(number: wtacrs_precision) -> Outcome<Precision> {
    one_of("precision", number, &[Precision::F32, Precision::Tf32, Precision::Wide])
}

pub(crate) fn engine(number: wtacrs_engine) -> Outcome<Engine> {
    one_of("engine", number, &[Engine::Auto, Engine::Own, Engine::CublasLt])
}

/// The number that C knows an engine by.
pub(crate) fn number_of_engine(engine: Engine) -> wtacrs_engine {
    match engine {
        Engine::Own => WTACRS_ENGINE_OWN,
        Engine::CublasLt => WTACRS_ENGINE_CUBLASLT,
        _ => WTACRS_ENGINE_AUTO,
    }
}

pub(crate) fn packing(number: wtacrs_packing) -> Outcome<Packing> {
    one_of("packing", number, &Packing::ALL)
}

/// The number that C knows a packing by.
pub(crate) fn number_of(packing: Packing) -> wtacrs_packing {
    match packing {
        Packing::Native => WTACRS_PACKING_NATIVE,
        Packing::Bits8 => WTACRS_PACKING_BITS8,
        Packing::Bits4 => WTACRS_PACKING_BITS4,
        Packing::Bits2 => WTACRS_PACKING_BITS2,
    }
}

pub(crate) fn side(number: wtacrs_side) -> Outcome<Side> {
    one_of("side", number, &[Side::Left, Side::Right])
}

pub(crate) fn operation(number: wtacrs_operation) -> Outcome<Operation> {
    one_of("operation", number, &Operation::ALL)
}

pub(crate) fn axis(number: wtacrs_axis) -> Outcome<Axis> {
    one_of("axis", number, &[Axis::Rows, Axis::Columns])
}

/// The entry that a number from C stands for.
pub(crate) fn one_of<T: Copy>(what: &'static str, number: i32, entries: &[T]) -> Outcome<T> {
    let entry = usize::try_from(number).ok().and_then(|at| entries.get(at));
    entry.copied().ok_or_else(|| {
        let last = entries.len() - 1;
        Failure::new(WTACRS_STATUS_INVALID_ENUM, format!("{what} is {number}: it must lie between 0 and {last}"))
    })
}

/// What becomes of an output's old values.
pub(crate) fn update(accumulate: i32) -> Outcome<Update> {
    Ok(if one_of("accumulate", accumulate, &[false, true])? { Update::Accumulate } else { Update::Overwrite })
}
