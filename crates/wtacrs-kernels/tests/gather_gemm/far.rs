//! Addresses beyond 2³¹ elements.

use crate::common::Machine;
use half::bf16;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use wtacrs_kernels::block::output::Output;
use wtacrs_kernels::block::spacing::Spacing;
use wtacrs_kernels::block::tile::Rows;
use wtacrs_kernels::kernel::gather_gemm::{Args, Multiplier, Sizes, Tile, Tiling};

/// Zeroed memory of which only what is written is ever there.
struct Sparse {
    at: *mut u8,
    layout: Layout,
}

impl Sparse {
    fn new(bytes: usize) -> Option<Self> {
        // 16: what calloc gives by itself. For more, all of it would be cleared.
        let layout = Layout::from_size_align(bytes, 16).expect("a size");
        // SAFETY: not of size zero.
        let at = unsafe { alloc_zeroed(layout) };
        (!at.is_null()).then_some(Self { at, layout })
    }
}

impl Drop for Sparse {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and freed once.
        unsafe { dealloc(self.at, self.layout) };
    }
}

#[test]
fn rows_beyond_two_to_the_31_elements() {
    // Rows of 2 GiB in a matrix of 8 GiB. A machine that does not give so much address space cannot run this.
    let leading = 1_usize << 30;
    let Some(dz) = Sparse::new(8 * leading) else { return };
    let one = bf16::ONE.to_bits();
    // SAFETY: the first 8 columns of row 3 lie in the matrix.
    unsafe { std::slice::from_raw_parts_mut(dz.at.cast::<u16>().add(3 * leading), 8) }.fill(one);
    let (saved, indices, mut dw) = (vec![one; 2 * 8], [1_u32, 3], vec![f32::NAN; 8 * 8]);
    let args = Args {
        saved: saved.as_ptr().cast(),
        saved_leading: 8,
        saved_spacing: Spacing::even(0),
        dz: dz.at,
        dz_leading: leading as u64,
        dz_spacing: Spacing::even(0),
        indices: indices.as_ptr(),
        count: std::ptr::null(),
        rows: 2,
        in_features: 8,
        out_features: 8,
        splits: 1,
        accumulate: 0,
        output: Output::F32 as u32,
        dw: dw.as_mut_ptr().cast(),
        dw_leading: 8,
        dw_spacing: Spacing::even(0),
        partials: std::ptr::null_mut(),
    };
    let tiling =
        Tiling::new(Multiplier::Bf16, Sizes { in_features: 8, out_features: 8, rows: 2, batch: 1 }, Tile::Square, 1);
    for rows in [Rows::Whole, Rows::Ragged, Rows::Any] {
        dw.fill(f32::NAN);
        let (kernel, shape) = tiling.launch(rows);
        // SAFETY: the pointers lead to matrices of these sizes.
        unsafe { Machine::emulator(0).run(kernel, shape, &Args { dw: dw.as_mut_ptr().cast(), ..args }) };
        assert_eq!(dw, vec![1.0; 64]);
    }
}
