//! A CUDA driver that runs nothing and records every call.
#![allow(dead_code, unreachable_pub)]

use std::ffi::c_void;
use std::sync::Mutex;
use wtacrs_kernels::kernel::ENTRY_POINTS;
use wtacrs_kernels::launch::Shape;
use wtacrs_kernels::launch::dense::{DenseError, DenseOperands, DenseProduct};
use wtacrs_kernels::launch::driver::{
    Attribute, Calls, Context, DenseChoice, DenseHandle, DeviceHandle, Driver, DriverError, Function, Module, Stream,
};

/// A call with those of its arguments that matter.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    /// Any that only asks.
    Ask(&'static str),
    Retain(DeviceHandle),
    SetCurrent(Context),
    Load {
        context: Context,
        /// Not a cubin.
        is_ptx: bool,
    },
    Function(&'static str),
    Allow {
        kernel: &'static str,
        bytes: u32,
    },
    Allocate(usize),
    Free(usize),
    Copy {
        bytes: usize,
    },
    Launch {
        kernel: &'static str,
        stream: usize,
        shape: Shape,
        context: Context,
    },
    /// A launch that starts before the one before it has ended: its kernel.
    LaunchEarly(&'static str),
    /// cublasLtCreate.
    Create(Context),
    /// cublasLtMatmulAlgoGetHeuristic.
    Choose(DenseProduct),
    /// cublasLtMatmul.
    Multiply {
        stream: usize,
        accumulate: bool,
        context: Context,
    },
}

/// Two GPUs of compute capability 8.6 by default.
#[derive(Debug)]
pub struct Fake {
    pub version: u32,
    pub devices: u32,
    pub capability: (u32, u32),
    /// Whether it has cuCtxGetId, as drivers of CUDA 12 and later do.
    pub numbers_contexts: bool,
    /// As drivers do that are older than the assembler.
    pub refuses_cubins: bool,
    /// Whether it has cuLaunchKernelEx.
    pub starts_early: bool,
    /// Whether there is a cuBLASLt.
    pub has_cublas_lt: bool,
    /// A call that fails.
    pub fails: Option<&'static str>,
    pub state: Mutex<State>,
}

#[derive(Debug, Default)]
pub struct State {
    calls: Vec<Call>,
    current: Option<(Context, u64)>,
    /// The contexts of the modules, whose handles are indices here.
    modules: Vec<Context>,
    allocated: usize,
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            version: 12_040,
            devices: 2,
            capability: (8, 6),
            numbers_contexts: true,
            refuses_cubins: false,
            starts_early: true,
            has_cublas_lt: true,
            fails: None,
            state: Mutex::default(),
        }
    }
}

impl Fake {
    pub fn of(driver: &Driver<Self>) -> &Self {
        driver.installation().calls()
    }

    pub fn list(&self) -> Vec<Call> {
        self.state.lock().expect("no panic").calls.clone()
    }

    pub fn forget(&self) {
        self.state.lock().expect("no panic").calls.clear();
    }

    /// Makes a context current that somebody else made.
    pub fn enter(&self, context: Context, id: u64) {
        self.state.lock().expect("no panic").current = Some((context, id));
    }

    /// Leaves no context current.
    pub fn leave(&self) {
        self.state.lock().expect("no panic").current = None;
    }

    fn note<T>(&self, name: &'static str, call: Call, answer: impl FnOnce(&mut State) -> T) -> Result<T, DriverError> {
        let mut state = self.state.lock().expect("no panic");
        state.calls.push(call);
        if self.fails == Some(name) {
            let (name_of_error, detail) = ("CUDA_ERROR_FAKE".to_owned(), String::new());
            return Err(DriverError::Cuda { call: name, kernel: None, code: 999, name: name_of_error, detail });
        }
        Ok(answer(&mut state))
    }

    fn ask<T>(&self, name: &'static str, answer: impl FnOnce(&mut State) -> T) -> Result<T, DriverError> {
        self.note(name, Call::Ask(name), answer)
    }

