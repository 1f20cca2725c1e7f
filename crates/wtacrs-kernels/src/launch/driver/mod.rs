//! Kernels on a GPU, by the CUDA driver: loaded at run time, in the caller's context, on the caller's stream.
//!
//! ```no_run
//! use wtacrs_kernels::launch::driver::{Driver, Stream};
//!
//! let driver = Driver::open(0)?; // or Driver::current(), in a framework's context
//! // SAFETY: null is the context's default stream.
//! let mut launcher = unsafe { driver.on(Stream(std::ptr::null_mut())) };
//! // plan.forward(&mut launcher, &buffers)
//! # Ok::<(), wtacrs_kernels::launch::driver::DriverError>(())
//! ```
//!
//! Opening is slow the first time where the library has no machine code for the GPU ([`Cubin`]), because the driver then
//! compiles all kernels: ptxas takes about five seconds for them. The driver keeps the result in a cache on disk. From then on
//! there are only launches: no device memory is allocated, nothing is copied or waited for, and everything can be captured in a
//! CUDA graph. `tests/driver.rs` and `tests/engine.rs` prove it with a driver that records every call.
//!
//! With WTACRS_EARLY_START=1 in the environment, kernels start before the kernel before them has ended, and wait there, on compute
//! capability 9.0 and later and drivers of CUDA 12.3 and later. It has not run on hardware.

mod calls;
mod cublas_lt;
mod cuda;
mod dense;
mod early_start;
mod error;
mod image;
mod ptx;

pub use self::calls::{
    Attribute, Calls, Context, DenseChoice, DenseHandle, DeviceHandle, Function, Module, Stream, within,
};
pub use self::cuda::Cuda;
pub use self::error::DriverError;
pub use self::image::{Cubin, Image};
pub use self::ptx::{Ptx, Version};

use self::dense::CublasLt;
use super::dense::{Dense, DenseOperands, DenseProduct};
use super::{Entry, Kernel, Launcher, Shape};
use crate::device::Device;
use crate::kernel::ENTRY_POINTS;
use core::ffi::c_void;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// A loaded driver, with the kernels of each context that has some.
///
/// A process has one, unless a test makes its own. `Send` and `Sync`.
#[derive(Debug)]
pub struct Installation<C = Cuda> {
    calls: Arc<C>,
    version: Version,
    cubins: &'static [Cubin],
    /// Kernels and retained primary contexts stay until the process ends: both are few.
    contexts: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    primary: HashMap<DeviceHandle, Context>,
    /// By a key that no other context ever has: see `Installation::key`.
    kernels: HashMap<(Context, u64), Arc<Kernels>>,
}

impl Known {
    /// A GPU's primary context, retained once and never released.
    fn retain_primary(&mut self, calls: &impl Calls, device: DeviceHandle) -> Result<Context, DriverError> {
        if let Some(&context) = self.primary.get(&device) {
            return Ok(context);
        }
        let context = calls.retain_primary(device)?;
        self.primary.insert(device, context);
        Ok(context)
    }
}

/// The kernels in a context.
#[derive(Debug)]
struct Kernels {
    /// By the numbers of entry points.
    functions: Vec<Function>,
    /// Whether launches may start before the one before them has ended.
    start_early: bool,
    loaded: Loaded,
    /// See [`Driver::ended`].
    ended: Mutex<Vec<usize>>,
    handle: DeviceHandle,
    device: Device,
}

/// How the kernels of a context were loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// What from.
    pub image: Image,
    /// The time that it took, with what the driver compiled.
    pub time: Duration,
}

/// The kernels, ready to run in one context. Cheap to clone.
#[derive(Debug)]
pub struct Driver<C = Cuda> {
    installation: Arc<Installation<C>>,
    kernels: Arc<Kernels>,
    context: Context,
}

/// Launches kernels on one stream, which it borrows.
#[derive(Debug)]
pub struct OnStream<'a, C = Cuda> {
    driver: &'a Driver<C>,
    stream: Stream,
}

