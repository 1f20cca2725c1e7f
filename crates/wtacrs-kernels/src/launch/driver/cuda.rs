//! The real driver: libcuda.so, loaded at its first use.

use super::calls::{Attribute, Calls, Context, DenseChoice, DenseHandle, DeviceHandle, Function, Module, Stream};
use super::cublas_lt::CublasLtTable;
use super::error::DriverError;
use crate::launch::Shape;
use crate::launch::dense::{DenseError, DenseOperands, DenseProduct};
use core::ffi::{CStr, c_char, c_int, c_uint, c_void};
use core::ptr;
use cudarc::driver::sys;
use std::sync::OnceLock;

/// Statuses are numbers here, not `sys`'s enum: a newer driver may return others, and an enum must not hold those.
type Code = c_uint;

const SUCCESS: Code = 0;
const NO_DEVICE: Code = 100;
const NOT_FOUND: Code = 500;
/// CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES.
const MOST_DYNAMIC_SHARED_BYTES: c_int = 8;
/// CU_JIT_ERROR_LOG_BUFFER and CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES.
const ERROR_LOG: [c_uint; 2] = [5, 6];

macro_rules! table {
    ($($symbol:ident($($argument:ty),*);)*) => {
        /// The driver's functions by their symbols; all of them are older than CUDA 11.
        #[allow(non_snake_case)]
        struct Table {
            $($symbol: unsafe extern "C" fn($($argument),*) -> Code,)*
            /// CUDA 12 and later.
            cuCtxGetId: Option<unsafe extern "C" fn(sys::CUcontext, *mut u64) -> Code>,
            /// CUDA 11.8 and later.
            cuLaunchKernelEx: Option<
                unsafe extern "C" fn(*const Config, sys::CUfunction, *mut *mut c_void, *mut *mut c_void) -> Code,
            >,
        }

        impl Table {
            fn load() -> Result<Self, DriverError> {
                // SAFETY: loading the vendor's driver runs its initialisers, as every user of CUDA does. It cannot panic,
                // because the library was just found.
                let library = unsafe {
                    if !sys::is_culib_present() {
                        return Err(DriverError::NoLibrary);
                    }
                    sys::culib()
                };
                // SAFETY: the types are those of cuda.h; on all 64-bit targets, handles are pointers, CUdevice is an
                // int, and enums are unsigned ints.
                unsafe {
                    Ok(Self {
                        $($symbol: *library
                            .get(concat!(stringify!($symbol), "\0").as_bytes())
                            .map_err(|_| DriverError::MissingCall { call: stringify!($symbol) })?,)*
                        cuCtxGetId: library.get(b"cuCtxGetId\0").ok().map(|symbol| *symbol),
                        cuLaunchKernelEx: library.get(b"cuLaunchKernelEx\0").ok().map(|symbol| *symbol),
                    })
                }
            }
        }
    };
}

table! {
    cuInit(c_uint);
    cuGetErrorName(Code, *mut *const c_char);
    cuDriverGetVersion(*mut c_int);
    cuDeviceGetCount(*mut c_int);
    cuDeviceGet(*mut sys::CUdevice, c_int);
    cuDeviceGetName(*mut c_char, c_int, sys::CUdevice);
    cuDeviceTotalMem_v2(*mut usize, sys::CUdevice);
    cuDeviceGetAttribute(*mut c_int, c_int, sys::CUdevice);
    cuDevicePrimaryCtxGetState(sys::CUdevice, *mut c_uint, *mut c_int);
    cuDevicePrimaryCtxRetain(*mut sys::CUcontext, sys::CUdevice);
    cuCtxGetCurrent(*mut sys::CUcontext);
    cuCtxSetCurrent(sys::CUcontext);
    cuCtxGetDevice(*mut sys::CUdevice);
    cuCtxSynchronize();
    cuMemAlloc_v2(*mut sys::CUdeviceptr, usize);
    cuMemFree_v2(sys::CUdeviceptr);
    cuMemcpyHtoD_v2(sys::CUdeviceptr, *const c_void, usize);
    cuMemcpyDtoH_v2(*mut c_void, sys::CUdeviceptr, usize);
    cuModuleLoadDataEx(*mut sys::CUmodule, *const c_void, c_uint, *const c_uint, *mut *mut c_void);
    cuModuleGetFunction(*mut sys::CUfunction, sys::CUmodule, *const c_char);
    cuFuncSetAttribute(sys::CUfunction, c_int, c_int);
    cuLaunchKernel(
        sys::CUfunction, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, sys::CUstream, *mut *mut c_void,
        *mut *mut c_void
    );
    cuLaunchCooperativeKernel(
        sys::CUfunction, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, sys::CUstream, *mut *mut c_void
    );
}

