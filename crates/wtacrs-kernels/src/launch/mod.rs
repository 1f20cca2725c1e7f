//! Launches: a kernel, its shape, and what runs it.
//!
//! | launcher | runs kernels |
//! |---|---|
//! | [`driver`] | on a GPU, by the CUDA driver |
//! | `Emulator` | on the CPU, with the feature `emulator` |
//! | [`LaunchList`] | never: it lists them |
//!
//! [`dense`] is about products that the vendor's library computes in place of a kernel.

#[cfg(not(target_arch = "nvptx64"))]
pub mod dense;
#[cfg(feature = "emulator")]
mod dense_emulator;
#[cfg(not(target_arch = "nvptx64"))]
pub mod driver;
#[cfg(feature = "emulator")]
mod emulator;
#[cfg(not(target_arch = "nvptx64"))]
mod list;

#[cfg(feature = "emulator")]
pub use self::emulator::Emulator;
#[cfg(not(target_arch = "nvptx64"))]
pub use self::list::{LaunchList, ListedLaunch};

#[cfg(not(target_arch = "nvptx64"))]
use self::dense::{DenseOperands, DenseProduct};
use core::marker::PhantomData;

/// An entry point of the PTX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub(crate) name: &'static str,
    /// Its place among [`ENTRY_POINTS`](crate::kernel::ENTRY_POINTS), by which launchers find it.
    pub(crate) number: usize,
}

impl Entry {
    /// Its name in the PTX.
    pub fn name(self) -> &'static str {
        self.name
    }
}

/// A kernel with arguments of type A, passed by value.
#[derive(Debug)]
pub struct Kernel<A> {
    pub(crate) entry: Entry,
    pub(crate) most_threads: u32,
    pub(crate) args: PhantomData<fn(&A)>,
    /// What each thread does, for the emulator.
    #[cfg(feature = "emulator")]
    pub(crate) body: unsafe fn(&A),
}

impl<A> Kernel<A> {
    /// The entry point's name in the PTX.
    pub fn name(&self) -> &'static str {
        self.entry.name
    }

    /// The entry point.
    pub fn entry(&self) -> Entry {
        self.entry
    }

    /// The most threads that its blocks may have. The PTX contains this limit, so that no compiler gives a thread more
    /// registers than a block of so many threads can have.
    pub fn most_threads(&self) -> u32 {
        self.most_threads
    }
}

/// How many threads a launch has, and how much shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Blocks: x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block, a multiple of 32.
    pub block: u32,
    /// Bytes of a block's dynamic shared memory.
    pub shared_bytes: u32,
    /// Whether blocks wait for one another, so that all of them must be resident at once.
    pub cooperative: bool,
}

/// Runs kernels in order, as a stream does.
pub trait Launcher {
    /// Why a launch fails.
    type Error;

    /// Runs, or enqueues, a kernel.
    ///
    /// # Errors
    ///
    /// The launcher's own.
    ///
    /// # Safety
    ///
    /// The arguments keep the kernel's promises: pointers to memory of this launcher's device, of the sizes that the
    /// kernel's documentation says, alive until the launch has run.
    unsafe fn launch<A: Copy>(&mut self, kernel: &Kernel<A>, shape: Shape, args: &A) -> Result<(), Self::Error>;

    /// Computes, or enqueues, products by the [library](crate::device::Device::dense) of the launcher's device.
    ///
    /// # Errors
    ///
    /// The launcher's own.
    ///
    /// # Safety
    ///
    /// As for [`Self::launch`], with the operands in place of arguments.
    #[cfg(not(target_arch = "nvptx64"))]
    unsafe fn multiply(&mut self, product: &DenseProduct, operands: &DenseOperands) -> Result<(), Self::Error>;
}
