//! The few calls of the CUDA driver that are used here, as a trait, so that tests can replace them by a recorder.

use super::error::DriverError;
use crate::launch::Shape;
use crate::launch::dense::{DenseError, DenseOperands, DenseProduct};
use core::ffi::c_void;
use core::fmt::Debug;

macro_rules! handles {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
            pub struct $name(pub usize);
        )*
    };
}

handles! {
    /// A CUcontext.
    Context;
    /// A CUmodule.
    Module;
    /// A CUfunction.
    Function;
    /// A cublasLtHandle_t.
    DenseHandle;
}

/// How cuBLASLt computes a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DenseChoice {
    /// A cublasLtMatmulAlgo_t.
    pub algorithm: [u64; 8],
    /// Bytes of workspace that it takes.
    pub workspace_bytes: u64,
    /// A cublasLtMatmulDesc_t, and a cublasLtMatrixLayout_t for the left factor, the right factor and the product.
    pub descriptors: [usize; 4],
}

/// A CUdevice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeviceHandle(pub i32);

/// A borrowed CUstream (a cudaStream_t is the same); null is the default stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream(pub *mut c_void);

/// A property of a device, by the value of its CUdevice_attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Attribute {
    /// Multiprocessors.
    Multiprocessors = 16,
    /// Bytes of the L2 cache.
    L2Bytes = 38,
    /// The major compute capability.
    ComputeMajor = 75,
    /// The minor compute capability.
    ComputeMinor = 76,
    /// The most shared memory of a block.
    SharedBytes = 97,
}

/// Calls of the CUDA driver and of cuBLASLt. Every failure names its call.
///
/// While a plan runs, there are only launches, products and queries of the context; and the first product with other strides or
/// less alignment than the plan was made for asks cuBLASLt how to compute it.
pub trait Calls: Debug + Send + Sync + 'static {
    /// cuInit.
    fn init(&self) -> Result<(), DriverError>;
    /// cuDriverGetVersion.
    fn driver_version(&self) -> Result<u32, DriverError>;
    /// cuDeviceGetCount.
    fn device_count(&self) -> Result<u32, DriverError>;
    /// cuDeviceGet.
    fn device(&self, ordinal: u32) -> Result<DeviceHandle, DriverError>;
    /// cuDeviceGetName.
    fn device_name(&self, device: DeviceHandle) -> Result<String, DriverError>;
    /// cuDeviceTotalMem.
    fn device_memory(&self, device: DeviceHandle) -> Result<u64, DriverError>;
    /// cuDeviceGetAttribute.
    fn device_attribute(&self, device: DeviceHandle, attribute: Attribute) -> Result<u32, DriverError>;
    /// cuDevicePrimaryCtxGetState: whether it is retained.
    fn is_primary_active(&self, device: DeviceHandle) -> Result<bool, DriverError>;
    /// cuDevicePrimaryCtxRetain.
    fn retain_primary(&self, device: DeviceHandle) -> Result<Context, DriverError>;
    /// cuCtxGetCurrent.
    fn current_context(&self) -> Result<Option<Context>, DriverError>;
    /// cuCtxSetCurrent.
    fn set_current(&self, context: Context) -> Result<(), DriverError>;
    /// cuCtxGetDevice, of the current context.
    fn current_device(&self) -> Result<DeviceHandle, DriverError>;
    /// cuCtxGetId: unique, although a destroyed context's handle may be used again. None if the driver has no such call.
    fn context_id(&self, context: Context) -> Result<Option<u64>, DriverError>;
    /// cuModuleLoadDataEx, of a cubin or of PTX that ends with a NUL.
    ///
    /// # Safety
    ///
    /// A cubin is whole: the driver is not told where it ends.
    unsafe fn load_module(&self, image: &[u8]) -> Result<Module, DriverError>;
    /// cuModuleGetFunction.
    fn function(&self, module: Module, name: &'static str) -> Result<Function, DriverError>;
    /// cuFuncSetAttribute of the most dynamic shared memory.
    fn allow_shared_bytes(&self, function: Function, bytes: u32) -> Result<(), DriverError>;
    /// cuMemAlloc, of at least one byte; aligned to 256.
    fn allocate(&self, bytes: usize) -> Result<*mut u8, DriverError>;
    /// cuMemFree, which may wait for what was launched, and may not.
    ///
    /// # Safety
    ///
    /// The memory was [allocated](Self::allocate) in the current context, and no launch uses it any more.
    unsafe fn free(&self, memory: *mut u8) -> Result<(), DriverError>;
    /// cuMemcpyHtoD, after all that was launched before in the context.
    ///
    /// # Safety
    ///
    /// `to` is device memory of the current context with room for the bytes.
    unsafe fn copy_to_device(&self, to: *mut u8, from: &[u8]) -> Result<(), DriverError>;
    /// cuMemcpyDtoH, after all that was launched before in the context.
    ///
    /// # Safety
    ///
    /// `from` is device memory of the current context with as many bytes.
    unsafe fn copy_to_host(&self, to: &mut [u8], from: *const u8) -> Result<(), DriverError>;
    /// Whether kernels are to start early, and the driver has cuLaunchKernelEx.
    fn starts_early(&self) -> bool;
    /// cuLaunchKernel, or cuLaunchCooperativeKernel; or cuLaunchKernelEx, by which the kernel may start before the one before it has
    /// ended. That is for drivers that [have it](Self::starts_early), and not for cooperative launches.
    ///
    /// # Safety
    ///
    /// `arguments` points to the kernel's one argument, which keeps its promises; the stream lives and belongs to the
    /// function's context. A kernel that starts early waits for what it needs.
    unsafe fn launch(
        &self,
        function: Function,
        shape: Shape,
        stream: Stream,
        arguments: *const c_void,
        early: bool,
    ) -> Result<(), DriverError>;
    /// Loads cuBLASLt, at the first call, and cublasLtCreate in the current context.
    fn dense_create(&self) -> Result<DenseHandle, DenseError>;
    /// cublasLtMatmulAlgoGetHeuristic: its first choice for a product. The choice and its descriptors are never destroyed.
    fn dense_choose(&self, handle: DenseHandle, product: &DenseProduct) -> Result<DenseChoice, DenseError>;
    /// cublasLtMatmul.
    ///
    /// # Safety
    ///
    /// `choice` is for a product of this handle's whose operands these are; the stream lives and belongs to the current
    /// context, which is the handle's.
    unsafe fn dense_multiply(
        &self,
        handle: DenseHandle,
        choice: &DenseChoice,
        operands: &DenseOperands,
        stream: Stream,
    ) -> Result<(), DenseError>;
}

/// Runs something while a context is current, whichever was before.
///
/// # Errors
///
/// The driver's; or `work`'s.
pub fn within<T, E: From<DriverError>>(
    calls: &dyn Calls,
    context: Context,
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    let before = calls.current_context()?;
    if before == Some(context) {
        return work();
    }
    calls.set_current(context)?;
    let done = work();
    // NULL leaves none current.
    calls.set_current(before.unwrap_or(Context(0)))?;
    done
}
