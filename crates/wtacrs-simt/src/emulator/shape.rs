//! The shape of a launch, and what a launch counts.

use super::fault::Fault;

/// Shared memory of a block on the largest GPUs of today.
const SHARED_MOST: u32 = 227 * 1024;

/// The shape of a launch, and the order in which its threads run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Blocks: x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block: a multiple of 32, at most 1024.
    pub block: u32,
    /// Dynamic shared memory of a block, in bytes.
    pub shared_bytes: u32,
    /// Whether blocks wait for one another, so that all of them must be resident at once.
    pub cooperative: bool,
    /// The seed of the order in which ready threads run; 0 is the order of their indices.
    pub seed: u64,
}

impl Launch {
    /// Refuses shapes that no GPU accepts.
    pub(super) fn check(&self) -> Result<(), Fault> {
        let Self { grid: [x, y, z], block, shared_bytes, .. } = *self;
        let wrong = if x == 0 || y == 0 || z == 0 || x > i32::MAX as u32 || y > 65_535 || z > 65_535 {
            format!("a grid of {x} × {y} × {z} blocks")
        } else if block == 0 || block % 32 != 0 || block > 1024 {
            format!("{block} threads in a block")
        } else if shared_bytes > SHARED_MOST {
            format!("{shared_bytes} bytes of shared memory in a block")
        } else {
            return Ok(());
        };
        Err(Fault::Shape(wrong))
    }

    /// How many blocks the grid has.
    pub(super) fn blocks(&self) -> u64 {
        self.grid.into_iter().map(u64::from).product()
    }
}

/// Block `i` of a grid as x, y, z.
pub(super) fn block_index(grid: [u32; 3], i: u64) -> [u32; 3] {
    let [x, y, _] = grid.map(u64::from);
    [(i % x) as u32, (i / x % y) as u32, (i / (x * y)) as u32]
}

/// Operations of a launch's blocks that take time on every GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Barriers of the block with the most.
    pub barriers: u64,
}