/// A CUlaunchConfig, which cuda.h of CUDA 11.8 was the first to have.
#[repr(C)]
struct Config {
    grid: [c_uint; 3],
    block: [c_uint; 3],
    shared_bytes: c_uint,
    stream: sys::CUstream,
    attributes: *const LaunchAttribute,
    attribute_count: c_uint,
}

/// A CUlaunchAttribute: its number, and a value of 64 bytes that begins at the eighth.
#[repr(C, align(8))]
struct LaunchAttribute {
    id: c_uint,
    padding: c_uint,
    value: c_int,
    rest: [c_int; 15],
}

/// CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION: yes.
const STARTS_EARLY: LaunchAttribute = LaunchAttribute { id: 6, padding: 0, value: 1, rest: [0; 15] };

/// The CUDA driver of this machine.
pub struct Cuda {
    table: Table,
    cublas_lt: OnceLock<Result<CublasLtTable, DenseError>>,
}

impl Cuda {
    /// Loads the driver's library.
    ///
    /// # Errors
    ///
    /// [`DriverError::NoLibrary`] where there is none.
    pub(super) fn load() -> Result<Self, DriverError> {
        Table::load().map(|table| Self { table, cublas_lt: OnceLock::new() })
    }

    fn cublas_lt(&self) -> Result<&CublasLtTable, DenseError> {
        let load = || {
            let driver = self.driver_version().map_err(|error| DenseError::Driver(error.to_string()))?;
            CublasLtTable::load(driver / 1000)
        };
        self.cublas_lt.get_or_init(load).as_ref().map_err(Clone::clone)
    }

    fn check(&self, call: &'static str, code: Code) -> Result<(), DriverError> {
        match code {
            SUCCESS => Ok(()),
            NO_DEVICE => Err(DriverError::NoDevice),
            _ => Err(DriverError::Cuda { call, kernel: None, code, name: self.name(code), detail: String::new() }),
        }
    }

    fn name(&self, code: Code) -> String {
        let mut name = ptr::null();
        // SAFETY: the driver writes a pointer to a text of its own, or null, and this call needs no initialisation.
        let found = unsafe { (self.table.cuGetErrorName)(code, &mut name) };
        if found != SUCCESS || name.is_null() {
            return "an unknown error".to_owned();
        }
        // SAFETY: the driver's texts end with a NUL and live as long as its library, which is never unloaded.
        unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
    }
}

impl core::fmt::Debug for Cuda {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Cuda").finish_non_exhaustive()
    }
}

/// Calls a function of the table; an error names it.
macro_rules! call {
    ($self:ident.$symbol:ident($($argument:expr),*)) => {
        // SAFETY: the arguments have the function's types. The memory that they point to lives here, or is the caller's promise.
        $self.check(stringify!($symbol), unsafe { ($self.table.$symbol)($($argument),*) })
    };
}

impl Calls for Cuda {
    fn init(&self) -> Result<(), DriverError> {
        call!(self.cuInit(0))
    }

    fn driver_version(&self) -> Result<u32, DriverError> {
        let mut version = 0;
        call!(self.cuDriverGetVersion(&mut version))?;
        Ok(version.unsigned_abs())
    }

    fn device_count(&self) -> Result<u32, DriverError> {
        let mut count = 0;
        call!(self.cuDeviceGetCount(&mut count))?;
        Ok(count.unsigned_abs())
    }

