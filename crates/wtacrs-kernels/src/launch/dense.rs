//! Dense products by the vendor's library: what one is, and what computes it.

use crate::kernel::matrix::DataType;
use core::ffi::c_void;
use core::fmt;
use core::ops::Deref;
use std::sync::Arc;

/// A batch of products leftᵀ · right, summed over all rows of both factors. Matrices are in row-major order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DenseProduct {
    /// How many products.
    pub batch: u32,
    /// Rows of both factors.
    pub rows: u32,
    /// Columns of the left factor: rows of the product.
    pub left: u32,
    /// Columns of the right factor and of the product.
    pub right: u32,
    /// The type of both factors.
    pub factors: DataType,
    /// The type of the product: f32, or that of the factors. Sums are in f32.
    pub product: DataType,
    /// Whether f32 factors may be rounded to tf32.
    pub tf32: bool,
    /// Where the left factors, the right factors and the products lie.
    pub layouts: [DenseLayout; 3],
    /// Bytes of workspace: at most so many are used.
    pub workspace_bytes: u64,
}

/// Where the matrices of a batch lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DenseLayout {
    /// Elements from one row to the next.
    pub row: u64,
    /// Elements from one matrix to the next.
    pub matrix: u64,
    /// A power of two that divides the addresses of all matrices, in bytes; at most 16.
    pub alignment: u32,
}

/// The memory of a [`DenseProduct`].
#[derive(Clone, Copy, Debug)]
pub struct DenseOperands {
    /// The first left factor.
    pub left: *const u8,
    /// The first right factor.
    pub right: *const u8,
    /// The first product.
    pub product: *mut u8,
    /// Whether products are added to what is there.
    pub accumulate: bool,
    /// [`DenseProduct::workspace_bytes`], aligned to 256.
    pub workspace: *mut u8,
}

/// A library of dense products on one GPU: cuBLASLt, or what stands in for it on the emulator.
pub trait DenseLibrary: fmt::Debug + Send + Sync {
    /// Chooses how such products are computed, and keeps the choice for [`Self::multiply`]. Not to be called while a stream is
    /// captured: the first call loads the library.
    ///
    /// # Errors
    ///
    /// There is no such library, or it computes no such product.
    fn prepare(&self, product: &DenseProduct) -> Result<(), DenseError>;

    /// Enqueues products on a stream, which is borrowed: no device memory is allocated, and nothing is waited for. A product that was
    /// not [prepared](Self::prepare) is prepared now.
    ///
    /// # Errors
    ///
    /// As for [`Self::prepare`], or the library's.
    ///
    /// # Safety
    ///
    /// The library's context is current, the stream belongs to it, and the operands lead to memory of it as the product says, alive
    /// until the products are computed.
    unsafe fn multiply(
        &self,
        product: &DenseProduct,
        operands: &DenseOperands,
        stream: *mut c_void,
    ) -> Result<(), DenseError>;
}

/// A [`DenseLibrary`] that many plans share.
#[derive(Clone, Debug)]
pub struct Dense(Arc<dyn DenseLibrary>);

/// Why a library computes no product.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DenseError {
    /// No such library can be loaded.
    #[error("there is no cuBLASLt on this machine (no libcublasLt.so.13, .12 or .11)")]
    NoLibrary,
    /// The library lacks a call that all its versions of the last years have.
    #[error("cuBLASLt has no {call}: it is damaged, or too old")]
    MissingCall {
        /// The call.
        call: &'static str,
    },
    /// The library has no kernel for a product.
    #[error("cuBLASLt has no kernel for a product of {} x {} rows of {} into {}", .0.left, .0.right, .0.factors, .0.product)]
    NoAlgorithm(DenseProduct),
    /// The driver fails, with this error.
    #[error("{0}")]
    Driver(String),
    /// A call failed.
    #[error("{call} failed with {name} ({code})")]
    Failed {
        /// The library's call.
        call: &'static str,
        /// The error's number.
        code: u32,
        /// The library's name of the error.
        name: String,
    },
}

impl DenseProduct {
    /// Columns and elements of the left factor, the right factor and the product.
    pub fn matrices(&self) -> [(u32, DataType); 3] {
        [(self.left, self.factors), (self.right, self.factors), (self.right, self.product)]
    }
}

impl Dense {
    /// A library to share.
    pub fn new(library: Arc<dyn DenseLibrary>) -> Self {
        Self(library)
    }
}

impl Deref for Dense {
    type Target = dyn DenseLibrary;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

/// Whether both are the same library.
impl PartialEq for Dense {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Dense {}
