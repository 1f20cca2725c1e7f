//! The peers, cuBLAS and cuBLASLt, loaded at run time if they are installed.

use crate::device::{Buffer, Gpu};
use cudarc::cublas::{result as blas, sys};
use cudarc::cublaslt::{result as lt, sys as lt_sys};
use cudarc::driver::sys::CUstream;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::c_int;

/// NVIDIA recommends so many bytes for Hopper, and fewer for other GPUs.
const WORKSPACE_BYTES: usize = 32 << 20;

/// A library that computes the exact product.
pub(crate) trait Peer {
    fn name(&self) -> &'static str;

    /// dW = leftᵀ · right, bf16 in, f32 sums and f32 out: left is rows × inputs, right rows × outputs, dW inputs × outputs.
    ///
    /// # Safety
    ///
    /// Device memory of those sizes, as a `Buffer` aligns it.
    unsafe fn weight_gradient(&self, sizes: [usize; 3], left: *const u8, right: *const u8, dw: *mut u8);
}

/// The peers on this machine.
pub(crate) fn peers(gpu: &Gpu) -> Vec<Box<dyn Peer>> {
    let blas = Blas::on(gpu.stream()).map(|blas| Box::new(blas) as Box<dyn Peer>);
    let lt = BlasLt::on(gpu.stream()).map(|lt| Box::new(lt) as Box<dyn Peer>);
    blas.into_iter().chain(lt).collect()
}

/// cublasGemmEx, which chooses its kernel at each call.
struct Blas {
    handle: sys::cublasHandle_t,
}

impl Blas {
    fn on(stream: CUstream) -> Option<Self> {
        // SAFETY: loading the vendor's library.
        if !unsafe { sys::is_culib_present() } {
            return None;
        }
        let handle = blas::create_handle().expect("cuBLAS starts");
        // SAFETY: the stream is of the current context, as the handle; both types name the same struct.
        unsafe { blas::set_stream(handle, stream.cast()) }.expect("cuBLAS takes the stream");
        Some(Self { handle })
    }
}

impl Peer for Blas {
    fn name(&self) -> &'static str {
        "cuBLAS"
    }

    unsafe fn weight_gradient(&self, sizes: [usize; 3], left: *const u8, right: *const u8, dw: *mut u8) {
        let (one, zero) = (1.0_f32, 0.0_f32);
        let [rows, inputs, outputs] = sizes.map(|size| size as c_int);
        let (bf16, f32) = (sys::cudaDataType_t::CUDA_R_16BF, sys::cudaDataType_t::CUDA_R_32F);
        // In columns instead of rows: dWᵀ = rightᵀ · left.
        // SAFETY: the caller's promise; matrices are dense, so leading dimensions are their widths.
        unsafe {
            blas::gemm_ex(
                self.handle,
                sys::cublasOperation_t::CUBLAS_OP_N,
                sys::cublasOperation_t::CUBLAS_OP_T,
                outputs,
                inputs,
                rows,
                (&raw const one).cast(),
                right.cast(),
                bf16,
                outputs,
                left.cast(),
                bf16,
                inputs,
                (&raw const zero).cast(),
                dw.cast(),
                f32,
                outputs,
                sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
                sys::cublasGemmAlgo_t::CUBLAS_GEMM_DFALT,
            )
        }
        .expect("cuBLAS multiplies");
    }
}

/// cublasLtMatmul, whose heuristic chooses a kernel once for each size. With a workspace it has more to choose from.
struct BlasLt {
    handle: lt_sys::cublasLtHandle_t,
    stream: CUstream,
    workspace: Buffer,
    chosen: RefCell<BTreeMap<[usize; 3], Chosen>>,
}

/// How matrices of one size are multiplied.
#[derive(Clone, Copy)]
struct Chosen {
    operation: lt_sys::cublasLtMatmulDesc_t,
    /// Of the right factor, the left one and the product.
    layouts: [lt_sys::cublasLtMatrixLayout_t; 3],
    algorithm: lt_sys::cublasLtMatmulAlgo_t,
}

impl BlasLt {
    fn on(stream: CUstream) -> Option<Self> {
        // SAFETY: loading the vendor's library.
        if !unsafe { lt_sys::is_culib_present() } {
            return None;
        }
        let handle = lt::create_handle().expect("cuBLASLt starts");
        Some(Self { handle, stream, workspace: Buffer::new(WORKSPACE_BYTES), chosen: RefCell::default() })
    }

    /// Dense matrices in columns instead of rows, as above.
    fn choose(&self, sizes: [usize; 3]) -> Result<Chosen, lt::CublasError> {
        let [rows, inputs, outputs] = sizes.map(|size| size as u64);
        let (bf16, f32) = (lt_sys::cudaDataType_t::CUDA_R_16BF, lt_sys::cudaDataType_t::CUDA_R_32F);
        let operation = lt::create_matmul_desc(lt_sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, f32)?;
        let dense =
            |data_type, width: u64, height| lt::create_matrix_layout(data_type, width, height, width.cast_signed());
        let layouts = [dense(bf16, outputs, rows)?, dense(bf16, inputs, rows)?, dense(f32, outputs, inputs)?];
        let preference = lt::create_matmul_pref()?;
        let (transposed, workspace) = (sys::cublasOperation_t::CUBLAS_OP_T, self.workspace.bytes);
        let [right, left, product] = layouts;
        // SAFETY: everything was made above; attributes are of the types that they are documented with.
        let found = unsafe {
            lt::set_matmul_desc_attribute(
                operation,
                lt_sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSB,
                (&raw const transposed).cast(),
                size_of_val(&transposed),
            )?;
            lt::set_matmul_pref_attribute(
                preference,
                lt_sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                (&raw const workspace).cast(),
                size_of_val(&workspace),
            )?;
            let found =
                lt::get_matmul_algo_heuristic(self.handle, operation, right, left, product, product, preference)?;
            lt::destroy_matmul_pref(preference)?;
            found
        };
        Ok(Chosen { operation, layouts, algorithm: found.algo })
    }
}

impl Peer for BlasLt {
    fn name(&self) -> &'static str {
        "cuBLASLt"
    }

    unsafe fn weight_gradient(&self, sizes: [usize; 3], left: *const u8, right: *const u8, dw: *mut u8) {
        let mut chosen = self.chosen.borrow_mut();
        let Chosen { operation, layouts: [right_layout, left_layout, product], algorithm } =
            *chosen.entry(sizes).or_insert_with(|| self.choose(sizes).expect("cuBLASLt knows the product"));
        let (one, zero) = (1.0_f32, 0.0_f32);
        // SAFETY: the caller's promise; the layouts are of those sizes.
        unsafe {
            lt::matmul(
                self.handle,
                operation,
                (&raw const one).cast(),
                (&raw const zero).cast(),
                right.cast(),
                right_layout,
                left.cast(),
                left_layout,
                dw.cast(),
                product,
                dw.cast(),
                product,
                &raw const algorithm,
                self.workspace.pointer(),
                self.workspace.bytes,
                self.stream.cast(),
            )
        }
        .expect("cuBLASLt multiplies");
    }
}
