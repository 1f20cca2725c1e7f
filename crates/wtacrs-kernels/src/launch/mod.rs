//! Who runs a kernel: the [`Emulator`], or the CUDA driver.

pub mod driver;
mod emulator;

pub use self::emulator::Emulator;

/// A kernel with arguments of type A, passed by value.
#[derive(Debug)]
pub struct Kernel<A> {
    name: &'static str,
    most_threads: u32,
    body: unsafe fn(&A),
}

impl<A> Kernel<A> {
    pub(crate) const fn new(name: &'static str, most_threads: u32, body: unsafe fn(&A)) -> Self {
        Self { name, most_threads, body }
    }

    /// The entry point's name in the PTX.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The most threads that its blocks may have: the PTX says so, so that no compiler gives a thread more registers than
    /// so many threads can have.
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
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
    /// Whether blocks wait for one another, so that all of them must be resident at once.
    pub cooperative: bool,
}

/// Something that runs kernels in order, as a stream does.
pub trait Launcher {
    /// Why a launch fails.
    type Error;

    /// Runs, or enqueues, a kernel.
    ///
    /// # Safety
    ///
    /// The arguments keep the kernel's promises: pointers to memory of this launcher's device, of the sizes that the
    /// kernel's documentation tells, alive until the launch has run.
    unsafe fn launch<A: Copy>(&mut self, kernel: &Kernel<A>, shape: Shape, args: &A) -> Result<(), Self::Error>;
}
