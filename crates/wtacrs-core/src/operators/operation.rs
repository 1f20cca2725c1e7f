//! What an operator computes, its settings, and what the caller keeps for its backward pass.

use crate::product::Packing;
use wtacrs_exact::operators::dropout::{self, Mask};

/// What an operator computes of an array of rows × columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// y = x: for dropout alone, or to pack an array that is read back later.
    Identity,
    /// max(x, 0).
    Relu,
    /// x Φ(x), with the normal law Φ.
    Gelu,
    /// The approximation of GELU by tanh.
    GeluTanh,
    /// x σ(x).
    Silu,
    /// Of each row e^x over its sum.
    Softmax,
    /// Of each row (x − mean)/√(variance + ε), times a weight, plus a bias.
    LayerNorm,
    /// Of each row x/√(mean of squares + ε), times a weight.
    RmsNorm,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Identity,
        Self::Relu,
        Self::Gelu,
        Self::GeluTanh,
        Self::Silu,
        Self::Softmax,
        Self::LayerNorm,
        Self::RmsNorm,
    ];

    /// Whether it is an activation function, which may be gated.
    #[inline]
    pub const fn is_activation(self) -> bool {
        matches!(self, Self::Relu | Self::Gelu | Self::GeluTanh | Self::Silu)
    }

    /// Whether it is a norm, with a weight and an ε.
    #[inline]
    pub const fn is_norm(self) -> bool {
        matches!(self, Self::LayerNorm | Self::RmsNorm)
    }
}

/// An operation, how its saved part is packed, and the dropout that follows it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Operator {
    operation: Operation,
    gated: bool,
    packing: Packing,
    mask: Mask,
    epsilon: f32,
}

/// Which arrays the caller keeps for the backward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keeps {
    /// x.
    pub input: bool,
    /// The gate.
    pub gate: bool,
    /// y.
    pub output: bool,
}

/// Why an operator, or one of its passes, is refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum OperatorError {
    /// The operation has no gate.
    #[error("{operation:?} cannot be gated: only activation functions can")]
    NotGated {
        /// The operation.
        operation: Operation,
    },
    /// Dropout's probability is not in [0, 1).
    #[error("a dropout probability of {probability}: it is at least 0 and below 1")]
    Dropout {
        /// What was given.
        probability: f64,
    },
    /// ε is negative or not finite.
    #[error("an epsilon of {epsilon}: it is finite and not negative")]
    Epsilon {
        /// What was given.
        epsilon: f64,
    },
    /// A native softmax keeps its output, which dropout would change.
    #[error("a native softmax keeps its output, which dropout changes: pack it, or drop out by an operator of its own")]
    SoftmaxDropout,
    /// An operand has another number of elements.
    #[error("{operand} has {given} elements where {needed} are needed")]
    Size {
        /// The operand.
        operand: &'static str,
        /// How many it has.
        given: usize,
        /// How many there should be.
        needed: usize,
    },
    /// An operand is missing.
    #[error("{operand} is missing, which the operator needs")]
    Missing {
        /// The operand.
        operand: &'static str,
    },
    /// An operand has no meaning for the operator.
    #[error("{operand} was given, which the operator does not have")]
    Unused {
        /// The operand.
        operand: &'static str,
    },
    /// The operator saves nothing that its output could be restored from.
    #[error("the output cannot be restored: only a packed identity or softmax can be")]
    NotRestored,
}

impl Operator {
    /// An operation with native saved parts and without dropout. A norm's ε is 10⁻⁵.
    pub const fn new(operation: Operation) -> Self {
        Self { operation, gated: false, packing: Packing::Native, mask: Mask::NONE, epsilon: 1e-5 }
    }

    /// Every operation, gated where it can be, in every packing, without dropout.
    pub fn all() -> impl Iterator<Item = Self> {
        let packed = |operation| Packing::ALL.map(|packing| Self::new(operation).with_packing(packing));
        let plain_and_gated = |plain: Self| [Some(plain), plain.gated().ok()];
        Operation::ALL.into_iter().flat_map(packed).flat_map(plain_and_gated).flatten()
    }

