//! What a pass reads and writes.

/// The array that a pass reads and the array that it writes, which may be the same.
#[derive(Debug)]
pub enum InOut<'a, T> {
    /// Two arrays.
    Apart {
        /// The array that is read.
        from: &'a [T],
        /// The array that is written.
        to: &'a mut [T],
    },
    /// One array, whose elements are replaced.
    InPlace(&'a mut [T]),
    /// Nothing is written: a forward pass that only saves.
    Read(&'a [T]),
}

impl<T> InOut<'_, T> {
    /// The elements that are read.
    pub fn read(&self) -> &[T] {
        match self {
            Self::Apart { from, .. } | Self::Read(from) => from,
            Self::InPlace(data) => data,
        }
    }
}

/// What a forward pass reads and writes: dense arrays of rows × columns, and a norm's weight and bias.
#[derive(Debug)]
pub struct Forward<'a, T> {
    /// x → y.
    pub x: InOut<'a, T>,
    /// What a gated operator multiplies by, which requires it.
    pub gate: Option<&'a [T]>,
    /// A norm's weight, one for each column; without it 1.
    pub weight: Option<&'a [f32]>,
    /// A layer norm's bias, one for each column; without it 0.
    pub bias: Option<&'a [f32]>,
}

impl<'a, T> Forward<'a, T> {
    /// x → y alone.
    pub const fn new(x: InOut<'a, T>) -> Self {
        Self { x, gate: None, weight: None, bias: None }
    }
}

/// What a backward pass reads and writes: dense arrays of rows × columns, and a norm's weight with the gradients of weight and bias.
#[derive(Debug)]
pub struct Backward<'a, T> {
    /// dY → dX.
    pub dy: InOut<'a, T>,
    /// x, where [`Keeps::input`](super::Keeps::input) is true.
    pub x: Option<&'a [T]>,
    /// The gate, where [`Keeps::gate`](super::Keeps::gate) is true.
    pub gate: Option<&'a [T]>,
    /// y, where [`Keeps::output`](super::Keeps::output) is true.
    pub y: Option<&'a [T]>,
    /// A norm's weight, if the forward pass had one.
    pub weight: Option<&'a [f32]>,
    /// Receives the gate's gradient, which a gated operator requires.
    pub dgate: Option<&'a mut [T]>,
    /// Receives the gradient of a norm's weight.
    pub dweight: Option<&'a mut [f32]>,
    /// Receives the gradient of a layer norm's bias.
    pub dbias: Option<&'a mut [f32]>,
}

impl<'a, T> Backward<'a, T> {
    /// dY → dX alone.
    pub const fn new(dy: InOut<'a, T>) -> Self {
        Self { dy, x: None, gate: None, y: None, weight: None, dgate: None, dweight: None, dbias: None }
    }
}
