//! Where a plan's work is done: on the CPU, or on a GPU by the CUDA driver.
//!
//! Whoever has work for a GPU asks it for a launcher on the caller's stream, which it gives only if the caller's current
//! context is its own.

use crate::guard::{Failure, Outcome};
use crate::heap;
use crate::status::*;
use core::ffi::c_void;
use core::fmt::Debug;
use std::sync::Arc;
use wtacrs_kernels::device::Device as Properties;
use wtacrs_kernels::launch::driver::{Calls, Context, Driver, DriverError, Installation, Stream};
use wtacrs_kernels::launch::{Kernel, Launcher, Shape};
use wtacrs_kernels::plan::{CacheMisfit, ExecuteError, PlanError};

/// NULL, as cuCtxSetCurrent takes it.
const NO_CONTEXT: Context = Context(0);

/// Where work is done.
#[derive(Debug)]
pub(crate) enum Device {
    Cpu,
    Cuda(Gpu),
}

/// A GPU with the kernels in one of its contexts.
#[derive(Debug)]
pub(crate) struct Gpu {
    ordinal: i32,
    properties: Properties,
    runner: Runner,
}

#[derive(Debug)]
enum Runner {
    Driver(Box<dyn AnyDriver>),
    /// Kernels run on the CPU when they are launched, on host memory.
    #[cfg(feature = "emulator")]
    Emulator,
}

/// A [`Driver`] by whatever calls.
trait AnyDriver: Debug + Send + Sync {
    fn calls(&self) -> &dyn Calls;
    fn context(&self) -> Context;
    fn is_current(&self) -> Result<bool, DriverError>;
    /// # Safety
    ///
    /// As for [`Driver::enqueue`].
    unsafe fn enqueue(
        &self,
        name: &'static str,
        shape: Shape,
        stream: Stream,
        arguments: *const c_void,
    ) -> Result<(), DriverError>;
}

impl<C: Calls + Debug + Send + Sync> AnyDriver for Driver<C> {
    fn calls(&self) -> &dyn Calls {
        self.installation().calls()
    }

    fn context(&self) -> Context {
        self.context()
    }

    fn is_current(&self) -> Result<bool, DriverError> {
        self.is_current()
    }

    unsafe fn enqueue(
        &self,
        name: &'static str,
        shape: Shape,
        stream: Stream,
        arguments: *const c_void,
    ) -> Result<(), DriverError> {
        // SAFETY: the caller's promise.
        unsafe { self.enqueue(name, shape, stream, arguments) }
    }
}

impl Device {
    pub(crate) fn gpu(&self) -> Option<&Gpu> {
        match self {
            Self::Cpu => None,
            Self::Cuda(gpu) => Some(gpu),
        }
    }
}

impl Gpu {
    /// The GPU of a number, or the one of the current context for -1.
    pub(crate) fn open(ordinal: i32) -> Outcome<Self> {
        #[cfg(feature = "emulator")]
        if let Some(opened) = crate::testing::stand_in(ordinal) {
            return opened;
        }
        Self::by(Installation::find()?, ordinal)
    }

    /// The same by a given driver. A current context stays current.
    pub(crate) fn by<C>(installation: Arc<Installation<C>>, ordinal: i32) -> Outcome<Self>
    where
        C: Calls + Debug + Send + Sync + 'static,
    {
        let (driver, ordinal) = match u32::try_from(ordinal) {
            Err(_) => {
                let driver = Driver::current_with(installation)?;
                let ordinal = driver.ordinal()?;
                (driver, ordinal)
            }
            Ok(ordinal) => {
                let before = installation.calls().current_context()?;
                let opened = Driver::open_with(Arc::clone(&installation), ordinal);
                if let Some(before) = before {
                    installation.calls().set_current(before)?;
                }
                (opened?, ordinal)
            }
        };
        let properties = driver.device().clone();
        // A driver counts in ints.
        Ok(Self { ordinal: ordinal as i32, properties, runner: Runner::Driver(Box::new(driver)) })
    }

    /// The emulator in a GPU's place.
    #[cfg(feature = "emulator")]
    pub(crate) fn emulated(ordinal: i32) -> Self {
        Self { ordinal, properties: Properties::emulated(), runner: Runner::Emulator }
    }

    /// Its number, as the driver, frameworks and DLPack count.
    pub(crate) fn ordinal(&self) -> i32 {
        self.ordinal
    }

    /// What plans for it are made with.
    pub(crate) fn properties(&self) -> &Properties {
        &self.properties
    }

