//! A plan's launches as a list, without running them.

use crate::launch::{Kernel, Launcher, Shape};
use core::convert::Infallible;

/// A launch of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedLaunch {
    /// The kernel's name.
    pub kernel: &'static str,
    /// Its threads.
    pub shape: Shape,
}

/// A launcher that runs nothing and writes every launch down. Pointers are checked as ever, and lead nowhere.
///
/// # Example
///
/// ```
/// # use wtacrs_core::{Keep, product::Update};
/// # use wtacrs_kernels::device::Device;
/// # use wtacrs_kernels::plan::{BackwardBuffers, LaunchList, LinearPlan, LinearSettings, Memory};
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
    /// What was launched so far.
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
}
