//! What a backward pass reads of dZ: its norms, the partial sums of its columns, and its kept rows, in one launch where that serves
//! two of them.

use super::error::ExecuteError;
use super::kernels;
use super::norms::{Matrix, launch_row_norms};
use super::settings::{LinearSettings, Matrices, Strides};
use crate::kernel::{column_sums, gather_rows};
use crate::launch::Launcher;
use core::ptr;
use wtacrs_core::product::Update;

/// What is wanted beside dW; null where it is not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) norms: *mut f32,
    pub(super) bias_gradient: *mut f32,
    /// Room for the partial sums of the bias gradient.
    pub(super) partials: *mut f32,
    pub(super) update: Update,
}

/// The kept rows of dZ, and where they are copied to.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeptOfGradient {
    pub(super) indices: *const u32,
    pub(super) count: *const u32,
    /// [`gathered_matrices`], where rows beyond the count become zero; null: nothing is copied.
    pub(super) out: *mut u8,
}

/// Where kept rows of dZ lie once they are gathered: one behind the other, each rounded up to 16 bytes.
pub(super) fn gathered_matrices(settings: &LinearSettings, kept: usize) -> Matrices {
    let row = (settings.out_features as u64).next_multiple_of(16 / settings.gradient.bytes());
    Matrices::even(row, row * kept as u64)
}

/// Reads dZ for a plan.
#[derive(Clone, Copy, Debug)]
pub(super) struct GradientReader<'a> {
    pub(super) settings: &'a LinearSettings,
    pub(super) dz: Matrices,
    /// Rows of dZ that are kept.
    pub(super) kept: usize,
}

impl GradientReader<'_> {
    /// Launches what reads dZ before the product. Returns the end of the bias gradient, for the last launch.
    ///
    /// # Safety
    ///
    /// The pointers lead to memory of the plan's sizes, and indices lie within dZ.
    pub(super) unsafe fn read<L: Launcher>(
        &self,
        launcher: &mut L,
        gradient: *const u8,
        wanted: &Wanted,
        kept: &KeptOfGradient,
    ) -> Result<Option<column_sums::FinishArgs>, ExecuteError<L::Error>> {
        let &LinearSettings { tokens, out_features, batch, gradient: data_type, .. } = self.settings;
        let [rows, columns, batch_32] = [tokens, out_features, batch].map(|size| size as u32);
        let has_sums = !wanted.bias_gradient.is_null();
        let reads_all = rows > 0 && (has_sums || !wanted.norms.is_null());
        let args = column_sums::Args {
            x: gradient,
            leading: self.dz.row,
            spacing: self.dz.spacing,
            rows,
            columns,
            norms: wanted.norms,
            partials: if has_sums { wanted.partials } else { ptr::null_mut() },
        };
        let launched = if !kept.out.is_null() && reads_all {
            let args = column_sums::GatherArgs {
                of: args,
                indices: kept.indices,
                count: kept.count,
                kept: self.kept as u32,
                out: kept.out,
                out_leading: gathered_matrices(self.settings, self.kept).row,
            };
            let (kernel, shape) = kernels::row_norms_gather(data_type, batch_32, &args);
            // SAFETY: the caller's promise.
            unsafe { launcher.launch(kernel, shape, &args) }
        } else {
            // What is saved of H contains the scales, or is unpacked with them.
            // SAFETY: the caller's promise, here and below.
            unsafe { self.gather(launcher, gradient, kept, ptr::null()) }?;
            if reads_all && has_sums {
                let (kernel, shape) = kernels::row_norms_sums(data_type, rows, columns, batch_32);
                // SAFETY: as above.
                unsafe { launcher.launch(kernel, shape, &args) }
            } else if reads_all {
                let strides = Strides { row: self.dz.row as usize, matrices: self.dz.spacing };
                let matrix = Matrix { at: gradient, data_type, batch, rows: tokens, columns: out_features, strides };
                // SAFETY: as above.
                unsafe { launch_row_norms(launcher, &matrix, wanted.norms) }?;
                Ok(())
            } else {
                Ok(())
            }
        };
        launched.map_err(ExecuteError::Launch)?;
        Ok(has_sums.then(|| column_sums::FinishArgs {
            partials: args.partials,
            // Without rows there are no partial sums.
            ranges: if rows > 0 { column_sums::ranges(rows, columns, data_type.bytes() as u32) } else { 0 },
            columns,
            accumulate: u32::from(wanted.update == Update::Accumulate),
            sums: wanted.bias_gradient,
        }))
    }

    /// Copies kept rows alone, multiplied with scales; null: as they are.
    ///
    /// # Safety
    ///
    /// As for [`Self::read`].
    pub(super) unsafe fn gather<L: Launcher>(
        &self,
        launcher: &mut L,
        gradient: *const u8,
        kept: &KeptOfGradient,
        scales: *const f64,
    ) -> Result<(), ExecuteError<L::Error>> {
        let settings = self.settings;
        let [columns, rows, batch] = [settings.out_features, self.kept, settings.batch].map(|size| size as u32);
        if kept.out.is_null() || columns == 0 || rows == 0 {
            return Ok(());
        }
        let gathered = gathered_matrices(settings, self.kept);
        let &KeptOfGradient { indices, count, out } = kept;
        let args = gather_rows::Args {
            x: gradient,
            leading: self.dz.row,
            spacing: self.dz.spacing,
            columns,
            rows,
            indices,
            scales,
            count,
            out,
            out_leading: gathered.row,
            out_spacing: gathered.spacing,
        };
        let (kernel, shape) = kernels::gather_rows(settings.gradient, batch, &args);
        // SAFETY: the caller's promise.
        unsafe { launcher.launch(kernel, shape, &args) }.map_err(ExecuteError::Launch)
    }
}
