//! A GPU with the kernels in one of its contexts, by the CUDA driver.
//!
//! Work is launched on the caller's stream, and only while the calling thread's current context is the GPU's.

use crate::boundary::status::*;
use crate::boundary::{Failure, Outcome};
use core::ffi::c_void;
use core::fmt::Debug;
use core::{mem, ptr};
use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wtacrs_kernels::device::Device as Properties;
use wtacrs_kernels::launch::dense::{DenseOperands, DenseProduct};
use wtacrs_kernels::launch::driver::{Calls, Context, Driver, DriverError, Installation, Stream, within};
use wtacrs_kernels::launch::{Entry, Kernel, Launcher, Shape};

/// A GPU with the kernels in one of its contexts.
#[derive(Debug)]
pub(super) struct Gpu {
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

/// A [`Driver`], whatever makes its calls.
trait AnyDriver: Debug + Send + Sync {
    fn calls(&self) -> &dyn Calls;
    fn context(&self) -> Context;
    fn is_current(&self) -> Result<bool, DriverError>;
    /// As for [`Driver::ended`].
    fn ended(&self) -> &Mutex<Vec<usize>>;
    /// # Safety
    ///
    /// As for [`Driver::enqueue`].
    unsafe fn enqueue(
        &self,
        entry: Entry,
        shape: Shape,
        stream: Stream,
        arguments: *const c_void,
    ) -> Result<(), DriverError>;
    /// # Safety
    ///
    /// As for [`Driver::multiply`].
    unsafe fn multiply(
        &self,
        product: &DenseProduct,
        operands: &DenseOperands,
        stream: Stream,
    ) -> Result<(), DriverError>;
}

impl<C: Calls> AnyDriver for Driver<C> {
    fn calls(&self) -> &dyn Calls {
        self.installation().calls()
    }

    fn context(&self) -> Context {
        self.context()
    }

    fn is_current(&self) -> Result<bool, DriverError> {
        self.is_current()
    }

    fn ended(&self) -> &Mutex<Vec<usize>> {
        self.ended()
    }

    unsafe fn enqueue(
        &self,
        entry: Entry,
        shape: Shape,
        stream: Stream,
        arguments: *const c_void,
    ) -> Result<(), DriverError> {
        // SAFETY: the caller's promise.
        unsafe { self.enqueue(entry, shape, stream, arguments) }
    }

    unsafe fn multiply(
        &self,
        product: &DenseProduct,
        operands: &DenseOperands,
        stream: Stream,
    ) -> Result<(), DriverError> {
        // SAFETY: the caller's promise.
        unsafe { self.multiply(product, operands, stream) }
    }
}

impl Gpu {
    /// The GPU of a number, or the one of the current context for -1. A current context stays current.
    pub(super) fn open<C: Calls>(installation: Arc<Installation<C>>, ordinal: i32) -> Outcome<Self> {
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
    pub(super) fn emulated(ordinal: i32) -> Self {
        Self { ordinal, properties: Properties::emulated(), runner: Runner::Emulator }
    }

    /// Its number, as the driver, frameworks and DLPack count.
    pub(super) fn ordinal(&self) -> i32 {
        self.ordinal
    }

    /// What plans for it are made with.
    pub(super) fn properties(&self) -> &Properties {
        &self.properties
    }

    /// A launcher on a stream of the caller's, whose current context must be this GPU's.
    ///
    /// # Errors
    ///
    /// DEVICE_MISMATCH; CUDA_ERROR.
    pub(super) fn on(&self, stream: *mut c_void) -> Outcome<OnStream<'_>> {
        if let Runner::Driver(driver) = &self.runner
            && !driver.is_current()?
        {
            let message = format!(
                "the calling thread's current CUDA context is not the one that was opened on GPU {}",
                self.ordinal
            );
            return Err(Failure::new(WTACRS_STATUS_DEVICE_MISMATCH, message));
        }
        Ok(OnStream { runner: &self.runner, stream: Stream(stream) })
    }

    /// Runs something while the GPU's context is current, whatever the caller's is.
    pub(super) fn within<T>(&self, work: impl FnOnce(Option<&dyn Calls>) -> Result<T, DriverError>) -> Outcome<T> {
        match &self.runner {
            Runner::Driver(driver) => {
                let calls = driver.calls();
                Ok(within(calls, driver.context(), || work(Some(calls)))?)
            }
            #[cfg(feature = "emulator")]
            Runner::Emulator => Ok(work(None)?),
        }
    }