    /// A launcher on a stream of the caller's, whose current context must be this GPU's.
    ///
    /// # Errors
    ///
    /// DEVICE_MISMATCH; CUDA_ERROR.
    pub(crate) fn on(&self, stream: *mut c_void) -> Outcome<OnStream<'_>> {
        if let Runner::Driver(driver) = &self.runner
            && !driver.is_current()?
        {
            let message = format!(
                "the calling thread's current CUDA context is not the one that was opened on GPU {}",
                self.ordinal
            );
            return Err(Failure::new(WTACRS_DEVICE_MISMATCH, message));
        }
        Ok(OnStream { runner: &self.runner, stream: Stream(stream) })
    }

    /// Runs something while the GPU's context is current, whatever the caller's is.
    fn within<T>(&self, work: impl FnOnce(Option<&dyn Calls>) -> Result<T, DriverError>) -> Outcome<T> {
        match &self.runner {
            Runner::Driver(driver) => {
                let calls = driver.calls();
                let before = calls.current_context()?;
                if before == Some(driver.context()) {
                    return Ok(work(Some(calls))?);
                }
                calls.set_current(driver.context())?;
                let done = work(Some(calls));
                calls.set_current(before.unwrap_or(NO_CONTEXT))?;
                Ok(done?)
            }
            #[cfg(feature = "emulator")]
            Runner::Emulator => Ok(work(None)?),
        }
    }

    /// Copies device memory to the host, after all that was launched.
    ///
    /// # Safety
    ///
    /// There are as many bytes of it.
    pub(crate) unsafe fn download(&self, from: *const u8, to: &mut [u8]) -> Outcome {
        self.within(|calls| {
            match calls {
                // SAFETY: the caller's promise; the context is current.
                Some(calls) => unsafe { calls.copy_to_host(to, from) }?,
                // SAFETY: as above; the memory is the host's.
                None => unsafe { to.as_mut_ptr().copy_from_nonoverlapping(from, to.len()) },
            }
            Ok(())
        })
    }

    /// Copies bytes to device memory, after all that was launched.
    ///
    /// # Safety
    ///
    /// There is room for them.
    pub(crate) unsafe fn upload(&self, to: *mut u8, from: &[u8]) -> Outcome {
        self.within(|calls| {
            match calls {
                // SAFETY: the caller's promise; the context is current.
                Some(calls) => unsafe { calls.copy_to_device(to, from) }?,
                // SAFETY: as above; the memory is the host's.
                None => unsafe { to.copy_from_nonoverlapping(from.as_ptr(), from.len()) },
            }
            Ok(())
        })
    }
}

/// Launches on one stream.
pub(crate) struct OnStream<'a> {
    runner: &'a Runner,
    stream: Stream,
}

impl Launcher for OnStream<'_> {
    type Error = Failure;

    unsafe fn launch<A: Copy>(&mut self, kernel: &Kernel<A>, shape: Shape, args: &A) -> Outcome {
        match self.runner {
            // SAFETY: the caller's promise; the context is current, and the stream, as documented, one of its own.
            Runner::Driver(driver) => unsafe {
                Ok(driver.enqueue(kernel.name(), shape, self.stream, (&raw const *args).cast())?)
            },
            #[cfg(feature = "emulator")]
            Runner::Emulator => {
                // SAFETY: the caller's promise.
                let ran = unsafe { wtacrs_kernels::launch::Emulator::default().launch(kernel, shape, args) };
                ran.map_err(|fault| Failure::new(WTACRS_CUDA_ERROR, format!("{}: {fault}", kernel.name())))
            }
        }
    }
}

/// Memory of a GPU that the library owns: aligned to 256, freed when dropped.
#[derive(Debug)]
pub(crate) struct DeviceMemory {
    context: Arc<crate::context::Context>,
    at: *mut u8,
    bytes: usize,
    /// In a GPU's place.
    #[cfg(feature = "emulator")]
    _emulated: Vec<Line>,
}

// SAFETY: an address and a size; what is done with the memory is the business of those who launch.
unsafe impl Send for DeviceMemory {}
// SAFETY: as above.
unsafe impl Sync for DeviceMemory {}

/// Memory of the emulator, aligned as the CUDA driver aligns.
#[cfg(feature = "emulator")]
#[repr(align(256))]
#[derive(Clone, Copy, Debug)]
struct Line([u8; 256]);

impl DeviceMemory {
    /// `bytes`, more than 0, all zero but for what `first` tells of the beginning.
    pub(crate) fn new(context: Arc<crate::context::Context>, bytes: usize, first: &[u8]) -> Outcome<Self> {
        heap::check("a copy of device memory", &[(bytes, 1)])?;
        let mut contents = first.to_vec();
        contents.resize(bytes, 0);
        Self::beginning(context, bytes, &contents)
    }