impl Installation {
    /// The driver of this machine.
    ///
    /// # Errors
    ///
    /// The machine has no driver; it is too old for the kernels' PTX; it finds no GPU.
    pub fn find() -> Result<Arc<Self>, DriverError> {
        static FOUND: OnceLock<Result<Arc<Installation>, DriverError>> = OnceLock::new();
        FOUND.get_or_init(|| Self::new(Cuda::load()?).map(Arc::new)).clone()
    }

    /// The CUDA version of this machine's driver, even if it is too old or there is no GPU.
    ///
    /// # Errors
    ///
    /// There is no driver.
    pub fn driver_version() -> Result<Version, DriverError> {
        Ok(Version::of_cuda(Cuda::load()?.driver_version()?))
    }
}

impl<C: Calls> Installation<C> {
    /// A driver with these calls.
    ///
    /// # Errors
    ///
    /// It is too old for the kernels' PTX, or finds no GPU.
    pub fn new(calls: C) -> Result<Self, DriverError> {
        Self::with_cubins(calls, Cubin::bundled())
    }

    /// The same with other machine code than the library's, newest first.
    ///
    /// # Errors
    ///
    /// As for [`Self::new`].
    pub fn with_cubins(calls: C, cubins: &'static [Cubin]) -> Result<Self, DriverError> {
        let (ptx, found) = (Ptx::bundled(), Version::of_cuda(calls.driver_version()?));
        let needed = ptx.needed_driver();
        if found < needed {
            return Err(DriverError::TooOld { needed, found, ptx: ptx.version });
        }
        calls.init()?;
        if calls.device_count()? == 0 {
            return Err(DriverError::NoDevice);
        }
        Ok(Self { calls: Arc::new(calls), version: found, cubins, contexts: Mutex::default() })
    }

    /// The CUDA version of the driver.
    pub fn version(&self) -> Version {
        self.version
    }

    /// How many GPUs it finds.
    ///
    /// # Errors
    ///
    /// The driver's error.
    pub fn device_count(&self) -> Result<u32, DriverError> {
        self.calls.device_count()
    }

    /// The properties of a GPU, without the library of a context.
    ///
    /// # Errors
    ///
    /// There is no such GPU.
    pub fn device(&self, ordinal: u32) -> Result<Device, DriverError> {
        self.describe(self.handle(ordinal)?)
    }

    /// The calls themselves.
    pub fn calls(&self) -> &C {
        &self.calls
    }

    fn handle(&self, ordinal: u32) -> Result<DeviceHandle, DriverError> {
        let count = self.calls.device_count()?;
        if ordinal >= count {
            return Err(DriverError::NoSuchDevice { ordinal, count });
        }
        self.calls.device(ordinal)
    }

    fn describe(&self, device: DeviceHandle) -> Result<Device, DriverError> {
        let number = |attribute| self.calls.device_attribute(device, attribute);
        Ok(Device {
            name: self.calls.device_name(device)?,
            compute_capability: (number(Attribute::ComputeMajor)?, number(Attribute::ComputeMinor)?),
            multiprocessors: number(Attribute::Multiprocessors)?,
            memory_bytes: self.calls.device_memory(device)?,
            l2_bytes: number(Attribute::L2Bytes)?.into(),
            shared_bytes: number(Attribute::SharedBytes)?,
            dense: None,
        })
    }

    /// A key that identifies the current context for good. Its handle does not: a later context may get the same one.
    ///
    /// Drivers before CUDA 12 do not number contexts. There the handle of a primary context that is retained here stays its
    /// own. Other contexts have no key, so each [`Driver`] loads their kernels again, to stay until the process ends.
    fn key(&self, known: &mut Known, context: Context) -> Result<Option<(Context, u64)>, DriverError> {
        if let Some(id) = self.calls.context_id(context)? {
            return Ok(Some((context, id)));
        }
        let device = self.calls.current_device()?;
        // Retaining an inactive one would create it.
        let is_primary =
            self.calls.is_primary_active(device)? && known.retain_primary(&*self.calls, device)? == context;
        Ok(is_primary.then_some((context, 0)))
    }

