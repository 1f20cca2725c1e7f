//! A launcher that lists a plan's launches and runs none.

use super::dense::{DenseOperands, DenseProduct};
use super::{Kernel, Launcher, Shape};
use core::convert::Infallible;

/// One launch of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedLaunch {
    /// The kernel's name.
    pub kernel: &'static str,
    /// The shape of the launch.
    pub shape: Shape,
}

/// The name under which a library's product is listed. Its shape is the library's own: here it has no threads.
const DENSE_PRODUCT: ListedLaunch = ListedLaunch {
    kernel: "cublasLtMatmul",
    shape: Shape { grid: [0; 3], block: 0, shared_bytes: 0, cooperative: false },
};

/// A launcher that lists every launch and runs none. The plan checks pointers as for any launcher; nothing follows them.
///
/// # Example
///
/// ```
/// # use wtacrs_core::{Keep, product::Update};
/// # use wtacrs_kernels::device::Device;
/// # use wtacrs_kernels::launch::LaunchList;
/// # use wtacrs_kernels::plan::{BackwardBuffers, LinearPlan, LinearSettings, Memory};
/// let plan = LinearPlan::new(LinearSettings::new(4096, 1024, 1024, Keep::Fraction(0.1)), &Device::emulated())?;
/// let anywhere = Memory { at: std::ptr::without_provenance_mut(4096), bytes: u64::MAX };
/// let buffers = BackwardBuffers {
///     saved: anywhere,
///     gradient: anywhere.at,
///     gradient_norms: anywhere.at.cast(),
///     weight_gradient: anywhere.at,
///     bias_gradient: std::ptr::null_mut(),
///     update: Update::Overwrite,
///     scratch: anywhere,
/// };
/// let mut list = LaunchList::default();
/// // SAFETY: nothing is run.
/// unsafe { plan.backward(&mut list, &buffers) }?;
/// assert_eq!(list.launches()[0].kernel, "row_norms_bf16");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct LaunchList {
    launches: Vec<ListedLaunch>,
}

impl LaunchList {
    /// All launches so far.
    pub fn launches(&self) -> &[ListedLaunch] {
        &self.launches
    }
}

impl Launcher for LaunchList {
    type Error = Infallible;

    unsafe fn launch<A: Copy>(&mut self, kernel: &Kernel<A>, shape: Shape, _: &A) -> Result<(), Infallible> {
        self.launches.push(ListedLaunch { kernel: kernel.name(), shape });
        Ok(())
    }

    unsafe fn multiply(&mut self, _: &DenseProduct, _: &DenseOperands) -> Result<(), Infallible> {
        self.launches.push(DENSE_PRODUCT);
        Ok(())
    }
}
