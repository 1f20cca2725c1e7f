//! Runs kernels on the CPU, and reports every mistake that the emulator finds.

use super::dense::{Dense, DenseOperands, DenseProduct};
use super::{Kernel, Launcher, Shape};
use core::ptr;
use wtacrs_simt::emulator::{Counts, Fault, Launch, count};

/// Runs kernels on the emulator of [`wtacrs_simt`], one after another.
#[derive(Clone, Copy, Debug, Default)]
pub struct Emulator {
    /// The seed of the order in which ready threads run.
    pub seed: u64,
}

/// Arguments that many emulated threads read.
struct Shared<'a, A>(&'a A);

// SAFETY: the threads only read the arguments. The kernel accesses the memory behind their pointers by the device's rules
// for concurrent access.
unsafe impl<A> Sync for Shared<'_, A> {}

impl<A> Shared<'_, A> {
    fn get(&self) -> &A {
        self.0
    }
}

impl Launcher for Emulator {
    type Error = Fault;

    unsafe fn launch<A: Copy>(&mut self, kernel: &Kernel<A>, shape: Shape, args: &A) -> Result<(), Fault> {
        // SAFETY: the caller's promise.
        unsafe { self.count(kernel, shape, args) }.map(|_| ())
    }

    unsafe fn multiply(&mut self, product: &DenseProduct, operands: &DenseOperands) -> Result<(), Fault> {
        // SAFETY: the caller's promise; the emulator knows no streams.
        let multiplied = unsafe { Dense::emulated().multiply(product, operands, ptr::null_mut()) };
        multiplied.map_err(|error| Fault::Shape(error.to_string()))
    }
}

impl Emulator {
    /// As [`Launcher::launch`], and counts what takes time on a GPU.
    ///
    /// # Errors
    ///
    /// What the kernel does wrong.
    ///
    /// # Safety
    ///
    /// As for [`Launcher::launch`].
    pub unsafe fn count<A: Copy>(&self, kernel: &Kernel<A>, shape: Shape, args: &A) -> Result<Counts, Fault> {
        let Shape { grid, block, shared_bytes, cooperative } = shape;
        if block > kernel.most_threads {
            let (name, most) = (kernel.name(), kernel.most_threads);
            return Err(Fault::Shape(format!("{block} threads in a block of {name}, which takes at most {most}")));
        }
        let args = Shared(args);
        let shape = Launch { grid, block, shared_bytes, cooperative, seed: self.seed };
        // SAFETY: the caller keeps the kernel's promises.
        count(shape, &|| unsafe { (kernel.body)(args.get()) })
    }
}