    /// `bytes`, more than 0, of which only what `contents` tells of the beginning is written.
    pub(crate) fn beginning(context: Arc<crate::context::Context>, bytes: usize, contents: &[u8]) -> Outcome<Self> {
        let gpu =
            context.device.gpu().ok_or_else(|| Failure::new(WTACRS_DEVICE_MISMATCH, "the context is the CPU's"))?;
        let at = gpu.within(|calls| match calls {
            Some(calls) => {
                let at = calls.allocate(bytes)?;
                // SAFETY: it was just allocated, with so many bytes.
                if let Err(error) = unsafe { calls.copy_to_device(at, contents) } {
                    // SAFETY: nothing was launched with it. The first failure is the one to tell.
                    let _ = unsafe { calls.free(at) };
                    return Err(error);
                }
                Ok(at)
            }
            None => Ok(core::ptr::null_mut()),
        })?;
        #[cfg(feature = "emulator")]
        let (at, _emulated) = match gpu.runner {
            Runner::Driver(_) => (at, vec![]),
            Runner::Emulator => {
                let mut lines = vec![Line([0; 256]); bytes.div_ceil(256)];
                for (line, contents) in lines.iter_mut().zip(contents.chunks(256)) {
                    line.0[..contents.len()].copy_from_slice(contents);
                }
                (lines.as_mut_ptr().cast(), lines)
            }
        };
        Ok(Self {
            context,
            at,
            bytes,
            #[cfg(feature = "emulator")]
            _emulated,
        })
    }

    /// Some bytes from `offset` on.
    pub(crate) fn part(&self, offset: u64, bytes: u64) -> wtacrs_kernels::plan::Memory {
        debug_assert!(offset + bytes <= self.bytes as u64);
        wtacrs_kernels::plan::Memory { at: self.at.wrapping_add(offset as usize), bytes }
    }

    /// Whose it is.
    pub(crate) fn context(&self) -> &Arc<crate::context::Context> {
        &self.context
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        let Some(gpu) = self.context.device.gpu() else { return };
        // Nobody is left to tell of a failure, and a context that is gone has taken its memory with it.
        let _ = gpu.within(|calls| match calls {
            Some(calls) => {
                // cuMemFree may wait for what was launched, and may not; a copy does.
                // SAFETY: the memory has at least one byte.
                let _ = unsafe { calls.copy_to_host(&mut [0], self.at) };
                // SAFETY: it was allocated in this context, and nothing is launched with it any more.
                unsafe { calls.free(self.at) }
            }
            None => Ok(()),
        });
    }
}

impl From<DriverError> for Failure {
    fn from(error: DriverError) -> Self {
        let status = match error {
            DriverError::NoLibrary
            | DriverError::MissingCall { .. }
            | DriverError::TooOld { .. }
            | DriverError::NoDevice
            | DriverError::NoSuchDevice { .. }
            | DriverError::DeviceTooOld { .. }
            | DriverError::NoContext => WTACRS_NO_DEVICE,
            _ => WTACRS_CUDA_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

impl From<PlanError> for Failure {
    fn from(error: PlanError) -> Self {
        let status = match error {
            PlanError::Zero { .. } | PlanError::Unsupported { .. } | PlanError::DataTypes { .. } => WTACRS_UNSUPPORTED,
            PlanError::TooLarge { .. } | PlanError::Overflow { .. } => WTACRS_SIZE_OVERFLOW,
            PlanError::Budget(_) => WTACRS_INVALID_BUDGET,
            _ => WTACRS_INVALID_ARGUMENT,
        };
        Self::new(status, format!("on a GPU: {error}"))
    }
}

impl From<CacheMisfit> for Failure {
    fn from(error: CacheMisfit) -> Self {
        Self::new(WTACRS_SHAPE_MISMATCH, error.to_string())
    }
}

impl From<ExecuteError<Failure>> for Failure {
    fn from(error: ExecuteError<Failure>) -> Self {
        let status = match error {
            ExecuteError::Launch(failure) => return failure,
            ExecuteError::Null { .. } => WTACRS_NULL_POINTER,
            ExecuteError::Misaligned { .. } => WTACRS_MISALIGNED,
            ExecuteError::TooSmall { .. } => WTACRS_BUFFER_TOO_SMALL,
            ExecuteError::TooLarge { .. } => WTACRS_SIZE_OVERFLOW,
            _ => WTACRS_INVALID_ARGUMENT,
        };
        Self::new(status, error.to_string())
    }
}
