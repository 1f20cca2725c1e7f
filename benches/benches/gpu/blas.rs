//! cuBLAS, loaded when it is there: the peer.

use cudarc::cublas::{result, sys};
use cudarc::driver::sys::CUstream;
use std::ffi::c_int;

pub(crate) struct Blas {
    handle: sys::cublasHandle_t,
}

impl Blas {
    /// None if there is no cuBLAS on this machine.
    pub(crate) fn on(stream: CUstream) -> Option<Self> {
        // SAFETY: loading the vendor's library.
        if !unsafe { sys::is_culib_present() } {
            return None;
        }
        let handle = result::create_handle().expect("cuBLAS starts");
        // SAFETY: the stream is of the current context, as the handle; both types name the same struct.
        unsafe { result::set_stream(handle, stream.cast()) }.expect("cuBLAS takes the stream");
        Some(Self { handle })
    }

    /// dW = leftᵀ · right in bf16 with f32 sums: left is rows × inputs, right rows × outputs, dW inputs × outputs.
    ///
    /// # Safety
    ///
    /// Device memory of those sizes.
    pub(crate) unsafe fn weight_gradient(
        &self,
        [rows, inputs, outputs]: [usize; 3],
        left: *const u8,
        right: *const u8,
        dw: *mut u8,
    ) {
        let (one, zero) = (1.0_f32, 0.0_f32);
        let [rows, inputs, outputs] = [rows, inputs, outputs].map(|size| size as c_int);
        let bf16 = sys::cudaDataType_t::CUDA_R_16BF;
        // In columns instead of rows: dWᵀ = rightᵀ · left.
        // SAFETY: the caller's promise; matrices are dense, so leading dimensions are their widths.
        unsafe {
            result::gemm_ex(
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
                bf16,
                outputs,
                sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
                sys::cublasGemmAlgo_t::CUBLAS_GEMM_DFALT,
            )
        }
        .expect("cuBLAS multiplies");
    }
}
