//! The real cuBLASLt, loaded at its first use.

use super::calls::{DenseChoice, DenseHandle, Stream};
use crate::kernel::matrix::DataType;
use crate::launch::dense::{DenseError, DenseLayout, DenseOperands, DenseProduct};
use core::ffi::{CStr, c_char, c_int, c_uint, c_void};
use core::ptr;
use cudarc::cublaslt::sys::{
    self, cublasComputeType_t, cublasLtMatmulDescAttributes_t as OfOperation,
    cublasLtMatmulPreferenceAttributes_t as OfPreference, cublasLtMatrixLayoutAttribute_t as OfLayout,
    cublasLtReductionScheme_t, cudaDataType_t,
};
use libloading::Library;

/// Statuses are numbers here, as for the driver: a newer library may return others than `sys` knows.
type Code = c_uint;

const SUCCESS: Code = 0;
/// CUBLAS_OP_T.
const TRANSPOSED: c_uint = 1;

/// The library's names by the CUDA versions that they belong to, newest first.
#[cfg(unix)]
const NAMES: [(u32, &str); 4] =
    [(13, "libcublasLt.so.13"), (12, "libcublasLt.so.12"), (11, "libcublasLt.so.11"), (11, "libcublasLt.so")];
#[cfg(windows)]
const NAMES: [(u32, &str); 3] = [(13, "cublasLt64_13.dll"), (12, "cublasLt64_12.dll"), (11, "cublasLt64_11.dll")];

macro_rules! table {
    ($($symbol:ident($($argument:ty),*);)*) => {
        /// The library's functions by their symbols; all of them are older than CUDA 11.
        #[allow(non_snake_case)]
        pub(super) struct CublasLtTable {
            $($symbol: unsafe extern "C" fn($($argument),*) -> Code,)*
            /// CUDA 11.4 and later.
            cublasLtGetStatusName: Option<unsafe extern "C" fn(Code) -> *const c_char>,
        }

        impl CublasLtTable {
            /// For a driver of this major CUDA version.
            pub(super) fn load(driver: u32) -> Result<Self, DenseError> {
                let library: &Library = Box::leak(Box::new(find(driver).ok_or(DenseError::NoLibrary)?));
                // SAFETY: the types are those of cublasLt.h; handles are pointers, and enums are unsigned ints.
                unsafe {
                    Ok(Self {
                        $($symbol: *library
                            .get(concat!(stringify!($symbol), "\0"))
                            .map_err(|_| DenseError::MissingCall { call: stringify!($symbol) })?,)*
                        cublasLtGetStatusName: library.get("cublasLtGetStatusName\0").ok().map(|symbol| *symbol),
                    })
                }
            }
        }
    };
}

table! {
    cublasLtCreate(*mut sys::cublasLtHandle_t);
    cublasLtMatmulDescCreate(*mut sys::cublasLtMatmulDesc_t, c_uint, c_uint);
    cublasLtMatmulDescSetAttribute(sys::cublasLtMatmulDesc_t, c_uint, *const c_void, usize);
    cublasLtMatrixLayoutCreate(*mut sys::cublasLtMatrixLayout_t, c_uint, u64, u64, i64);
    cublasLtMatrixLayoutSetAttribute(sys::cublasLtMatrixLayout_t, c_uint, *const c_void, usize);
    cublasLtMatmulPreferenceCreate(*mut sys::cublasLtMatmulPreference_t);
    cublasLtMatmulPreferenceDestroy(sys::cublasLtMatmulPreference_t);
    cublasLtMatmulPreferenceSetAttribute(sys::cublasLtMatmulPreference_t, c_uint, *const c_void, usize);
    cublasLtMatmulAlgoGetHeuristic(
        sys::cublasLtHandle_t, sys::cublasLtMatmulDesc_t, sys::cublasLtMatrixLayout_t, sys::cublasLtMatrixLayout_t,
        sys::cublasLtMatrixLayout_t, sys::cublasLtMatrixLayout_t, sys::cublasLtMatmulPreference_t, c_int, *mut Found,
        *mut c_int
    );
    cublasLtMatmul(
        sys::cublasLtHandle_t, sys::cublasLtMatmulDesc_t, *const c_void, *const c_void, sys::cublasLtMatrixLayout_t,
        *const c_void, sys::cublasLtMatrixLayout_t, *const c_void, *const c_void, sys::cublasLtMatrixLayout_t,
        *mut c_void, sys::cublasLtMatrixLayout_t, *const [u64; 8], *mut c_void, usize, sys::cudaStream_t
    );
}