    fn dense<T>(&self, name: &'static str, call: Call, answer: impl FnOnce(&mut State) -> T) -> Result<T, DenseError> {
        self.note(name, call, answer).map_err(|_| DenseError::Failed {
            call: name,
            code: 15,
            name: "CUBLAS_STATUS_FAKE".to_owned(),
        })
    }
}

/// A function's module and kernel, by its handle.
fn kernel_of(function: Function) -> (usize, &'static str) {
    (function.0 / ENTRY_POINTS.len(), ENTRY_POINTS[function.0 % ENTRY_POINTS.len()])
}

impl Calls for Fake {
    fn init(&self) -> Result<(), DriverError> {
        self.ask("cuInit", |_| ())
    }

    fn driver_version(&self) -> Result<u32, DriverError> {
        self.ask("cuDriverGetVersion", |_| self.version)
    }

    fn device_count(&self) -> Result<u32, DriverError> {
        self.ask("cuDeviceGetCount", |_| self.devices)
    }

    fn device(&self, ordinal: u32) -> Result<DeviceHandle, DriverError> {
        self.ask("cuDeviceGet", |_| DeviceHandle(ordinal as i32))
    }

    fn device_name(&self, device: DeviceHandle) -> Result<String, DriverError> {
        self.ask("cuDeviceGetName", |_| format!("Fake {}", device.0))
    }

    fn device_memory(&self, _: DeviceHandle) -> Result<u64, DriverError> {
        self.ask("cuDeviceTotalMem_v2", |_| 24 << 30)
    }

    fn device_attribute(&self, _: DeviceHandle, attribute: Attribute) -> Result<u32, DriverError> {
        self.ask("cuDeviceGetAttribute", |_| match attribute {
            Attribute::Multiprocessors => 84,
            Attribute::L2Bytes => 6 << 20,
            Attribute::ComputeMajor => self.capability.0,
            Attribute::ComputeMinor => self.capability.1,
            Attribute::SharedBytes => 99 << 10,
        })
    }

    fn is_primary_active(&self, device: DeviceHandle) -> Result<bool, DriverError> {
        // Of the first GPU somebody has retained it.
        self.ask("cuDevicePrimaryCtxGetState", |_| device == DeviceHandle(0))
    }

    fn retain_primary(&self, device: DeviceHandle) -> Result<Context, DriverError> {
        self.note("cuDevicePrimaryCtxRetain", Call::Retain(device), |_| Context(0x1000 + device.0 as usize))
    }

    fn current_context(&self) -> Result<Option<Context>, DriverError> {
        self.ask("cuCtxGetCurrent", |state| state.current.map(|(context, _)| context))
    }

    fn set_current(&self, context: Context) -> Result<(), DriverError> {
        self.note("cuCtxSetCurrent", Call::SetCurrent(context), |state| {
            state.current = (context != Context(0)).then_some((context, 1));
        })
    }

    fn current_device(&self) -> Result<DeviceHandle, DriverError> {
        self.ask("cuCtxGetDevice", |_| DeviceHandle(0))
    }

    fn context_id(&self, _: Context) -> Result<Option<u64>, DriverError> {
        if !self.numbers_contexts {
            return Ok(None);
        }
        self.ask("cuCtxGetId", |state| state.current.map(|(_, id)| id))
    }

    unsafe fn load_module(&self, image: &[u8]) -> Result<Module, DriverError> {
        let is_ptx = image.starts_with(b".version");
        assert!(is_ptx || image.starts_with(b"\x7fELF"), "PTX or a cubin");
        let context = self.state.lock().expect("no panic").current.expect("a current context").0;
        if !is_ptx && self.refuses_cubins {
            let refused = DriverError::Cuda {
                call: "cuModuleLoadDataEx",
                kernel: None,
                code: 218,
                name: "CUDA_ERROR_INVALID_PTX".to_owned(),
                detail: String::new(),
            };
            return self.note("cuModuleLoadDataEx", Call::Load { context, is_ptx }, |_| Err(refused))?;
        }
        self.note("cuModuleLoadDataEx", Call::Load { context, is_ptx }, |state| {
            state.modules.push(context);
            Module(state.modules.len() - 1)
        })
    }

