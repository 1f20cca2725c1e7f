//! Handles of the C interface, and what the library should know about each: enough to give calls the memory they need.

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use std::ptr::without_provenance_mut;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Context,
    Layer,
    Plan,
    Cache,
    Predictor,
    TensorMul,
    TensorMulPlan,
    Operator,
    OperatorPlan,
}

/// Which handle an argument is.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Pick(u8);

impl Pick {
    /// The oldest that is right.
    pub const FIRST: Self = Self(0);
}

/// What a handle stands for. Shapes of layers: tokens, in_features, out_features; of batched products: batch, heads,
/// rows, inner, columns; of caches: samples, tokens of each; of predictors: in_features; of operators: rows, columns.
/// Dtypes: H, dZ, dW; operands, gradient.
#[derive(Clone, Copy, Debug, Default)]
pub struct Model {
    pub shape: [usize; 5],
    pub dtypes: [i32; 3],
    pub source: i32,
    /// Whether a layer's budget is every row, so that its plans ignore the source.
    pub is_exact: bool,
    /// Whether kept rows of a layer are packed.
    pub is_packed: bool,
    /// Whether a plan packs all rows: then it needs no guess, and chooses nothing.
    pub keeps_all: bool,
    /// What an operator computes.
    pub operation: i32,
    pub is_gated: bool,
    /// Whether its backward pass must be given x, the gate and y.
    pub keeps: [bool; 3],
    /// Whether its plan writes y again.
    pub restores: bool,
    pub saved: usize,
    pub backward_scratch: usize,
    pub estimate_scratch: usize,
    pub gradient_scratch: usize,
}

pub struct Handle {
    pub kind: Kind,
    pub address: usize,
    pub alive: bool,
    pub model: Model,
}

impl Handle {
    pub fn chosen(&self) -> Chosen {
        Chosen { address: self.address, known: None }
    }
}

#[derive(Default)]
pub struct Handles(pub Vec<Handle>);

/// A handle as an argument: its address, and its place in the list if it is alive and of the kind asked for.
#[derive(Clone, Copy, Debug)]
pub struct Chosen {
    address: usize,
    pub known: Option<usize>,
}

impl Chosen {
    pub fn pointer<H>(self) -> *mut H {
        without_provenance_mut(self.address)
    }

    pub fn is_null(self) -> bool {
        self.address == 0
    }
}

impl Handles {
    pub fn add<H>(&mut self, kind: Kind, pointer: *mut H, model: Model) {
        let address = pointer.addr();
        assert!(address != 0 && self.0.iter().all(|handle| handle.address != address), "a handle given twice");
        self.0.push(Handle { kind, address, alive: true, model });
    }

    /// Mostly one that is right; or any, living or destroyed; or NULL; or a number that was never given.
    pub fn choose(&self, pick: Pick, kind: Kind) -> Chosen {
        let right = |handle: &Handle| handle.alive && handle.kind == kind;
        let fitting: Vec<usize> = (0..self.0.len()).filter(|&at| right(&self.0[at])).collect();
        let number = usize::from(pick.0);
        let at = match number {
            0..208 if !fitting.is_empty() => Some(fitting[number % fitting.len()]),
            0..240 if !self.0.is_empty() => Some(number % self.0.len()),
            _ => None,
        };
        match (at, number) {
            (Some(at), _) => Chosen { address: self.0[at].address, known: Some(at).filter(|&at| right(&self.0[at])) },
            (None, 240..248) => Chosen { address: usize::MAX - number, known: None },
            _ => Chosen { address: 0, known: None },
        }
    }

    /// What is known of a handle; of one that is not right, anything small.
    pub fn model(&self, chosen: Chosen) -> Model {
        chosen.known.map_or(Model::default(), |at| self.0[at].model)
    }
}

/// A size: mostly small, sometimes absurd.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Size(u8);

/// Beyond it a size is one of the absurd ones.
pub const SMALL: usize = 16;

impl Size {
    pub const FEW: Self = Self(4);
    /// usize::MAX, which some functions take for "no bound".
    pub const MOST: Self = Self(255);

    pub fn get(self) -> usize {
        const ABSURD: [usize; 8] =
            [1 << 24, u32::MAX as usize, 1 << 32, 1 << 40, 1 << 61, isize::MAX as usize, usize::MAX - 1, usize::MAX];
        match usize::from(self.0) {
            at @ 248.. => ABSURD[at - 248],
            small => small % (SMALL + 1),
        }
    }
}

pub fn bytes_of(dtype: i32) -> usize {
    [4, 2, 2, 8].get(dtype as usize).copied().unwrap_or(4)
}

/// Bytes from the first to the last element of rows that lie `leading` elements apart; too many to have are usize::MAX.
pub fn extent(rows: usize, columns: usize, leading: usize, element: usize) -> usize {
    if rows == 0 || columns == 0 {
        return 0;
    }
    let elements = (rows - 1).checked_mul(leading).and_then(|before| before.checked_add(columns));
    elements.and_then(|count| count.checked_mul(element)).unwrap_or(usize::MAX)
}