/// A cublasLtMatmulHeuristicResult_t whose state is a number.
#[repr(C)]
#[derive(Default)]
struct Found {
    algorithm: [u64; 8],
    workspace_bytes: usize,
    state: Code,
    waves: f32,
    reserved: [c_int; 4],
}

/// The library that the process has loaded already, or else the newest that the driver serves.
fn find(driver: u32) -> Option<Library> {
    let names = || NAMES.into_iter().filter(|&(version, _)| version <= driver).map(|(_, name)| name);
    // SAFETY: loading the vendor's library runs its initialisers, as every user of cuBLAS does.
    let load = |name: &str| unsafe { Library::new(name) }.ok();
    names().find_map(loaded).or_else(|| names().find_map(load))
}

/// A framework brings its own version, and may have found it where nobody else looks.
#[cfg(target_os = "linux")]
fn loaded(name: &str) -> Option<Library> {
    use libloading::os::unix;
    /// Of dlfcn.h: finds a library only if it is loaded.
    const RTLD_NOLOAD: c_int = 4;
    // SAFETY: nothing is loaded.
    unsafe { unix::Library::open(Some(name), unix::RTLD_NOW | RTLD_NOLOAD) }.ok().map(Library::from)
}

#[cfg(not(target_os = "linux"))]
fn loaded(_name: &str) -> Option<Library> {
    None
}

/// Calls a function of the table; an error names it.
macro_rules! call {
    ($self:ident.$symbol:ident($($argument:expr),* $(,)?)) => {
        // SAFETY: the arguments have the function's types. Descriptors were made here and are never destroyed; the memory that
        // the arguments point to lives here, or is the caller's promise.
        $self.check(stringify!($symbol), unsafe { ($self.$symbol)($($argument),*) })
    };
}

/// Sets an attribute of a descriptor to a value of the type that it is documented with.
macro_rules! set {
    ($self:ident.$symbol:ident($of:expr, $attribute:expr, $value:expr)) => {{
        let value = $value;
        call!($self.$symbol($of, $attribute as c_uint, (&raw const value).cast(), size_of_val(&value)))
    }};
}

impl CublasLtTable {
    /// As for [`Calls::dense_create`](super::Calls::dense_create).
    pub(super) fn create(&self) -> Result<DenseHandle, DenseError> {
        let mut handle: sys::cublasLtHandle_t = ptr::null_mut();
        call!(self.cublasLtCreate(&mut handle))?;
        Ok(DenseHandle(handle as usize))
    }

    /// As for [`Calls::dense_choose`](super::Calls::dense_choose).
    ///
    /// cuBLASLt stores columns, and its matrices are the transposes of ours: productᵀ = rightᵀ · left. So its A is our right factor
    /// as it lies, and its B our left one, transposed.
    pub(super) fn choose(&self, handle: DenseHandle, product: &DenseProduct) -> Result<DenseChoice, DenseError> {
        let compute = if product.tf32 {
            cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32
        } else {
            cublasComputeType_t::CUBLAS_COMPUTE_32F
        };
        let mut operation: sys::cublasLtMatmulDesc_t = ptr::null_mut();
        call!(self.cublasLtMatmulDescCreate(&mut operation, compute as c_uint, cudaDataType_t::CUDA_R_32F as c_uint))?;
        set!(self.cublasLtMatmulDescSetAttribute(operation, OfOperation::CUBLASLT_MATMUL_DESC_TRANSB, TRANSPOSED))?;
        let mut layouts: [sys::cublasLtMatrixLayout_t; 3] = [ptr::null_mut(); 3];
        let rows = [product.rows, product.rows, product.left];
        for (i, (columns, of)) in product.matrices().into_iter().enumerate() {
            layouts[i] = self.layout(of, [columns, rows[i]], product.batch, product.layouts[i])?;
        }
        let [left, right, out] = layouts;

        let mut preference: sys::cublasLtMatmulPreference_t = ptr::null_mut();
        call!(self.cublasLtMatmulPreferenceCreate(&mut preference))?;
        let chosen = self.prefer(preference, product).and_then(|()| {
            let (mut found, mut count) = (Found::default(), 0);
            call!(self.cublasLtMatmulAlgoGetHeuristic(
                handle.0 as sys::cublasLtHandle_t,
                operation,
                right,
                left,
                out,
                out,
                preference,
                1,
                &mut found,
                &mut count,
            ))?;
            if count == 0 || found.state != SUCCESS {
                return Err(DenseError::NoAlgorithm(*product));
            }
            Ok(DenseChoice {
                algorithm: found.algorithm,
                workspace_bytes: found.workspace_bytes as u64,
                descriptors: [operation as usize, left as usize, right as usize, out as usize],
            })
        });
        call!(self.cublasLtMatmulPreferenceDestroy(preference))?;
        chosen
    }

