//! One test body for the kernels on the emulator, for their PTX on the emulator, and for a GPU.
//!
//! ```text
//! for_each_machine(|machine| {
//!     let x = machine.upload(&[1.0_f32, 2.0]);
//!     let y = machine.unwritten::<f32>(2);
//!     let args = Args { x: x.bytes(), y: y.pointer(), … };
//!     // SAFETY: …
//!     unsafe { machine.run(&KERNEL, shape, &args) };
//!     assert_eq!(machine.download(&y), [2.0, 4.0]);
//! });
//! ```
//!
//! Without a GPU the body runs on the other two, and one line says so; with WTACRS_REQUIRE_GPU=1 that is a failure.
#![allow(dead_code, unreachable_pub)]

use cudarc::driver::result;
use std::alloc::{Layout, alloc, dealloc};
use std::fmt;
use std::io::Write;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::{LazyLock, Once};
use wtacrs_core::Keep;
use wtacrs_kernels::device::Device;
use wtacrs_kernels::launch::dense::{DenseError, DenseOperands, DenseProduct};
use wtacrs_kernels::launch::driver::{Driver, Stream};
use wtacrs_kernels::launch::{Emulator, Kernel, Launcher, Shape};
use wtacrs_kernels::plan::{Engine, LinearPlan, LinearSettings, PlanError};
use wtacrs_ptx::{Launch, Module, Traffic};

/// The alignment of device memory, on a GPU and here.
const ALIGNMENT: usize = 256;

/// Something with memory that runs kernels.
pub struct Machine {
    kind: Kind,
    device: Device,
}