    /// Allocates `bytes` of its memory, more than 0, which begin with `first` (no longer than that).
    pub(super) fn allocate(&self, bytes: usize, first: &[u8]) -> Outcome<*mut u8> {
        self.within(|calls| {
            let Some(calls) = calls else {
                // SAFETY: `first` is no longer than what was allocated.
                return Ok(unsafe {
                    let at = alloc_zeroed(emulated_layout(bytes));
                    if at.is_null() {
                        handle_alloc_error(emulated_layout(bytes));
                    }
                    at.copy_from_nonoverlapping(first.as_ptr(), first.len());
                    at
                });
            };
            self.free_ended(calls);
            let at = calls.allocate(bytes)?;
            // SAFETY: it was just allocated, with so many bytes.
            if let Err(error) = unsafe { calls.copy_to_device(at, first) } {
                // SAFETY: nothing was launched with it. The first failure is the one to report.
                let _ = unsafe { calls.free(at) };
                return Err(error);
            }
            Ok(at)
        })
    }

    /// Memory that nothing is launched with any more. An object may end at any time, by a garbage collector even while a stream is
    /// captured, and must not wait then. So the context's next allocation frees the memory.
    ///
    /// # Safety
    ///
    /// [`Self::allocate`] has returned it for so many bytes, and this is its end.
    pub(super) unsafe fn end(&self, at: *mut u8, bytes: usize) {
        debug_assert!(bytes > 0, "nothing is allocated of no bytes");
        match &self.runner {
            Runner::Driver(driver) => lock(driver.ended()).push(at.addr()),
            #[cfg(feature = "emulator")]
            // SAFETY: allocated with this layout; the emulator runs launches at once.
            Runner::Emulator => unsafe { std::alloc::dealloc(at, emulated_layout(bytes)) },
        }
    }

    /// As for [`Driver::ended`]; none on the emulator.
    fn ended(&self) -> Option<&Mutex<Vec<usize>>> {
        match &self.runner {
            Runner::Driver(driver) => Some(driver.ended()),
            #[cfg(feature = "emulator")]
            Runner::Emulator => None,
        }
    }

    /// Waits for what was launched, if memory is to be freed, and frees it. Without a wait it stays for the next time.
    fn free_ended(&self, calls: &dyn Calls) {
        let Some(pending) = self.ended() else { return };
        let ended = mem::take(&mut *lock(pending));
        let Some(&first) = ended.first() else { return };
        // cuMemFree may wait for what was launched, and may not; a copy does.
        // SAFETY: allocated in this context, which is current, and not freed yet: it has at least one byte.
        if unsafe { calls.copy_to_host(&mut [0], ptr::without_provenance(first)) }.is_err() {
            lock(pending).extend(ended);
            return;
        }
        for at in ended {
            // A failure has nobody to report to.
            // SAFETY: the promise of `end`, and the wait.
            let _ = unsafe { calls.free(ptr::without_provenance_mut(at)) };
        }
    }

    /// Copies device memory to the host, after all that was launched.
    ///
    /// # Safety
    ///
    /// There are as many bytes of it.
    pub(super) unsafe fn download(&self, from: *const u8, to: &mut [u8]) -> Outcome {
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
    pub(super) unsafe fn upload(&self, to: *mut u8, from: &[u8]) -> Outcome {
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

fn lock(ended: &Mutex<Vec<usize>>) -> MutexGuard<'_, Vec<usize>> {
    ended.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How the emulator's memory is laid out: aligned as the CUDA driver aligns.
fn emulated_layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, 256).expect("sizes of plans fit the address space")
}

/// Launches on one stream.
pub(super) struct OnStream<'a> {
    runner: &'a Runner,
    stream: Stream,
}

impl Launcher for OnStream<'_> {
    type Error = Failure;

    unsafe fn launch<A: Copy>(&mut self, kernel: &Kernel<A>, shape: Shape, args: &A) -> Outcome {
        match self.runner {
            // SAFETY: the caller's promise; the context is current, and the stream, as documented, one of its own.
            Runner::Driver(driver) => unsafe {
                Ok(driver.enqueue(kernel.entry(), shape, self.stream, (&raw const *args).cast())?)
            },
            #[cfg(feature = "emulator")]
            Runner::Emulator => {
                // SAFETY: the caller's promise.
                let ran = unsafe { wtacrs_kernels::launch::Emulator::default().launch(kernel, shape, args) };
                ran.map_err(|fault| Failure::new(WTACRS_STATUS_CUDA_ERROR, format!("{}: {fault}", kernel.name())))
            }
        }
    }

    unsafe fn multiply(&mut self, product: &DenseProduct, operands: &DenseOperands) -> Outcome {
        match self.runner {
            // SAFETY: as above.
            Runner::Driver(driver) => unsafe { Ok(driver.multiply(product, operands, self.stream)?) },
            #[cfg(feature = "emulator")]
            Runner::Emulator => {
                // SAFETY: the caller's promise.
                let ran = unsafe { wtacrs_kernels::launch::Emulator::default().multiply(product, operands) };
                ran.map_err(|fault| Failure::new(WTACRS_STATUS_CUDA_ERROR, fault.to_string()))
            }
        }
    }
}
