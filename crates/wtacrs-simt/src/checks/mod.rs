//! One small kernel for every group of intrinsics, with its input and its expected output. The same kernels run on the
//! emulator and, as entry points of PTX, on a GPU, and must write the same bits.
//!
//! Inputs avoid results on which the two need not agree: NaNs, and sums of floats whose order matters.

mod atomics;
mod branches;
mod buffers;
mod conversions;
mod copies;
mod loads;
mod products;
mod threads;
mod warps;

pub use self::buffers::Args;

crate::shared_memory!();

/// A kernel, its launch, its input, and its expected output.
#[cfg(not(target_arch = "nvptx64"))]
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// The entry point's name in the PTX.
    pub name: &'static str,
    /// To be run by every thread of the launch.
    pub body: unsafe fn(&Args),
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: u32,
    /// Shared memory of a block.
    pub shared_bytes: u32,
    /// Whether blocks wait for one another.
    pub cooperative: bool,
    /// What [`Args::input`] leads to.
    pub input: fn() -> Vec<u32>,
    /// From the input, by plain loops.
    pub expected: fn(&[u32]) -> Vec<u32>,
}

macro_rules! checks {
    ($($entry:ident = $module:ident::$body:ident, $input:ident, $expected:ident,
        $grid:expr, $block:expr, $shared_bytes:expr, $cooperative:expr;)*) => {
        #[cfg(target_arch = "nvptx64")]
        mod entry {
            use super::*;
            $(
                #[unsafe(no_mangle)]
                unsafe extern "ptx-kernel" fn $entry(args: Args) {
                    // SAFETY: the launch passes input and output as the check describes them.
                    unsafe { $module::$body(&args) }
                }
            )*
        }

        /// All checks.
        #[cfg(not(target_arch = "nvptx64"))]
        pub const ALL: &[Check] = &[$(Check {
            name: stringify!($entry),
            body: $module::$body,
            grid: $grid,
            block: $block,
            shared_bytes: $shared_bytes,
            cooperative: $cooperative,
            input: $module::$input,
            expected: $module::$expected,
        }),*];
    };
}

checks! {
    check_indices = threads::indices, no_input, indices_expected, [2, 3, 2], 64, 0, false;
    check_barriers = threads::barriers, no_input, barriers_expected, [2, 1, 1], 1024, 8192, false;
    check_warp_barriers = threads::warp_barriers, no_input, warp_barriers_expected, [1, 1, 1], 64, 256, false;
    check_waiting_blocks = threads::waiting_blocks, no_input, waiting_blocks_expected, [4, 1, 1], 32, 0, true;
    check_polling_blocks = threads::polling_blocks, no_input, polling_blocks_expected, [4, 1, 1], 32, 0, true;
    check_last_block = threads::last_block, no_input, last_block_expected, [8, 1, 1], 64, 16, false;
    check_between_branches = branches::between_branches, branches_input, between_branches_expected, [1, 1, 1], 64, 1024, false;
    check_loads = loads::loads, loads_input, loads_expected, [1, 1, 1], 32, 0, false;
    check_windows = loads::windows, loads_input, windows_expected, [1, 1, 1], 32, 2048, false;
    check_shuffles = warps::shuffles, shuffles_input, shuffles_expected, [1, 1, 1], 64, 0, false;
    check_part_shuffles = warps::part_shuffles, shuffles_input, part_shuffles_expected, [1, 1, 1], 32, 0, false;
    check_votes = warps::votes, shuffles_input, votes_expected, [1, 1, 1], 64, 0, false;
    check_reductions = warps::reductions, shuffles_input, reductions_expected, [1, 1, 1], 64, 0, false;
    check_atomics = atomics::global, numbers, global_expected, [1, 1, 1], 256, 0, false;
    check_shared_atomics = atomics::shared, numbers, shared_expected, [1, 1, 1], 256, 256, false;
    check_copies = copies::copies, copies_input, copies_expected, [1, 1, 1], 32, 3584, false;
    check_groups = copies::groups, copies_input, groups_expected, [1, 1, 1], 64, 4096, false;
    check_matrix_loads = products::matrix_loads, matrix_loads_input, matrix_loads_expected, [1, 1, 1], 32, 512, false;
    check_mma_bf16 = products::mma_bf16, mma_bf16_input, mma_bf16_expected, [1, 1, 1], 32, 0, false;
    check_mma_f16 = products::mma_f16, mma_f16_input, mma_f16_expected, [1, 1, 1], 32, 0, false;
    check_mma_tf32 = products::mma_tf32, mma_tf32_input, mma_tf32_expected, [1, 1, 1], 32, 0, false;
    check_rounding = conversions::rounding, rounding_input, rounding_expected, [4, 1, 1], 64, 0, false;
}
