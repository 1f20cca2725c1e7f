//! The kernels. Each file holds one: its arguments, which a launch passes by value, and its body, generic over element
//! types where they differ. The table below makes entry points of PTX and values of [`Kernel`] out of them.
//!
//! A new kernel is a file and a line of the table.

pub mod alias;
pub mod gather_gemm;
pub mod gather_rows;
pub mod row_norms;
pub mod select;
mod team;

use crate::element::{Bf16, F16, F32};
#[cfg(not(target_arch = "nvptx64"))]
use crate::launch::Kernel;

/// `entry_point CONSTANT = body, arguments;`
macro_rules! kernels {
    ($($(#[$doc:meta])* $entry:ident $constant:ident = $body:path, $args:ty;)*) => {
        #[cfg(target_arch = "nvptx64")]
        mod entry {
            use super::*;
            $(
                $(#[$doc])*
                #[unsafe(no_mangle)]
                unsafe extern "ptx-kernel" fn $entry(args: $args) {
                    // SAFETY: whoever launches keeps the promises of the body.
                    unsafe { $body(&args) }
                }
            )*
        }

        $(
            $(#[$doc])*
            #[cfg(not(target_arch = "nvptx64"))]
            pub const $constant: Kernel<$args> = Kernel::new(stringify!($entry), $body);
        )*

        /// The names of all entry points.
        #[cfg(not(target_arch = "nvptx64"))]
        pub const ENTRY_POINTS: &[&str] = &[$(stringify!($entry)),*];
    };
}

kernels! {
    /// [`row_norms`] of f32.
    row_norms_f32 ROW_NORMS_F32 = row_norms::row_norms::<F32>, row_norms::Args;
    /// [`row_norms`] of f16.
    row_norms_f16 ROW_NORMS_F16 = row_norms::row_norms::<F16>, row_norms::Args;
    /// [`row_norms`] of bf16.
    row_norms_bf16 ROW_NORMS_BF16 = row_norms::row_norms::<Bf16>, row_norms::Args;
    /// [`select`] by `Uniform`.
    select_uniform SELECT_UNIFORM = select::select::<{ select::Design::Uniform as u32 }>, select::Args;
    /// [`select`] by `Crs`.
    select_crs SELECT_CRS = select::select::<{ select::Design::Crs as u32 }>, select::Args;
    /// [`select`] by `TopK`.
    select_top_k SELECT_TOP_K = select::select::<{ select::Design::TopK as u32 }>, select::Args;
    /// [`select`] by `WtaIid`.
    select_wta_iid SELECT_WTA_IID = select::select::<{ select::Design::WtaIid as u32 }>, select::Args;
    /// [`select`] by `WtaStratified`.
    select_wta_stratified SELECT_WTA_STRATIFIED = select::select::<{ select::Design::WtaStratified as u32 }>, select::Args;
    /// [`select`] by `WtaPivotal`.
    select_wta_pivotal SELECT_WTA_PIVOTAL = select::select::<{ select::Design::WtaPivotal as u32 }>, select::Args;
    /// [`alias`]: builds tables.
    alias_build ALIAS_BUILD = alias::alias_build, alias::BuildArgs;
    /// [`alias`]: draws from them.
    alias_sample ALIAS_SAMPLE = alias::alias_sample, alias::SampleArgs;
}