    fn device(&self, ordinal: u32) -> Result<DeviceHandle, DriverError> {
        let mut device = 0;
        call!(self.cuDeviceGet(&mut device, ordinal as c_int))?;
        Ok(DeviceHandle(device))
    }

    fn device_name(&self, device: DeviceHandle) -> Result<String, DriverError> {
        let mut name = [0_u8; 256];
        call!(self.cuDeviceGetName(name.as_mut_ptr().cast(), name.len() as c_int, device.0))?;
        let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
        Ok(String::from_utf8_lossy(&name[..end]).into_owned())
    }

    fn device_memory(&self, device: DeviceHandle) -> Result<u64, DriverError> {
        let mut bytes = 0;
        call!(self.cuDeviceTotalMem_v2(&mut bytes, device.0))?;
        Ok(bytes as u64)
    }

    fn device_attribute(&self, device: DeviceHandle, attribute: Attribute) -> Result<u32, DriverError> {
        let mut value = 0;
        call!(self.cuDeviceGetAttribute(&mut value, attribute as c_int, device.0))?;
        Ok(value.unsigned_abs())
    }

    fn is_primary_active(&self, device: DeviceHandle) -> Result<bool, DriverError> {
        let (mut flags, mut active) = (0, 0);
        call!(self.cuDevicePrimaryCtxGetState(device.0, &mut flags, &mut active))?;
        Ok(active != 0)
    }

    fn retain_primary(&self, device: DeviceHandle) -> Result<Context, DriverError> {
        let mut context: sys::CUcontext = ptr::null_mut();
        call!(self.cuDevicePrimaryCtxRetain(&mut context, device.0))?;
        Ok(Context(context as usize))
    }

    fn current_context(&self) -> Result<Option<Context>, DriverError> {
        let mut context: sys::CUcontext = ptr::null_mut();
        call!(self.cuCtxGetCurrent(&mut context))?;
        Ok((!context.is_null()).then_some(Context(context as usize)))
    }

    fn set_current(&self, context: Context) -> Result<(), DriverError> {
        call!(self.cuCtxSetCurrent(context.0 as sys::CUcontext))
    }

    fn current_device(&self) -> Result<DeviceHandle, DriverError> {
        let mut device = 0;
        call!(self.cuCtxGetDevice(&mut device))?;
        Ok(DeviceHandle(device))
    }

    fn context_id(&self, context: Context) -> Result<Option<u64>, DriverError> {
        let Some(get) = self.table.cuCtxGetId else { return Ok(None) };
        let mut id = 0;
        // SAFETY: the driver returned the context.
        self.check("cuCtxGetId", unsafe { get(context.0 as sys::CUcontext, &mut id) })?;
        Ok(Some(id))
    }

    unsafe fn load_module(&self, image: &[u8]) -> Result<Module, DriverError> {
        assert!(image.starts_with(b"\x7fELF") || image.ends_with(&[0]), "the driver looks for a NUL");
        let mut module: sys::CUmodule = ptr::null_mut();
        let mut log = [0_u8; 4096];
        let mut values = [log.as_mut_ptr().cast::<c_void>(), log.len() as *mut c_void];
        let loaded = call!(self.cuModuleLoadDataEx(
            &mut module,
            image.as_ptr().cast(),
            ERROR_LOG.len() as c_uint,
            ERROR_LOG.as_ptr(),
            values.as_mut_ptr()
        ));
        loaded.map_err(|error| match error {
            DriverError::Cuda { call, kernel, code, name, .. } => {
                let end = log.iter().position(|&byte| byte == 0).unwrap_or(log.len());
                let log = String::from_utf8_lossy(&log[..end]);
                let detail = log.lines().next().map(|line| format!(": {line}")).unwrap_or_default();
                DriverError::Cuda { call, kernel, code, name, detail }
            }
            other => other,
        })?;
        Ok(Module(module as usize))
    }