    /// Sums in f32 alone, also where a product is cut; the workspace and the alignment that there are.
    fn prefer(&self, of: sys::cublasLtMatmulPreference_t, product: &DenseProduct) -> Result<(), DenseError> {
        let scheme = cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
        let [left, right, out] = product.layouts.map(|layout| layout.alignment);
        let most = OfPreference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
        set!(self.cublasLtMatmulPreferenceSetAttribute(of, most, product.workspace_bytes as usize))?;
        for (attribute, value) in [
            (OfPreference::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, scheme),
            (OfPreference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, right),
            (OfPreference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, left),
            (OfPreference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, out),
            (OfPreference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, out),
        ] {
            set!(self.cublasLtMatmulPreferenceSetAttribute(of, attribute, value))?;
        }
        Ok(())
    }

    /// A batch of our matrices, whose rows are the library's columns.
    fn layout(
        &self,
        of: DataType,
        [columns, rows]: [u32; 2],
        batch: u32,
        lies: DenseLayout,
    ) -> Result<sys::cublasLtMatrixLayout_t, DenseError> {
        let data_type = match of {
            DataType::F32 => cudaDataType_t::CUDA_R_32F,
            DataType::F16 => cudaDataType_t::CUDA_R_16F,
            DataType::Bf16 => cudaDataType_t::CUDA_R_16BF,
        };
        let mut layout: sys::cublasLtMatrixLayout_t = ptr::null_mut();
        call!(self.cublasLtMatrixLayoutCreate(
            &mut layout,
            data_type as c_uint,
            u64::from(columns),
            u64::from(rows),
            lies.row.cast_signed(),
        ))?;
        if batch > 1 {
            let (count, distance) =
                (OfLayout::CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, OfLayout::CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET);
            set!(self.cublasLtMatrixLayoutSetAttribute(layout, count, batch.cast_signed()))?;
            set!(self.cublasLtMatrixLayoutSetAttribute(layout, distance, lies.matrix.cast_signed()))?;
        }
        Ok(layout)
    }

    /// As for [`Calls::dense_multiply`](super::Calls::dense_multiply).
    ///
    /// # Safety
    ///
    /// As there.
    pub(super) unsafe fn multiply(
        &self,
        handle: DenseHandle,
        choice: &DenseChoice,
        operands: &DenseOperands,
        stream: Stream,
    ) -> Result<(), DenseError> {
        let &DenseOperands { left, right, product, accumulate, workspace } = operands;
        let [operation, of_left, of_right, of_product] = choice.descriptors;
        let [of_left, of_right, of_product] =
            [of_left, of_right, of_product].map(|layout| layout as sys::cublasLtMatrixLayout_t);
        let (alpha, beta) = (1.0_f32, if accumulate { 1.0_f32 } else { 0.0 });
        call!(self.cublasLtMatmul(
            handle.0 as sys::cublasLtHandle_t,
            operation as sys::cublasLtMatmulDesc_t,
            (&raw const alpha).cast(),
            right.cast(),
            of_right,
            left.cast(),
            of_left,
            (&raw const beta).cast(),
            product.cast_const().cast(),
            of_product,
            product.cast(),
            of_product,
            &choice.algorithm,
            workspace.cast(),
            choice.workspace_bytes as usize,
            stream.0.cast(),
        ))
    }

    fn check(&self, call: &'static str, code: Code) -> Result<(), DenseError> {
        if code == SUCCESS { Ok(()) } else { Err(DenseError::Failed { call, code, name: self.name(code) }) }
    }

    fn name(&self, code: Code) -> String {
        // SAFETY: the library returns a text of its own that ends with a NUL, or null.
        let name = self.cublasLtGetStatusName.map_or(ptr::null(), |name_of| unsafe { name_of(code) });
        if name.is_null() {
            return "an unknown error".to_owned();
        }
        // SAFETY: as above; the library is never unloaded.
        unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
    }
}
