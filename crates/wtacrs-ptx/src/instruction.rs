//! A kernel's instructions, as reading leaves them.

/// One kernel.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Of its one parameter.
    pub(crate) parameter_bytes: usize,
    /// The most threads that a block may have, where the text limits them.
    pub(crate) most_threads: u32,
    pub(crate) registers: u32,
    pub(crate) instructions: Vec<Instruction>,
}

/// One instruction. Registers of all kinds are numbered together. Each holds 64 bits, of which the type's lowest ones count.
#[derive(Debug)]
pub(crate) struct Instruction {
    /// A predicate register, and the value without which the instruction does nothing.
    pub(crate) guard: Option<(u32, bool)>,
    pub(crate) operation: Operation,
    /// The registers that it writes.
    pub(crate) to: Vec<u32>,
    /// The operands that it reads; of a vector, one element after another.
    pub(crate) from: Vec<Operand>,
    /// Of the text, from 1.
    pub(crate) line: u32,
}

/// An operand that is read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operand {
    Register(u32),
    Constant(u64),
    /// A register and a number of bytes: an address.
    Sum(u32, i64),
    Special(Special),
}

/// A special register.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Special {
    Thread,
    BlockThreads,
    Lane,
    Block(u8),
    Grid(u8),
    /// An index or a size in a dimension that blocks do not have.
    Nothing(u32),
}

/// How many bits of a register count, and what they mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Predicate,
    Unsigned(u32),
    Signed(u32),
    F16,
    Bf16,
    Tf32,
    F32,
    F64,
}

impl Type {
    pub(crate) fn bits(self) -> u32 {
        match self {
            Self::Predicate => 1,
            Self::Unsigned(bits) | Self::Signed(bits) => bits,
            Self::F16 | Self::Bf16 => 16,
            Self::Tf32 | Self::F32 => 32,
            Self::F64 => 64,
        }
    }
}

/// What an instruction does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operation {
    Move,
    /// Cuts a register into parts, or puts one together: `mov` with a vector of so many bits an element.
    Cut(u32),
    Join(u32),
    Compute(Compute, Type),
    /// Addition or subtraction of several words: whether the carry goes in, and whether it comes out.
    Carry {
        subtract: bool,
        carry_in: bool,
        carry_out: bool,
        bits: u32,
    },
    Compare(Compare, Type),
    Select(u32),
    Convert {
        to: Type,
        from: Type,
        towards_zero: bool,
    },
    /// Two f32, the upper half first, to a word of two of this type.
    ConvertPair(Type),
    Parameter {
        bytes: u32,
    },
    Load(Space, Access),
    Store(Space, Access),
    Atomic(Space, Atomic, u32),
    LoadRelaxed(u32),
    LoadAcquire(u32),
    StoreRelaxed(u32),
    StoreRelease(u32),
    Fence,
    Nap,
    Branch(u32),
    Return,
    Trap,
    Barrier,
    WarpBarrier,
    Shuffle(Shuffle),
    Vote(Vote),
    Reduce(Reduce),
    Copy {
        bytes: u32,
    },
    CommitCopies,
    WaitForCopies {
        pending: u32,
    },
    LoadMatrix {
        matrices: u32,
        transposed: bool,
    },
    Multiply(Multiply),
}

/// One result of up to three numbers of a type.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Compute {
    Add,
    Subtract,
    /// The product's lower half, or all of a float's.
    Multiply,
    MultiplyHigh,
    /// All of an integer product, of twice the type's bits.
    MultiplyWide,
    MultiplyAdd,
    MultiplyAddWide,
    Divide,
    Remainder,
    Least,
    Greatest,
    Absolute,
    Negative,
    Root,
    Reciprocal,
    And,
    Or,
    Xor,
    Not,
    Left,
    Right,
    Ones,
    LeadingZeros,
    Field,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Compare {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// From here on a comparison with a NaN holds: `setp.geu` is the opposite of `setp.lt`.
    NotEqualOrNan,
    NotLess,
    NotLessOrEqual,
    NotGreater,
    NotGreaterOrEqual,
    EqualOrNan,
    Nan,
    Number,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Space {
    Global,
    /// Global memory that the launch does not write.
    Constant,
    Shared,
}

/// So many elements of so many bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access {
    pub(crate) elements: u32,
    pub(crate) bytes: u32,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Atomic {
    Add,
    Least,
    Greatest,
    Or,
    Exchange,
    CompareExchange,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Shuffle {
    Butterfly,
    Up,
    Down,
    Index,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Vote {
    Ballot,
    Any,
    All,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Reduce {
    Add,
    Least,
    Greatest,
    Or,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Multiply {
    Bf16,
    F16,
    Tf32,
}