    fn function(&self, module: Module, name: &'static str) -> Result<Function, DriverError> {
        let place = ENTRY_POINTS.iter().position(|&entry| entry == name).expect("an entry point");
        let function = Function(module.0 * ENTRY_POINTS.len() + place);
        self.note("cuModuleGetFunction", Call::Function(name), |_| function)
    }

    fn allow_shared_bytes(&self, function: Function, bytes: u32) -> Result<(), DriverError> {
        self.note("cuFuncSetAttribute", Call::Allow { kernel: kernel_of(function).1, bytes }, |_| ())
    }

    fn allocate(&self, bytes: usize) -> Result<*mut u8, DriverError> {
        self.note("cuMemAlloc_v2", Call::Allocate(bytes), |state| {
            // Apart from one another, and nowhere: nothing is run.
            state.allocated += bytes.next_multiple_of(256);
            std::ptr::without_provenance_mut((1 << 40) + state.allocated - bytes.next_multiple_of(256))
        })
    }

    unsafe fn free(&self, memory: *mut u8) -> Result<(), DriverError> {
        self.note("cuMemFree_v2", Call::Free(memory.addr()), |_| ())
    }

    unsafe fn copy_to_device(&self, _: *mut u8, from: &[u8]) -> Result<(), DriverError> {
        self.note("cuMemcpyHtoD_v2", Call::Copy { bytes: from.len() }, |_| ())
    }

    unsafe fn copy_to_host(&self, to: &mut [u8], _: *const u8) -> Result<(), DriverError> {
        self.note("cuMemcpyDtoH_v2", Call::Copy { bytes: to.len() }, |_| to.fill(0))
    }

    fn starts_early(&self) -> bool {
        self.starts_early
    }

    unsafe fn launch(
        &self,
        function: Function,
        shape: Shape,
        stream: Stream,
        arguments: *const c_void,
        early: bool,
    ) -> Result<(), DriverError> {
        assert!(!arguments.is_null(), "arguments");
        let (module, kernel) = kernel_of(function);
        if early {
            assert!(self.starts_early && !shape.cooperative, "{kernel}");
            return self.note("cuLaunchKernelEx", Call::LaunchEarly(kernel), |_| ());
        }
        let context = self.state.lock().expect("no panic").modules[module];
        let call = Call::Launch { kernel, stream: stream.0 as usize, shape, context };
        self.note(if shape.cooperative { "cuLaunchCooperativeKernel" } else { "cuLaunchKernel" }, call, |_| ())
    }

    fn dense_create(&self) -> Result<DenseHandle, DenseError> {
        if !self.has_cublas_lt {
            return Err(DenseError::NoLibrary);
        }
        let context = self.state.lock().expect("no panic").current.expect("a current context").0;
        self.dense("cublasLtCreate", Call::Create(context), |_| DenseHandle(context.0))
    }

    fn dense_choose(&self, handle: DenseHandle, product: &DenseProduct) -> Result<DenseChoice, DenseError> {
        self.dense("cublasLtMatmulAlgoGetHeuristic", Call::Choose(*product), |state| {
            assert_eq!(state.current.map(|(context, _)| context.0), Some(handle.0), "the handle's context");
            let workspace_bytes = product.workspace_bytes.min(1 << 20);
            DenseChoice { algorithm: [7; 8], workspace_bytes, descriptors: [1, 2, 3, 4] }
        })
    }

    unsafe fn dense_multiply(
        &self,
        handle: DenseHandle,
        choice: &DenseChoice,
        operands: &DenseOperands,
        stream: Stream,
    ) -> Result<(), DenseError> {
        assert!(choice.algorithm == [7; 8] && operands.workspace.addr().is_multiple_of(256), "{choice:?}");
        let &DenseOperands { accumulate, .. } = operands;
        let call = Call::Multiply { stream: stream.0 as usize, accumulate, context: Context(handle.0) };
        self.dense("cublasLtMatmul", call, |_| ())
    }
}
