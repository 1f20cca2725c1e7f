//! The mistakes that a kernel can make, each reported with its block, its threads and its place in the source.

use std::fmt;
use std::panic::Location;

/// A place in the source where an operation was called.
#[derive(Clone, Copy, Eq)]
pub struct Place(pub &'static Location<'static>);

impl PartialEq for Place {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        // One place may have several locations, but mostly has one.
        std::ptr::eq(self.0, other.0) || self.0 == other.0
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The thread that made a mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Culprit {
    /// Its block.
    pub block: [u32; 3],
    /// Its index in the block.
    pub thread: u32,
    /// Where the call is.
    pub place: Place,
}

impl fmt::Display for Culprit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { block, thread, place } = self;
        write!(f, "{}, thread {thread} (warp {}, lane {}), at {place}", named(*block), thread / 32, thread % 32)
    }
}

/// An operation that threads do together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "named after the functions")]
pub enum Operation {
    WarpBarrier,
    Shuffle,
    ShuffleXor,
    ShuffleUp,
    ShuffleDown,
    Ballot,
    ReduceAdd,
    ReduceMin,
    ReduceMax,
    ReduceOr,
    LoadX4,
    LoadX4Transposed,
    LoadX2,
    LoadX2Transposed,
    MmaBf16,
    MmaF16,
    MmaTf32,
}

impl Operation {
    /// Whether PTX calls it `.aligned`: all lanes of the warp must be at one instruction, not at several of the same kind.
    #[inline(always)]
    pub(super) fn is_aligned(self) -> bool {
        use Operation::*;
        matches!(self, LoadX4 | LoadX4Transposed | LoadX2 | LoadX2Transposed | MmaBf16 | MmaF16 | MmaTf32)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WarpBarrier => "warp_barrier",
            Self::Shuffle => "shuffle",
            Self::ShuffleXor => "shuffle_xor",
            Self::ShuffleUp => "shuffle_up",
            Self::ShuffleDown => "shuffle_down",
            Self::Ballot => "ballot",
            Self::ReduceAdd => "reduce_add",
            Self::ReduceMin => "reduce_min",
            Self::ReduceMax => "reduce_max",
            Self::ReduceOr => "reduce_or",
            Self::LoadX4 => "load_x4",
            Self::LoadX4Transposed => "load_x4_transposed",
            Self::LoadX2 => "load_x2",
            Self::LoadX2Transposed => "load_x2_transposed",
            Self::MmaBf16 => "mma_bf16",
            Self::MmaF16 => "mma_f16",
            Self::MmaTf32 => "mma_tf32",
        })
    }
}

/// What threads that cannot go on are doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Activity {
    /// They wait at a barrier.
    Barrier(Place),
    /// They wait for the lanes of a mask.
    Collective(Operation, u32, Place),
    /// They wait for another block.
    Spinning(Place),
    /// They have ended.
    Finished,
}

impl fmt::Display for Activity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Barrier(place) => write!(f, "at barrier, {place}"),
            Self::Collective(operation, mask, place) => write!(f, "at {operation} with mask {mask:#010x}, {place}"),
            Self::Spinning(place) => write!(f, "at spin, {place}"),
            Self::Finished => f.write_str("finished"),
        }
    }
}

/// Threads of a block that are doing the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadGroup {
    /// Their indices in the block, ascending.
    pub threads: Vec<u32>,
    /// What they are doing.
    pub activity: Activity,
}

impl fmt::Display for ThreadGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", Ranges(&self.threads), self.activity)
    }
}

/// `threads 0-31, 40`.
struct Ranges<'a>(&'a [u32]);

impl fmt::Display for Ranges<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.len() == 1 { "thread" } else { "threads" })?;
        let runs = self.0.chunk_by(|a, b| a + 1 == *b);
        for (i, run) in runs.enumerate() {
            f.write_str(if i == 0 { " " } else { ", " })?;
            match *run {
                [only] => write!(f, "{only}")?,
                [first, .., last] => write!(f, "{first}-{last}")?,
                [] => {}
            }
        }
        Ok(())
    }
}

fn named([x, y, z]: [u32; 3]) -> String {
    format!("block ({x}, {y}, {z})")
}

fn listed(groups: &[ThreadGroup]) -> String {
    let each: Vec<_> = groups.iter().map(ThreadGroup::to_string).collect();
    each.join("; ")
}

/// How a lane mask is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MaskMisuse {
    /// The calling lane is not in it.
    #[error("the caller is not in the mask {mask:#010x}")]
    CallerMissing {
        /// The mask.
        mask: u32,
    },
    /// A lane of it has ended.
    #[error("the mask {mask:#010x} names lane {lane}, which has finished")]
    LaneFinished {
        /// The mask.
        mask: u32,
        /// The lane.
        lane: u32,
    },
    /// Two lanes name each other in masks that differ.
    #[error("the masks differ: {mask:#010x} here, {other:#010x} in lane {lane}")]
    Different {
        /// The culprit's mask.
        mask: u32,
        /// The other lane.
        lane: u32,
        /// Its mask.
        other: u32,
    },
    /// A shuffle reads from a lane that does not take part.
    #[error("the source lane {lane} is not in the mask {mask:#010x}")]
    SourceMissing {
        /// The mask.
        mask: u32,
        /// The source.
        lane: u32,
    },
    /// A shuffle's distance is 32 or more.
    #[error("the distance {distance} is not below 32")]
    Distance {
        /// The distance.
        distance: u32,
    },
}