    /// The kernels in the current context, which is `context`.
    fn kernels(&self, context: Context) -> Result<Arc<Kernels>, DriverError> {
        let mut known = self.contexts.lock().unwrap_or_else(PoisonError::into_inner);
        let key = self.key(&mut known, context)?;
        if let Some(kernels) = key.and_then(|key| known.kernels.get(&key)) {
            return Ok(Arc::clone(kernels));
        }
        let handle = self.calls.current_device()?;
        let mut device = self.describe(handle)?;
        device.dense = Some(Dense::new(Arc::new(CublasLt::new(Arc::clone(&self.calls), context))));
        let ptx = Ptx::bundled();
        let found = Version::new(device.compute_capability.0, device.compute_capability.1);
        if !ptx.runs_on(found) {
            return Err(DriverError::DeviceTooOld { name: device.name, needed: ptx.target, found });
        }
        let began = Instant::now();
        let start_early = image::starts_early(found, self.version) && self.calls.starts_early();
        let (functions, image) = self.load(found, device.shared_bytes, start_early)?;
        let loaded = Loaded { image, time: began.elapsed() };
        let kernels = Arc::new(Kernels { functions, start_early, loaded, ended: Mutex::default(), handle, device });
        if let Some(key) = key {
            known.kernels.insert(key, Arc::clone(&kernels));
        }
        Ok(kernels)
    }

    /// Loads the kernels on a GPU of this compute capability. A driver refuses machine code that an assembler newer than itself
    /// has made; PTX comes last, and its error counts.
    fn load(&self, capability: Version, shared_bytes: u32, early: bool) -> Result<(Vec<Function>, Image), DriverError> {
        let mut refused = None;
        for (image, bytes) in image::images(self.cubins, capability, early) {
            match self.functions(&bytes, shared_bytes) {
                Ok(functions) => return Ok((functions, image)),
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.expect("there is PTX at least"))
    }

    /// All kernels of an image, each with as much shared memory as blocks may have. Now, so that no launch has to ask for it: a
    /// limit reserves nothing. It also makes a driver that loads functions lazily load this one.
    fn functions(&self, image: &[u8], shared_bytes: u32) -> Result<Vec<Function>, DriverError> {
        // SAFETY: the bundled PTX, or a whole cubin, as whoever made the `Cubin` has promised.
        let module = unsafe { self.calls.load_module(image) }?;
        let function = |&name: &&'static str| {
            let function = self.calls.function(module, name)?;
            self.calls.allow_shared_bytes(function, shared_bytes).map_err(|error| error.of(name))?;
            Ok(function)
        };
        ENTRY_POINTS.iter().map(function).collect()
    }
}

impl Driver {
    /// The kernels in a GPU's primary context, which is the one that the CUDA runtime and frameworks use. It becomes
    /// the calling thread's current one.
    ///
    /// # Errors
    ///
    /// No driver or one that is too old; no such GPU or one that is too old; or the driver's error.
    pub fn open(ordinal: u32) -> Result<Self, DriverError> {
        Self::open_with(Installation::find()?, ordinal)
    }

    /// The kernels in the calling thread's current context.
    ///
    /// # Errors
    ///
    /// As for [`Self::open`], or there is no such context.
    pub fn current() -> Result<Self, DriverError> {
        Self::current_with(Installation::find()?)
    }
}

impl<C: Calls> Driver<C> {
    /// [`Driver::open`] with another driver's calls.
    ///
    /// # Errors
    ///
    /// As for [`Driver::open`].
    pub fn open_with(installation: Arc<Installation<C>>, ordinal: u32) -> Result<Self, DriverError> {
        let device = installation.handle(ordinal)?;
        {
            let mut known = installation.contexts.lock().unwrap_or_else(PoisonError::into_inner);
            let context = known.retain_primary(&*installation.calls, device)?;
            installation.calls.set_current(context)?;
        }
        Self::current_with(installation)
    }

    /// [`Driver::current`] with another driver's calls.
    ///
    /// # Errors
    ///
    /// As for [`Driver::current`].
    pub fn current_with(installation: Arc<Installation<C>>) -> Result<Self, DriverError> {
        let context = installation.calls.current_context()?.ok_or(DriverError::NoContext)?;
        let kernels = installation.kernels(context)?;
        Ok(Self { installation, kernels, context })
    }

    /// The GPU.
    pub fn device(&self) -> &Device {
        &self.kernels.device
    }