enum Kind {
    Emulator(Emulator),
    /// The kernels' PTX, run by the CPU, with a seed for the order of threads.
    Ptx(u64),
    /// The same, measured: the names of kernels, and what their launches have asked of memory.
    Measured(Vec<(&'static str, Traffic)>),
    Gpu {
        driver: Driver,
        stream: Stream,
    },
}

/// `len` values in a machine's memory, aligned to 256 bytes; freed when dropped.
pub struct Buffer<T> {
    at: *mut u8,
    len: usize,
    on_gpu: bool,
    value: PhantomData<T>,
}

/// A file of testdata/, or of the folder that WTACRS_TESTDATA names where the repository is not.
pub fn testdata(name: &str) -> PathBuf {
    let repository = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata"));
    std::env::var_os("WTACRS_TESTDATA").map_or_else(repository, PathBuf::from).join(name)
}

/// The text that the driver gets.
static PTX: LazyLock<Module> =
    LazyLock::new(|| Module::read(include_str!("../../ptx/wtacrs_sm80.ptx")).expect("every instruction is known"));

/// Whether tests run the PTX too: not under AddressSanitizer, which has seen the kernels' accesses to memory when it has seen
/// the kernels themselves, and takes several times as long.
pub const BY_PTX_TOO: bool = cfg!(not(feature = "sanitizer"));

/// Whether only a GPU is to be tested: under the sanitizers of one, which see nothing of the rest.
pub fn only_gpu() -> bool {
    std::env::var_os("WTACRS_ONLY_GPU").is_some_and(|value| value == "1")
}

/// Runs a test on the emulator, on the emulator by the PTX, and on the first GPU if there is one.
pub fn for_each_machine(mut test: impl FnMut(&mut Machine)) {
    if !only_gpu() {
        Machine::both(0).iter_mut().for_each(&mut test);
    }
    if let Some(mut gpu) = Machine::gpu() {
        test(&mut gpu);
    }
}

impl Machine {
    /// The emulator, with a seed for the order in which threads run.
    pub fn emulator(seed: u64) -> Self {
        Self { kind: Kind::Emulator(Emulator { seed }), device: Device::emulated() }
    }

    /// The kernels' PTX on the emulator, with a seed for the order in which threads run.
    pub fn ptx(seed: u64) -> Self {
        Self { kind: Kind::Ptx(seed), device: Device::emulated() }
    }

    /// The kernels' PTX on the emulator, each launch measured.
    pub fn measured() -> Self {
        Self { kind: Kind::Measured(Vec::new()), device: Device::emulated() }
    }

    /// Whether it interprets the PTX: the slowest machine.
    pub fn interprets(&self) -> bool {
        matches!(self.kind, Kind::Ptx(_) | Kind::Measured(_))
    }

    /// How many instructions the PTX of a kernel has.
    pub fn instructions(kernel: &str) -> usize {
        PTX.instructions(kernel).expect("a kernel")
    }

    /// What each launch so far has asked of memory, if launches are measured.
    pub fn traffic(&self) -> &[(&'static str, Traffic)] {
        if let Kind::Measured(traffic) = &self.kind { traffic } else { &[] }
    }

    /// The emulator, and the PTX on it, with one order of threads.
    pub fn both(seed: u64) -> Vec<Self> {
        let ptx = BY_PTX_TOO.then(|| Self::ptx(seed));
        [Self::emulator(seed)].into_iter().chain(ptx).collect()
    }

    /// One of the two, as a number says that proptest draws, and an order of threads; the GPU where only that is tested.
    pub fn drawn(seed: u64) -> Self {
        if only_gpu()
            && let Some(gpu) = Self::gpu()
        {
            return gpu;
        }
        if BY_PTX_TOO && seed % 2 == 1 { Self::ptx(seed / 2) } else { Self::emulator(seed / 2) }
    }

    /// The first GPU. Without one: none, and a line on stderr, which the test harness does not hide.
    ///
    /// # Panics
    ///
    /// If there is none and WTACRS_REQUIRE_GPU is 1.
    pub fn gpu() -> Option<Self> {
        static SAID: Once = Once::new();
        match Driver::open(0) {
            Ok(driver) => {
                let device = driver.device().clone();
                Some(Self { kind: Kind::Gpu { driver, stream: Stream(std::ptr::null_mut()) }, device })
            }
            Err(error) => {
                assert!(
                    std::env::var_os("WTACRS_REQUIRE_GPU").is_none_or(|value| value != "1"),
                    "a GPU is required: {error}"
                );
                SAID.call_once(|| {
                    let _ = writeln!(std::io::stderr(), "skipped on a GPU, run on the emulator only: {error}");
                });
                None
            }
        }
    }

    /// Whether products can be asked of cuBLASLt: not on a GPU's machine without it. A line on stderr says so.
    ///
    /// # Panics
    ///
    /// If there is none and WTACRS_REQUIRE_GPU is 1.
    pub fn has_cublas_lt(&self) -> bool {
        let mut settings = LinearSettings::new(64, 16, 16, Keep::Fraction(0.5));
        settings.engine = Engine::CublasLt;
        match LinearPlan::new(settings, &self.device) {
            Err(error @ PlanError::Dense(DenseError::NoLibrary)) if self.is_gpu() => {
                assert!(std::env::var_os("WTACRS_REQUIRE_GPU").is_none_or(|value| value != "1"), "{error}");
                let _ = writeln!(std::io::stderr(), "products by cuBLASLt are skipped: {error}");
                false
            }
            _ => true,
        }
    }

    /// The device that plans for it are made with.
    pub fn device(&self) -> &Device {
        &self.device
    }

    fn is_gpu(&self) -> bool {
        matches!(self.kind, Kind::Gpu { .. })
    }

    /// The driver, on a GPU.
    pub fn driver(&self) -> Option<&Driver> {
        match &self.kind {
            Kind::Emulator(_) | Kind::Ptx(_) | Kind::Measured(_) => None,
            Kind::Gpu { driver, .. } => Some(driver),
        }
    }

    /// Launches on another stream from now on.
    pub fn set_stream(&mut self, new: Stream) {
        if let Kind::Gpu { stream, .. } = &mut self.kind {
            *stream = new;
        }
    }

    /// A copy of plain data.
    pub fn upload<T: Copy>(&self, values: &[T]) -> Buffer<T> {
        let buffer = self.allocate(values.len());
        self.write(&buffer, values);
        buffer
    }

    /// Memory all of whose bytes are `byte`.
    pub fn filled<T: Copy>(&self, len: usize, byte: u8) -> Buffer<T> {
        let buffer = self.allocate::<T>(len);
        let bytes =
            Buffer::<u8> { at: buffer.at, len: len * size_of::<T>(), on_gpu: buffer.on_gpu, value: PhantomData };
        self.write(&bytes, &vec![byte; bytes.len]);
        std::mem::forget(bytes);
        buffer
    }

    /// Memory that a kernel writes before it is read: filled with garbage here, and on a GPU left unwritten, so that initcheck
    /// finds reads that come first.
    pub fn unwritten<T: Copy>(&self, len: usize) -> Buffer<T> {
        if self.is_gpu() { self.allocate(len) } else { self.filled(len, 0xff) }
    }

    /// Replaces a buffer's content, after all launches.
    pub fn write<T: Copy>(&self, buffer: &Buffer<T>, values: &[T]) {
        assert_eq!(values.len(), buffer.len, "as many values as the buffer has");
        if values.is_empty() {
            return;
        }
        match self.kind {
            // SAFETY: the buffer has room for that many values, and nothing runs that might access it.
            Kind::Emulator(_) | Kind::Ptx(_) | Kind::Measured(_) => unsafe {
                buffer.pointer().copy_from_nonoverlapping(values.as_ptr(), values.len())
            },
            // SAFETY: as above, on the device, whose context is current.
            Kind::Gpu { .. } => unsafe {
                result::ctx::synchronize().expect("the device works");
                result::memcpy_htod_sync(buffer.at as u64, values).expect("the device takes data");
                result::ctx::synchronize().expect("the device works");
            },
        }
    }

    /// A buffer's content, after all launches.
    pub fn download<T: Copy>(&self, buffer: &Buffer<T>) -> Vec<T> {
        let mut values = Vec::<T>::with_capacity(buffer.len);
        if buffer.len == 0 {
            return values;
        }
        match self.kind {
            // SAFETY: the buffer was filled when it was made (on a GPU it may hold anything), and has that many values; so has
            // the vector.
            Kind::Emulator(_) | Kind::Ptx(_) | Kind::Measured(_) => unsafe {
                values.as_mut_ptr().copy_from_nonoverlapping(buffer.pointer(), buffer.len);
                values.set_len(buffer.len);
            },
            // SAFETY: as above, from the device, whose context is current.
            Kind::Gpu { .. } => unsafe {
                result::ctx::synchronize().expect("the kernels ran");
                let room =
                    std::slice::from_raw_parts_mut(values.as_mut_ptr().cast::<u8>(), buffer.len * size_of::<T>());
                result::memcpy_dtoh_sync(room, buffer.at as u64).expect("the device gives data");
                values.set_len(buffer.len);
            },
        }
        values
    }

    /// Launches a kernel.
    ///
    /// # Panics
    ///
    /// If it fails.
    ///
    /// # Safety
    ///
    /// As for [`Launcher::launch`].
    pub unsafe fn run<A: Copy>(&mut self, kernel: &Kernel<A>, shape: Shape, args: &A) {
        // SAFETY: the caller's promise.
        if let Err(error) = unsafe { self.launch(kernel, shape, args) } {
            panic!("{} on {self:?}: {error}", kernel.name());
        }
    }

    fn allocate<T>(&self, len: usize) -> Buffer<T> {
        let bytes = len * size_of::<T>();
        let on_gpu = self.is_gpu();
        let at = if bytes == 0 {
            ALIGNMENT as *mut u8
        } else if on_gpu {
            // SAFETY: the device's context is current; the buffer frees it.
            unsafe { result::malloc_sync(bytes) }.expect("enough memory") as *mut u8
        } else {
            // SAFETY: not of size zero.
            unsafe { alloc(layout(bytes)) }
        };
        assert!(!at.is_null(), "enough memory");
        Buffer { at, len, on_gpu, value: PhantomData }
    }
}

impl Launcher for Machine {
    type Error = String;

    unsafe fn launch<A: Copy>(&mut self, kernel: &Kernel<A>, shape: Shape, args: &A) -> Result<(), String> {
        match &mut self.kind {
            Kind::Emulator(emulator) => {
                // SAFETY: the caller's promise.
                let ran = unsafe { emulator.launch(kernel, shape, args) };
                ran.map_err(|fault| fault.to_string())
            }
            Kind::Ptx(seed) => {
                let Shape { grid, block, shared_bytes, cooperative } = shape;
                let shape = Launch { grid, block, shared_bytes, cooperative, seed: *seed };
                // SAFETY: the caller's promise.
                unsafe { PTX.launch(kernel.name(), shape, args) }.map_err(|error| error.to_string())
            }
            Kind::Measured(traffic) => {
                let Shape { grid, block, shared_bytes, cooperative } = shape;
                let shape = Launch { grid, block, shared_bytes, cooperative, seed: 0 };
                // SAFETY: the caller's promise.
                let found = unsafe { PTX.measure(kernel.name(), shape, args) }.map_err(|error| error.to_string())?;
                traffic.push((kernel.name(), found));
                Ok(())
            }
            Kind::Gpu { driver, stream } => {
                // SAFETY: the stream is the default one, or a test's own, of the context that it opened.
                let mut launcher = unsafe { driver.on(*stream) };
                // SAFETY: the caller's promise.
                unsafe { launcher.launch(kernel, shape, args) }.map_err(|error| error.to_string())
            }
        }
    }

    unsafe fn multiply(&mut self, product: &DenseProduct, operands: &DenseOperands) -> Result<(), String> {
        match &mut self.kind {
            // SAFETY: the caller's promise.
            Kind::Emulator(_) | Kind::Ptx(_) | Kind::Measured(_) => unsafe {
                Emulator::default().multiply(product, operands).map_err(|error| error.to_string())
            },
            // SAFETY: as above, and for the stream as for launches.
            Kind::Gpu { driver, stream } => unsafe {
                driver.on(*stream).multiply(product, operands).map_err(|error| error.to_string())
            },
        }
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Emulator(Emulator { seed }) => write!(f, "the emulator with seed {seed}"),
            Kind::Ptx(seed) => write!(f, "the PTX on the emulator with seed {seed}"),
            Kind::Measured(_) => f.write_str("the PTX on the emulator, measured"),
            Kind::Gpu { .. } => f.write_str(&self.device.name),
        }
    }
}

impl<T> Buffer<T> {
    /// Its first value.
    pub fn pointer(&self) -> *mut T {
        self.at.cast()
    }

    /// Its first byte.
    pub fn bytes(&self) -> *mut u8 {
        self.at
    }

    /// How many values it has.
    pub fn len(&self) -> usize {
        self.len
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        let bytes = self.len * size_of::<T>();
        if bytes == 0 {
            return;
        }
        if self.on_gpu {
            // Freeing waits for the kernels; the failure of one has been reported before.
            // SAFETY: it was allocated there and is freed once.
            let _ = unsafe { result::free_sync(self.at as u64) };
        } else {
            // SAFETY: it was allocated with this layout and is freed once.
            unsafe { dealloc(self.at, layout(bytes)) };
        }
    }
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, ALIGNMENT).expect("a size that memory has")
}