    /// act(x) · gate.
    ///
    /// # Errors
    ///
    /// If the operation is not an activation function.
    pub const fn gated(self) -> Result<Self, OperatorError> {
        if !self.operation.is_activation() {
            return Err(OperatorError::NotGated { operation: self.operation });
        }
        Ok(Self { gated: true, ..self })
    }

    /// How what is saved is packed.
    #[must_use]
    pub const fn with_packing(self, packing: Packing) -> Self {
        Self { packing, ..self }
    }

    /// Dropout of the output: an element becomes 0 with this probability, rounded to a multiple of 2⁻³². The others are divided by
    /// the probability that they are kept.
    ///
    /// # Errors
    ///
    /// If the probability is not in [0, 1).
    pub fn with_dropout(self, probability: f64) -> Result<Self, OperatorError> {
        let mask = Mask::new(probability).ok_or(OperatorError::Dropout { probability })?;
        Ok(Self { mask, ..self })
    }

    /// A norm's ε.
    ///
    /// # Errors
    ///
    /// If it is negative or not finite.
    pub fn with_epsilon(self, epsilon: f64) -> Result<Self, OperatorError> {
        if !(epsilon >= 0.0 && (epsilon as f32).is_finite()) {
            return Err(OperatorError::Epsilon { epsilon });
        }
        Ok(Self { epsilon: epsilon as f32, ..self })
    }

    /// Checks that the settings go together, as forward and backward passes do.
    ///
    /// # Errors
    ///
    /// For a native softmax with dropout.
    pub const fn check(&self) -> Result<(), OperatorError> {
        if matches!((self.operation, self.packing), (Operation::Softmax, Packing::Native)) && self.mask.drops() {
            return Err(OperatorError::SoftmaxDropout);
        }
        Ok(())
    }

    /// The operation.
    #[inline]
    pub const fn operation(&self) -> Operation {
        self.operation
    }

    /// Whether the output is multiplied by a gate.
    #[inline]
    pub const fn is_gated(&self) -> bool {
        self.gated
    }

    /// How what is saved is packed.
    #[inline]
    pub const fn packing(&self) -> Packing {
        self.packing
    }

    /// Which elements of the output dropout keeps.
    #[inline]
    pub const fn mask(&self) -> Mask {
        self.mask
    }

    /// A norm's ε.
    #[inline]
    pub const fn epsilon(&self) -> f32 {
        self.epsilon
    }

    /// Which of x, the gate and y the backward pass requires.
    pub const fn keeps(&self) -> Keeps {
        let native = matches!(self.packing, Packing::Native);
        let reads = native && !self.saves_signs();
        Keeps {
            input: reads && (self.operation.is_activation() || self.operation.is_norm()),
            gate: reads && self.gated,
            output: reads && matches!(self.operation, Operation::Softmax),
        }
    }

    /// Whether a bit an element is saved, in every packing: whether x is above 0.
    #[inline]
    pub const fn saves_signs(&self) -> bool {
        matches!(self.operation, Operation::Relu) && !self.gated
    }

    /// Whether y can be restored from what is saved.
    #[inline]
    pub const fn restores(&self) -> bool {
        self.packing.is_packed() && matches!(self.operation, Operation::Identity | Operation::Softmax)
    }

    /// How many blocks of random bits a forward pass uses at most. The next one begins at an offset that is larger by this number.
    pub const fn draws(&self, shape: [usize; 2]) -> u64 {
        let [rows, columns] = shape;
        let dithers = if self.packing.is_packed() && !self.saves_signs() { rows as u64 } else { 0 };
        let masks = if self.mask.drops() { rows as u64 * dropout::blocks(columns) } else { 0 };
        if dithers > masks { dithers } else { masks }
    }
}