    fn function(&self, module: Module, name: &'static str) -> Result<Function, DriverError> {
        let mut function: sys::CUfunction = ptr::null_mut();
        let symbol: Vec<u8> = name.bytes().chain([0]).collect();
        let found = call!(self.cuModuleGetFunction(&mut function, module.0 as sys::CUmodule, symbol.as_ptr().cast()));
        found.map_err(|error| match error {
            DriverError::Cuda { code: NOT_FOUND, .. } => DriverError::NoKernel { kernel: name },
            other => other.of(name),
        })?;
        Ok(Function(function as usize))
    }

    fn allow_shared_bytes(&self, function: Function, bytes: u32) -> Result<(), DriverError> {
        call!(self.cuFuncSetAttribute(function.0 as sys::CUfunction, MOST_DYNAMIC_SHARED_BYTES, bytes as c_int))
    }

    fn allocate(&self, bytes: usize) -> Result<*mut u8, DriverError> {
        let mut memory = 0;
        call!(self.cuMemAlloc_v2(&mut memory, bytes))?;
        Ok(ptr::without_provenance_mut(memory as usize))
    }

    unsafe fn free(&self, memory: *mut u8) -> Result<(), DriverError> {
        call!(self.cuMemFree_v2(memory.addr() as u64))
    }

    unsafe fn copy_to_device(&self, to: *mut u8, from: &[u8]) -> Result<(), DriverError> {
        // The copy waits for the default stream, but not for streams that are independent of it.
        call!(self.cuCtxSynchronize())?;
        call!(self.cuMemcpyHtoD_v2(to.addr() as u64, from.as_ptr().cast(), from.len()))?;
        // A copy from pageable memory may return before it has arrived.
        call!(self.cuCtxSynchronize())
    }

    unsafe fn copy_to_host(&self, to: &mut [u8], from: *const u8) -> Result<(), DriverError> {
        call!(self.cuCtxSynchronize())?;
        call!(self.cuMemcpyDtoH_v2(to.as_mut_ptr().cast(), from.addr() as u64, to.len()))
    }

    fn starts_early(&self) -> bool {
        let is_asked_for = std::env::var_os("WTACRS_EARLY_START").is_some_and(|value| value == "1");
        is_asked_for && self.table.cuLaunchKernelEx.is_some()
    }

    unsafe fn launch(
        &self,
        function: Function,
        shape: Shape,
        stream: Stream,
        arguments: *const c_void,
        early: bool,
    ) -> Result<(), DriverError> {
        let Shape { grid: [x, y, z], block, shared_bytes, cooperative } = shape;
        let (function, stream) = (function.0 as sys::CUfunction, stream.0.cast());
        // The driver copies the arguments and writes to none.
        let mut arguments = [arguments.cast_mut()];
        let arguments = arguments.as_mut_ptr();
        if cooperative {
            return call!(self.cuLaunchCooperativeKernel(
                function,
                x,
                y,
                z,
                block,
                1,
                1,
                shared_bytes,
                stream,
                arguments
            ));
        }
        if early && let Some(launch) = self.table.cuLaunchKernelEx {
            let config = Config {
                grid: [x, y, z],
                block: [block, 1, 1],
                shared_bytes,
                stream,
                attributes: &STARTS_EARLY,
                attribute_count: 1,
            };
            // SAFETY: the types are those of cuda.h; the driver copies the configuration and the arguments.
            let code = unsafe { launch(&config, function, arguments, ptr::null_mut()) };
            return self.check("cuLaunchKernelEx", code);
        }
        call!(self.cuLaunchKernel(function, x, y, z, block, 1, 1, shared_bytes, stream, arguments, ptr::null_mut()))
    }

    fn dense_create(&self) -> Result<DenseHandle, DenseError> {
        self.cublas_lt()?.create()
    }

    fn dense_choose(&self, handle: DenseHandle, product: &DenseProduct) -> Result<DenseChoice, DenseError> {
        self.cublas_lt()?.choose(handle, product)
    }

    unsafe fn dense_multiply(
        &self,
        handle: DenseHandle,
        choice: &DenseChoice,
        operands: &DenseOperands,
        stream: Stream,
    ) -> Result<(), DenseError> {
        // SAFETY: the caller's promise.
        unsafe { self.cublas_lt()?.multiply(handle, choice, operands, stream) }
    }
}