/// A mistake of a kernel, or of its launch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// No GPU accepts such a launch.
    #[error("a launch cannot have {0}")]
    Shape(String),
    /// The machine has no memory for so many threads.
    #[error("no stacks for {threads} threads: {reason}")]
    Stacks {
        /// How many are needed at once.
        threads: u64,
        /// The system's error.
        reason: String,
    },
    /// Not all threads of a block come to the same barrier.
    #[error("{}: threads part at a barrier: {}", named(*block), listed(groups))]
    BarrierDivergence {
        /// The block.
        block: [u32; 3],
        /// Which threads wait where.
        groups: Vec<ThreadGroup>,
    },
    /// Not all lanes of a mask come to the same operation, or to the same place if it is a matrix unit's.
    #[error("{}: lanes part at a warp's operation: {}", named(*block), listed(groups))]
    WarpDivergence {
        /// The block.
        block: [u32; 3],
        /// Which threads wait where.
        groups: Vec<ThreadGroup>,
    },
    /// No thread can go on, or all that can wait for a change that no thread will make.
    #[error("{}: deadlock: {}", named(*block), listed(groups))]
    Deadlock {
        /// The block.
        block: [u32; 3],
        /// Which threads wait where.
        groups: Vec<ThreadGroup>,
    },
    /// A lane mask that is wrong.
    #[error("{culprit}: {operation}: {misuse}")]
    LaneMask {
        /// The caller.
        culprit: Culprit,
        /// The operation.
        operation: Operation,
        /// What is wrong with the mask.
        misuse: MaskMisuse,
    },
    /// An access outside of its window, or of the launch's shared memory.
    #[error("{culprit}: {bytes} bytes at {offset} of shared memory pass its end at {end}")]
    OutOfBounds {
        /// The thread that accesses.
        culprit: Culprit,
        /// From the block's first byte; negative before it.
        offset: i64,
        /// Bytes of the access.
        bytes: u32,
        /// The end of the window, or of the launch's bytes.
        end: u32,
    },
    /// An access at an address that its size does not divide.
    #[error("{culprit}: address {address:#x} is not a multiple of {alignment}")]
    Misaligned {
        /// The thread that accesses.
        culprit: Culprit,
        /// In global memory; from the block's first byte in shared memory.
        address: u64,
        /// The number that must divide it.
        alignment: u32,
    },
    /// An access through a null pointer.
    #[error("{culprit}: null pointer")]
    Null {
        /// The thread that accesses.
        culprit: Culprit,
    },
    /// An access to shared bytes while a copy into them has not landed.
    #[error("{culprit}: byte {offset} of shared memory awaits a copy of thread {issuer}, issued at {issued}")]
    InFlight {
        /// The thread that accesses.
        culprit: Culprit,
        /// From the block's first byte.
        offset: u32,
        /// The thread that has not waited for its copy.
        issuer: u32,
        /// Where it issued the copy.
        issued: Place,
    },
    /// A thread ends before its copies have landed.
    #[error("{culprit}: the thread ends and does not wait for this copy")]
    CopyAbandoned {
        /// The thread that copies.
        culprit: Culprit,
    },
    /// A copy of a size that no instruction has.
    #[error("{culprit}: a copy of {bytes} bytes, {valid} of them valid")]
    CopySize {
        /// The thread that copies.
        culprit: Culprit,
        /// Its bytes.
        bytes: u32,
        /// How many of them come from memory.
        valid: u32,
    },
    /// A read of shared memory that no thread has written.
    #[error("{culprit}: byte {offset} of shared memory was never written")]
    Unwritten {
        /// The thread that accesses.
        culprit: Culprit,
        /// From the block's first byte.
        offset: u32,
    },
    /// Accesses of two threads to the same shared bytes, at least one a write, with no barrier between.
    #[error("{culprit}: byte {offset} of shared memory, {how}, with no barrier between")]
    Race {
        /// The thread whose access came second.
        culprit: Culprit,
        /// From the block's first byte.
        offset: u32,
        /// The other thread.
        other: u32,
        /// The two accesses.
        how: String,
    },
    /// Accesses of two threads to the same bytes of global memory, at least one a write, with nothing to order them: no
    /// barrier between threads of a block, no release and acquire between blocks.
    #[error("{culprit}: address {address:#x} of global memory, {how}, with nothing to order the two")]
    GlobalRace {
        /// The thread whose access came second.
        culprit: Culprit,
        /// The first byte of its access.
        address: u64,
        /// The other thread.
        other: Culprit,
        /// The two accesses.
        how: String,
    },
    /// A load by the read-only path of memory that the launch has written.
    #[error("{culprit}: address {address:#x} is read by the read-only path, and was written by {writer}")]
    NotConstant {
        /// The thread that loads.
        culprit: Culprit,
        /// The first byte of its access.
        address: u64,
        /// The thread that wrote.
        writer: Culprit,
    },
    /// A write to the source of a copy that has not landed.
    #[error("{culprit}: address {address:#x} is written while a copy from there is under way, issued by {issuer}")]
    CopySource {
        /// The thread that writes.
        culprit: Culprit,
        /// The first byte of its access.
        address: u64,
        /// The thread that copies.
        issuer: Culprit,
    },
    /// A wait for another block in a launch that does not keep all blocks resident; or an endless wait without
    /// [`spin`](crate::sync::spin) while no other thread changes anything.
    #[error("{culprit}: spins in a launch that is not cooperative, or for ever")]
    Spin {
        /// The caller.
        culprit: Culprit,
    },
    /// The kernel ended itself with an error.
    #[error("{culprit}: trap")]
    Trap {
        /// The caller.
        culprit: Culprit,
    },
    /// The kernel panicked.
    #[error("{}, thread {thread}: panic: {message}", named(*block))]
    Panic {
        /// The block.
        block: [u32; 3],
        /// The thread.
        thread: u32,
        /// The panic's message.
        message: String,
    },
}