    /// How the kernels of this context were loaded.
    pub fn loaded(&self) -> Loaded {
        self.kernels.loaded
    }

    /// Addresses of memory in this context whose objects have ended while nobody could wait for the GPU. Whoever allocates next
    /// in the context frees it.
    pub fn ended(&self) -> &Mutex<Vec<usize>> {
        &self.kernels.ended
    }

    /// The driver that loaded the kernels.
    pub fn installation(&self) -> &Installation<C> {
        &self.installation
    }

    /// The context that the kernels are in.
    pub fn context(&self) -> Context {
        self.context
    }

    /// The number of the GPU, as the driver and frameworks count them.
    ///
    /// # Errors
    ///
    /// The driver's error.
    pub fn ordinal(&self) -> Result<u32, DriverError> {
        for ordinal in 0..self.installation.device_count()? {
            if self.installation.handle(ordinal)? == self.kernels.handle {
                return Ok(ordinal);
            }
        }
        Err(DriverError::NoDevice)
    }

    /// Whether the calling thread's current context is the one that the kernels are in.
    ///
    /// # Errors
    ///
    /// The driver's error.
    pub fn is_current(&self) -> Result<bool, DriverError> {
        Ok(self.installation.calls.current_context()? == Some(self.context))
    }

    /// Enqueues a kernel by its entry point, for launchers that do not know the type of the driver's calls.
    ///
    /// # Errors
    ///
    /// The driver's.
    ///
    /// # Safety
    ///
    /// As for [`Self::on`], and `arguments` points to the kernel's one argument, which keeps its promises.
    pub unsafe fn enqueue(
        &self,
        entry: Entry,
        shape: Shape,
        stream: Stream,
        arguments: *const c_void,
    ) -> Result<(), DriverError> {
        let function = self.kernels.functions[entry.number];
        let early = self.kernels.start_early && !shape.cooperative;
        // SAFETY: the caller's promise; what was loaded on such a GPU waits first.
        let launched = unsafe { self.installation.calls.launch(function, shape, stream, arguments, early) };
        launched.map_err(|error| error.of(entry.name))
    }

    /// Enqueues products by cuBLASLt, for launchers that do not know the type of the driver's calls.
    ///
    /// # Errors
    ///
    /// The library's.
    ///
    /// # Safety
    ///
    /// As for [`Self::on`], and as for [`Launcher::multiply`].
    pub unsafe fn multiply(
        &self,
        product: &DenseProduct,
        operands: &DenseOperands,
        stream: Stream,
    ) -> Result<(), DriverError> {
        let library = self.kernels.device.dense.as_ref().expect("a context's device has a library");
        // SAFETY: the caller's promise.
        Ok(unsafe { library.multiply(product, operands, stream.0) }?)
    }

    /// A launcher on a stream of this context. Kernels run in the order of their launches, and no call waits for them.
    ///
    /// # Safety
    ///
    /// The stream lives as long as the launcher, and belongs to this driver's [context](Self::context), which is
    /// current on the thread that launches.
    pub unsafe fn on(&self, stream: Stream) -> OnStream<'_, C> {
        OnStream { driver: self, stream }
    }
}

impl<C> Clone for Driver<C> {
    fn clone(&self) -> Self {
        let Self { installation, kernels, context } = self;
        Self { installation: Arc::clone(installation), kernels: Arc::clone(kernels), context: *context }
    }
}

impl<C: Calls> Launcher for OnStream<'_, C> {
    type Error = DriverError;

    unsafe fn launch<A: Copy>(&mut self, kernel: &Kernel<A>, shape: Shape, args: &A) -> Result<(), DriverError> {
        // SAFETY: the kernel's one argument is of type A, and the caller keeps its promises. Those about the stream were made
        // by the caller of `on`.
        unsafe { self.driver.enqueue(kernel.entry, shape, self.stream, (&raw const *args).cast()) }
    }

    unsafe fn multiply(&mut self, product: &DenseProduct, operands: &DenseOperands) -> Result<(), DriverError> {
        // SAFETY: as above.
        unsafe { self.driver.multiply(product, operands, self.stream) }
    }
}
